"""The stages of a World Models run: their order, their fingerprints, and the record each leaves behind."""

import hashlib
import json
from collections.abc import Mapping, Set
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ValidationError
from torch import nn

from agent.tokenizer.fsq_vae import FSQVAEConfig
from train.run.checkpoint import fit_weights, load_weights, write_text_aside
from train.run.errors import DreamdriveError, explain_os_errors, one_line
from train.run.options.marks import MAY_CHANGE
from train.tokenizer.train_tokenizer import TokenizerTrainConfig
from train.world_model.token_trainer import TokenModelTrainConfig
from train.world_models.config import TrainingConfig, WorldModelAgentConfig

Stage = Literal["collect", "vae", "world_model", "controller"]
STAGES: tuple[Stage, ...] = ("collect", "vae", "world_model", "controller")


def _decisive(config: type[BaseModel]) -> set[str]:
    """The options of `training` that change what a stage makes; the others may change on resume."""
    return {name for name, field in config.model_fields.items() if MAY_CHANGE not in field.metadata}


_VAE, _WORLD_MODEL = _decisive(TokenizerTrainConfig), _decisive(TokenModelTrainConfig)
_CONTROLLER = {"batch_size", "sequence_length", "validation_share"}

# Options that came later, each with the value that stands for what was done before there was the option. With
# that value they are left out, so that the stages of older runs stay done. A dot leads into a part.
_LATER: dict[str, dict[str, Any]] = {
    "collect": {"mixture": []},
    "world_model": {"token_head": {"kind": "joint"}, "reads": "table"},
    "fsq_vae": {"entropy_weight": 0.0},
    "controller": {"dream_from": "first", "start": "", "controller.components": 0, "hopeless_after": 0},
}


class StageRecord(BaseModel, use_attribute_docstrings=True):
    """The contents of `stage_<name>.json`: the stage is done."""

    stage: Stage
    """Which one."""
    fingerprint: str
    """Of its inputs and options; another one means that it is to be done anew."""
    options: str
    """The fingerprint without the inputs."""
    metrics: dict[str, float]
    """What came of it."""
    seconds: float
    """How long it took, in the start that finished it [s]."""
    finished: str
    """When, ISO 8601 in UTC."""
    mlflow_run_id: str | None
    """The MLflow run that holds its metrics."""


def record_path(folder: Path, stage: Stage) -> Path:
    """Where the record of a stage lies."""
    return folder / f"stage_{stage}.json"


def read_stage(folder: Path, stage: Stage) -> StageRecord | None:
    """The record of a stage in a run's folder; None if it is not done.

    Raises:
        DreamdriveError: the file is broken.
    """
    path = record_path(folder, stage)
    if not path.is_file():
        return None
    with explain_os_errors("cannot read", path):
        text = path.read_bytes()
    try:
        return StageRecord.model_validate_json(text)
    except ValidationError as error:
        problem = one_line(error.errors(include_url=False)[0]["msg"])
        raise DreamdriveError(
            f"{path}: not the record of a stage ({problem}); remove it to do the stage anew"
        ) from error


def write_stage(folder: Path, record: StageRecord) -> None:
    """Note in a run's folder that a stage is done: the last that it writes."""
    write_text_aside(record_path(folder, record.stage), record.model_dump_json(indent=1) + "\n")


def now() -> str:
    """The time, ISO 8601 in UTC."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def stage_options(config: WorldModelAgentConfig, stage: Stage) -> dict[str, Any]:
    """The options that a stage's result depends on, as plain values."""
    # The kind is always the same: a job of other environments tells them apart by it.
    env = config.env.model_dump(mode="json", exclude={"kind", "threads"})
    options: dict[str, Any] = {"stage": stage, "seed": config.seed}
    if stage == "collect":
        options |= {"env": env, "collect": _dumped(config.collect, "collect")}
    elif stage == "vae":
        options |= {"fsq_vae": _dumped(config.fsq_vae, "fsq_vae")}
        options["training"] = _training(config.training, _VAE)
    elif stage == "world_model":
        # The temperature is of dreams, which nothing learns from yet.
        options["world_model"] = _world_model(config)
        del options["world_model"]["temperature"]
        options["training"] = _training(config.training, _WORLD_MODEL)
    else:
        options |= {"controller": _dumped(config.controller, "controller")}
        options["training"] = _training(config.training, _CONTROLLER)
        # A dream has no environment; its length of a decision comes with the rollouts.
        options["env"] = env if config.controller.train_in == "real" else None
        options["world_model"] = _world_model(config)
    return options


def _world_model(config: WorldModelAgentConfig) -> dict[str, Any]:
    # Its tokenizer is written with it, too.
    tokenizer = _dumped(config.world_model.tokenizer, "fsq_vae")
    return {**_dumped(config.world_model, "world_model"), "tokenizer": tokenizer}


def _dumped(part: BaseModel, name: str) -> dict[str, Any]:
    """A part of the config as plain values, without the options of `_LATER` that say nothing new."""
    dumped = part.model_dump(mode="json")
    for path, usual in _LATER[name].items():
        *parents, key = path.split(".")
        holder = dumped
        for parent in parents:
            holder = holder[parent]
        # An actor-critic has none of a controller's options.
        if key in holder and holder[key] == usual:
            del holder[key]
    return dumped


def _training(training: TrainingConfig, names: Set[str]) -> dict[str, Any]:
    return training.model_dump(mode="json", include=set(names))


def stage_fingerprint(config: WorldModelAgentConfig, stage: Stage, inputs: Mapping[str, str]) -> str:
    """A digest of a stage's options and of the digests of its inputs."""
    told = {"options": stage_options(config, stage), "inputs": dict(inputs)}
    return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()


@dataclass(frozen=True)
class StageFingerprints:
    """What a stage's output and its checkpoint are known by."""

    done: str
    """Digest of inputs and options: with another one the stage is to be done anew."""
    going_on: str
    """The same without the number of generations: with another one a stopped stage begins anew. So an
    evolution can be ended where it is, or made longer while it is not done."""

    @classmethod
    def of(
        cls, config: WorldModelAgentConfig, stage: Stage, inputs: Mapping[str, str]
    ) -> "StageFingerprints":
        """Those of a stage with the digests of its inputs."""
        controller = config.controller.model_copy(update={"generations": 1})
        any_length = config.model_copy(update={"controller": controller})
        return cls(stage_fingerprint(config, stage, inputs), stage_fingerprint(any_length, stage, inputs))


def file_digest(path: Path) -> str:
    """SHA-256 of a file."""
    with explain_os_errors("cannot read", path), open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def load_stage(module: nn.Module, path: Path, stage: str, tokenizer: FSQVAEConfig) -> None:
    """Load what a stage made into `module`.

    Args:
        module: of the config.
        path: `<stage>.safetensors`.
        stage: whose weights they are, and which makes them anew.
        tokenizer: of the config; its levels shall be those of the weights.

    Raises:
        DreamdriveError: the weights are missing or broken, or do not fit the config.
    """
    tensors, meta = load_weights(path.parent, name=stage)
    wanted, found = tokenizer.fsq_levels, meta.get("fsq_levels")
    if found != wanted:
        raise DreamdriveError(
            f"{path}: made with the FSQ levels {found}, expected {wanted} as fsq_vae.fsq_levels says; "
            f"--stage {stage} makes it anew"
        )
    fit_weights(module, tensors, str(path), f"the config; --stage {stage} makes it anew")
