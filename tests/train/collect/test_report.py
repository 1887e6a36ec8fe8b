"""The balance of a folder, counted by hand."""

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from rich.console import Console

from train.collect.report import SPEEDS, STEERING, balance, write_report
from train.data.episodes import Episode, write_episode


def write(folder: Path, number: int, rows: int, pictures: bool = True, **extras: Any) -> None:
    """An episode of `rows` steps, each with reward 1."""
    observations: dict[str, np.ndarray] = {"state": np.zeros((rows + 1, 2), np.float32)}
    if pictures:
        observations["image"] = np.full((rows + 1, 3, 16, 16), 40 * (number % 6), np.uint8)
    rewards = np.ones(rows + 1, np.float32)
    rewards[0] = 0
    known = {
        "speeds": np.zeros(rows, np.float32),
        "steering": np.zeros(rows, np.float32),
        "perturbed": np.zeros(rows, bool),
        "town": np.array("village"),
        "weather": np.array("ClearNoon"),
        "reason": np.array("time"),
        "route_completion": np.array(0.5, np.float32),
    }
    first = np.arange(rows + 1) == 0
    episode = Episode(
        observations,
        np.zeros((rows + 1, 2), np.float32),
        rewards,
        first,
        np.zeros(rows + 1, bool),
        known | {name: np.array(value) for name, value in extras.items()},
    )
    write_episode(folder / f"episode_{number:06d}.npz", episode)


def test_everything_is_counted_where_it_belongs(tmp_path: Path) -> None:
    write(tmp_path, 0, 4, speeds=[0.0, 0.49, 0.5, 100.0], steering=[-1.0, 0.0, 0.049, 1.0])
    write(tmp_path, 3, 2, town="town", weather="HardRainSunset", reason="goal", perturbed=[True, False])
    more: dict[str, Any] = {
        "infractions.red_light": 2,
        "infractions.lane_invasion": 1,
        "route_completion": np.float32(1.0),
    }
    write(tmp_path, 4, 3, town="town", reason="goal", **more)
    (tmp_path / "episode_000009.npz").write_bytes(b"cut off")
    found = balance(tmp_path)
    assert (found.episodes, found.steps, found.perturbed_steps) == (3, 9, 1)
    assert found.towns == {"town": 5, "village": 4}
    assert found.weathers == {"ClearNoon": 7, "HardRainSunset": 2}
    assert found.reasons == {"goal": 2, "time": 1}
    assert found.infractions == {"lane_invasion": 1, "red_light": 2}
    assert found.speeds["0 to 0.5"] == 7 and found.speeds["0.5 to 2"] == 1 and found.speeds["20 or more"] == 1
    assert found.steering["-1 to -0.5"] == 1 and found.steering["-0.05 to 0.05"] == 7
    assert found.steering["0.5 to 1"] == 1
    assert sum(found.speeds.values()) == sum(found.steering.values()) == 9
    assert len(found.speeds) == len(SPEEDS) and len(found.steering) == len(STEERING)
    assert found.mean_return == 3.0 and found.mean_route_completion == np.mean([0.5, 0.5, 1.0])
    assert len(found.unreadable) == 1 and "episode_000009.npz: broken" in found.unreadable[0]


def test_report_table_and_sheet(tmp_path: Path) -> None:
    for number in range(30):
        write(tmp_path, number, 2)
    told = io.StringIO()
    write_report(tmp_path, Console(file=told, width=100))
    assert "30 episodes, 60 steps" in told.getvalue() and "village" in told.getvalue()
    assert json.loads((tmp_path / "report.json").read_text())["towns"] == {"village": 60}
    with Image.open(tmp_path / "contact_sheet.png") as sheet:
        assert sheet.width > 5 * 190 and sheet.height > 4 * 190


def test_without_pictures_there_is_no_sheet(tmp_path: Path) -> None:
    write(tmp_path, 0, 2, pictures=False)
    write_report(tmp_path, Console(file=io.StringIO()))
    assert not (tmp_path / "contact_sheet.png").exists()
