"""Batches of CarRacing-v3 simulators: EnvPool's in C++, or Gymnasium's own."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import gymnasium
import numpy as np
from numpy.typing import NDArray

from envs.car_racing.fast_render import NearbyRoad

Bools = NDArray[np.bool_]


@dataclass
class Frame:
    """One frame of N simulators."""

    picture: NDArray[np.uint8]
    """(N, 96, 96, 3)."""
    reward: NDArray[np.float32]
    """(N,)."""
    terminated: Bools
    """(N,): the lap is complete, or the car left the playfield."""
    truncated: Bools
    """(N,): the time limit is reached."""
    off_road: Bools
    """(N,): no wheel touches a tile of the road; meaningless unless `reports_off_road`."""


def empty_frame(count: int) -> Frame:
    """A frame of `count` simulators in which nothing happened."""
    picture, reward = np.zeros((count, 96, 96, 3), np.uint8), np.zeros(count, np.float32)
    return Frame(picture, reward, *(np.zeros(count, bool) for _ in range(3)))


class Simulators(Protocol):
    """N simulators that the vector environment steps."""

    antialias: bool
    """Whether the pictures need smoothing to look like Gymnasium's: see
    `envs.car_racing.observation.PictureResizer`."""
    reports_off_road: bool
    """Whether `Frame.off_road` is meaningful."""

    def reset(self, which: Bools) -> NDArray[np.uint8]:
        """Start new episodes where `which` (N,); pictures (N, 96, 96, 3), meaningful there only."""

    def step(self, action: NDArray[np.float32], live: Bools, last: bool) -> Frame:
        """One frame with native actions (N, 3). Simulators that are not `live` do not move, and their results
        are meaningless; pictures are needed only if `last` or where an episode ends."""

    def close(self) -> None:
        """Release all resources."""


class EnvPoolSimulators:
    """EnvPool's C++ CarRacing: the same physics as Gymnasium's, pictures without anti-aliasing.

    Args:
        seeds: one for each simulator.
        max_frames: time limit [frames].
        threads: threads that step them.
    """

    antialias = True
    reports_off_road = False

    def __init__(self, seeds: Sequence[int], max_frames: int, threads: int) -> None:
        import envpool

        # EnvPool reports an episode that leaves the playfield in its last frame as truncated. With a limit
        # out of reach it reports how the episode ended, and the frames are counted here.
        self._pool: Any = envpool.make_gymnasium(
            "CarRacing-v3",
            num_envs=len(seeds),
            num_threads=threads,
            seed=list(seeds),
            max_episode_steps=max_frames + 1,
        )
        self._max_frames = max_frames

    def reset(self, which: Bools) -> NDArray[np.uint8]:
        """See `Simulators.reset`."""
        picture = np.zeros((len(which), 96, 96, 3), np.uint8)
        ids = np.flatnonzero(which).astype(np.int32)
        picture[ids] = self._as_official(self._pool.reset(ids)[0])
        return picture

    def step(self, action: NDArray[np.float32], live: Bools, last: bool) -> Frame:
        """See `Simulators.step`."""
        count = len(live)
        ids = np.flatnonzero(live).astype(np.int32)
        picture, reward, terminated, _, info = self._pool.step(action[ids], ids)
        truncated = (info["elapsed_step"] >= self._max_frames) & ~terminated
        if last or (terminated | truncated).any():
            picture = self._as_official(picture)
        if len(ids) == count:
            return Frame(picture, reward, terminated, truncated, np.zeros(count, bool))
        frame = empty_frame(count)
        frame.picture[ids], frame.reward[ids] = picture, reward
        frame.terminated[ids], frame.truncated[ids] = terminated, truncated
        return frame

    @staticmethod
    def _as_official(picture: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Gymnasium's scaling from 1000x800 to 96x96 loses two grey levels everywhere; EnvPool's does not."""
        return picture - np.minimum(picture, 2)

    def close(self) -> None:
        """Stop the threads."""
        self._pool.close()
        # The threads end when the pool is freed.
        self._pool = None


