"""`dreamdrive train baseline`: a policy of stable-baselines3, in the real environment or in a dream."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from train.commands.arguments import Group, add_command, add_run_options, count, resumed_config

if TYPE_CHECKING:
    from train.baselines.job import BaselineConfig


def add(jobs: Group) -> None:
    """Add `train baseline`."""
    parser = add_command(
        jobs,
        "baseline",
        _baseline,
        "let stable-baselines3 learn to drive, in the real environment or in a run's dream",
        dotted=True,
        add_help=False,
    )
    parser.usage = (
        "dreamdrive train baseline --algo ppo|sac [--in-dream RUN] [--frames N] [--config FILE] "
        "[--any.config.field VALUE ...] [--run RUN] [--resume]"
    )
    parser.epilog = "`dreamdrive eval RUN` scores the result on the official environment."
    add_run_options(parser, _config, "train-baseline")
    parser.add_argument(
        "--algo", choices=("ppo", "sac"), help="the algorithm (default: the config's own, ppo)"
    )
    parser.add_argument(
        "--in-dream",
        type=Path,
        metavar="RUN",
        help="learn in the dreams of this run's world model (default: in the real environment)",
    )
    parser.add_argument(
        "--episodes",
        type=Path,
        metavar="PATH",
        help="recorded episodes for dreams to begin in (default: some are driven first)",
    )
    parser.add_argument(
        "--frames", type=count, metavar="N", help="frames to drive, or to dream (default: 300000)"
    )


def _config() -> type[BaselineConfig]:
    from train.baselines.job import BaselineConfig

    return BaselineConfig


def _baseline(arguments: argparse.Namespace) -> None:
    from train.baselines.job import BaselineConfig, require_stable_baselines, train_baseline
    from train.run.folder import Run
    from train.run.options import build, parse_overrides

    require_stable_baselines()
    base = resumed_config(arguments) or {}
    if not arguments.resume and arguments.in_dream is not None:
        from train.drive.agents import agent_config
        from train.drive.environments import require_car_racing

        # A dream of that environment.
        dreamt = agent_config(Run.open(arguments.in_dream)).env
        base["env"] = require_car_racing(dreamt, arguments.in_dream).model_dump()
    flags = {
        "algo.kind": arguments.algo,
        "in_dream": arguments.in_dream,
        "starts.episodes": arguments.episodes,
        "frames": arguments.frames,
    }
    options = {name: str(value) for name, value in flags.items() if value is not None}
    config = build(BaselineConfig, arguments.config, options | parse_overrides(arguments.rest), base)
    train_baseline(config, arguments.run, arguments.resume)
