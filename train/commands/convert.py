"""`dreamdrive convert DATASET SOURCE --output DIR`: recorded driving to episodes; LeRobot sets; tokens."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from train.commands.arguments import (
    Command,
    Group,
    add_command,
    add_group,
    add_output,
    count,
    option,
    words,
)
from train.commands.tokens import add_convert_tokens

if TYPE_CHECKING:
    from train.convert.lerobot.config import ExportConfig
    from train.convert.recorded.recording import ConvertConfig, Recording


def add_convert(group: Group) -> None:
    """Add `convert kitti`, `nuscenes`, `waymo`, `commavq`, `hdf5`, `lerobot`, `to-lerobot` and `tokens`."""
    text = "convert recorded driving to episodes, episodes to a LeRobot data set, or tokens"
    sets = add_group(group, "convert", text, "data sets", "DATASET")
    parser = _data_set(sets, "kitti", _kitti, "KITTI raw: cameras and an inertial navigation system")
    text = "00, 01 (grey), 02, 03 (colour); several become tiles of a picture (default: 02)"
    option(parser, "--cameras", "NN,...", text, words, ["02"])
    parser = _data_set(sets, "nuscenes", _nuscenes, "nuScenes: up to six cameras, poses, CAN bus")
    text = (
        "one to six such as CAM_FRONT,CAM_BACK, or all; several become tiles of a picture "
        "(default: CAM_FRONT)"
    )
    option(parser, "--cameras", "NAME,...", text, words, ["CAM_FRONT"])
    text = "folder of the tables, such as v1.0-mini (default: the only one)"
    option(parser, "--version", "NAME", text)
    parser.add_argument(
        "--keyframes", action="store_true", help="only pictures with annotations, 2 Hz (default: all, 12 Hz)"
    )
    parser = _data_set(sets, "waymo", _waymo, "Waymo Open Motion: map and road users, drawn from above")
    option(parser, "--metres", "M", "side of the pictures in metres", float, 64.0)
    _data_set(sets, "commavq", _commavq, "commaVQ: tokens, or the paired video")
    _data_set(sets, "hdf5", _hdf5, "rollouts in HDF5: episode_i/{observations, actions, rewards, dones}")
    parser = _data_set(sets, "lerobot", _lerobot, "a LeRobot data set, v2.1 or v3.0")
    text = "the feature whose pictures to take (default: observation.images.front, or the only one)"
    option(parser, "--camera", "KEY", text)
    _to_lerobot(sets)
    add_convert_tokens(sets)


def _data_set(group: Group, name: str, command: Command, text: str) -> argparse.ArgumentParser:
    """A data set's command with what all have in common."""
    parser = add_command(group, name, command, text, config=_config)
    parser.add_argument("source", type=Path, metavar="SOURCE", help="folder or file of the data set")
    add_output(parser, "folder for .npz files, made if missing; existing files are kept")
    keep = "the recorded size" if name == "hdf5" else "64"
    text = f"side of the square pictures in pixels (default: {keep})"
    option(parser, "--image-size", "N", text, count)
    option(parser, "--workers", "N", "parallel processes", count, 1)
    parser.add_argument(
        "--skip-bad",
        action="store_true",
        help="continue after a broken recording, and list these at the end (default: stop)",
    )
    return parser


def _to_lerobot(group: Group) -> None:
    """The command of the other direction."""
    text = "episodes (.npz) into a LeRobot data set"
    parser = add_command(group, "to-lerobot", _export, text, config=_export_config)
    parser.add_argument("source", type=Path, metavar="EPISODES", help="folder with .npz episodes")
    add_output(parser, "the data set's folder, which must be new or empty")
    option(parser, "--config", "FILE", "YAML file with fields of the config", Path)


def _config() -> type[ConvertConfig]:
    from train.convert.recorded.recording import ConvertConfig

    return ConvertConfig


def _export_config() -> type[ExportConfig]:
    from train.convert.lerobot.config import ExportConfig

    return ExportConfig


def _convert(
    name: str, recordings: Sequence[Recording], arguments: argparse.Namespace, **options: object
) -> None:
    from train.convert.convert import convert
    from train.convert.recorded.recording import ConvertConfig
    from train.run.options import build, parse_overrides

    base = {"image_size": None} if name == "hdf5" else None
    fields = parse_overrides(arguments.rest)
    if arguments.image_size is not None:
        fields["image_size"] = str(arguments.image_size)
    config = build(ConvertConfig, None, fields, base)
    convert(name, recordings, arguments.output, config, options, arguments.workers, arguments.skip_bad)


def _kitti(arguments: argparse.Namespace) -> None:
    from train.convert.recorded.kitti import find_drives

    drives = find_drives(arguments.source, arguments.cameras)
    _convert("kitti", drives, arguments, cameras=arguments.cameras)


def _nuscenes(arguments: argparse.Namespace) -> None:
    from train.convert.recorded.nuscenes import CAMERAS, find_scenes

    cameras = list(CAMERAS) if arguments.cameras == ["all"] else arguments.cameras
    scenes = find_scenes(arguments.source, arguments.version, cameras, arguments.keyframes)
    _convert("nuscenes", scenes, arguments, cameras=cameras, keyframes=arguments.keyframes)


def _waymo(arguments: argparse.Namespace) -> None:
    from train.convert.recorded.waymo import find_scenarios

    scenarios = find_scenarios(arguments.source, arguments.metres)
    _convert("waymo", scenarios, arguments, metres=arguments.metres)


def _commavq(arguments: argparse.Namespace) -> None:
    from train.convert.recorded.commavq import find_segments

    _convert("commavq", find_segments(arguments.source), arguments)


def _hdf5(arguments: argparse.Namespace) -> None:
    from train.convert.recorded.rollouts import find_rollouts

    _convert("hdf5", find_rollouts(arguments.source), arguments)


def _lerobot(arguments: argparse.Namespace) -> None:
    from train.convert.lerobot.reader import find_lerobot

    episodes = find_lerobot(arguments.source, arguments.camera)
    _convert("lerobot", episodes, arguments, camera=arguments.camera)


def _export(arguments: argparse.Namespace) -> None:
    from train.convert.lerobot.export import export
    from train.run.options import build, parse_overrides

    config = build(_export_config(), arguments.config, parse_overrides(arguments.rest))
    export(arguments.source, arguments.output, config)
