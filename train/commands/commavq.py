"""`dreamdrive commavq`: commaVQ's tokens to video and back, and dreams of its GPT."""

from __future__ import annotations

import argparse
from pathlib import Path

from train.commands.arguments import Group, add_command, add_group, add_output, add_seed, count, option
from train.run.errors import DreamdriveError


def add_commavq(group: Group) -> None:
    """Add `commavq decode`, `encode` and `dream`."""
    text = "commaVQ's tokens to video and back, and dreams of its GPT"
    jobs = add_group(group, "commavq", text, "commands", "COMMAND")
    either = "its published weights (.bin, .safetensors, .onnx), or a run of `train token-codec`"
    parser = add_command(jobs, "decode", _decode, "draw the video of tokens")
    parser.add_argument("model", type=Path, metavar="MODEL", help=f"the decoder: {either}")
    option(parser, "--tokens", "FILE", "tokens, .npy", Path, required=True)
    _add_rest(parser, "the video, MP4")
    parser = add_command(jobs, "encode", _encode, "tell the tokens of a video")
    parser.add_argument("model", type=Path, metavar="MODEL", help=f"the encoder: {either}")
    option(parser, "--video", "FILE", "video, pictures or episodes", Path, required=True)
    _add_rest(parser, "the tokens, .npy")
    parser = add_command(jobs, "dream", _dream, "draw the frames that commaVQ's GPT sees coming")
    parser.add_argument("model", type=Path, metavar="MODEL", help="its published weights")
    option(parser, "--tokens", "FILE", "tokens to begin from, .npy", Path, required=True)
    option(parser, "--frames", "N", "frames to draw", count, 20)
    option(parser, "--temperature", "T", "logits are divided by it", float, 1.0)
    option(parser, "--top-k", "K", "only the K likeliest tokens are drawn (default: all)", count)
    option(parser, "--top-p", "P", "only the likeliest that reach this probability are drawn", float, 1.0)
    text = "newest frames to go by; with fewer, less is read again (default: all that fit, 19)"
    option(parser, "--kept", "N", text, count)
    add_seed(parser, "what is drawn")
    _add_rest(parser, "the drawn tokens, .npy")


def _add_rest(parser: argparse.ArgumentParser, output: str) -> None:
    add_output(parser, output, "FILE")
    option(parser, "--device", "NAME", "cpu, cuda, cuda:1, ..., or auto", str, "auto")


def _writable(output: Path) -> None:
    """Find out before the work that the result has somewhere to go."""
    if output.is_dir() or not output.absolute().parent.is_dir():
        raise DreamdriveError(f"--output {output}: expected a file in a folder that is there")


def _decode(arguments: argparse.Namespace) -> None:
    _writable(arguments.output)
    from train.tokenizer.commavq_models import draw_tokens

    drawn = draw_tokens(arguments.model, arguments.tokens, arguments.output, arguments.device)
    print(f"{arguments.output}: {drawn} pictures")


def _encode(arguments: argparse.Namespace) -> None:
    _writable(arguments.output)
    from train.tokenizer.commavq_models import tell_tokens

    told = tell_tokens(arguments.model, arguments.video, arguments.output, arguments.device)
    print(f"{arguments.output}: tokens of {told} pictures")


def _dream(arguments: argparse.Namespace) -> None:
    _writable(arguments.output)
    if not arguments.temperature > 0 or not 0 < arguments.top_p <= 1:
        raise DreamdriveError(
            f"--temperature {arguments.temperature:g}, --top-p {arguments.top_p:g}: expected more than 0, "
            "and a share above 0, 1 at most"
        )
    from agent.world_model.token_sampling import Sampling
    from train.tokenizer.commavq_models import dream_tokens

    sampling = Sampling(arguments.temperature, arguments.top_k or 0, arguments.top_p)
    dream_tokens(
        arguments.model,
        arguments.tokens,
        arguments.output,
        arguments.frames,
        sampling,
        arguments.seed,
        arguments.device,
        arguments.kept,
    )
    print(f"{arguments.output}: {arguments.frames} frames")
