"""Take a trained agent out of a run, whatever job made it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

import torch
from torch import nn

from agent.dreamer import Dreamer
from agent.world_model.encoder import ObservationShapes
from agent.world_model.interface import WorldModel
from train.drive.environments import decisions_per_second
from train.online.config import OnlineConfig
from train.run.checkpoint import fit_weights, load_weights, save_weights, write_text_aside
from train.run.device import pick_device
from train.run.errors import DreamdriveError, explain_os_errors
from train.run.folder import Run

if TYPE_CHECKING:
    from train.world_models.config import WorldModelAgentConfig

WORLD_MODEL_JOB = "train-world-model"
"""The job whose runs hold a world model without a behaviour; `load_world_model` loads them."""
BASELINE_JOB = "train-baseline"
"""The job whose runs hold a stable-baselines3 policy; `train.baselines.job` loads them."""
VLA_JOB = "train-vla"
"""The job whose runs hold a policy that takes instructions; `train.vla.loading` loads them."""
Network = TypeVar("Network", bound=nn.Module)
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


@dataclass
class TrainedModel:
    """A run's world model, ready to dream."""

    run: Run
    world_model: WorldModel
    shapes: ObservationShapes
    """Of the observations that it knows, name -> (C, S, S) or (D,)."""
    device: torch.device
    seed: int
    fps: float
    """Steps a second, for films."""
    trained: Trained | None
    """The whole agent, if the run holds one."""


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
    hints = {
        BASELINE_JOB: " (a baseline drives, `dreamdrive eval`, but has no dreams)",
        WORLD_MODEL_JOB: " (a world model dreams, `dreamdrive imagine`, but does not drive)",
        VLA_JOB: " (it drives as it is told: `dreamdrive eval RUN --instruction TEXT`)",
    }
    hint = hints.get(run.record.job, "")
    raise DreamdriveError(
        f"{run.path / 'run.json'}: a run of the job '{run.record.job}': expected train-agent or "
        f"world-models{hint}"
    )


def load_agent(path: Path, device: str = "auto") -> Trained:
    """The agent of the run in `path`, from its weights.

    Raises `DreamdriveError` when there is no run, it has no weights, or they do not fit its config.
    """
    run = Run.open(path)
    config = agent_config(run)
    tensors, meta = load_weights(path)
    where = pick_device(device)
    agent = _filled(path, tensors, meta, lambda shapes, size: config.agent.build(shapes, size))
    return Trained(run, config, agent.to(where).eval(), where, int(meta.get("frames", 0)))


def load_world_model(path: Path, device: str = "auto") -> TrainedModel:
    """The world model of the run in `path`, whether an agent's or learnt from recorded driving alone.

    Raises `DreamdriveError` as `load_agent`.
    """
    run = Run.open(path)
    if run.record.job != WORLD_MODEL_JOB:
        trained = load_agent(path, device)
        # An agent reads the same observations as its world model.
        _, meta = load_weights(path)
        fps = decisions_per_second(trained.config.env)
        model = trained.agent.world_model
        return TrainedModel(run, model, _shapes(meta), trained.device, trained.config.seed, fps, trained)
    # Here, because that job draws dreams, too.
    from train.world_model.config import WorldModelTrainConfig

    config = run.config(WorldModelTrainConfig)
    tensors, meta = load_weights(path)
    where = pick_device(device)
    model = _filled(path, tensors, meta, lambda shapes, size: config.world_model.build(shapes, size))
    return TrainedModel(run, model.to(where).eval(), _shapes(meta), where, config.seed, config.fps, None)


def _shapes(meta: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
    return {str(name): tuple(int(n) for n in shape) for name, shape in meta["observations"].items()}


def _filled(
    path: Path,
    tensors: dict[str, torch.Tensor],
    meta: Mapping[str, Any],
    build: Callable[[ObservationShapes, int], Network],
) -> Network:
    """A network built for what `meta` says it was trained on, with the run's weights."""
    try:
        network = build(_shapes(meta), int(meta["action_size"]))
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise DreamdriveError(
            f"{path / 'weights.json'}: {error}; expected observations and action_size"
        ) from error
    fit_weights(network, tensors, str(path / "weights.safetensors"), "config.yaml")
    return network


def export(run: Path, folder: Path) -> None:
    """Write a run to share into `folder`: config, record, and weights in half precision. It is a RUN, too.

    Raises `DreamdriveError` when there is no run, it does not fit its config, or `folder` holds one already.
    """
    opened = load_world_model(run, "cpu").run
    if (folder / "run.json").exists():
        raise DreamdriveError(f"{folder}: already holds a run; name another folder")
    tensors, meta = load_weights(run)
    with explain_os_errors("cannot make the folder", folder):
        folder.mkdir(parents=True, exist_ok=True)
        halves = {name: t.half() if t.is_floating_point() else t for name, t in tensors.items()}
        save_weights(folder, halves, meta)
        write_text_aside(folder / "config.yaml", opened.config_path.read_text())
        # Last: what has a run.json is a whole run. The MLflow run stays where it is.
        record = opened.record.model_copy(update={"mlflow_run_id": None})
        write_text_aside(folder / "run.json", record.model_dump_json(indent=1) + "\n")
