"""Config of training an encoder and a decoder of commaVQ's tokens on a video beside its tokens."""

from typing import Annotated, Literal

from pydantic import BaseModel, Field

from agent.tokenizer.token_codec import TokenCodecConfig

_DATA = "fixed on resume: the batches that were learnt from came of it"
_SCHEDULE = "fixed on resume: the learning rates so far came of it"


class TokenCodecTrainConfig(
    BaseModel, extra="forbid", validate_assignment=True, use_attribute_docstrings=True
):
    """An encoder and a decoder learn commaVQ's tokens from a video and the tokens of its pictures."""

    seed: Annotated[int, "fixed on resume: all that was random so far came from it"] = Field(
        0, ge=0, lt=1_000_000
    )
    """Seed of everything random in the run: networks, order, dropout."""
    tokens: Annotated[str, _DATA] = "./data/commavq/tokens.npy"
    """The tokens of the video's pictures, an .npy file in any of commaVQ's layouts."""
    video: Annotated[str, _DATA] = "./data/commavq/decoded.mp4"
    """The video."""
    cache_dir: Annotated[str, "may change on resume", "only its user may say this folder"] = ""
    """Folder for the decoded video; empty is `.cache` in the video's folder."""
    learn_seconds: Annotated[float, _DATA] = Field(45.0, gt=0)
    """The beginning, which is learnt from [s]."""
    choose_seconds: Annotated[float, _DATA] = Field(5.0, gt=0)
    """What comes next, on which the best weights are chosen [s]; the rest is judged once, at the end."""
    codec: Annotated[TokenCodecConfig, "fixed on resume: the checkpoint's weights would not fit"] = (
        TokenCodecConfig()
    )
    """Sizes of the networks."""
    updates: Annotated[int, _SCHEDULE] = Field(900, ge=1)
    """Length of the run [updates]."""
    batch_size: Annotated[int, "fixed on resume: the batches that were learnt from had it"] = Field(16, ge=1)
    """Pictures in a batch."""
    learning_rate: Annotated[float, "may change on resume"] = Field(1.5e-3, gt=0)
    """Learning rate of AdamW after the warm-up; it falls to a twentieth along a cosine."""
    warmup: Annotated[int, "may change on resume"] = Field(50, ge=0)
    """Updates over which the learning rate rises from zero."""
    weight_decay: Annotated[float, "may change on resume"] = Field(0.05, ge=0)
    """Weight decay of AdamW."""
    label_smoothing: Annotated[float, "may change on resume"] = Field(0.1, ge=0, lt=1)
    """Share of the encoder's aim that is spread over all kinds of tokens."""
    l1_weight: Annotated[float, "may change on resume"] = Field(0.1, ge=0)
    """Weight of the decoder's absolute error beside its squared error."""
    max_grad_norm: Annotated[float, "may change on resume"] = Field(1.0, gt=0)
    """Largest norm of the gradient of each of the two networks."""
    average: Annotated[float, "may change on resume"] = Field(0.99, ge=0, lt=1)
    """Decay of the running mean of the weights in one update; the mean is what is validated and saved."""
    validation_updates: Annotated[int, "may change on resume"] = Field(100, ge=1)
    """Updates between validations; each saves the best weights so far and a picture."""
    log_updates: Annotated[int, "may change on resume"] = Field(20, ge=1)
    """Updates between two rows of metrics; figures are means over them."""
    checkpoint_minutes: Annotated[float, "may change on resume"] = Field(5.0, gt=0)
    """Time between checkpoints to resume from [minutes]; a validation writes one, too."""
    precision: Annotated[Literal["auto", "bf16", "fp32"], "may change on resume"] = "auto"
    """Arithmetic of the networks; `auto` is bf16 on a GPU that multiplies it, else fp32."""
    device: Annotated[str, "may change on resume"] = "auto"
    """`cpu`, `cuda`, `cuda:1`, ...; `auto` is the first GPU if there is one."""
    threads: Annotated[int, "may change on resume"] = Field(0, ge=0)
    """CPU threads of the networks; 0 is one for each core."""
