"""`dreamdrive scaling`: how the loss of a world model over tokens falls with compute."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from train.commands.arguments import Group, add_command, add_output, option, words

if TYPE_CHECKING:
    from train.world_model.config import WorldModelTrainConfig


def add_scaling(group: Group) -> None:
    """Add `scaling`."""
    text = "train a ladder of transformer sizes on equal data, and fit the law of loss over compute"
    parser = add_command(group, "scaling", _scaling, text, config=_config)
    parser.usage = (
        "dreamdrive scaling --config FILE --output DIR [--widths N,...] [--any-config-field VALUE ...]"
    )
    parser.epilog = "Run again, it goes on where it was stopped. The largest width is held out of the fit."
    option(
        parser, "--config", "FILE", "YAML file of `train world-model` with a transformer", Path, required=True
    )
    option(parser, "--widths", "N,...", "widths of the transformers (default: 32,48,64,96,128,192)", words)
    add_output(parser, "folder for the runs, scaling.json and scaling.png")


def _config() -> type[WorldModelTrainConfig]:
    from train.world_model.config import WorldModelTrainConfig

    return WorldModelTrainConfig


def _scaling(arguments: argparse.Namespace) -> None:
    from train.run.errors import DreamdriveError
    from train.run.options import build, parse_overrides
    from train.scaling.ladder import climb

    given = arguments.widths or ["32", "48", "64", "96", "128", "192"]
    if not all(word.isdecimal() and int(word) > 0 for word in given):
        raise DreamdriveError(f"--widths {','.join(given)}: expected whole numbers with commas between them")
    config = build(_config(), arguments.config, parse_overrides(arguments.rest))
    result = climb(config, [int(word) for word in given], arguments.output)
    law, held_out = result["law"], result["held_out"]
    print(f"loss = {law['c']:.3f} + (flops / {law['a']:.3g}) ** -{law['b']:.3f}")
    low, high = held_out["interval_90"]
    print(
        f"width {held_out['width']}, held out: {held_out['measured']:.3f} nats a token, predicted "
        f"{held_out['predicted']:.3f} ({low:.3f} to {high:.3f})"
    )
    print(arguments.output / "scaling.png")
