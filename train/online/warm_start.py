"""What a run begins with that is not random: weights that another run has learnt."""

from pathlib import Path

from agent.dreamer import Dreamer
from envs.car_racing.env import CarRacingConfig
from train.drive.agents import learnt_by, weights_file
from train.drive.descriptions import (
    TOKENIZER_JOB,
    WORLD_MODEL_JOB,
    describe_agent,
    describe_model,
    describe_tokenizer,
)
from train.online.config import OnlineConfig
from train.run.checkpoint import fit_weights
from train.run.errors import DreamdriveError
from train.run.folder import Run

_MODEL, _BEHAVIOUR, _CRITIC = "world_model.", "behaviour.", "world_model.value_head."
# Of a tokenizer's config: what its weights do not depend on.
_NOT_OF_WEIGHTS = {"entropy_weight", "save_memory"}
# What a picture shows, and what an action does.
_SAME = ("image_size", "crop_hud", "instruments", "action", "action_repeat")


def begin_with(agent: Dreamer, config: OnlineConfig) -> str:
    """Give the agent the weights of the run `config.start`; says what was taken, or nothing without a start.

    Of a run whose world model is of another kind it gets the tokenizer alone.

    Raises:
        DreamdriveError: there is no such run, it learnt with other observations or actions, its world model
            has other sizes, or something that never learns is left at its random start.
    """
    model = agent.world_model
    frozen = {_MODEL + name for name, p in model.named_parameters() if not p.requires_grad}
    if not config.start:
        if frozen:
            raise DreamdriveError(
                "start: expected a run with a trained tokenizer, which does not learn here: "
                "`dreamdrive train tokenizer` makes one"
            )
        return ""
    path = Path(config.start)
    run = Run.open(path)
    tensors = learnt_by(run)
    _check_source(run, config)
    missing = sorted(frozen - tensors.keys())
    if missing:
        raise DreamdriveError(f"start {path}: has no {missing[0]}, expected a trained tokenizer")
    own = agent.state_dict()
    # Of a world model of another kind only the tokenizer can be meant.
    usable = own.keys() & frozen if _another_kind(run, config) else tensors.keys()
    taken = {n: value for n, value in tensors.items() if n.startswith(_MODEL) and n in usable}
    behaviour = {name: value for name, value in own.items() if name.startswith(_BEHAVIOUR)}
    fits = all(name in tensors and tensors[name].shape == value.shape for name, value in behaviour.items())
    if not fits:
        # The critic of another behaviour would praise what this one, which cannot drive yet, is far from.
        taken = {n: value for n, value in taken.items() if not n.startswith(_CRITIC)}
    if fits:
        taken |= {name: tensors[name] for name in behaviour}
    fit_weights(agent, taken, f"start {path}", "the config", partly=True)
    model_names = {name for name in own if name.startswith(_MODEL)}
    model_names = {name for name in model_names if not name.startswith(_CRITIC)}
    what = "world model" if model_names <= taken.keys() else "tokenizer"
    return f"begins with the {what}{' and the behaviour' if fits else ''} of {path}"


def _another_kind(run: Run, config: OnlineConfig) -> bool:
    """The run's world model is of another kind than the config's, which has a tokenizer."""
    if run.record.job == TOKENIZER_JOB:
        return True
    if run.record.job == WORLD_MODEL_JOB:
        source = describe_model(run).world_model
    else:
        source = describe_agent(run, weights_file(run).stem).agent.world_model
    return hasattr(config.agent.world_model, "tokenizer") and source.kind != config.agent.world_model.kind


def _check_source(run: Run, config: OnlineConfig) -> None:
    """Raise `DreamdriveError` where the run learnt with other tokens, observations or actions."""
    ours = getattr(config.agent.world_model, "tokenizer", None)
    if ours is not None:
        theirs = describe_tokenizer(run)
        found, expected = (c.model_dump(exclude=_NOT_OF_WEIGHTS) for c in (ours, theirs))
        for name in expected.keys() | found.keys():
            if found.get(name) != expected.get(name):
                raise DreamdriveError(
                    f"agent.world_model.tokenizer.{name} {found.get(name)}: expected {expected.get(name)}, "
                    f"as in start {run.path}"
                )
    if run.record.job in (WORLD_MODEL_JOB, TOKENIZER_JOB):
        return
    learnt = describe_agent(run, weights_file(run).stem).env
    if isinstance(learnt, CarRacingConfig) and isinstance(config.env, CarRacingConfig):
        for name in _SAME:
            found, expected = getattr(config.env, name), getattr(learnt, name)
            if found != expected:
                raise DreamdriveError(f"env.{name} {found}: expected {expected}, as in start {run.path}")
