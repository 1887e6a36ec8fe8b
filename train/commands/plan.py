"""`dreamdrive plan RUN`: drive by planning in a run's dreams."""

from __future__ import annotations

import argparse
from pathlib import Path

from train.commands.arguments import Group, add_command, count, seed


def add(group: Group) -> None:
    """Add `plan`."""
    parser = add_command(
        group,
        "plan",
        _plan,
        "drive the official CarRacing-v3 by planning in a run's dreams, and show the imagined futures",
    )
    parser.epilog = (
        "Drawn: what is seen, the best, the worst and some other candidates with their imagined returns, and "
        "their actions. Milliseconds a decision are those of one car; up to 8 are planned for at once."
    )
    parser.add_argument("run", type=Path, metavar="RUN", help="folder of the run")
    parser.add_argument(
        "--planner",
        choices=("shooting", "cem", "mppi", "policy"),
        default="cem",
        help="random shooting, cross-entropy method, path integral; or policy: no planning, to compare with "
        "(default: %(default)s)",
    )
    parser.add_argument(
        "--samples", type=count, metavar="N", help="candidates of an iteration (default: 128)"
    )
    parser.add_argument("--horizon", type=count, metavar="N", help="decisions imagined (default: 12)")
    parser.add_argument(
        "--iterations", type=count, metavar="N", help="iterations of cem and mppi (default: 3)"
    )
    parser.add_argument(
        "--policy",
        choices=("trained", "untrained"),
        default="trained",
        help="the policy that some candidates follow: the run's, or one as before training "
        "(default: %(default)s)",
    )
    parser.add_argument(
        "--policy-share",
        type=float,
        metavar="SHARE",
        help="share of the candidates that follow it (default: 1 for shooting, else 0.25)",
    )
    parser.add_argument(
        "--no-value",
        action="store_true",
        help="leave out what the critic expects after the horizon (default: it counts)",
    )
    parser.add_argument(
        "--episodes",
        type=count,
        default=1,
        metavar="N",
        help="episodes, each on another track (default: %(default)s)",
    )
    parser.add_argument(
        "--first-seed",
        type=seed,
        default=1_000_000,
        metavar="N",
        help="seed of the first track; the others follow (default: %(default)s)",
    )
    parser.add_argument(
        "--film",
        type=int,
        default=100,
        metavar="N",
        help="decisions of the first track to draw; 0 draws nothing (default: %(default)s)",
    )
    parser.add_argument(
        "--json", type=Path, metavar="PATH", help="write the result there, too (default: not written)"
    )
    parser.add_argument(
        "--output", type=Path, metavar="DIR", help="folder for the pictures (default: the run's pictures/)"
    )


def _plan(arguments: argparse.Namespace) -> None:
    from train.look.plan import plan, planner_config

    config = planner_config(
        arguments.planner,
        {
            "samples": arguments.samples,
            "horizon": arguments.horizon,
            "iterations": arguments.iterations,
            "policy_share": arguments.policy_share,
            "use_value": False if arguments.no_value else None,
        },
    )
    plan(
        arguments.run,
        config,
        arguments.policy,
        arguments.episodes,
        arguments.first_seed,
        arguments.json,
        arguments.output,
        arguments.film,
    )
