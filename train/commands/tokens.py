"""`dreamdrive tokenise|convert tokens`: pictures to tokens, and back."""

from __future__ import annotations

import argparse
from pathlib import Path

from train.commands.arguments import Group, add_command, add_output, add_run, count, option
from train.commands.compression import frame_rate, grid_size
from train.run.errors import DreamdriveError


def add_tokens(group: Group) -> None:
    """Add `tokenise`, which `tokenize` is another name of."""
    text = "turn the pictures of episodes into tokens, with the tokenizer of a run"
    parser = add_command(group, "tokenise", _tokenise, text, names=("tokenize",))
    parser.epilog = (
        "RUN is of `train tokenizer`, or of anything with a tokenizer in it. Episodes that are there already "
        "are kept: the same command goes on where it was stopped."
    )
    add_run(parser)
    text = "folder with .npz episodes, or an HDF5 file"
    option(parser, "--episodes", "PATH", text, Path, required=True)
    add_output(parser, "folder of tokens, made if missing")
    option(parser, "--fps", "RATE", "pictures a second (default: what the run says)", frame_rate)
    _add_device(parser)


def add_convert_tokens(group: Group) -> None:
    """Add `convert tokens`."""
    text = "tokens: a folder of them back to pictures, or .npy files such as commaVQ's into a folder"
    parser = add_command(group, "tokens", _convert, text)
    parser.add_argument(
        "sources",
        nargs="+",
        type=Path,
        metavar="SOURCE",
        help="with --decode a folder of tokens; else .npy files (T, rows, columns) or (T, tokens), or "
        "commaVQ's shards and folders",
    )
    add_output(parser, "folder to write, made if missing; existing files are kept")
    parser.add_argument("--decode", action="store_true", help="tokens to pictures, as episodes")
    parser.add_argument("--video", action="store_true", help="with --decode: as MP4 films instead")
    text = "run whose tokenizer the tokens are of (default: with --decode the one in SOURCE, else none)"
    option(parser, "--tokenizer", "RUN", text, Path)
    text = "grid of a picture's tokens, such as 8x16 (default: the tokenizer's, or as in the files)"
    option(parser, "--grid", "ROWSxCOLUMNS", text, grid_size)
    text = "codes that a token may have (default: the tokenizer's, or 1024)"
    option(parser, "--codes", "N", text, count)
    text = "pictures a second (default: with --decode what SOURCE says, else 20)"
    option(parser, "--fps", "RATE", text, frame_rate)
    _add_device(parser)


def _add_device(parser: argparse.ArgumentParser) -> None:
    option(parser, "--device", "NAME", "cpu, cuda, cuda:1, ...; auto is the first GPU if any", str, "auto")


def _tokenise(arguments: argparse.Namespace) -> None:
    from train.tokenizer.tokenise import tokenise

    tokenise(arguments.run, arguments.episodes, arguments.output, arguments.fps, arguments.device)


def _convert(arguments: argparse.Namespace) -> None:
    if not arguments.decode:
        _import(arguments)
        return
    for name in ("grid", "codes"):
        if getattr(arguments, name) is not None:
            raise DreamdriveError(f"--{name}: not with --decode: the folder of tokens says it")
    if len(arguments.sources) > 1:
        raise DreamdriveError(f"--decode: {len(arguments.sources)} folders, expected one")
    from train.tokenizer.convert_tokens import decode_tokens

    decode_tokens(
        arguments.sources[0],
        arguments.output,
        arguments.video,
        arguments.tokenizer,
        arguments.fps,
        arguments.device,
    )


def _import(arguments: argparse.Namespace) -> None:
    if arguments.video:
        raise DreamdriveError("--video: needs --decode")
    from train.tokenizer.convert_tokens import TokensFrom, import_tokens

    known = TokensFrom(arguments.tokenizer, arguments.grid, arguments.codes, arguments.fps)
    import_tokens(arguments.sources, arguments.output, known, arguments.device)
