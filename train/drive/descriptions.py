"""What saved weights say of themselves: the config of their agent or world model, where it drives, how fast.

`weights.json` holds it as its `meta`. Where it holds none, as in runs made before there was one, the same is
read from the run's `config.yaml`, which each job writes in its own fields.
"""

from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, Field, field_validator

from agent.behaviour.actor_critic import ActorCriticConfig
from agent.behaviour.evolution import ControllerConfig
from agent.dreamer import DreamerConfig, WorldModelConfig
from agent.tokenizer.choices import TokenizerConfig
from agent.tokenizer.fsq_vae import FSQVAEConfig
from agent.world_model.lstm import LSTMConfig
from agent.world_model.rssm import RSSMConfig
from envs.car_racing.env import CarRacingConfig
from train.drive.environments import EnvConfig, decisions_per_second, with_kind
from train.drive.rssm_sizes import RSSMSizes
from train.run.checkpoint import read_meta
from train.run.errors import DreamdriveError, warn
from train.run.folder import Run
from train.run.options import validate
from train.run.options.marks import without_what_users_say

WORLD_MODEL_JOB = "train-world-model"
"""The job whose runs hold a world model without a behaviour; `load_world_model` loads them."""
BASELINE_JOB = "train-baseline"
"""The job whose runs hold a stable-baselines3 policy; `train.baselines.job` loads them."""
TOKENIZER_JOB = "train-tokenizer"
"""The job whose runs hold an image tokenizer alone; `train.drive.tokenizers` loads them."""
VLA_JOB = "train-vla"
"""The job whose runs hold a policy that takes instructions; `train.vla.loading` loads them."""


class AgentDescription(BaseModel, extra="ignore", use_attribute_docstrings=True):
    """What an agent's weights say of themselves."""

    seed: int = 0
    """Seed of the run that made them."""
    env: EnvConfig = Field(CarRacingConfig(), discriminator="kind")
    """The environment that the agent learnt in."""
    agent: DreamerConfig = DreamerConfig()
    """World model and behaviour."""

    @field_validator("env", mode="before")
    @classmethod
    def _kind(cls, values: Any) -> Any:
        return with_kind(values)

    def meta(self, kind: Literal["agent", "world_model", "tokenizer"] = "agent") -> dict[str, Any]:
        """The description as plain values for `save_weights`, without what only its user may set.

        Args:
            kind: what the weights are of: the whole agent, or one of its parts.
        """
        told = self.model_copy(deep=True)
        without_what_users_say(told, "", lambda note: None)
        fps = decisions_per_second(told.env)
        return {"kind": kind, "fps": fps, **told.model_dump(mode="json")}


class ModelDescription(BaseModel, extra="ignore", use_attribute_docstrings=True):
    """What the weights of a world model without a behaviour say of themselves."""

    seed: int = 0
    """Seed of the run that made them."""
    fps: float = Field(10.0, gt=0)
    """Steps a second."""
    world_model: WorldModelConfig = RSSMConfig()
    """The world model."""

    def meta(self) -> dict[str, Any]:
        """The description as plain values for `save_weights`."""
        return {"kind": "world_model", **self.model_dump(mode="json")}


class TokenizerDescription(BaseModel, extra="ignore", use_attribute_docstrings=True):
    """What the weights of a tokenizer say of themselves."""

    seed: int = 0
    """Seed of the run that made them."""
    tokenizer: TokenizerConfig = FSQVAEConfig()
    """The tokenizer."""

    def meta(self) -> dict[str, Any]:
        """The description as plain values for `save_weights`."""
        return {"kind": "tokenizer", **self.model_dump(mode="json")}


class _ControllerPart(BaseModel, extra="ignore"):
    controller: ControllerConfig | ActorCriticConfig = Field(ControllerConfig(), discriminator="kind")


class _StagesPart(BaseModel, extra="ignore"):
    """What the config of a World Models run says of its agent."""

    seed: int = 0
    env: CarRacingConfig = CarRacingConfig(action="3d")
    fsq_vae: FSQVAEConfig = FSQVAEConfig()
    world_model: LSTMConfig = LSTMConfig()
    controller: _ControllerPart = _ControllerPart()

    @property
    def description(self) -> AgentDescription:
        model = self.world_model.model_copy(update={"tokenizer": self.fsq_vae})
        agent = DreamerConfig(world_model=model, behaviour=self.controller.controller)
        return AgentDescription(seed=self.seed, env=self.env, agent=agent)


class _RecordedPart(RSSMSizes, extra="ignore"):
    """What the config of a world model learnt from recorded driving says of it."""

    seed: int = 0
    fps: float = 10.0
    advection_weight: float = 0.0

    @property
    def description(self) -> ModelDescription:
        return ModelDescription(
            seed=self.seed, fps=self.fps, world_model=self.rssm(self.advection_weight > 0)
        )


def describe_agent(run: Run, name: str = "weights") -> AgentDescription:
    """The agent of a run, as its weights called `name` describe it, or else its config.yaml.

    Raises `DreamdriveError` for a run of a job that makes none, or a description that does not fit.
    """
    job = run.record.job
    if job not in ("train-agent", "world-models"):
        hints = {
            BASELINE_JOB: " (a baseline drives, `dreamdrive eval`, but has no dreams)",
            WORLD_MODEL_JOB: " (a world model dreams, `dreamdrive imagine`, but does not drive)",
            TOKENIZER_JOB: " (a tokenizer sees, `dreamdrive tokenise`, but neither dreams nor drives)",
            VLA_JOB: " (it drives as it is told: `dreamdrive eval RUN --instruction TEXT`)",
        }
        raise DreamdriveError(
            f"{run.path / 'run.json'}: a run of the job '{job}': expected train-agent or "
            f"world-models{hints.get(job, '')}"
        )
    where, meta = _meta(run, name)
    if "agent" in meta:
        found = validate(AgentDescription, meta, str(where))
        without_what_users_say(found, str(where), warn)
        return found
    return run.config(_StagesPart).description if job == "world-models" else run.config(AgentDescription)


def describe_model(run: Run) -> ModelDescription:
    """The world model of a run of `WORLD_MODEL_JOB`. Raises `DreamdriveError` as `describe_agent`."""
    where, meta = _meta(run, "weights")
    if "world_model" in meta:
        return validate(ModelDescription, meta, str(where))
    return run.config(_RecordedPart).description


def _meta(run: Run, name: str) -> tuple[Path, dict[str, Any]]:
    path = run.path / f"{name}.json"
    return path, read_meta(path) if path.is_file() else {}


def describe_tokenizer(run: Run) -> TokenizerConfig:
    """The tokenizer of a run of any job that has one: a tokenizer's own, or that of a world model.

    Raises `DreamdriveError` where there is none, or a description that does not fit.
    """
    if run.record.job == TOKENIZER_JOB:
        where, meta = _meta(run, "weights")
        if "tokenizer" in meta:
            return validate(TokenizerDescription, meta, str(where)).tokenizer
        return run.config(TokenizerDescription).tokenizer
    if run.record.job == WORLD_MODEL_JOB:
        model = describe_model(run).world_model
    else:
        name = "weights" if (run.path / "weights.json").exists() else "vae"
        model = describe_agent(run, name).agent.world_model
    if isinstance(model, RSSMConfig):
        raise DreamdriveError(
            f"{run.path}: its world model, an {model.kind}, has no tokenizer: expected a run of `train "
            "tokenizer`, or a world model over tokens"
        )
    return model.tokenizer
