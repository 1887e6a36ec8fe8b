"""commaVQ's published networks, and one's own in their place: tokens to video, video to tokens, and dreams.

A model is a file of published weights, or a run of `dreamdrive train token-codec`.
"""

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from agent.tokenizer.vqgan import VQGANConfig, VQGANDecoder, VQGANEncoder
from agent.world_model.attention import BlockConfig
from agent.world_model.token_sampling import Sampling
from agent.world_model.token_stream import TokenStream, TokenStreamConfig
from train.convert.recorded.commavq_tokens import BOS, GRID, KINDS, RATE, read_token_frames
from train.pictures.video import write_mp4
from train.run.checkpoint import write_aside
from train.run.device import pick_device
from train.run.errors import DreamdriveError, explain_value_errors
from train.tokenizer.pictures import open_pictures
from train.tokenizer.published_weights import read_published
from train.tokenizer.train_token_codec import load_token_codec

_HEAD_SIZE = 64  # of GPT-2 at each of its sizes, and of commaVQ's
_ROWS = 32  # pictures at once


class PictureDecoder(Protocol):
    """Paints the pictures of tokens."""

    def decode(self, tokens: Tensor) -> Tensor:
        """Tokens (N, G) -> pictures (N, 3, H, W) in [0, 1]."""


class PictureEncoder(Protocol):
    """Tells the tokens of pictures."""

    def tokenize(self, images: Tensor) -> Tensor:
        """Pictures (N, 3, H, W) uint8 -> tokens (N, G)."""


def load_picture_decoder(path: Path, device: torch.device) -> PictureDecoder:
    """The decoder in a file of published weights or in a run.

    Raises:
        DreamdriveError: there is none, or its weights do not fit.
    """
    if path.is_dir():
        return load_token_codec(path, str(device))
    decoder = VQGANDecoder(VQGANConfig())
    with explain_value_errors(f"{path}: "):
        decoder.load_published(read_published(path))
    return decoder.to(device).eval().requires_grad_(False)


def load_picture_encoder(path: Path, device: torch.device) -> PictureEncoder:
    """The encoder in a file of published weights or in a run; errors as of `load_picture_decoder`."""
    if path.is_dir():
        return load_token_codec(path, str(device))
    encoder = VQGANEncoder(VQGANConfig())
    with explain_value_errors(f"{path}: "):
        encoder.load_published(read_published(path))
    return encoder.to(device).eval().requires_grad_(False)


def load_stream(path: Path, device: torch.device) -> TokenStream:
    """The transformer in a file with GPT-2's names and layout, such as commaVQ's, of any size.

    Raises:
        DreamdriveError: it is no such file, or not one of commaVQ's tokens and BOS.
    """
    tensors = read_published(path)
    with explain_value_errors(f"{path}: "):
        config = stream_config(tensors)
        if config.vocabulary != KINDS + 1:
            raise DreamdriveError(f"{path}: {config.vocabulary} kinds of tokens: expected {KINDS + 1}")
        model = config.build()
        model.load_gpt2(tensors)
    return model.to(device).eval().requires_grad_(False)


def stream_config(tensors: Mapping[str, Tensor]) -> TokenStreamConfig:
    """The sizes of a transformer by the shapes of its weights, which have GPT-2's names.

    Raises:
        ValueError: they are not there, or the width is no multiple of a head's 64.
    """
    embed, positions = tensors.get("transformer.wte.weight"), tensors.get("transformer.wpe.weight")
    if embed is None or positions is None or embed.ndim != 2 or embed.shape[1] % _HEAD_SIZE:
        raise ValueError(
            "no transformer.wte.weight and transformer.wpe.weight of a width that is a multiple of "
            f"{_HEAD_SIZE}: expected a state_dict with GPT-2's names"
        )
    width = embed.shape[1]
    layers = sum(name.startswith("transformer.h.") and name.endswith(".ln_1.weight") for name in tensors)
    blocks = BlockConfig(
        width=width,
        layers=layers,
        heads=width // _HEAD_SIZE,
        feed_forward="gelu",
        norm="layer",
        qk_norm=False,
        bias=True,
    )
    return TokenStreamConfig(blocks=blocks, vocabulary=len(embed), context=len(positions), positions="learnt")


def draw_tokens(model: Path, tokens: Path, output: Path, device: str) -> int:
    """Write the video of tokens; how many pictures it has.

    Args:
        model: a file of published weights of the decoder, or a run.
        tokens: an .npy file in any of commaVQ's layouts.
        output: the MP4.
        device: of the network.

    Raises:
        DreamdriveError: a file cannot be read or does not fit.
    """
    frames = read_token_frames(tokens)
    if not len(frames):
        raise DreamdriveError(f"{tokens}: no frames, expected some")
    where = pick_device(device)
    decoder = load_picture_decoder(model, where)
    parts = []
    for at in range(0, len(frames), _ROWS):
        rows = torch.from_numpy(frames[at : at + _ROWS].astype(np.int64)).to(where)
        parts.append((decoder.decode(rows) * 255).round().byte().cpu().numpy())
    write_mp4(output, np.concatenate(parts), RATE)
    return len(frames)


def tell_tokens(model: Path, video: Path, output: Path, device: str) -> int:
    """Write the tokens (T, 128) int16 of a video's pictures, scaled to cover 128x256; how many these are.

    Args:
        model: a file of published weights of the encoder, or a run.
        video: a video, a folder of pictures, or episodes.
        output: the .npy file.
        device: of the network.

    Raises:
        DreamdriveError: a file cannot be read or does not fit.
    """
    where = pick_device(device)
    encoder = load_picture_encoder(model, where)
    with tempfile.TemporaryDirectory() as cache:
        pictures = open_pictures(video, 16 * GRID[0], 16 * GRID[1], Path(cache))
        parts = []
        for at in range(0, len(pictures), _ROWS):
            images = pictures.read(np.arange(at, min(at + _ROWS, len(pictures))))
            parts.append(encoder.tokenize(torch.from_numpy(images).to(where)).cpu().numpy())
    _write(output, np.concatenate(parts).astype(np.int16))
    return sum(map(len, parts))


def dream_tokens(
    model: Path,
    tokens: Path,
    output: Path,
    frames: int,
    sampling: Sampling,
    seed: int,
    device: str,
    kept: int | None = None,
) -> None:
    """Write the frames (frames, 128) int16 that commaVQ's GPT draws after those of a file.

    Args:
        model: a file of published weights of the GPT.
        tokens: an .npy file in any of commaVQ's layouts; the newest frames that fit are read.
        output: the .npy file.
        frames: to draw.
        sampling: of the tokens.
        seed: of what is drawn.
        device: of the network.
        kept: see `TokenStream.generate`.

    Raises:
        DreamdriveError: a file cannot be read or does not fit.
    """
    past = read_token_frames(tokens)
    if not len(past):
        raise DreamdriveError(f"{tokens}: no frames, expected one or more to begin from")
    where = pick_device(device)
    stream = load_stream(model, where)
    generator = torch.Generator(where).manual_seed(seed)
    start = torch.from_numpy(past.astype(np.int64)).unsqueeze(0).to(where)
    with explain_value_errors(f"{model}: "):
        drawn = stream.generate(start, frames, sampling, BOS, generator, kept)
    _write(output, drawn.squeeze(0).cpu().numpy().astype(np.int16))


def _write(path: Path, tokens: NDArray[np.int16]) -> None:
    write_aside(path, lambda file: np.save(file, tokens, allow_pickle=False))
