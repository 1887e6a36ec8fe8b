"""How near a run's open-loop dreams of held-out episodes are to what happened, step by step.

Each window shows the model some rows, then it dreams along the recorded actions. Its pictures are compared
with the truth, beside two guesses that need no model: repeating the last picture seen, and the mean picture
of the training episodes; its rewards beside the mean reward of the training episodes. Where the model paints
dreams from the last picture seen, those of its decoder alone are compared, too.

python benchmarks/open_loop.py RUN --episodes DIR --training DIR [--context 10] [--horizon 25] [--every 5]
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import bench
import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console
from torch import Tensor

from agent.image_quality import psnr
from agent.nets import colours
from agent.world_model.interface import Batch
from train.data.episode_store import EpisodeFolder
from train.drive.agents import TrainedModel, load_world_model
from train.drive.open_loop import fit_pictures, picture_name, psnr_curves
from train.run.errors import DreamdriveError

_TOGETHER = 16  # windows dreamt at once
_PICTURES = ("psnr", "psnr_decoded", "psnr_repeat", "psnr_mean")


def windows(folder: Path, model: TrainedModel, rows: int, every: int, most: int) -> Iterator[Batch]:
    """Windows of so many rows, each so many after the one before, spread evenly where there are more than
    `most`; each begins afresh."""
    episodes = [fit_pictures(episode, model.shapes) for episode in EpisodeFolder(folder)]
    starts = [(e, at) for e in episodes for at in range(0, len(e.rewards) - rows + 1, every)]
    if not starts:
        raise DreamdriveError(f"{folder}: {len(episodes)} episodes: expected one of {rows} rows or more")
    picked = np.unique(np.linspace(0, len(starts) - 1, min(most, len(starts))).round().astype(int))
    for chosen in np.array_split(picked, -(-len(picked) // _TOGETHER)):

        def column(name: str, chosen: NDArray[Any] = chosen) -> Tensor:
            parts = []
            for episode, at in (starts[i] for i in chosen):
                whole = {"action": episode.actions, "reward": episode.rewards, **episode.observations}[name]
                parts.append(whole[at : at + rows])
            return torch.from_numpy(np.stack(parts)).to(model.device)

        reward = column("reward")
        first = (torch.arange(rows, device=model.device) == 0).expand_as(reward)
        seen = {name: column(name) for name in model.shapes}
        yield Batch(seen, column("action"), reward, first, torch.zeros_like(first))


def training_means(folder: Path, model: TrainedModel, name: str) -> tuple[Tensor, float]:
    """The mean picture (C, S, S) in [0, 1] and the mean reward of the episodes in a folder."""
    total, pictures, rewards = 0.0, 0, []
    for episode in EpisodeFolder(folder):
        image = fit_pictures(episode, model.shapes).observations[name]
        total, pictures = total + image.sum(0, dtype=np.float64), pictures + len(image)
        rewards.append(episode.rewards[1:])
    mean = torch.from_numpy(np.asarray(total) / pictures / 255.0).float()
    return mean.to(model.device), float(np.concatenate(rewards).mean())


@torch.no_grad()
def compare(model: TrainedModel, batch: Batch, context: int, mean: tuple[Tensor, float], name: str) -> Tensor:
    """For B windows: PSNR of the dream, of its decoder alone, of the last picture and of the mean one [dB],
    squared errors of the dream's rewards and of the mean reward: (6, B, H)."""
    world = model.world_model
    states = world.observe(
        {key: value[:, :context] for key, value in batch.observation.items()},
        batch.action[:, :context],
        batch.is_first[:, :context],
        world.initial(len(batch.reward)),
    )[0]
    dream = world.imagine_along(states[:, -1], batch.action[:, context:])
    ahead = dream.states[:, 1:]
    truth = colours(batch.observation[name])
    future, last = truth[:, context:], truth[:, context - 1]
    curves = psnr_curves(world.paint(ahead, {name: last})[name].float(), future, last, mean[0])
    curves["psnr_decoded"] = psnr(world.decode(ahead)[name].float(), future)
    rewards = batch.reward[:, context:]
    errors = [(dream.rewards - rewards).square(), (rewards - mean[1]).square()]
    return torch.stack([*(curves[kind] for kind in _PICTURES), *errors]).cpu()


def main() -> None:
    """Compare and print."""
    parser = bench.parser(__doc__)
    parser.add_argument("run", type=Path, help="run with a world model that decodes pictures")
    parser.add_argument("--episodes", type=Path, required=True, help="folder of held-out .npz episodes")
    parser.add_argument("--training", type=Path, required=True, help="folder of training episodes, for means")
    bench.option(parser, "--context", 10, "rows seen")
    bench.option(parser, "--horizon", 25, "rows dreamt")
    bench.option(parser, "--every", 5, "rows between windows")
    bench.option(parser, "--most", 400, "windows at most")
    bench.option(parser, "--threads", 0, "CPU threads; 0 is one for each core")
    args = parser.parse_args()
    if args.threads:
        torch.set_num_threads(args.threads)
    model = load_world_model(args.run)
    torch.manual_seed(model.seed)
    name = picture_name(model.shapes)
    if name is None:
        raise DreamdriveError(f"{args.run}: observes {', '.join(model.shapes)}: expected pictures")
    mean = training_means(args.training, model, name)
    parts = windows(args.episodes, model, args.context + args.horizon, args.every, args.most)
    found = torch.cat([compare(model, part, args.context, mean, name) for part in parts], 1)
    count = found.shape[1]
    # (6, H)
    curves = found.mean(1)
    table = bench.table(
        f"{args.run}: {count} windows of {args.context} rows seen, {args.horizon} dreamt",
        "step",
        "dream dB",
        "decoder alone dB",
        "last picture dB",
        "mean picture dB",
        "reward error",
        "mean reward's error",
    )
    steps = [k for k in (1, 5, 15, 25) if k < args.horizon] + [args.horizon]
    for k in steps:
        cells = [f"{curves[row, k - 1]:.{1 if row < 4 else 3}f}" for row in range(6)]
        table.add_row(str(k), *cells)
    cells = [f"{curves[row].mean():.{1 if row < 4 else 3}f}" for row in range(6)]
    table.add_row("all", *cells)
    Console().print(table)
    kinds = (*_PICTURES, "reward_mse", "reward_mse_of_mean")
    bench.write(args.json, {"windows": count, **dict(zip(kinds, curves.tolist(), strict=True))})


if __name__ == "__main__":
    main()
