"""`dreamdrive world-models`: the World Models agent, stage by stage."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from train.commands.arguments import Group, add_command, option

if TYPE_CHECKING:
    from train.world_models.config import WorldModelAgentConfig


def add_world_models(group: Group) -> None:
    """Add `world-models`."""
    parser = add_command(
        group,
        "world-models",
        _world_models,
        "train the World Models agent in stages: roll-outs, tokenizer, LSTM, controller",
        config=_config,
    )
    parser.usage = (
        "dreamdrive world-models --stage STAGE --config FILE [--any.config.field VALUE ...] [--run RUN]"
    )
    parser.add_argument(
        "--stage",
        choices=("collect", "vae", "world_model", "controller", "all"),
        required=True,
        help="stage to run; one done and unchanged is skipped, a stopped one continues (must be given)",
    )
    text = (
        "YAML file, fields that differ from their defaults, or from those of the run if it is there, or else "
        "of the run in --base (default: none)"
    )
    option(parser, "--config", "FILE", text, Path)
    text = "folder to write, or to continue (default: runs/<name of the config file>)"
    option(parser, "--run", "RUN", text, Path)


def _config() -> type[WorldModelAgentConfig]:
    from train.world_models.config import WorldModelAgentConfig

    return WorldModelAgentConfig


def _world_models(arguments: argparse.Namespace) -> None:
    from train.run.options import build, parse_overrides, read_yaml
    from train.world_models.config import WorldModelAgentConfig
    from train.world_models.pipeline import train_world_models

    name = arguments.config.stem if arguments.config is not None else "world_models"
    run: Path = arguments.run if arguments.run is not None else Path("runs") / name
    options = parse_overrides(arguments.rest)
    # Below file and options: the run's own config, or, for a new run on the stages of another, that one's.
    folder = run if (run / "config.yaml").is_file() or "base" not in options else Path(options["base"])
    below = read_yaml(folder / "config.yaml") if (folder / "config.yaml").is_file() else {}
    if folder != run:
        below.pop("base", None)
    config = build(WorldModelAgentConfig, arguments.config, options, below)
    train_world_models(config, arguments.stage, run)
