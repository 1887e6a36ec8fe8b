"""Waymo Open Motion (Ettinger et al., ICCV 2021): no pictures, but maps and the tracks of all road users.

Files are `uncompressed/scenario/training/training.tfrecord-00000-of-01000` and the like, a few hundred
scenarios each. Each scenario, 9 s at 10 Hz, is an episode, whose pictures are drawn from above. The rest of
the way, to what is ahead, is known here, and so the reward's safety. Every scenario is a place of its own:
where its map has its origin is not told.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np

from train.convert.recorded.motion import motion_from_poses
from train.convert.recorded.raster import Raster, corners, in_frame
from train.convert.recorded.recording import Broken, ConvertConfig, Named, Recording, assemble, kept_rows
from train.convert.recorded.scenario import HEADING, LENGTH, VALID, WIDTH, Scenario, X, Z, read_scenario
from train.convert.recorded.tfrecord import find_records, read_record
from train.data.episodes import Episode
from train.run.errors import DreamdriveError

_FILE = re.compile(r".+\.tfrecord(-\d+-of-\d+)?")


@dataclass(frozen=True)
class ScenarioRecord:
    """One scenario: where it lies, and how to draw it."""

    path: Path
    number: int
    offset: int
    length: int
    metres: float

    @property
    def name(self) -> str:
        """Name of the file, and number of the scenario in it."""
        return f"{self.path.name.replace('.tfrecord', '')}_{self.number:05d}"

    def episodes(self, config: ConvertConfig) -> Iterator[Named]:
        """The scenario as one episode."""
        yield self.name, partial(self._episode, config)

    def _episode(self, config: ConvertConfig) -> Episode:
        where = f"{self.path}: record {self.number}"
        data = read_record(where, self.path, self.offset, self.length)
        try:
            scenario = read_scenario(data)
        except ValueError as error:
            raise DreamdriveError(f"{where}: {error}") from error
        car = scenario.tracks[scenario.car].states
        if not (car[:, VALID] > 0).all():
            step = int(np.argmin(car[:, VALID]))
            raise DreamdriveError(f"{where}: the car's state {step} is not valid, expected all to be")
        keep = kept_rows(where, scenario.times, config)
        motion = motion_from_poses(scenario.times, car[:, X : Z + 1], car[:, HEADING], where)
        motion = replace(motion, gaps=np.array([gap_ahead(scenario, t) for t in range(len(car))])).rows(keep)
        raster = Raster(scenario, config.side, self.metres)
        images = np.stack([raster.draw(t) for t in range(len(car))[keep]])
        return assemble(where, {"image": images}, motion, config, f"waymo {scenario.name or self.name}")


def find_scenarios(source: Path, metres: float = 64.0) -> list[Recording]:
    """The scenarios in `source`: a TFRecord file, or a folder with such files at any depth.

    Args:
        source: where they are.
        metres: side of the pictures that are drawn [m].

    Raises:
        DreamdriveError: there is no file.
    """
    source = Path(source)
    if metres <= 0:
        raise DreamdriveError(f"--metres {metres:g}: expected more than 0")
    if source.is_file():
        paths = [source]
    else:
        paths = sorted(path for path in source.rglob("*.tfrecord*") if _FILE.fullmatch(path.name))
    if not paths:
        raise DreamdriveError(f"{source}: no file, expected some like training.tfrecord-00000-of-01000")
    scenarios: list[Recording] = []
    for path in paths:
        try:
            for number, (offset, length) in enumerate(find_records(path)):
                scenarios.append(ScenarioRecord(path, number, offset, length, metres))
        except DreamdriveError as error:
            scenarios.append(Broken(path.name, str(error)))
    if not scenarios:
        raise DreamdriveError(f"{source}: empty, expected scenarios")
    return scenarios


def gap_ahead(scenario: Scenario, step: int) -> float:
    """Free road [m] from the car's front to the nearest box straight ahead; inf where there is none.

    In the way is whose box, seen along the car's axis, overlaps the car's width. At most 0 in contact.
    """
    car = scenario.tracks[scenario.car].states[step]
    others = [track.states[step] for i, track in enumerate(scenario.tracks) if i != scenario.car]
    valid = np.array([state for state in others if state[VALID] > 0]).reshape(-1, len(car))
    forward, left = (part.reshape(-1, 4) for part in in_frame(corners(valid).reshape(-1, 2), car))
    half_width, front = car[WIDTH] / 2, car[LENGTH] / 2
    beside = (left.min(axis=1) >= half_width) | (left.max(axis=1) <= -half_width)
    behind = (forward.max(axis=1) <= -front) | (forward.mean(axis=1) <= 0)
    gaps = forward.min(axis=1)[~beside & ~behind] - front
    return float(gaps.min(initial=np.inf))
