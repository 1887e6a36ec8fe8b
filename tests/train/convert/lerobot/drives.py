"""Small made-up drives that tell which they are, and which row."""

from pathlib import Path

import numpy as np

from train.data.episodes import Episode, write_episode

FPS = 12.5


def pictures(rows: int, number: int, height: int = 16, width: int = 24) -> np.ndarray:
    """(rows, 3, height, width): red tells the row, green the drive, blue rises from left to right."""
    frames = np.zeros((rows, 3, height, width), np.uint8)
    frames[:, 0] = (20 + 5 * np.arange(rows))[:, None, None]
    frames[:, 1] = 30 + 40 * number
    frames[:, 2] = np.linspace(0, 250, width)
    return frames


def drive(number: int = 0, steps: int = 9, terminated: bool = False, vision: bool = True) -> Episode:
    """A drive of `steps` actions with a picture, a state and what demonstrations carry."""
    rng = np.random.default_rng(number)
    rows = steps + 1
    actions = rng.uniform(-1, 1, (rows, 3)).astype(np.float32)
    rewards = rng.normal(size=rows).astype(np.float32)
    actions[0], rewards[0] = 0, 0
    offsets = rng.normal(size=steps).astype(np.float32)
    offsets[0] = np.nan  # there is no road
    observations = {"state": rng.normal(size=(rows, 4)).astype(np.float32)}
    if vision:
        observations["image"] = pictures(rows, number)
    extras = {
        "speeds": np.full(steps, 40.0, np.float32),
        "offsets": offsets,
        "half_widths": np.full(steps, 6.67, np.float32),
        "expert_actions": rng.uniform(-1, 1, (steps, 3)).astype(np.float32),
        "perturbed": rng.random(steps) < 0.3,
        "manoeuvres": np.array(["left", ""] * steps)[:steps],
        "town": np.array("Town01"),
    }
    last = np.arange(rows) == steps
    return Episode(observations, actions, rewards, np.arange(rows) == 0, last & terminated, extras)


def write_drives(folder: Path, drives: list[Episode]) -> Path:
    folder.mkdir(parents=True)
    for number, episode in enumerate(drives):
        write_episode(folder / f"{number:05d}.npz", episode)
    return folder


def psnr(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Of each picture [dB], (T,)."""
    squared = ((left.astype(np.float64) - right) ** 2).mean(axis=(1, 2, 3))
    return -10 * np.log10(np.maximum(squared, 1e-6) / 255**2)


def assert_same_rows(left: Episode, right: Episode, floor: float = 35.0) -> None:
    """Equal but for the last observation, which the layout has no row for; pictures within `floor` dB."""
    np.testing.assert_array_equal(left.actions, right.actions)
    np.testing.assert_array_equal(left.rewards, right.rewards)
    np.testing.assert_array_equal(left.is_terminal, right.is_terminal)
    np.testing.assert_array_equal(left.is_first, right.is_first)
    assert left.observations.keys() == right.observations.keys()
    for name, values in left.observations.items():
        again = right.observations[name]
        assert again.shape == values.shape and again.dtype == values.dtype
        if name == "image":
            assert psnr(values[:-1], again[:-1]).min() > floor
        else:
            np.testing.assert_array_equal(values[:-1], again[:-1])
        np.testing.assert_array_equal(again[-1], again[-2])
    for name, values in left.extras.items():
        if name not in ("town", "task"):
            np.testing.assert_array_equal(values, right.extras[name])
            assert values.dtype == right.extras[name].dtype
