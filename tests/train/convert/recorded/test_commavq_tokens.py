"""commaVQ's tokens: every published layout to frames and back, and what is wrong is named."""

from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from agent.world_model.token_stream import with_bos
from train.convert.recorded.commavq import find_segments
from train.convert.recorded.commavq_tokens import (
    BOS,
    EOT,
    read_token_frames,
    split_segments,
    token_frames,
    token_stream,
)
from train.convert.recorded.recording import ConvertConfig
from train.run.errors import DreamdriveError


def frames(count: int, seed: int = 0) -> NDArray[np.int16]:
    return np.random.default_rng(seed).integers(0, 1024, (count, 128)).astype(np.int16)


@pytest.mark.parametrize("count", [0, 1, 2, 21])
@pytest.mark.parametrize("kind", [np.int16, np.int64, np.uint16])
def test_every_layout_gives_the_frames(count: int, kind: type[np.integer], tmp_path: Path) -> None:
    tokens = frames(count)
    stream = token_stream(tokens)
    layouts = [
        tokens,
        tokens.reshape(count, 8, 16),
        stream,
        token_stream(tokens.reshape(count, 8, 16)),
        np.append(stream, EOT),
    ]
    for layout in layouts:
        np.save(tmp_path / "tokens.npy", layout.astype(kind))
        found = read_token_frames(tmp_path / "tokens.npy")
        assert found.dtype == np.int16
        np.testing.assert_array_equal(found, tokens)


def test_the_stream_is_the_one_that_the_transformer_makes() -> None:
    tokens = frames(5)
    ours = with_bos(torch.from_numpy(tokens.astype(np.int64)).unsqueeze(0), BOS)
    np.testing.assert_array_equal(token_stream(tokens), ours.squeeze(0).numpy())


def test_segments_of_one_file_are_told_apart() -> None:
    parts = [frames(n, n) for n in (3, 1, 2)]
    whole = np.concatenate([np.append(token_stream(part), EOT) for part in parts]).astype(np.uint16)
    found = split_segments(whole)
    assert len(found) == 3
    for part, stream in zip(parts, found, strict=True):
        np.testing.assert_array_equal(token_frames("x", stream), part)
    # The last segment may be cut short.
    assert [len(part) for part in split_segments(whole[:-2])] == [387, 129, 257]


def broken_stream(change: str) -> NDArray[np.int16]:
    stream = token_stream(frames(3) % 1000)
    if change == "replaced":
        stream[129] = 7
    elif change == "twice":
        stream[200] = BOS
    elif change == "shifted":
        stream = np.roll(stream, 1)
    elif change == "short":
        stream = stream[:-1]
    elif change == "EOT within":
        stream[200] = EOT
    elif change == "without":
        stream = stream[stream != BOS]
    elif change == "a frame's BOS short of it":
        stream = np.append(stream, np.int16(BOS))
    return stream


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ("replaced", "due at 129, the next is at 258"),
        ("twice", "due at 258, the next is at 200"),
        ("shifted", "due at 0, the next is at 1"),
        (
            "short",
            r"386 tokens, expected a BOS \(1024\) before each frame of 128: .* at 386, there is none",
        ),
        ("EOT within", r"tokens from .* to 1025, expected 0 to 1023 .* token 70 of frame 1\)"),
        ("without", "due at 0, there is none"),
        ("a frame's BOS short of it", "388 tokens"),
    ],
)
def test_a_bos_in_a_wrong_place_is_named(change: str, told: str) -> None:
    with pytest.raises(DreamdriveError, match=f"^here: .*{told}"):
        token_frames("here", broken_stream(change))


@pytest.mark.parametrize(
    ("tokens", "told"),
    [
        (frames(3) - 2000, "expected 0 to 1023 .* token 0 of frame 0"),
        (np.where(np.arange(256).reshape(2, 128) == 130, 1024, 0), "0 to 1024, .* token 2 of frame 1"),
        (frames(3)[:, :127], r"\(3, 127\) int16, expected tokens"),
        (frames(3).reshape(3, 16, 8), r"\(3, 16, 8\) int16, expected tokens"),
        (frames(3).astype(np.float32), "float32, expected tokens"),
    ],
)
def test_other_arrays_are_named(tokens: NDArray[np.generic], told: str) -> None:
    with pytest.raises(DreamdriveError, match=told):
        token_frames("here", tokens)


def test_a_stream_is_converted_like_its_frames(tmp_path: Path) -> None:
    tokens = frames(5)
    np.save(tmp_path / "a.token.npy", token_stream(tokens))
    (segment,) = find_segments(tmp_path)
    ((_, episode),) = segment.episodes(ConvertConfig(image_size=8))
    np.testing.assert_array_equal(episode().observations["tokens"], tokens)
