"""What a run begins with that is not random: weights that another run has learnt."""

from pathlib import Path

import torch
from torch import Tensor

from agent.dreamer import Dreamer
from envs.car_racing import CarRacingConfig
from train.agents import WORLD_MODEL_JOB, agent_config
from train.checkpoint import load_weights
from train.errors import DreamdriveError
from train.online.config import OnlineConfig
from train.run import Run

_MODEL, _BEHAVIOUR = "world_model.", "behaviour."
# Of a World Models run whose controller is not trained yet: what holds weights, and what they are of.
_STAGES = {"world_model": _MODEL, "vae": f"{_MODEL}tokenizer."}
# What a picture shows, and what an action does.
_SAME = ("image_size", "crop_hud", "instruments", "action", "action_repeat")


def begin_with(agent: Dreamer, config: OnlineConfig) -> str:
    """Give the agent the weights of the run `config.start`; says what was taken, or nothing without a start.

    Raises:
        DreamdriveError: there is no such run, it learnt with other observations or actions, its world model
            is another one, or something that never learns is left at its random start.
    """
    model = agent.world_model
    frozen = {_MODEL + name for name, p in model.named_parameters() if not p.requires_grad}
    if not config.start:
        if frozen:
            raise DreamdriveError(
                "start: expected a run with a trained tokenizer, which does not learn here: "
                "`dreamdrive world-models --stage vae` makes one"
            )
        return ""
    path = Path(config.start)
    tensors = _weights(path, config)
    missing = sorted(frozen - tensors.keys())
    if missing:
        raise DreamdriveError(f"start {path}: has no {missing[0]}, expected a trained tokenizer")
    own = agent.state_dict()
    taken = {name: value for name, value in tensors.items() if name.startswith(_MODEL)}
    for name, value in taken.items():
        if name not in own or own[name].shape != value.shape:
            expected = list(own[name].shape) if name in own else "nothing of that name"
            raise DreamdriveError(f"start {path}: {name} is {list(value.shape)}, expected {expected}")
    behaviour = {name: value for name, value in own.items() if name.startswith(_BEHAVIOUR)}
    fits = all(name in tensors and tensors[name].shape == value.shape for name, value in behaviour.items())
    if fits:
        taken |= {name: tensors[name] for name in behaviour}
    with torch.no_grad():
        for name, value in taken.items():
            own[name].copy_(value)
    model_names = {name for name in own if name.startswith(_MODEL)}
    what = "world model" if model_names <= taken.keys() else "tokenizer"
    return f"begins with the {what}{' and the behaviour' if fits else ''} of {path}"


def _weights(path: Path, config: OnlineConfig) -> dict[str, Tensor]:
    """All that the run in `path` has learnt, by the names of an agent's parts."""
    run = Run.open(path)
    if run.record.job == WORLD_MODEL_JOB:
        tensors, _ = load_weights(path)
        return {_MODEL + name: value for name, value in tensors.items()}
    source = agent_config(run)
    theirs, ours = (getattr(c.agent.world_model, "tokenizer", None) for c in (source, config))
    if theirs is not None and ours is not None and theirs.fsq_levels != ours.fsq_levels:
        raise DreamdriveError(
            f"agent.world_model.tokenizer.fsq_levels {ours.fsq_levels}: expected {theirs.fsq_levels}, "
            f"as in start {path}"
        )
    learnt = source.env
    if isinstance(learnt, CarRacingConfig) and isinstance(config.env, CarRacingConfig):
        for name in _SAME:
            found, expected = getattr(config.env, name), getattr(learnt, name)
            if found != expected:
                raise DreamdriveError(f"env.{name} {found}: expected {expected}, as in start {path}")
    if (path / "weights.safetensors").exists() or run.record.job == "train-agent":
        return load_weights(path)[0]
    for stage, prefix in _STAGES.items():
        if (path / f"{stage}.safetensors").exists():
            tensors, _ = load_weights(path, name=stage)
            return {prefix + name: value for name, value in tensors.items()}
    raise DreamdriveError(f"start {path}: has no weights yet, expected those of the stage vae at least")
