"""Config of training an image tokenizer: data, losses, optimiser."""

from typing import Annotated, Literal

from pydantic import BaseModel, Field

from agent.tokenizer.adversarial import AdversarialConfig
from agent.tokenizer.divergence import DivergenceConfig
from agent.tokenizer.image_tokenizer import ImageTokenizerConfig

SCHEDULE = "fixed on resume: the losses so far were weighed by it"


class ReconstructionLossConfig(
    BaseModel, extra="forbid", validate_assignment=True, use_attribute_docstrings=True
):
    """Weights of the losses, but for the adversarial one. Pixel losses are means over numbers in [0, 1]."""

    l1_weight: float = Field(1.0, ge=0)
    """Weight of the absolute error."""
    squared_weight: float = Field(0.0, ge=0)
    """Weight of the squared error, for the highest PSNR."""
    perceptual_weight: float = Field(0.1, ge=0)
    """Weight of the perceptual distance by features of EfficientNet-Lite0; 0 needs no features."""
    distillation_weight: float = Field(0.0, ge=0)
    """Weight of the cosine distance of the latents, projected, from deep features of the picture."""
    distillation_every: int = Field(4, ge=1)
    """Updates between two that distil."""
    entropy_weight: float = Field(0.0, ge=0)
    """Reward for using all codes alike: weight of the entropy of their use in a batch [nats]."""


class ImageTokenizerTrainConfig(
    BaseModel, extra="forbid", validate_assignment=True, use_attribute_docstrings=True
):
    """An image tokenizer learns from pictures, videos or episodes."""

    seed: Annotated[int, "fixed on resume: all that was random so far came from it"] = Field(
        0, ge=0, lt=1_000_000
    )
    """Seed of everything random in the run: networks, split, batches."""
    images: Annotated[str, "fixed on resume: the batches that were learnt from came of it"] = "./data/img"
    """Folder of pictures and videos, with its folders; or a folder or file of episodes."""
    validation_images: Annotated[str, "may change on resume"] = ""
    """Pictures to validate on; empty holds out a share of `images`."""
    cache_dir: Annotated[str, "may change on resume", "only its user may say this folder"] = ""
    """Folder for decoded videos and episodes; empty is `.cache` in the folder of the images."""
    skip_damaged: Annotated[bool, "may change on resume"] = False
    """Leave out files that cannot be read, and say how many; else the first one ends the run."""
    validation_share: Annotated[float, "fixed on resume: what was held out would be learnt from"] = Field(
        0.05, gt=0, lt=1
    )
    """Share of the pictures that is held out, in groups of neighbours, where `validation_images` is empty."""
    validation_pictures: Annotated[int, "may change on resume"] = Field(512, ge=2)
    """Most pictures of a validation, evenly spaced."""
    tokenizer: Annotated[ImageTokenizerConfig, "fixed on resume: the checkpoint's weights would not fit"] = (
        ImageTokenizerConfig(kind="image")
    )
    """Size of pictures and networks."""
    loss: Annotated[ReconstructionLossConfig, SCHEDULE] = ReconstructionLossConfig()
    """Weights of the losses."""
    adversarial: Annotated[AdversarialConfig, SCHEDULE] = AdversarialConfig()
    """The discriminator; a weight of 0 has none."""
    divergence: Annotated[DivergenceConfig, "may change on resume"] = DivergenceConfig()
    """When adversarial training counts as diverged."""
    unrounded_from: Annotated[float, SCHEDULE] = Field(0.5, ge=0, le=1)
    """Share of all updates after which every second batch is painted from the continuous latent; 1: never."""
    updates: Annotated[int, SCHEDULE] = Field(20_000, ge=1)
    """Length of the run [updates]."""
    batch_size: Annotated[int, "fixed on resume: the batches that were learnt from had it"] = Field(16, ge=1)
    """Pictures in a batch."""
    learning_rate: Annotated[float, "may change on resume"] = Field(4e-4, gt=0)
    """Learning rate of AdamW after the warm-up; it falls to a twentieth along a cosine."""
    warmup: Annotated[int, "may change on resume"] = Field(200, ge=0)
    """Updates over which the learning rate rises from zero."""
    weight_decay: Annotated[float, "may change on resume"] = Field(0.01, ge=0)
    """Weight decay of AdamW."""
    max_grad_norm: Annotated[float, "may change on resume"] = Field(1.0, gt=0)
    """Largest norm of the whole gradient; larger ones are scaled down to it."""
    average: Annotated[float, "may change on resume"] = Field(0.999, ge=0, lt=1)
    """Decay of the running mean of the weights in one update; the mean is what is validated and saved."""
    validation_updates: Annotated[int, "may change on resume"] = Field(1000, ge=1)
    """Updates between validations; each saves the weights and a picture."""
    log_updates: Annotated[int, "may change on resume"] = Field(50, ge=1)
    """Updates between two rows of metrics; figures are means over them."""
    checkpoint_minutes: Annotated[float, "may change on resume"] = Field(5.0, gt=0)
    """Time between checkpoints to resume from [minutes]; a validation writes one, too."""
    precision: Annotated[Literal["auto", "bf16", "fp32"], "may change on resume"] = "auto"
    """Arithmetic of the networks; `auto` is bf16 on a GPU that multiplies it, else fp32."""
    device: Annotated[str, "may change on resume"] = "auto"
    """`cpu`, `cuda`, `cuda:1`, ...; `auto` is the first GPU if there is one."""
    threads: Annotated[int, "may change on resume"] = Field(0, ge=0)
    """CPU threads of the networks; 0 is one for each core."""
