"""`dreamdrive compress` and `dreamdrive decompress`: tokens to few bytes and back, without loss."""

from __future__ import annotations

import argparse
import re
from pathlib import Path

from train.commands.arguments import Group, add_command, add_output, count, option
from train.run.errors import DreamdriveError, warn


def add_compression(group: Group) -> None:
    """Add `compress` and `decompress`."""
    text = "compress tokens without loss, and verify it by decompressing them"
    parser = add_command(group, "compress", _compress, text)
    text = (
        "portable: context mixing in integers, which any machine decodes; network: with a transformer that "
        "learns while it codes, which takes minutes and only the same build of PyTorch on the same processor "
        "decodes; or the folder of a run whose transformer has learnt such tokens, with the same limits"
    )
    parser.add_argument("kind", metavar="portable|network|RUN", help=text)
    text = ".npy file of tokens, (frames, tokens) or (frames, rows, columns)"
    option(parser, "--tokens", "FILE", text, Path, required=True)
    add_output(parser, "the compressed file", "FILE")
    text = "rows and columns of a frame (default: the array's, or as nearly square as it goes)"
    option(parser, "--grid", "ROWSxCOLUMNS", text, grid_size)
    text = "codes of the tokenizer; tokens must be below (default: one more than the largest token)"
    option(parser, "--codes", "K", text, count)
    option(parser, "--rate", "HZ", "frames a second, noted in the file (default: unknown)", frame_rate)
    text = "decompress tokens to a .npy file, the same array to the bit"
    parser = add_command(group, "decompress", _decompress, text)
    parser.add_argument("file", type=Path, metavar="FILE", help="compressed file")
    add_output(parser, "the .npy file", "FILE")
    option(parser, "--run", "RUN", "the run whose transformer the file was compressed with", Path)


def grid_size(text: str) -> tuple[int, int]:
    """Rows and columns, as in 8x16."""
    found = re.fullmatch(r"([1-9]\d{0,4})x([1-9]\d{0,4})", text)
    if not found:
        raise argparse.ArgumentTypeError(f"expected ROWSxCOLUMNS, such as 8x16, not {text!r}")
    return int(found[1]), int(found[2])


def frame_rate(text: str) -> float:
    """Frames a second, above 0."""
    try:
        rate = float(text)
    except ValueError:
        rate = 0.0
    if not 0 < rate < 1e6:
        raise argparse.ArgumentTypeError(f"expected frames a second, not {text!r}")
    return rate


def _writable(output: Path) -> None:
    """Find out before the work that the result has somewhere to go."""
    if output.is_dir() or not output.absolute().parent.is_dir():
        raise DreamdriveError(f"--output {output}: expected a file in a folder that is there")


def _needs_range_coder() -> None:
    try:
        import constriction  # noqa: F401
    except ImportError as error:
        raise DreamdriveError(
            "compressing tokens needs the package constriction: pip install 'dreamdrive[tokenizer]'"
        ) from error


def _compress(arguments: argparse.Namespace) -> None:
    _writable(arguments.output)
    _needs_range_coder()
    from train.run.progress import Progress
    from train.tokenizer.compression.compress import compress_tokens, read_tokens
    from train.tokenizer.compression.machine import MachineNotes
    from train.tokenizer.compression.online_transformer import OnlineTransformerConfig
    from train.tokenizer.compression.predictor import Predictor
    from train.tokenizer.compression.run_expert import load_transformer, weights_sha256

    tokens = read_tokens(arguments.tokens)
    predictor, codes = Predictor(), arguments.codes
    if arguments.kind == "network":
        predictor = Predictor(OnlineTransformerConfig())
    elif arguments.kind != "portable":
        run = Path(arguments.kind)
        predictor = Predictor(run=run, run_sha256=weights_sha256(run))
        codes = codes or load_transformer(run).tokenizer.codebook_size
    if predictor.kind != "portable":
        warn(f"the file will decode only with {MachineNotes.here()}")
    total = 2 * len(tokens) if tokens.ndim else 0
    with Progress(f"compressing {arguments.tokens}", total, "frames") as progress:

        def each(doing: str, done: int, of: int) -> None:
            progress.update(done + (of if doing == "verified" else 0), {"now": doing})

        made = compress_tokens(
            tokens,
            arguments.output,
            predictor,
            str(arguments.tokens),
            arguments.grid,
            codes,
            arguments.rate,
            each,
        )
    print(
        f"{arguments.output}: {made.tokens:,} tokens in {made.bytes:,} bytes, {made.bits:.3f} bits a token, "
        f"{made.ratio:.3f}x; decoded to the same tokens"
    )


def _decompress(arguments: argparse.Namespace) -> None:
    _writable(arguments.output)
    _needs_range_coder()
    from train.run.progress import Progress
    from train.tokenizer.compression.compress import check_machine, decompress_tokens
    from train.tokenizer.compression.token_file import read_token_file

    header, _ = read_token_file(arguments.file)
    check_machine(arguments.file, header)
    with Progress(f"decompressing {arguments.file}", header.shape[0], "frames") as progress:
        shape = decompress_tokens(arguments.file, arguments.output, arguments.run, progress.update)
    print(f"{arguments.output}: tokens of shape {shape}")
