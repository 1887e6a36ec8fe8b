"""Train a world model on recorded driving, and imagine with it: everything under one name.

As a program, alone or by torchrun; all fields of `WorldModelTrainConfig` are options, `--help` lists them:

    python train/world_model/train_world_model.py --state-dim 256 --data-path ./data/world_model

In Python:

    config = WorldModelTrainConfig(action_dim=3, data_path="./data/world_model")
    train_dataset = SequenceDataset(config.data_path, config, split="train")
    trainer = WorldModelTrainer(config)
    trainer.train()
"""

import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

if __name__ == "__main__":
    # Run by its path, Python would look for packages beside this file.
    sys.path[0] = str(Path(__file__).resolve().parents[2])

import torch
from matplotlib.figure import Figure
from torch import Tensor

from agent.returns import lambda_returns
from agent.world_model.interface import State, WorldModel
from train.cli import main as dreamdrive
from train.data.sequences import SequenceDataset
from train.pictures.style import save_figure
from train.run.errors import DreamdriveError
from train.world_model.config import WorldModelTrainConfig
from train.world_model.trainer import WorldModelTrainer

__all__ = [
    "SequenceDataset",
    "WorldModelTrainConfig",
    "WorldModelTrainer",
    "compute_lambda_returns",
    "imagine",
    "main",
    "visualize_imagination",
]

_PANELS, _EVERY = 5, 4


def imagine(
    initial_state: State, policy: Callable[[State], Tensor], horizon: int = 15, *, world_model: WorldModel
) -> dict[str, Tensor | State]:
    """Imagined trajectories. `WorldModelTrainer.imagine` is the same for its own world model.

    Args:
        initial_state: (B) states, such as `world_model.encode` gives.
        policy: state -> action (B, A).
        horizon: H, steps.
        world_model: what imagines.

    Returns:
        `states` (B, H+1), the first one included; `actions` (B, H, A); `rewards` (B, H), each of the state
        that its action led to; `continues` (B, H), the probability that the episode goes on there.
    """
    made = world_model.imagine(initial_state, policy, horizon)
    return {
        "states": made.states,
        "actions": made.actions,
        "rewards": made.rewards,
        "continues": made.continues,
    }


def compute_lambda_returns(
    rewards: Tensor,
    values: Tensor,
    gamma: float = 0.99,
    lambda_: float = 0.95,
    continues: Tensor | None = None,
) -> Tensor:
    """Lambda-returns of imagined trajectories; see `agent.returns.lambda_returns`.

    Args:
        rewards: (B, H).
        values: (B, H+1), of all states.
        gamma: discount of a step.
        lambda_: 0 looks one step ahead, 1 to the end.
        continues: (B, H) probabilities that the episode goes on; None where it always does.

    Returns:
        (B, H), the returns of states 0 to H-1.

    Raises:
        DreamdriveError: the shapes do not fit.
    """
    if rewards.ndim != 2 or values.shape != (rewards.shape[0], rewards.shape[1] + 1):
        raise DreamdriveError(
            f"rewards {tuple(rewards.shape)} and values {tuple(values.shape)}: expected (B, H) and (B, H+1)"
        )
    discounts = gamma * (torch.ones_like(rewards) if continues is None else continues)
    return lambda_returns(rewards, discounts, values, lambda_)


@torch.no_grad()
def visualize_imagination(
    world_model: WorldModel,
    initial_obs: Tensor | Mapping[str, Tensor],
    policy: Callable[[State], Tensor],
    horizon: int = 20,
    path: str | Path = "imagined_trajectory.png",
) -> Path:
    """Draw five pictures, four steps apart, of what is imagined after an observation; the path of the PNG.

    Args:
        world_model: what imagines.
        initial_obs: a picture (C, S, S) or pictures (B, C, S, S), bytes or numbers in [0, 1], of which the
            first is drawn; or a mapping of entries (B, ...).
        policy: state -> action (B, A).
        horizon: steps, at least 16 for five pictures.
        path: where to write.

    Raises:
        DreamdriveError: fewer than one step, or the disk refuses.
    """
    if horizon < 1:
        raise DreamdriveError(f"horizon {horizon}: expected at least 1")
    if isinstance(initial_obs, Tensor):
        image = initial_obs if initial_obs.ndim == 4 else initial_obs.unsqueeze(0)
        if image.is_floating_point():
            image = (image.clamp(0, 1) * 255).round().byte()
        initial_obs = {"image": image}
    device = next(world_model.parameters()).device
    seen = {name: value.to(device) for name, value in initial_obs.items()}
    state = world_model.encode(seen)
    trajectory = world_model.imagine(state, policy, horizon)
    # (B, H+1, C, S, S)
    first, dreamt = trajectory.states[:, :1], trajectory.states[:, 1:]
    decoded = torch.cat([world_model.decode(first)["image"], world_model.paint(dreamt, seen)["image"]], 1)
    figure = Figure(figsize=(15, 3), layout="constrained")
    for panel, axes in enumerate(figure.subplots(1, _PANELS)):
        axes.axis("off")
        if panel * _EVERY <= horizon:
            picture = decoded[0, panel * _EVERY].clamp(0, 1).permute(1, 2, 0).cpu().numpy()
            axes.imshow(picture if picture.shape[2] != 1 else picture[..., 0], cmap="gray")
            axes.set_title(f"t={panel * _EVERY}")
    save_figure(figure, Path(path))
    return Path(path)


def main(argv: Sequence[str] | None = None) -> int:
    """`dreamdrive train world-model` with these arguments (None: the process's own); the exit status."""
    return dreamdrive(["train", "world-model", *(sys.argv[1:] if argv is None else argv)])


if __name__ == "__main__":
    sys.exit(main())
