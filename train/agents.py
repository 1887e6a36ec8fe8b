"""Take a trained agent out of a run, whatever job made it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

import torch

from agent.dreamer import Dreamer
from train.checkpoint import load_weights, save_weights, write_text_aside
from train.device import pick_device
from train.errors import DreamdriveError, explain_os_errors
from train.online.config import OnlineConfig
from train.options import to_yaml
from train.run import Run

if TYPE_CHECKING:
    from train.world_models.config import WorldModelAgentConfig

AgentConfig: TypeAlias = "OnlineConfig | WorldModelAgentConfig"


@dataclass
class Trained:
    """A run's agent, ready to drive or to dream."""

    run: Run
    config: AgentConfig
    """Of the job that made it; each has `seed`, `env` and `agent`."""
    agent: Dreamer
    device: torch.device
    frames: int


def agent_config(run: Run) -> AgentConfig:
    """The config of a run that holds an agent.

    Raises `DreamdriveError` for a run of a job that makes none, or a config that does not fit.
    """
    if run.record.job == "world-models":
        # Here, because collecting for that job drives agents, too.
        from train.world_models.config import WorldModelAgentConfig

        return run.config(WorldModelAgentConfig)
    if run.record.job == "train-agent":
        return run.config(OnlineConfig)
    raise DreamdriveError(
        f"{run.path / 'run.json'}: a run of the job '{run.record.job}': expected train-agent or world-models"
    )


def load_agent(path: Path, device: str = "auto") -> Trained:
    """The agent of the run in `path`, from its weights.

    Raises `DreamdriveError` when there is no run, it has no weights, or they do not fit its config.
    """
    run = Run.open(path)
    config = agent_config(run)
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


def export(run: Path, folder: Path) -> None:
    """Write a run to share into `folder`: config, record, and weights in half precision. It is a RUN, too.

    Raises `DreamdriveError` when there is no run, it does not fit its config, or `folder` holds one already.
    """
    trained = load_agent(run, "cpu")
    if (folder / "run.json").exists():
        raise DreamdriveError(f"{folder}: already holds a run; name another folder")
    tensors, meta = load_weights(run)
    with explain_os_errors("cannot make the folder", folder):
        folder.mkdir(parents=True, exist_ok=True)
        halves = {name: t.half() if t.is_floating_point() else t for name, t in tensors.items()}
        save_weights(folder, halves, meta)
        write_text_aside(folder / "config.yaml", to_yaml(trained.config))
        # Last: what has a run.json is a whole run. The MLflow run stays where it is.
        record = trained.run.record.model_copy(update={"mlflow_run_id": None})
        write_text_aside(folder / "run.json", record.model_dump_json(indent=1) + "\n")
