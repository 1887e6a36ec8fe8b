"""What the reader of a data set gives to the job, and how an episode is put together."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, Field

from train.convert.recorded.motion import ControlsConfig, Floats, Motion, controls
from train.convert.recorded.pictures import Fit
from train.convert.recorded.rewards import RewardConfig, driving_reward
from train.data.episodes import Episode
from train.run.errors import DreamdriveError

CONTROLS = 3
"""Numbers in an action: steering, throttle, brake; see `train.convert.recorded.motion.controls`."""


class ConvertConfig(BaseModel, extra="forbid", validate_assignment=True, use_attribute_docstrings=True):
    """How recordings become episodes, whatever data set they are from."""

    image_size: int | None = Field(64, ge=4, le=4096)
    """Side of the square pictures [px]; null keeps the size, for rollouts only."""
    fit: Fit = "crop"
    """How other proportions become square: `crop` the centre, or `squeeze` the whole view."""
    start: float = Field(0.0, ge=0)
    """What was recorded before is left out [s, from the beginning of each recording]."""
    stop: float | None = Field(None, gt=0)
    """What was recorded after is left out [s]; null goes to the end."""
    controls: ControlsConfig = ControlsConfig()
    """The car whose controls are the actions."""
    reward: RewardConfig = RewardConfig()
    """The reward."""

    @property
    def side(self) -> int:
        """Side of the square pictures [px].

        Raises:
            DreamdriveError: none was given.
        """
        if self.image_size is None:
            raise DreamdriveError("image_size: missing, expected the side of the pictures")
        return self.image_size


Named = tuple[str, Callable[[], Episode]]
"""The name of an episode and what reads it; nothing heavy is done before that is called."""


class Recording(Protocol):
    """A part of a data set that one process converts. It travels between processes: small and plain."""

    @property
    def name(self) -> str:
        """What it is, for people."""
        ...

    def episodes(self, config: ConvertConfig) -> Iterator[Named]:
        """Its episodes, in order. Their names are unique in the data set and fit file names.

        Raises:
            DreamdriveError: something is missing or broken; so may what reads a single episode.
        """
        ...


@dataclass(frozen=True)
class Broken:
    """A recording of which it is known already that it cannot be read, and why."""

    name: str
    reason: str

    def episodes(self, config: ConvertConfig) -> Iterator[Named]:
        """None: raises `DreamdriveError` with the reason."""
        raise DreamdriveError(self.reason)


def kept_rows(where: str, times: Floats, config: ConvertConfig) -> slice:
    """The rows from `config.start` to `config.stop`, seconds after the first of `times`.

    Raises:
        DreamdriveError: they are fewer than two.
    """
    since = times - times[0] if len(times) else times
    begin = int(np.searchsorted(since, config.start, "left"))
    end = len(times) if config.stop is None else int(np.searchsorted(since, config.stop, "right"))
    if end - begin < 2:
        length = float(since[-1]) if len(since) else 0.0
        raise DreamdriveError(
            f"{where}: {max(end - begin, 0)} pictures from second {config.start:g} on, expected at least 2 "
            f"({len(times)} in all, {length:.1f} s)"
        )
    return slice(begin, end)


def assemble(
    where: str,
    observations: Mapping[str, NDArray[np.generic]],
    motion: Motion | None,
    config: ConvertConfig,
    place: str,
    extras: Mapping[str, NDArray[np.generic]] | None = None,
) -> Episode:
    """The episode of R = T + 1 moments. It never terminates: a recording ends because someone stopped it.

    Its extras, for row t the moment in which observation t was taken: `times` (T,) [s], `speeds` (T,) [m/s],
    `yaw_rates` (T,) [rad/s, left positive], `positions` (T, 2 or 3) [m], and for the step that follows it the
    terms of the reward, `reward_progress`, `reward_comfort`, `reward_safety` (T,). `place`, bytes, names the
    frame of the positions: those of different places cannot be compared.

    Args:
        where: begins every complaint.
        observations: each (R, ...).
        motion: at the R moments; None where it is unknown: then actions and rewards are zeros.
        config: of the car and the reward.
        place: the frame in which the positions are.
        extras: more of them, each (R, ...); their last row is left out.

    Raises:
        DreamdriveError: numbers of rows that differ, or motion that is none.
    """
    rows = len(next(iter(observations.values())))
    actions, rewards = np.zeros((rows, CONTROLS), np.float32), np.zeros(rows, np.float32)
    known: dict[str, NDArray[np.generic]] = {name: value[:-1] for name, value in (extras or {}).items()}
    if motion is not None:
        if len(motion) != rows:
            raise DreamdriveError(f"{where}: {rows} pictures, expected {len(motion)} as there are poses")
        motion.check(where)
        terms = driving_reward(motion, config.reward)
        actions[1:], rewards[1:] = controls(motion, config.controls), terms.pop("reward")
        known |= {f"reward_{name}": value.astype(np.float32) for name, value in terms.items()}
        known |= {"times": motion.times[:-1], "speeds": motion.speeds[:-1].astype(np.float32)}
        known["yaw_rates"] = motion.yaw_rates[:-1].astype(np.float32)
        if motion.positions is not None:
            known["positions"] = motion.positions[:-1]
    is_first = np.zeros(rows, bool)
    is_first[0] = True
    known["place"] = np.array(place.encode())
    return Episode(dict(observations), actions, rewards, is_first, np.zeros(rows, bool), known)
