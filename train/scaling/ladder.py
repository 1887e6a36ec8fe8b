"""A ladder of transformers of several sizes, trained on equal data: `dreamdrive scaling`."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure
from torch.utils.flop_counter import FlopCounterMode

from agent.world_model.interface import Batch
from agent.world_model.transformer import TransformerConfig
from train.pictures.style import DREAMED, FAINT, INK, SEEN, save_figure, style_axes
from train.run.checkpoint import write_json_aside
from train.run.errors import DreamdriveError, explain_value_errors
from train.run.folder import Run
from train.run.tracking import read_metrics
from train.scaling.power_law import FittedLaw, fit_power_law
from train.world_model.config import WorldModelTrainConfig
from train.world_model.learner import recorded_loss
from train.world_model.token_data import with_tokenizer
from train.world_model.trainer import train_world_model

_LOSS = "validation/loss/token"


@dataclass(frozen=True)
class Rung:
    """One size.

    Attributes:
        width: of the transformer.
        parameters: that learn, without those of the heads for reward, continue and value.
        flops: of all its updates, multiplications and additions of matrix products.
        loss: nats a token on what was held out, after the last update.
        seconds: that its training took.
    """

    width: int
    parameters: int
    flops: float
    loss: float
    seconds: float


def climb(config: WorldModelTrainConfig, widths: list[int], folder: Path) -> dict[str, Any]:
    """Train each size, fit the law to all but the largest, predict that one, and draw it.

    Each rung is a run of its own, `width_N` in the folder; one that is there already goes on, or counts as it
    is. The learning rate follows `base_width`. Beside them `scaling.json` and `scaling.png` are written.

    Args:
        config: of the runs, with a transformer; `output_dir` and the width are overwritten.
        widths: at least five, in any order.
        folder: of the runs.

    Returns:
        What `scaling.json` holds.

    Raises:
        DreamdriveError: too few widths, no transformer, a width that does not fit; or from a training.
    """
    widths = sorted(set(widths))
    if not isinstance(config.model, TransformerConfig):
        raise DreamdriveError("scaling: expected a `model` of the kind transformer")
    if len(widths) < 5:
        raise DreamdriveError(f"--widths {widths}: expected at least 5 different ones, the largest held out")
    config = with_tokenizer(config)
    sized = [_sized(config, width, folder) for width in widths]
    rungs = [_rung(each, width) for each, width in zip(sized, widths, strict=True)]
    with explain_value_errors("scaling: "):
        fitted = fit_power_law(
            [rung.flops for rung in rungs[:-1]], [rung.loss for rung in rungs[:-1]], config.seed
        )
    law, last = fitted.law, rungs[-1]
    predicted, low, high = fitted.predicted(last.flops)
    result = {
        "rungs": [asdict(rung) for rung in rungs],
        "law": {"form": "loss = c + (flops / a) ** -b", **asdict(law), "residual": fitted.residual},
        "intervals_90": {name: fitted.interval(name) for name in ("a", "b", "c")},
        "held_out": {
            "width": last.width,
            "measured": last.loss,
            "predicted": predicted,
            "interval_90": [low, high],
        },
        "seed": config.seed,
        "epochs": config.num_epochs,
    }
    write_json_aside(folder / "scaling.json", result)
    draw_scaling(folder / "scaling.png", rungs, fitted)
    return result


def _sized(config: WorldModelTrainConfig, width: int, folder: Path) -> WorldModelTrainConfig:
    """The config of a rung."""
    assert isinstance(config.model, TransformerConfig)
    with explain_value_errors(f"--widths {width}: "):
        blocks = type(config.model.blocks).model_validate(
            {**config.model.blocks.model_dump(), "width": width}
        )
    model = config.model.model_copy(update={"blocks": blocks})
    return config.model_copy(update={"model": model, "output_dir": str(folder / f"width_{width}")})


def _rung(config: WorldModelTrainConfig, width: int) -> Rung:
    """Train a rung, unless it is trained, and read what came of it."""
    path = Path(config.output_dir)
    train_world_model(config, auto_resume=True)
    entries = [entry for entry in read_metrics(Run.open(path).metrics_path) if _LOSS in entry]
    updates = max(entry["step"] for entry in entries)
    times = [entry["time"] for entry in read_metrics(Run.open(path).metrics_path)]
    model, each = update_flops(config)
    return Rung(width, model, each * updates, float(entries[-1][_LOSS]), float(max(times) - min(times)))


def update_flops(config: WorldModelTrainConfig) -> tuple[int, float]:
    """Parameters of the transformer and its token head, and matrix-product FLOPs of an update, counted."""
    assert isinstance(config.model, TransformerConfig)
    tokens = config.model.tokenizer.build().tokens
    model = config.model.build({"token": (tokens,)}, config.action_dim)
    b, t = config.batch_size, config.sequence_length
    first = torch.zeros(b, t, dtype=torch.bool)
    batch = Batch(
        {"token": torch.zeros(b, t, tokens, dtype=torch.long)},
        torch.zeros(b, t, config.action_dim),
        torch.zeros(b, t),
        first,
        first,
    )
    with FlopCounterMode(display=False) as counter:
        loss, _, _ = recorded_loss(model, batch, model.initial(b), config.objective, 0)
        loss.backward()
    parts = (model.transformer, model.predict, model.embedding)
    return sum(p.numel() for part in parts for p in part.parameters()), float(counter.get_total_flops())


def draw_scaling(path: Path, rungs: list[Rung], fitted: FittedLaw) -> None:
    """Write a PNG of loss over compute: the points, the law with its interval, and the one held out."""
    figure = Figure(figsize=(7, 4.6), dpi=160, layout="constrained")
    axes = figure.add_subplot()
    style_axes(axes)
    flops = np.array([rung.flops for rung in rungs])
    x = np.geomspace(flops.min() / 1.5, flops.max() * 1.5, 200)
    curves = np.array([fitted.predicted(value) for value in x])
    axes.fill_between(x, curves[:, 1], curves[:, 2], color=SEEN, alpha=0.15, label="90% of the fits")
    law = fitted.law
    axes.plot(x, curves[:, 0], color=SEEN, label=f"{law.c:.2f} + (x / {law.a:.2g})^-{law.b:.3f}")
    axes.plot(flops[:-1], [rung.loss for rung in rungs[:-1]], "o", color=INK, label="fitted")
    axes.plot(flops[-1:], [rungs[-1].loss], "D", color=DREAMED, label="held out")
    for rung in rungs:
        axes.annotate(
            f"{rung.parameters / 1e6:.2g} M",
            (rung.flops, rung.loss),
            textcoords="offset points",
            xytext=(0, 8),
            ha="center",
            fontsize=9,
            color=FAINT,
        )
    axes.set_xscale("log")
    axes.set_xlabel("compute of the training [FLOP]", color=INK)
    axes.set_ylabel("held-out loss [nats a token]", color=INK)
    axes.legend(frameon=False)
    save_figure(figure, path)
