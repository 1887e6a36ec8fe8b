"""Recorded pictures tokenised once: into a folder of tokens to keep, or into the columns of a job.

`dreamdrive tokenise` writes the folder; the stages of a World Models run read the columns.
"""

import json
import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from agent.tokenizer.choices import AnyTokenizer
from train.data.columns import EpisodeColumns, open_columns
from train.data.episode_store import EpisodeStore
from train.data.episodes import Episode
from train.data.hdf5 import open_episodes
from train.drive.descriptions import TOKENIZER_JOB, WORLD_MODEL_JOB, describe_agent, describe_model
from train.drive.environments import decisions_per_second
from train.drive.tokenizers import load_tokenizer, tokenizer_fingerprint
from train.run.errors import DreamdriveError
from train.run.folder import Run
from train.run.monitor import JobMonitor, Stopped
from train.run.progress import Progress
from train.tokenizer.token_folder import TokenNotes, check_tokens, written_line, written_tokens

_SHOWN = 50  # episodes after which it is shown how far the work is
_AT_ONCE = 1024  # pictures


def tokens_of_pictures(tokenizer: AnyTokenizer, where: str, episode: Episode) -> NDArray[np.int32]:
    """The tokens (R, G) of an episode's pictures; `where` begins every complaint.

    Raises:
        DreamdriveError: it has no pictures, or such of another size than the tokenizer's.
    """
    images = episode.observations.get("image")
    height, width = tokenizer.image_shape[1:]
    if images is None:
        raise DreamdriveError(f"{where}: observations {sorted(episode.observations)}, expected pictures")
    if images.shape[1:] != tokenizer.image_shape:
        channels, *size = images.shape[1:]
        kind = "RGB pictures" if channels == 3 else f"pictures of {channels} channel{'s' * (channels > 1)}"
        raise DreamdriveError(
            f"{where}: {kind} of {size[0]}x{size[1]} px, expected RGB of {height}x{width} px as the "
            "tokenizer reads"
        )
    device = next(tokenizer.parameters()).device
    # The tokenizer takes as many at once as fit its memory, but all lie on its device.
    parts = [tokenizer.tokenize(part.to(device)).cpu() for part in torch.from_numpy(images).split(_AT_ONCE)]
    tokens: NDArray[np.int32] = torch.cat(parts).numpy().astype(np.int32)
    return tokens


@dataclass(frozen=True)
class TokenColumns:
    """Makes columns of an episode, of pictures or of tokens: `observation.token` (R, G) int32.

    Attributes:
        tokenizer: reads the pictures; the tokens are its own.
    """

    tokenizer: AnyTokenizer

    @property
    def identity(self) -> str:
        """Text that differs for another tokenizer."""
        return json.dumps(["tokens", tokenizer_fingerprint(self.tokenizer)])

    def __call__(self, where: str, episode: Episode) -> dict[str, NDArray[Any]]:
        """Columns of an episode that messages name by `where`.

        Raises:
            DreamdriveError: it has no pictures of the tokenizer's size, or tokens that cannot be its own.
        """
        if "token" in episode.observations:
            t = self.tokenizer
            check_tokens(where, episode, t.tokens, t.codebook_size, "as the tokenizer has")
            return {"observation.token": episode.observations["token"]}
        return {"observation.token": tokens_of_pictures(self.tokenizer, where, episode)}


def tokenise(
    run: Path,
    episodes: Path,
    output: Path,
    fps: float | None = None,
    device: str = "auto",
    progress: Progress | None = None,
) -> None:
    """Write the episodes of a folder or an HDF5 file as tokens of a run's tokenizer into a folder.

    Episodes that are there already are kept, so that a job that was stopped goes on. Everything else in an
    episode stays as it is.

    Args:
        run: a run that holds a tokenizer.
        episodes: with pictures of the tokenizer's size.
        output: the folder of tokens, made if missing.
        fps: pictures a second; None is what the run says.
        device: of the tokenizer.
        progress: shows how far it is; None shows a bar of its own.

    Raises:
        DreamdriveError: no tokenizer, no episodes, such that do not fit, or an `output` that holds something
            else.
    """
    trained = load_tokenizer(run, device)
    tokenizer = trained.tokenizer
    store = open_episodes(episodes, grouped=True)
    if not len(store):
        raise DreamdriveError(f"{episodes}: no episodes, expected at least one")
    # The first complaint comes before anything is written.
    tokens_of_pictures(tokenizer, store.where(0), store.read(0))
    notes = TokenNotes.of(tokenizer, fps or rate_of_run(trained.run))
    written = rows = 0
    own = progress or Progress(f"tokenising {episodes}", len(store), "episodes")
    with written_tokens(output, notes, tokenizer) as folder, own as shown:
        for number, listed in enumerate(store.names):
            name = _file_stem(listed)
            if not folder.has(name):
                episode = store.read(number)
                token = tokens_of_pictures(tokenizer, store.where(number), episode)
                others = {key: value for key, value in episode.observations.items() if key != "image"}
                folder.write(name, replace(episode, observations={**others, "token": token}))
                written, rows = written + 1, rows + len(token)
            shown.update(number + 1, {"tokens": rows * notes.tokens})
    print(written_line(output, len(store), written, rows, notes))


def _file_stem(listed: str) -> str:
    """The name of the file of an episode's tokens: that of its own file, or of it in an HDF5 file with its
    number padded, so that files sort as episodes do."""
    if listed.endswith(".npz"):
        return listed.removesuffix(".npz")
    return re.sub(r"\d+$", lambda number: number[0].zfill(6), listed)


def rate_of_run(run: Run) -> float | None:
    """Decisions a second of what a run learnt from; None where it does not say."""
    if run.record.job == TOKENIZER_JOB:
        return None
    if run.record.job == WORLD_MODEL_JOB:
        return describe_model(run).fps
    name = "weights" if (run.path / "weights.json").exists() else "vae"
    return decisions_per_second(describe_agent(run, name).env)


def tokenize_rollouts(
    rollouts: EpisodeStore,
    tokenizer: AnyTokenizer,
    folder: Path,
    fingerprint: str,
    monitor: JobMonitor | None = None,
) -> EpisodeColumns:
    """The columns of all rollouts, `observation.token` (R, G) int32 among them; made or finished first.

    Args:
        rollouts: what is tokenised.
        tokenizer: the trained tokenizer.
        folder: of these columns alone.
        fingerprint: of rollouts and tokenizer; columns of others are made anew.
        monitor: shows how far it is, and may stop it.

    Raises:
        DreamdriveError: bad rollouts, or a full disk.
        Stopped: a signal came; what was done is kept.
    """
    monitor = monitor or JobMonitor()

    def report(done: int, rows: int) -> None:
        if done < len(rollouts) and monitor.stopping:
            raise Stopped
        if done and done % _SHOWN == 0:
            monitor.show(0, {"tokenised": f"{done:,} of {len(rollouts):,} rollouts"})

    return open_columns(folder, rollouts, TokenColumns(tokenizer), fingerprint, report)
