"""`dreamdrive train world-model`: a world model from recorded driving."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from train.commands.arguments import Group, add_command, add_config, add_fields_help

if TYPE_CHECKING:
    from train.world_model.config import WorldModelTrainConfig


def add(jobs: Group) -> None:
    """Add `world-model` to the jobs of `train`."""
    parser = add_command(
        jobs,
        "world-model",
        _world_model,
        "learn a world model from recorded driving; torchrun starts it on many GPUs",
        dotted=True,
        add_help=False,
    )
    parser.usage = (
        "dreamdrive train world-model [--config FILE] [--any-config-field VALUE ...] [--run RUN] [--resume]"
    )
    add_fields_help(parser, _config)
    add_config(parser)
    parser.add_argument(
        "--run", type=Path, metavar="RUN", help="folder to write, another name of --output-dir"
    )
    parser.add_argument(
        "--resume",
        action="store_true",
        help="go on with the run in --output-dir from its last checkpoint (default: begin a new run)",
    )
    parser.add_argument(
        "--auto-resume",
        action="store_true",
        help="go on if there is a run in --output-dir, else begin it: for jobs that are queued again",
    )


def _config() -> type[WorldModelTrainConfig]:
    from train.world_model.config import WorldModelTrainConfig

    return WorldModelTrainConfig


def _world_model(arguments: argparse.Namespace) -> None:
    from train.run.errors import DreamdriveError
    from train.run.folder import Run
    from train.run.options import build, parse_overrides, read_yaml
    from train.world_model.config import WorldModelTrainConfig
    from train.world_model.trainer import train_world_model

    options = parse_overrides(arguments.rest)
    if arguments.run is not None:
        if "output_dir" in options:
            raise DreamdriveError("--run and --output-dir: two names of one folder, expected one of them")
        options["output_dir"] = str(arguments.run)
    base = None
    if arguments.resume or arguments.auto_resume:
        # The folder may be named by the config file alone.
        folder = {name: value for name, value in options.items() if name == "output_dir"}
        run = Path(build(WorldModelTrainConfig, arguments.config, folder).output_dir)
        if arguments.resume or (run / "run.json").is_file():
            base = read_yaml(Run.open(run).config_path)
    config = build(WorldModelTrainConfig, arguments.config, options, base)
    train_world_model(config, arguments.resume, arguments.auto_resume)
