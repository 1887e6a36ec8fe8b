"""`dreamdrive collect demonstrations`: CarRacing driven as asked, to learn what instructions mean."""

from __future__ import annotations

import argparse
from pathlib import Path

from train.commands.arguments import Group, add_command, add_episode_folder, add_seed, count
from train.run.errors import DreamdriveError, one_line


def add(simulators: Group) -> None:
    """Add `collect demonstrations`."""
    parser = add_command(
        simulators,
        "demonstrations",
        _demonstrations,
        "drive in CarRacing at set speeds and places on the road, with mistakes that are put right, and keep "
        "the episodes; run again, goes on to the number asked for",
    )
    parser.add_argument(
        "--agent",
        type=Path,
        required=True,
        metavar="RUN",
        help="agent that shows how to drive as fast as possible, such as pretrained/car_racing "
        "(must be given)",
    )
    parser.add_argument(
        "--learner",
        type=Path,
        metavar="RUN",
        help="policy of `train vla` that drives, told what is asked, while what the demonstrator would do in "
        "its place is kept to learn from (default: the demonstrator drives)",
    )
    add_episode_folder(parser)
    add_seed(parser, "tracks, of what is asked and of chance")
    parser.add_argument(
        "--decisions",
        type=count,
        default=120,
        metavar="N",
        help="length of an episode (default: %(default)s, about 10 s)",
    )
    parser.add_argument(
        "--speeds",
        default="crawl,slow,brisk,fast,stop",
        metavar="A,B,...",
        help="speeds that are asked for (default: %(default)s)",
    )
    parser.add_argument(
        "--places",
        default="left,centre,right",
        metavar="A,B,...",
        help='places on the road that are asked for; "" for none (default: %(default)s)',
    )
    parser.add_argument(
        "--simulators",
        type=count,
        default=8,
        metavar="N",
        help="driven at the same time, in one process (default: %(default)s)",
    )


def _demonstrations(arguments: argparse.Namespace) -> None:
    from pydantic import ValidationError

    from train.collect.demonstrations import DemonstrationsConfig, collect_demonstrations

    try:
        config = DemonstrationsConfig(
            speeds=_words(arguments.speeds),
            places=_words(arguments.places),
            decisions=arguments.decisions,
            simulators=arguments.simulators,
        )
    except ValidationError as error:
        first = error.errors()[0]
        option = "".join(f"--{name}: " for name in first["loc"][:1])
        raise DreamdriveError(option + one_line(first["msg"]).removeprefix("Value error, ")) from error
    shown = collect_demonstrations(
        arguments.agent, arguments.episodes, arguments.output, arguments.seed, config, arguments.learner
    )
    print(f"{arguments.output}: {shown}")


def _words(text: str) -> tuple[str, ...]:
    return tuple(word.strip() for word in text.split(",") if word.strip())
