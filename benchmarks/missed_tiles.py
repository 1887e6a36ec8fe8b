"""Where a run leaves tiles out on official tracks, and what its pictures showed of it.

A lap ends only when no tile is missing. For each stretch of missed tiles: how far from the middle of the road
the wheels passed it, how fast, how the road turns there, and the largest share of grass round the car (as the
training cost sees it). At the end: of the decisions in which no wheel touched a tile, and of the others, the
share that lies above a few limits.

python benchmarks/missed_tiles.py RUN [--tracks 10] [--first-seed 2000000]
"""

import argparse
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

# Run as a file, python looks for packages beside the file; the repository is one folder up.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import gymnasium
import numpy as np
import torch
from numpy.typing import NDArray

from envs.car_racing import CarRacingConfig
from envs.preprocess import grass_share, native_action
from envs.view import View
from train.agents import load_agent
from train.errors import DreamdriveError

_ZOOM_FRAMES = 50  # the camera zooms in during the first second
_LIMITS = (0.6, 0.65, 0.9)


@dataclass
class Lap:
    """What was seen of the car, a row a decision."""

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


@torch.no_grad()
def drive(agent: Any, config: CarRacingConfig, env: Any, seed: int) -> Lap:
    """One lap by the policy's mode on the track of `seed`."""
    view, lap = View(config.image_size, config.crop_hud, config.instruments), Lap()
    picture, _ = env.reset(seed=seed)
    car = env.unwrapped.car
    state, action = agent.world_model.initial(1), torch.zeros(1, config.action_size)
    first, over = torch.ones(1, dtype=torch.bool), False
    while not over:
        seen = {name: torch.from_numpy(value) for name, value in view(picture[None]).items()}
        action, state = agent.act(seen, state, action, first, explore=False)
        first = torch.zeros(1, dtype=torch.bool)
        native = native_action(action.numpy())[0].astype(np.float64)
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
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("run", type=Path, help="folder of a run that drives CarRacing")
    parser.add_argument("--tracks", type=int, default=10, help="tracks (default: 10)")
    parser.add_argument("--first-seed", type=int, default=2_000_000, help="of the first (default: 2000000)")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    trained = load_agent(arguments.run, "cpu")
    config = trained.config.env
    if not isinstance(config, CarRacingConfig):
        raise DreamdriveError(f"{arguments.run}: does not drive CarRacing")
    env = gymnasium.make("CarRacing-v3")
    grass: list[float] = []
    touching: list[bool] = []
    for seed in range(arguments.first_seed, arguments.first_seed + arguments.tracks):
        lap = drive(trained.agent, config, env, seed)
        print(f"track {seed}: score {lap.score:.0f} in {lap.frames} frames", flush=True)
        for line in stretches(lap, env):
            print(line)
        grass += lap.grass
        touching += lap.touching
    share, on = np.array(grass), np.array(touching)
    seen = np.isfinite(share)
    for limit in _LIMITS:
        off = share[seen & ~on] > limit
        held = share[seen & on] > limit
        print(
            f"grass above {limit}: {off.mean() if len(off) else 0:.1%} of the {len(off)} decisions without a "
            f"tile under any wheel, {held.mean():.1%} of the {len(held)} others"
        )


if __name__ == "__main__":
    main()
