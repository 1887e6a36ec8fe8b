"""The sizes of an RSSM in the words of `dreamdrive train world-model`."""

from typing import Any, Literal, Self

from pydantic import BaseModel, Field, model_validator

from agent.nets import NormName
from agent.world_model.decoder import DecoderConfig
from agent.world_model.dynamics import DynamicsConfig
from agent.world_model.encoder import EncoderConfig
from agent.world_model.latents import GaussianLatentConfig
from agent.world_model.rssm import RSSMConfig

# Two names for one thing, and what it is where neither is given.
_SYNONYMS = (("state_dim", "deterministic_dim", 256), ("latent_dim", "stochastic_dim", 32))


class RSSMSizes(BaseModel, validate_assignment=True, use_attribute_docstrings=True):
    """What decides which weights an RSSM has; part of that job's config."""

    state_dim: int = Field(0, ge=0)
    """Size of the deterministic state; 0 stands for 256, or for `deterministic_dim` where that is given."""
    action_dim: int = Field(3, ge=1)
    """Numbers in an action: steering, throttle and brake."""
    hidden_dim: int = Field(512, ge=1)
    """Width of the hidden layers: round the recurrent cell, of prior and posterior, of the heads."""
    latent_dim: int = Field(0, ge=0)
    """Latent variables: how many categorical ones, or the size of a Gaussian one; 0 stands for 32, or for
    `stochastic_dim` where that is given."""
    num_categories: int = Field(32, ge=2, le=256)
    """Classes of each categorical latent variable."""
    deterministic_dim: int = Field(0, ge=0)
    """Another name for `state_dim` (the GRU's hidden state)."""
    stochastic_dim: int = Field(0, ge=0)
    """Another name for `latent_dim`."""
    latent: Literal["categorical", "gaussian"] = "categorical"
    """Kind of the latent variables."""
    image_size: int = Field(64, ge=8)
    """Side of the pictures that the model sees [px]: 4 times a power of two; others are scaled to it."""
    depth: int = Field(16, ge=1)
    """Width of the convolutions: the first layer has twice as many channels."""
    norm: NormName = "rms"
    """Normalisation: `rms` as in the recipe, `layer` where no GPU is (its CPU kernel is faster)."""

    @model_validator(mode="before")
    @classmethod
    def _one_of_two_names(cls, values: Any) -> Any:
        if not isinstance(values, dict):
            return values
        values = dict(values)
        for name, other, usual in _SYNONYMS:
            given = {n: values[n] for n in (name, other) if values.get(n)}
            if len({str(value) for value in given.values()}) > 1:
                raise ValueError(
                    f"{name} is {values[name]} and {other} is {values[other]}: two names of one size, "
                    "expected one of them, or the same number"
                )
            size = next(iter(given.values()), usual)
            values[name] = values[other] = size
        return values

    @model_validator(mode="after")
    def _fits_the_convolutions(self) -> Self:
        if self.image_size < 16 or self.image_size & (self.image_size - 1):
            raise ValueError(f"image_size: {self.image_size}: expected 16, 32, 64, 128, ... pixels")
        return self

    def rssm(self, advection: bool) -> RSSMConfig:
        """The world model of these sizes, with or without the head that moves pictures along a flow."""
        gaussian = GaussianLatentConfig(size=self.latent_dim) if self.latent == "gaussian" else None
        return RSSMConfig(
            dynamics=DynamicsConfig(
                deter=self.state_dim,
                hidden=self.hidden_dim,
                variables=self.latent_dim,
                classes=self.num_categories,
                blocks=1,
                gaussian=gaussian,
            ),
            encoder=EncoderConfig(depth=self.depth),
            decoder=DecoderConfig(depth=self.depth),
            norm=self.norm,
            advection=advection,
            units=self.hidden_dim,
        )
