"""Take a trained agent out of a run."""

from dataclasses import dataclass
from pathlib import Path

import torch

from agent.dreamer import Dreamer
from train.checkpoint import load_weights
from train.device import pick_device
from train.errors import DreamdriveError
from train.online.config import OnlineConfig
from train.run import Run


@dataclass
class Trained:
    """A run's agent, ready to drive or to dream."""

    run: Run
    config: OnlineConfig
    agent: Dreamer
    device: torch.device
    frames: int


def load_agent(path: Path, device: str = "auto") -> Trained:
    """The agent of the run in `path`, from its weights.

    Raises `DreamdriveError` when there is no run, it has no weights, or they do not fit its config.
    """
    run = Run.open(path)
    config = run.config(OnlineConfig)
    tensors, meta = load_weights(path)
    where = pick_device(device)
    try:
        shapes = {str(name): tuple(int(n) for n in shape) for name, shape in meta["observations"].items()}
        agent = config.agent.build(shapes, int(meta["action_size"]))
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise DreamdriveError(
            f"{path / 'weights.json'}: {error}; expected observations and action_size"
        ) from error
    wanted, found = agent.state_dict(), tensors
    for name, tensor in wanted.items():
        if name not in found or found[name].shape != tensor.shape:
            shape = list(found[name].shape) if name in found else "missing"
            raise DreamdriveError(
                f"{path / 'weights.safetensors'}: {name} is {shape}, "
                f"expected {list(tensor.shape)} by config.yaml"
            )
    agent.load_state_dict(tensors)
    return Trained(run, config, agent.to(where).eval(), where, int(meta.get("frames", 0)))
