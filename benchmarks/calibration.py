"""Imagined rewards beside the real ones, step by step: whether a run's dreams are too optimistic.

From states of the newest episodes in the run's replay the agent imagines on with its own policy, and the
rewards that the world model expects are compared with those that followed there. Where imagined rewards grow
with the horizon and real ones do not, mistakes and their costs are missing from the dreams that the policy
learns from.

python benchmarks/calibration.py RUN [--horizon 15] [--samples 4] [--json PATH]
"""

from pathlib import Path

import bench
import numpy as np
import torch

from train.data.episodes import Episode
from train.data.replay import Replay
from train.drive.agents import load_agent
from train.drive.environments import make_env
from train.online.build import build_parts
from train.online.config import OnlineConfig
from train.run.checkpoint import load_checkpoint
from train.run.errors import DreamdriveError
from train.run.folder import Run

_WARM = 10  # rows that are seen before a dream begins
_EVERY = 5  # rows between two beginnings


def newest(path: Path, count: int) -> list[Episode]:
    """The newest `count` episodes of each stream of a run's replay."""
    run = Run.open(path)
    if run.record.job != "train-agent":
        raise DreamdriveError(f"{path}: has no replay; expected a run of `train agent`")
    config = run.config(OnlineConfig)
    saved = load_checkpoint(path / "checkpoint.pt", "cpu")
    spec = build_parts(config, make_env).spec
    replay = Replay.open(path / "replay", config.replay, spec, config.env.num_envs, saved["replay"])
    return [e for stream in range(config.env.num_envs) for e in replay.latest_episodes(stream, count)]


@torch.no_grad()
def measure(path: Path, horizon: int, samples: int, episodes: int) -> dict[str, list[float] | int]:
    """Mean rewards of each step, `real` and `imagined`, and the number of `states` they begin in."""
    agent = load_agent(path, "cpu").agent
    model = agent.world_model
    real, imagined = [], []
    for episode in newest(path, episodes):
        starts = np.arange(_WARM, len(episode) - horizon, _EVERY)
        if not len(starts):
            continue
        images = {name: torch.from_numpy(value)[None] for name, value in episode.observations.items()}
        rows = torch.from_numpy(episode.actions)[None], torch.from_numpy(episode.is_first)[None]
        states, _ = model.observe(images, *rows, model.initial(1))
        # (S * samples,)
        chosen = states[0, np.repeat(starts, samples)]
        dream = model.imagine(
            chosen, lambda state: agent.actor_critic.policy(model.features(state)).sample(), horizon
        )
        imagined.append(dream.rewards.unflatten(0, (len(starts), samples)).mean(1).numpy())
        real.append(np.stack([episode.rewards[k + 1 : k + 1 + horizon] for k in starts]))
    if not real:
        raise DreamdriveError(f"{path}: no episode is longer than {_WARM + horizon} decisions")
    return {
        "states": sum(map(len, real)),
        "real": np.concatenate(real).mean(0).tolist(),
        "imagined": np.concatenate(imagined).mean(0).tolist(),
    }


def main() -> None:
    """Measure, print a line a step, write JSON if wanted."""
    parser = bench.parser(__doc__)
    parser.add_argument("run", type=Path, help="folder of a run of `train agent`, with its replay")
    bench.option(parser, "--horizon", 15, "decisions dreamt")
    bench.option(parser, "--samples", 4, "dreams from each state")
    bench.option(parser, "--episodes", 2, "newest episodes a stream")
    arguments = parser.parse_args()
    torch.manual_seed(0)
    torch.set_num_threads(1)
    result = measure(arguments.run, arguments.horizon, arguments.samples, arguments.episodes)
    print(f"mean reward a decision, from {result['states']} states")
    print(f"{'step':>4}  {'real':>7}  {'imagined':>8}")
    pairs = zip(result["real"], result["imagined"], strict=True)  # type: ignore[arg-type]
    for step, (real, imagined) in enumerate(pairs, 1):
        print(f"{step:4}  {real:7.2f}  {imagined:8.2f}")
    bench.write(arguments.json, result)


if __name__ == "__main__":
    main()
