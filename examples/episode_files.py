"""An episode in a file: written, read back, and refused where it is damaged."""

import tempfile
from pathlib import Path

import numpy as np

from train.data.episodes import Episode, read_episode, write_episode
from train.run.errors import DreamdriveError


def main() -> None:
    """Run the example; it prints what it shows."""
    rng = np.random.default_rng(0)
    ROWS = 20
    first = np.arange(ROWS) == 0
    # In memory, as in `docs/shapes.md`: a row's action is the one that led to its observation.
    episode = Episode(
        {"image": rng.integers(0, 256, (ROWS, 3, 64, 64), dtype=np.uint8)},
        np.where(first[:, None], 0, rng.uniform(-1, 1, (ROWS, 2))).astype(np.float32),
        np.where(first, 0, rng.normal(size=ROWS)).astype(np.float32),
        first,
        np.zeros(ROWS, bool),
    )
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "drive.npz"
        write_episode(path, episode)
        again = read_episode(path)
        assert np.array_equal(again.observations["image"], episode.observations["image"])
        shape = again.observations["image"].shape
        print(f"{shape[0]} pictures of {shape[1:]} and {len(again)} actions, {path.stat().st_size:,} bytes")
        path.write_bytes(path.read_bytes()[:1000])
        try:
            read_episode(path)
        except DreamdriveError as error:
            print("a file cut short is refused:", str(error).replace(folder, ""))


if __name__ == "__main__":
    main()
