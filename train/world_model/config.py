"""The config of a world model that learns from recorded driving."""

from typing import Annotated, ClassVar, Literal, Self

from pydantic import Field, model_validator

from agent.dreamer import WorldModelConfig
from agent.world_model.losses import ObjectiveConfig
from agent.world_model.lstm import LSTMConfig
from agent.world_model.transformer import TransformerConfig
from train.drive.rssm_sizes import RSSMSizes

HELD_OUT = "fixed on resume: it decides what is held out"
RANDOM = "fixed on resume: all that was random so far came from it"
ORDERS = "orders an epoch"
"""Marks the fields that the order of an epoch's sequences comes from."""


class WorldModelTrainConfig(
    RSSMSizes, extra="forbid", validate_assignment=True, use_attribute_docstrings=True
):
    """A world model that learns from recorded driving."""

    fixed_on_resume: ClassVar[str] = "the checkpoint's weights would not fit"

    model: LSTMConfig | TransformerConfig | None = Field(None, discriminator="kind")
    """A world model over tokens, in the place of the RSSM that the other sizes are of."""
    tokenizer: Annotated[str, "fixed on resume: the tokens were made by it"] = ""
    """Run whose tokenizer makes the tokens of `model`; empty for a folder of tokens, which has its own."""
    batch_size: Annotated[int, "may change on resume"] = Field(32, ge=1)
    """Sequences in a batch of each process."""
    sequence_length: Annotated[int, "may change on resume", ORDERS] = Field(50, ge=2)
    """Rows of a training sequence [decisions]."""
    learning_rate: Annotated[float, "may change on resume"] = Field(3e-4, gt=0)
    """Learning rate of AdamW, after the warm-up."""
    weight_decay: Annotated[float, "may change on resume"] = Field(1e-6, ge=0)
    """Weight decay of AdamW."""
    num_epochs: Annotated[int, "may change on resume"] = Field(100, ge=1)
    """Epochs: times that the training sequences are gone through."""
    max_grad_norm: Annotated[float, "may change on resume"] = Field(100.0, gt=0)
    """Largest norm of the whole gradient; larger ones are scaled down to it."""
    warmup_steps: Annotated[int, "may change on resume"] = Field(1000, ge=0)
    """Updates over which the learning rate rises from zero."""
    decay_from: Annotated[float, "may change on resume"] = Field(1.0, ge=0, le=1)
    """Share of all updates after which the learning rate falls, linearly, to a twentieth; 1 never lets it."""
    base_width: Annotated[int, "may change on resume"] = Field(0, ge=0)
    """Width of a transformer that `learning_rate` is meant for. One of width D learns at learning_rate times
    base_width / D: the rule of muP for Adam's hidden layers (Yang et al. 2022, table 3), kept for all layers.
    0 takes the learning rate as it is."""

    reconstruction_weight: Annotated[float, "may change on resume"] = Field(1.0, ge=0)
    """Weight of the reconstruction loss."""
    ssim_weight: Annotated[float, "may change on resume"] = Field(0.0, ge=0)
    """Weight of 1 - SSIM of the pictures, for sharper ones. It is a mean over pixels, the reconstruction loss
    a sum: at 64 px and a pixel error of 0.002 that is 25, as much as an SSIM of 0.75 with a weight of 100."""
    gradient_weight: Annotated[float, "may change on resume"] = Field(0.0, ge=0)
    """Weight of the gradient difference of the pictures, a mean over pixels, too."""
    structure_scales: Annotated[int, "may change on resume"] = Field(3, ge=1, le=4)
    """Sizes that SSIM and gradients are taken at, each half of the one before."""
    advection_weight: Annotated[float, "may change on resume"] = Field(0.0, ge=0)
    """Weight of the squared error of dreamt pictures that are painted from the last one seen, moved along a
    flow and repainted where that fails; 0 has no such head, and dreams are decoded from the states alone."""
    kl_weight: Annotated[float, "may change on resume"] = Field(1.0, ge=0)
    """Weight of the KL loss, once it is annealed."""
    kl_balance: Annotated[float, "may change on resume"] = Field(0.8, ge=0, le=1)
    """Share of the KL loss that trains the prior towards the posterior; the rest trains the posterior."""
    reward_weight: Annotated[float, "may change on resume"] = Field(1.0, ge=0)
    """Weight of the reward loss."""
    value_weight: Annotated[float, "may change on resume"] = Field(0.5, ge=0)
    """Weight of the value loss, on lambda-returns of the recorded rewards."""
    continue_weight: Annotated[float, "may change on resume"] = Field(1.0, ge=0)
    """Weight of the loss of the continue head, which predicts whether the episode goes on."""
    dynamics_weight: Annotated[float, "may change on resume"] = Field(1.0, ge=0)
    """Weight of the dynamics consistency: the prior's features against the posterior's, those held fixed."""
    kl_free_bits: Annotated[float, "may change on resume"] = Field(1.0, ge=0)
    """The KL of a step counts only above this [nats]."""
    kl_anneal_steps: Annotated[int, "may change on resume"] = Field(10000, ge=0)
    """Updates over which the weight of the KL loss rises from zero; 0 has all of it at once."""
    discount: Annotated[float, "may change on resume"] = Field(0.99, ge=0, le=1)
    """Discount of a decision in the value's lambda-returns."""
    lambda_: Annotated[float, "may change on resume"] = Field(0.95, ge=0, le=1)
    """Lambda of the lambda-returns: 0 looks one step ahead, 1 to the end of the sequence."""

    imagination_horizon: Annotated[int, "may change on resume"] = Field(15, ge=1)
    """Steps that are imagined, in validation and by default elsewhere [decisions]."""
    imagination_context: Annotated[int, "may change on resume"] = Field(5, ge=1)
    """Rows that validation shows to the model before it imagines [decisions]."""
    num_imagination_samples: Annotated[int, "may change on resume"] = Field(8, ge=1)
    """Held-out sequences that are imagined in each validation."""

    data_path: Annotated[str, "may change on resume"] = "./data/world_model"
    """Folder of .npz episodes (in it, or in its folders train, val and test), or one HDF5 file."""
    observations: list[str] = Field([])
    """Entries of the observations that the model sees, such as [image]; empty takes all."""
    cache_dir: Annotated[str, "may change on resume", "only its user may say this folder"] = ""
    """Folder for the decoded episodes; empty is `.cache` beside the data."""
    split: Annotated[Literal["file", "place"], HELD_OUT, ORDERS] = "file"
    """How episodes are held out: whole files, or by place (needs positions)."""
    val_fraction: Annotated[float, HELD_OUT, ORDERS] = Field(0.1, ge=0, lt=1)
    """Share of the data that is held out to validate on; 0 validates nothing."""
    test_fraction: Annotated[float, HELD_OUT, ORDERS] = Field(0.0, ge=0, lt=1)
    """Share of the data that is held out from training and validation."""
    geofence: Annotated[float, HELD_OUT, ORDERS] = Field(50.0, gt=0)
    """With `split: place`: least distance between held-out and training frames [m]."""
    balance: Annotated[bool, "may change on resume", ORDERS] = False
    """Draw sequences evenly over speed and steering, by rejection."""
    balance_bins: Annotated[int, "may change on resume", ORDERS] = Field(10, ge=2)
    """Bins of speed, and of steering."""
    balance_power: Annotated[float, "may change on resume", ORDERS] = Field(0.5, ge=0, le=1)
    """A sequence is accepted as the inverse density of its bin to this power."""
    val_batches: Annotated[int, "may change on resume"] = Field(20, ge=1)
    """Most batches of a validation."""
    augment_shift: Annotated[int, "may change on resume"] = Field(0, ge=0)
    """Farthest that the pictures of a training sequence are moved, all alike, in each direction [px]."""
    augment_mirror: Annotated[bool, "may change on resume"] = False
    """Mirror every second training sequence left-right, and its steering, the first number of an action.
    Where vectors are observed this cannot be: they have no mirror image."""
    augment_light: Annotated[float, "may change on resume"] = Field(0.0, ge=0, lt=1)
    """Largest relative change of a training sequence's brightness."""
    workers: Annotated[int, "may change on resume"] = Field(2, ge=0)
    """Processes that load batches, for each learning process; 0 loads in that process itself."""
    fps: Annotated[float, "may change on resume"] = Field(10.0, gt=0)
    """Rows a second in the episodes, for films."""

    output_dir: Annotated[str, "may change on resume", "only its user may say this folder"] = (
        "./output/world_model"
    )
    """Folder of the run."""
    seed: Annotated[int, RANDOM, ORDERS] = Field(0, ge=0, lt=1_000_000)
    """Seed of everything random in the run: networks, split, order, latents."""
    precision: Annotated[Literal["auto", "bf16", "fp32"], "may change on resume"] = "auto"
    """Arithmetic of the networks; `auto` is bf16 on a GPU that multiplies it, else fp32."""
    compile: Annotated[bool, "may change on resume"] = False
    """Compile the inner step functions with torch.compile."""
    device: Annotated[str, "may change on resume"] = "auto"
    """`cpu`, `cuda`, `cuda:1`, ...; `auto` is the GPU of the process if there is one."""
    threads: Annotated[int, "may change on resume"] = Field(0, ge=0)
    """CPU threads of each process; 0 leaves it to torch."""
    log_steps: Annotated[int, "may change on resume"] = Field(50, ge=1)
    """Updates between two rows of metrics; figures are means over them."""
    checkpoint_epochs: Annotated[int, "may change on resume"] = Field(10, ge=1)
    """Epochs between the checkpoints that are kept, `checkpoint_epoch_N.pt`; the last one is kept, too."""
    checkpoint_minutes: Annotated[float, "may change on resume"] = Field(10.0, gt=0)
    """Time between checkpoints to resume from [minutes]; each epoch ends with one, too."""

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.tokenizer and self.model is None:
            raise ValueError(f"tokenizer {self.tokenizer}: expected a `model` that reads tokens, too")
        if self.val_fraction + self.test_fraction >= 1:
            raise ValueError("val_fraction and test_fraction: expected less than 1 together")
        return self

    # The two that follow are where the names that users know meet those of the agent.

    @property
    def world_model(self) -> WorldModelConfig:
        """The world model: its sizes, and the weights of its own losses."""
        if self.model is not None:
            return self.model
        weights = {
            "free_nats": self.kl_free_bits,
            "prior_weight": self.kl_weight * self.kl_balance,
            "representation_weight": self.kl_weight * (1.0 - self.kl_balance),
            "reconstruction_weight": self.reconstruction_weight,
            "reward_weight": self.reward_weight,
            "continue_weight": self.continue_weight,
        }
        return self.rssm(self.advection_weight > 0).model_copy(update=weights)

    @property
    def objective(self) -> ObjectiveConfig:
        """What is learnt from recorded driving beside those."""
        return ObjectiveConfig(
            kl_anneal_steps=self.kl_anneal_steps,
            consistency_weight=self.dynamics_weight,
            value_weight=self.value_weight,
            discount=self.discount,
            lambda_=self.lambda_,
            ssim_weight=self.ssim_weight,
            gradient_weight=self.gradient_weight,
            structure_scales=self.structure_scales,
            advection_weight=self.advection_weight,
            advection_steps=self.imagination_horizon,
        )
