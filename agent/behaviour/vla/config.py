"""The sizes of the vision-language-action policy, and how it draws and drives chunks."""

from typing import TYPE_CHECKING, Annotated, Literal, Self

from pydantic import BaseModel, Field, model_validator

if TYPE_CHECKING:
    from agent.behaviour.vla.model import VLAModel


DRIVING = frozenset({"execute", "delay", "background", "guidance", "flow_steps", "temperature"})
"""Fields of `VLAConfig` that say how chunks are drawn and driven, not which weights there are."""


class VLAConfig(BaseModel, extra="forbid", validate_assignment=True, use_attribute_docstrings=True):
    """A compact vision-language-action policy."""

    vision: Literal["patches", "features"] = "patches"
    """What it sees by: patches of the picture, or the features of a frozen world model."""
    image_size: int = Field(64, ge=1)
    """Of `patches`: side of the square picture [pixels]."""
    patch: int = Field(8, ge=1)
    """Of `patches`: side of a patch [pixels]."""
    feature_size: int = Field(0, ge=0)
    """Of `features`: how many features the world model has."""
    state_size: int = Field(4, ge=1)
    """Numbers in the vehicle's state."""
    action_size: int = Field(3, ge=1)
    """Numbers in an action."""
    text_size: int = Field(768, ge=1)
    """Numbers in the embedding of an instruction."""
    reading: tuple[Annotated[int, Field(ge=2)], ...] = ()
    """Classes of each kind of thing that an instruction can say, for a reader that learns them first; the
    policy then drives by what was read. () drives by the embedding itself."""
    text_max: int = Field(256, ge=3, le=256)
    """Longest instruction [word pieces]; the sentence encoder reads no more than 256."""
    chunk: int = Field(8, ge=1)
    """Length of a chunk of actions [decisions]."""
    execute: int = Field(4, ge=1)
    """How much of a chunk is driven before the next is asked for [decisions]."""
    delay: int = Field(0, ge=0)
    """How long the next chunk is computed, while the old one goes on [decisions]; 0 waits for it."""
    background: bool = False
    """Compute the next chunk in a thread during `delay`, instead of only counting as if it were."""
    width: int = Field(128, ge=1)
    """Width of the transformer that reads picture, text and state."""
    layers: int = Field(4, ge=1)
    """Its layers."""
    heads: int = Field(4, ge=1)
    """Its attention heads."""
    expert_width: int = Field(128, ge=1)
    """Width of the action expert."""
    expert_layers: int = Field(4, ge=1)
    """Its layers."""
    expert_heads: int = Field(4, ge=1)
    """Its attention heads."""
    flow_steps: int = Field(5, ge=1)
    """Steps from noise to a chunk."""
    temperature: float = Field(1.0, ge=0)
    """The noise that a driven chunk is drawn from is scaled by it: below 1 the likelier chunks are driven, at
    0 the same one wherever the same is seen."""
    flow_time: Literal["uniform", "beta"] = "uniform"
    """How times are drawn for learning: evenly, or more often near the noise as pi0 does."""
    flow_draws: int = Field(2, ge=1)
    """Pairs of noise and time drawn for each row of a batch; they share one reading of the observation."""
    guidance: float = Field(5.0, gt=0)
    """Of `delay`: largest weight of the pull towards what remains of the old chunk."""

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.vision == "patches" and self.image_size % self.patch:
            raise ValueError(f"patch: {self.patch}: expected a divisor of image_size, {self.image_size}")
        if self.vision == "features" and self.feature_size == 0:
            raise ValueError("feature_size: 0: expected the number of the world model's features")
        for heads, width in (("heads", "width"), ("expert_heads", "expert_width")):
            if getattr(self, width) % getattr(self, heads):
                raise ValueError(
                    f"{heads}: {getattr(self, heads)}: expected a divisor of {width}, {getattr(self, width)}"
                )
        if self.expert_width % 2:
            raise ValueError(f"expert_width: {self.expert_width}: expected an even number")
        if self.delay > self.execute:
            raise ValueError(f"delay: {self.delay}: expected at most execute, {self.execute}")
        if self.execute + self.delay > self.chunk:
            raise ValueError(
                f"execute: {self.execute} with a delay of {self.delay}: expected together at most "
                f"chunk, {self.chunk}"
            )
        if self.background and self.delay == 0:
            raise ValueError("background: expected a delay of at least 1 to compute in")
        return self

    @property
    def instruction_size(self) -> int:
        """Numbers that the policy gets of an instruction."""
        return sum(self.reading) or self.text_size

    def build(self) -> "VLAModel":
        """The model of these sizes, freshly initialised."""
        # Here, because the model's module imports this one.
        from agent.behaviour.vla.model import VLAModel

        return VLAModel(self)
