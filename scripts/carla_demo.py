"""Drive in CARLA, or in its stand-in where no CARLA runs: `dreamdrive collect carla` under another name.

    python scripts/carla_demo.py --mode collect --episodes 1000 --episode-length 500 \\
        --output-dir ./data/world_model/train

Options that are not listed by `--help` are those of `dreamdrive collect carla`, such as --policy, --servers,
--server-command and --env.FIELD.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

if __name__ == "__main__":
    # Run by its path, Python would look for packages beside this file.
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from train.cli import main as dreamdrive
from train.commands.arguments import count


def main(argv: Sequence[str] | None = None) -> int:
    """Run the demo, and return its exit status."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument(
        "--mode", choices=["collect"], default="collect", help="what to do (default: collect)"
    )
    parser.add_argument(
        "--episodes", type=count, default=10, metavar="N", help="how many episodes (default: %(default)s)"
    )
    parser.add_argument(
        "--episode-length",
        type=count,
        default=500,
        metavar="N",
        help="most frames of an episode (default: %(default)s)",
    )
    parser.add_argument(
        "--output-dir",
        default="./data/world_model/train",
        metavar="DIR",
        help="folder for the episodes (default: %(default)s)",
    )
    known, rest = parser.parse_known_args(argv)
    words = ["--episodes", str(known.episodes), "--output", known.output_dir]
    fields = {"max_frames": str(known.episode_length), "action": "3d"}
    # Steering, throttle and brake are what the training script's action_dim of 3 stands for.
    given = {word.partition("=")[0] for word in rest}
    words += [f"--env.{name}={value}" for name, value in fields.items() if f"--env.{name}" not in given]
    return dreamdrive(["collect", "carla", *words, *rest])


if __name__ == "__main__":
    sys.exit(main())