class OfficialSimulator:
    """One Gymnasium CarRacing-v3 that renders only the frames whose picture is used.

    Gymnasium renders every frame. Rendering does not change the simulation, so with an action repeat only the
    last frame is rendered, and of the road only the part nearby; rewards, ends and pictures are those of the
    plain environment.
    """

    def __init__(self, max_frames: int, render_mode: str | None = None) -> None:
        # Gymnasium's checker would warn of the missing pictures.
        self.env = gymnasium.make(
            "CarRacing-v3", max_episode_steps=max_frames, render_mode=render_mode, disable_env_checker=True
        )
        base: Any = self.env.unwrapped
        self._base = base
        base._render_road = NearbyRoad(base)
        self._draw = self._base._render
        self._base._render = self._render_if_used
        self._picture_used = True
        self._shown = 0.0

    def _render_if_used(self, mode: str) -> Any:
        if mode != "state_pixels":
            return self._draw(mode)
        self._shown = self._base.reward
        return self._draw(mode) if self._picture_used else None

    def picture(self) -> NDArray[np.uint8]:
        """The picture of the present frame, (96, 96, 3)."""
        # Gymnasium renders before it subtracts the frame's cost: the dashboard shows the score without it.
        score, self._base.reward = self._base.reward, self._shown
        picture = self._draw("state_pixels")
        self._base.reward = score
        return picture

    def reset(self, seed: int) -> NDArray[np.uint8]:
        """Start on the track of that seed; (96, 96, 3)."""
        self._picture_used = True
        return self.env.reset(seed=seed)[0]

    def step(self, action: NDArray[np.float32]) -> tuple[float, bool, bool]:
        """One frame without a picture: reward, terminated, truncated."""
        self._picture_used = False
        _, reward, terminated, truncated, _ = self.env.step(action)
        return float(reward), bool(terminated), bool(truncated and not terminated)

    def off_road(self) -> bool:
        """Whether no wheel touches a tile, so that tiles passed now are not visited."""
        return not any(wheel.tiles for wheel in self._base.car.wheels)

    def tiles(self) -> float:
        """Share of the track's tiles visited so far."""
        return float(self._base.tile_visited_count) / len(self._base.track)

    def close(self) -> None:
        """Free the screen."""
        self.env.close()


class GymnasiumSimulators:
    """Gymnasium's own CarRacing, stepped one after the other.

    Simulator i draws the seeds of its tracks, below `seed_limit`, from `seeds[i]`.
    """

    antialias = False
    reports_off_road = True

    def __init__(self, seeds: Sequence[int], max_frames: int, seed_limit: int) -> None:
        self._simulators = [OfficialSimulator(max_frames) for _ in seeds]
        self._seeds = [np.random.default_rng(seed) for seed in seeds]
        self._limit = seed_limit

    def reset(self, which: Bools) -> NDArray[np.uint8]:
        """See `Simulators.reset`."""
        picture = np.zeros((len(which), 96, 96, 3), np.uint8)
        for i in np.flatnonzero(which):
            picture[i] = self._simulators[i].reset(int(self._seeds[i].integers(self._limit)))
        return picture

    def step(self, action: NDArray[np.float32], live: Bools, last: bool) -> Frame:
        """See `Simulators.step`."""
        frame = empty_frame(len(live))
        for i in np.flatnonzero(live):
            one = self._simulators[i]
            frame.reward[i], frame.terminated[i], frame.truncated[i] = one.step(action[i])
            frame.off_road[i] = one.off_road()
            if last or frame.terminated[i] or frame.truncated[i]:
                frame.picture[i] = one.picture()
        return frame

    def close(self) -> None:
        """Close the simulators."""
        for one in self._simulators:
            one.close()


def envpool_available() -> bool:
    """Whether EnvPool can be imported (it is made for Linux)."""
    import importlib.util

    return importlib.util.find_spec("envpool") is not None


def seeds_below(limit: int, seeds: Sequence[int]) -> None:
    """Raise ValueError for a training seed of `limit` or more, which evaluation uses."""
    for seed in seeds:
        if not 0 <= seed < limit:
            raise ValueError(f"training seed {seed}: expected 0 to {limit - 1}, evaluation uses those above")
