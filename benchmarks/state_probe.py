"""How well speeds, yaw rate and place on the road can be read off a world model's state.

The run's agent drives official tracks, half of them with noise on its actions. A small probe learns to
predict the simulator's true numbers from the world model's features, and is tested on tracks it has not
learnt from. R2 is 1 where it predicts them exactly, 0 where it does no better than their mean.

python benchmarks/state_probe.py RUN [--tracks 24] [--noise 0.2] [--seed 2000000] [--json PATH]
"""

from pathlib import Path
from typing import Any

import bench
import numpy as np
import torch

from agent.world_model.probe import Probe, ProbeConfig, r_squared
from envs import TRAINING_SEEDS
from envs.car_racing.official_tracks import OfficialTracks
from envs.car_racing.track import CarOnTrack
from train.drive.agents import load_agent
from train.drive.environments import require_car_racing
from train.drive.filtering import ObservationFilter
from train.run.errors import DreamdriveError
from train.vla.fit_probes import fit_probe

_NUMBERS = ("forward", "sideways", "yaw_rate", "heading_error", "offset")
_UNITS = {"forward": "m/s", "sideways": "m/s", "yaw_rate": "rad/s", "heading_error": "rad", "offset": "m"}


def collect_features(
    run: Path, tracks: int, noise: float, first_seed: int
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Features (N, F), the car's numbers (N, Q), and which track each row is of (N,)."""
    trained = load_agent(run, "cpu")
    agent, config = trained.agent, require_car_racing(trained.config.env, "the probe")
    random = np.random.default_rng(first_seed)
    features, truths, numbers = [], [], []
    seeds = range(first_seed, first_seed + tracks)
    with OfficialTracks(config, seeds, slots=8, measured=True) as course:
        n = course.num_envs
        seen, first = course.reset(), np.ones(n, bool)
        filtered = ObservationFilter(agent.world_model, trained.device)
        filtered.reset(n)
        while course.active.any():
            batch = {name: value for name, value in seen.items() if name != "state"}
            state = filtered.see(batch, first)
            action, known = agent.choose(state, explore=False), agent.world_model.features(state)
            for i in np.flatnonzero(course.active):
                car = course.cars[i]
                assert isinstance(car, CarOnTrack)
                features.append(known[i])
                truths.append([getattr(car, name) for name in _NUMBERS])
                numbers.append(int(course.number[i]))
            shaken = action + torch.from_numpy(random.normal(0, noise, tuple(action.shape))).float()
            # Every second track is driven with noise: the probe is to work off the usual line, too.
            odd = torch.from_numpy(course.number % 2 == 1)[:, None]
            action = torch.where(odd, shaken, action).clamp(-1.0, 1.0)
            filtered.follow(action)
            seen, first, _ = course.step(action.numpy())
    return torch.stack(features), torch.tensor(truths, dtype=torch.float32), torch.tensor(numbers)


def measure(run: Path, tracks: int, noise: float, first_seed: int) -> dict[str, Any]:
    """R2, root mean squared error and deviation of each number on the last quarter of the tracks."""
    if tracks < 4 or first_seed < TRAINING_SEEDS:
        raise DreamdriveError(
            f"--tracks {tracks} --seed {first_seed}: expected at least 4, seeds from {TRAINING_SEEDS} on"
        )
    with torch.no_grad():
        features, truth, number = collect_features(run, tracks, noise, first_seed)
    learnt = number < tracks * 3 // 4
    torch.manual_seed(0)
    probe = Probe(ProbeConfig(), features.shape[-1], list(_NUMBERS))
    fit_probe(probe, features[learnt], truth[learnt], generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        error = (probe(features[~learnt]) - truth[~learnt]).square().mean(0).sqrt()
    return {
        "decisions": len(features),
        "r2": r_squared(probe, features[~learnt], truth[~learnt]),
        "rmse": dict(zip(_NUMBERS, error.tolist(), strict=True)),
        "std": dict(zip(_NUMBERS, truth[~learnt].std(0).tolist(), strict=True)),
    }


def main() -> None:
    """Measure, print a line a number, write JSON if wanted."""
    parser = bench.parser(__doc__)
    parser.add_argument("run", type=Path, help="folder of a run whose agent drives CarRacing")
    bench.option(parser, "--tracks", 24, "tracks driven")
    bench.option(parser, "--noise", 0.2, "deviation of the noise on every second track")
    bench.option(parser, "--seed", 2_000_000, "first track")
    args = parser.parse_args()
    try:
        result = measure(args.run, args.tracks, args.noise, args.seed)
    except DreamdriveError as error:
        raise SystemExit(f"state_probe: {error}") from error
    print(f"{args.run}: {result['decisions']} decisions on {args.tracks} tracks")
    for name in _NUMBERS:
        r2, rmse, std = (result[key][name] for key in ("r2", "rmse", "std"))
        print(f"{name:14} R2 {r2:5.2f}  error {rmse:.2f} {_UNITS[name]} (deviation {std:.2f})")
    bench.write(args.json, result)


if __name__ == "__main__":
    main()
