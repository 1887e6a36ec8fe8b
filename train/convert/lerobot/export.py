"""The job that writes a folder of episodes as a LeRobot data set, an episode at a time."""

import os
import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from tempfile import mkdtemp

import pyarrow as pa

from train.convert.lerobot.columns import TASK_EXTRA, rowwise_extras
from train.convert.lerobot.config import ExportConfig
from train.convert.lerobot.layout import Info
from train.convert.lerobot.writer import DataSetWriter
from train.data.episode_store import EpisodeFolder
from train.data.episodes import read_episode
from train.run.errors import DreamdriveError, explain_os_errors
from train.run.progress import Progress


def export(episodes: Path, output: Path, config: ExportConfig, progress: Progress | None = None) -> Info:
    """Write the episodes of a folder as the data set `output`, whole or not at all.

    Args:
        episodes: folder with .npz files; in the order of their names they become episodes 0, 1, ...
        output: the data set's folder; there must be none, or an empty one.
        config: how.
        progress: shows how far it is; None shows a bar of its own.

    Returns:
        What `meta/info.json` says.

    Raises:
        DreamdriveError: an episode is broken or unlike the first, `output` is there, or the disk refuses.
    """
    folder = EpisodeFolder(episodes)
    left_out: list[str] = []
    with _written_aside(output) as root:
        writer: DataSetWriter | None = None
        shown = progress or Progress("writing a LeRobot data set", len(folder), "episodes")
        with shown, ExitStack() as after:
            for number, path in enumerate(folder.paths):
                where, episode = str(path), read_episode(path)
                if writer is None:
                    writer = DataSetWriter(root, where, episode, config)
                    after.callback(writer.shelves.abandon)
                    columns = rowwise_extras(episode) if config.extras is None else config.extras
                    left_out = sorted(set(episode.extras) - {*columns, TASK_EXTRA})
                writer.add(where, episode, number)
                shown.update(number + 1, {"frames": writer.frames})
            assert writer is not None, "a folder without any is refused"
            info = writer.close()
    if left_out:
        print(f"left out: {', '.join(left_out)} (extras that are not columns)")
    print(
        f"{output}: {info.total_episodes} episodes, {info.total_frames:,} frames, {info.total_tasks} tasks, "
        f"{info.codebase_version}"
    )
    return info


@contextmanager
def _written_aside(output: Path) -> Iterator[Path]:
    """A folder beside `output` that becomes `output` once the block has ended well, and else goes."""
    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise DreamdriveError(f"{output}: is there already, expected a new or empty folder")
    with explain_os_errors("cannot write", output):
        output.parent.mkdir(parents=True, exist_ok=True)
        aside = Path(mkdtemp(prefix=f".{output.name}.", suffix=".partial", dir=output.parent))
        try:
            yield aside
            aside.chmod(0o755)
            os.replace(aside, output)
        except pa.ArrowException as error:
            raise DreamdriveError(f"cannot write {output}: {error}") from error
        finally:
            shutil.rmtree(aside, ignore_errors=True)
