"""Tiles that a run misses on official tracks, and what its observations showed there.

A lap ends only when no tile is missing. For each stretch of missed tiles: how far from the middle of the road
the wheels passed it, how fast, how the road turns there, and the largest share of grass round the car. At the
end: in how many decisions no wheel touched a tile, and what share of these, and of the others, lies above a
few limits of grass. EnvPool does not report wheels: there, training judges by such a limit.

python benchmarks/missed_tiles.py RUN [--tracks 10] [--first-seed 2000000] [--json PATH]
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import bench
import gymnasium
import numpy as np
import torch
from numpy.typing import NDArray

from envs.car_racing.env import CarRacingConfig
from envs.car_racing.observation import CarRacingObservation, grass_share, native_action
from train.drive.agents import load_agent
from train.drive.drivers import Driver, agent_driver
from train.run.errors import DreamdriveError

_ZOOM_FRAMES = 50  # the camera zooms in during the first second
_LIMITS = (0.6, 0.65, 0.9)


@dataclass
class Lap:
    """A lap's score and the car's course, one entry a decision."""

    score: float = 0.0
    frames: int = 0
    hull: list[NDArray[np.float64]] = field(default_factory=list)
    """Places of the car (2,) [m]."""
    wheels: list[NDArray[np.float64]] = field(default_factory=list)
    """Places of the wheels (4, 2) [m]."""
    speed: list[float] = field(default_factory=list)
    """[m/s]"""
    grass: list[float] = field(default_factory=list)
    """Share of grass round the car, NaN while the camera zooms in."""
    touching: list[bool] = field(default_factory=list)
    """Whether any wheel was on a tile."""


def drive_lap(driver: Driver, config: CarRacingConfig, env: Any, seed: int) -> Lap:
    """One lap by the policy's mode on the track of `seed`."""
    view, lap = CarRacingObservation(config.image_size, config.crop_hud, config.instruments), Lap()
    picture, _ = env.reset(seed=seed)
    car = env.unwrapped.car
    driver.reset(1)
    first, over = np.ones(1, bool), False
    while not over:
        native = native_action(driver.act(view(picture[None]), first))[0].astype(np.float64)
        first = np.zeros(1, bool)
        for _ in range(config.action_repeat):
            picture, reward, terminated, truncated, _ = env.step(native)
            lap.score, lap.frames = lap.score + float(reward), lap.frames + 1
            if over := terminated or truncated:
                break
        lap.hull.append(np.array(car.hull.position))
        lap.wheels.append(np.array([wheel.position for wheel in car.wheels]))
        lap.speed.append(float(np.linalg.norm(car.hull.linearVelocity)))
        near = lap.frames >= _ZOOM_FRAMES
        lap.grass.append(float(grass_share(picture[None])[0]) if near else float("nan"))
        lap.touching.append(any(len(wheel.tiles) for wheel in car.wheels))
    return lap


def stretches(lap: Lap, env: Any) -> list[str]:
    """A line for each stretch of tiles that the lap missed."""
    track, road = env.unwrapped.track, env.unwrapped.road
    missed = [i for i, tile in enumerate(road) if not tile.road_visited]
    groups = np.split(missed, np.flatnonzero(np.diff(missed) > 1) + 1) if missed else []
    hull, lines = np.array(lap.hull), []
    for group in groups:
        middle = int(group[len(group) // 2])
        _, beta, x, y = track[middle]
        # The decision that came nearest to the stretch, and the wheels' places across the road then.
        at = int(np.linalg.norm(hull - [x, y], axis=1).argmin())
        across = (lap.wheels[at] - [x, y]) @ [np.cos(beta), np.sin(beta)]
        turn = np.rad2deg(track[(middle + 4) % len(track)][1] - track[middle - 4][1])
        grass = np.array(lap.grass[max(0, at - 1) : at + 2])
        lines.append(
            f"  {len(group):3} tiles: wheels {across.min():6.1f} to {across.max():6.1f} m from the middle, "
            f"{lap.speed[at]:3.0f} m/s, turn of {(turn + 180) % 360 - 180:4.0f} degrees, "
            f"grass {np.nan_to_num(grass).max():.2f}"
        )
    return lines


def main() -> None:
    """Drive, print."""
    parser = bench.parser(__doc__)
    parser.add_argument("run", type=Path, help="folder of a run that drives CarRacing")
    bench.option(parser, "--tracks", 10, "tracks")
    bench.option(parser, "--first-seed", 2_000_000, "of the first")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    trained = load_agent(arguments.run, "cpu")
    config = trained.config.env
    if not isinstance(config, CarRacingConfig):
        raise DreamdriveError(f"{arguments.run}: does not drive CarRacing")
    driver, env = agent_driver(trained), gymnasium.make("CarRacing-v3")
    grass: list[float] = []
    touching: list[bool] = []
    laps: list[dict[str, Any]] = []
    for seed in range(arguments.first_seed, arguments.first_seed + arguments.tracks):
        lap = drive_lap(driver, config, env, seed)
        print(f"track {seed}: score {lap.score:.0f} in {lap.frames} frames", flush=True)
        missed = stretches(lap, env)
        for line in missed:
            print(line)
        laps.append({"seed": seed, "score": lap.score, "frames": lap.frames, "missed": missed})
        grass += lap.grass
        touching += lap.touching
    share, on = np.array(grass), np.array(touching)
    seen = np.isfinite(share)
    limits: dict[str, dict[str, float]] = {}
    for limit in _LIMITS:
        off = share[seen & ~on] > limit
        held = share[seen & on] > limit
        share_off = off.mean() if len(off) else 0.0
        limits[str(limit)] = {"off_road": share_off, "on_road": held.mean()}
        print(
            f"grass above {limit}: {share_off:.1%} of the {len(off)} decisions without a tile under a wheel, "
            f"{held.mean():.1%} of the {len(held)} others"
        )
    result = {"laps": laps, "decisions": len(on), "off_road": int((~on).sum()), "share_above": limits}
    bench.write(arguments.json, result)


if __name__ == "__main__":
    main()
