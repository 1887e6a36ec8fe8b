"""`dreamdrive train JOB`: train something from a config."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from train.commands import baseline, vla, world_model
from train.commands.arguments import Group, add_command, add_group, add_run_options, resumed_config

if TYPE_CHECKING:
    from train.online.config import OnlineConfig


def add(group: Group) -> None:
    """Add `train agent`, `train world-model`, `train vla`, `train vla-teacher` and `train baseline`."""
    jobs = add_group(group, "train", "train something from a config", "jobs", "JOB")
    world_model.add(jobs)
    vla.add(jobs)
    baseline.add(jobs)
    parser = add_command(
        jobs,
        "agent",
        _agent,
        "learn a world model and, in its dreams, to drive",
        dotted=True,
        add_help=False,
    )
    parser.usage = (
        "dreamdrive train agent --config FILE [--any.config.field VALUE ...] [--run RUN] [--resume]"
    )
    add_run_options(parser, _online_config, "train-agent")
    parser.add_argument(
        "--size",
        choices=("1m", "12m", "25m", "50m", "100m", "200m"),
        help="sizes of DreamerV3's table, over those of the config (default: the config's own)",
    )


def _online_config() -> type[OnlineConfig]:
    from train.online.config import OnlineConfig

    return OnlineConfig


def _agent(arguments: argparse.Namespace) -> None:
    from train.online.config import OnlineConfig
    from train.online.trainer import train_agent
    from train.run.options import build, parse_overrides

    options = parse_overrides(arguments.rest)
    if arguments.size is not None:
        from agent.sizes import size_options

        options = {
            f"agent.{name}": str(value) for name, value in size_options(arguments.size).items()
        } | options
    config = build(OnlineConfig, arguments.config, options, resumed_config(arguments))
    train_agent(config, arguments.run, arguments.resume)
