"""Take a trained agent out of a run, whatever job made it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import nn

from agent.behaviour.actor_critic import ActorCritic
from agent.dreamer import Dreamer
from agent.world_model.encoder import ObservationShapes
from agent.world_model.interface import WorldModel
from train.drive.descriptions import (
    TOKENIZER_JOB,
    WORLD_MODEL_JOB,
    AgentDescription,
    describe_agent,
    describe_model,
)
from train.drive.environments import decisions_per_second
from train.run.checkpoint import fit_weights, load_weights, save_weights, write_text_aside
from train.run.device import pick_device
from train.run.errors import DreamdriveError, explain_os_errors
from train.run.folder import Run

Network = TypeVar("Network", bound=nn.Module)


_MODEL = "world_model."
# Of a World Models run whose controller is not trained yet: what holds weights, and what they are of.
_STAGES = {"world_model": _MODEL, "vae": f"{_MODEL}tokenizer."}


@dataclass
class Trained:
    """A run's agent, ready to drive or to dream."""

    run: Run
    config: AgentDescription
    """What its weights say of it."""
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

    @property
    def actor_critic(self) -> ActorCritic | None:
        """The agent's actor and critic; None of a run without an agent, or of an agent without them."""
        behaviour = self.trained.agent.behaviour if self.trained is not None else None
        return behaviour if isinstance(behaviour, ActorCritic) else None


def load_agent(path: Path, device: str = "auto") -> Trained:
    """The agent of the run in `path`, from its weights.

    Raises `DreamdriveError` when there is no run, it has no weights, or they do not fit its config.
    """
    run = Run.open(path)
    config = describe_agent(run)
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
    config = describe_model(run)
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
    fit_weights(network, tensors, str(path / "weights.safetensors"), "its config")
    return network


def weights_file(run: Run) -> Path:
    """The file of all that a run has learnt so far.

    Raises:
        DreamdriveError: there is none.
    """
    stages = _STAGES if run.record.job == "world-models" else ()
    for name in ("weights", *stages):
        path = run.path / f"{name}.safetensors"
        if path.exists():
            return path
    stage = ", expected those of the stage vae at least" if stages else ""
    raise DreamdriveError(f"start {run.path}: has no weights yet{stage}")


def learnt_by(run: Run) -> dict[str, torch.Tensor]:
    """All that a run has learnt, by the names of an agent's parts. Raises `DreamdriveError` for nothing."""
    name = weights_file(run).stem
    tensors, _ = load_weights(run.path, name=name)
    bare = run.record.job in (WORLD_MODEL_JOB, TOKENIZER_JOB)
    prefix = _MODEL if bare else _STAGES.get(name, "")
    return {prefix + key: value for key, value in tensors.items()}


def export_run(run: Path, folder: Path) -> None:
    """Write a run to share into `folder`: config, record, and weights in half precision. It is a RUN, too.

    Raises `DreamdriveError` when there is no run, it does not fit its config, or `folder` holds one already.
    """
    loaded = load_world_model(run, "cpu")
    opened = loaded.run
    if (folder / "run.json").exists():
        raise DreamdriveError(f"{folder}: already holds a run; name another folder")
    tensors, meta = load_weights(run)
    description = loaded.trained.config if loaded.trained else describe_model(opened)
    with explain_os_errors("cannot make the folder", folder):
        folder.mkdir(parents=True, exist_ok=True)
        halves = {name: t.half() if t.is_floating_point() else t for name, t in tensors.items()}
        save_weights(folder, halves, meta | description.meta())
        write_text_aside(folder / "config.yaml", opened.config_path.read_text())
        # Last: what has a run.json is a whole run. The MLflow run stays where it is.
        record = opened.record.model_copy(update={"mlflow_run_id": None})
        write_text_aside(folder / "run.json", record.model_dump_json(indent=1) + "\n")
