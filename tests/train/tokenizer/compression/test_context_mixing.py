"""The portable model: nothing but what is known goes into a prediction, and its bits are pinned."""

import zlib

import numpy as np
import pytest
from numpy.typing import NDArray

from train.tokenizer.compression.context_mixing import ContextMixing
from train.tokenizer.compression.counting import Counts
from train.tokenizer.compression.neighbourhood import ABOVE_AND_LEFT, waves
from train.tokenizer.compression.range_coding import encode_frames


def drive(count: int, rows: int, columns: int, codes: int) -> NDArray[np.int64]:
    """Frames (T, G) whose tokens stay, move to the right, or change."""
    random = np.random.default_rng(0)
    frames = random.integers(0, codes, (count, rows, columns))
    for number in range(1, count):
        before = np.roll(frames[number - 1], number // 5 % 2, 1)
        frames[number] = np.where(random.random((rows, columns)) < 0.8, before, frames[number])
    return frames.reshape(count, -1)


@pytest.mark.parametrize(("rows", "columns"), [(1, 1), (1, 7), (5, 1), (4, 6), (8, 16)])
def test_waves_follow_what_they_look_at(rows: int, columns: int) -> None:
    groups = waves(rows, columns)
    assert sorted(np.concatenate(groups).tolist()) == list(range(rows * columns))
    wave = {int(place): number for number, group in enumerate(groups) for place in group}
    for place, number in wave.items():
        row, column = divmod(place, columns)
        for _, down, right in ABOVE_AND_LEFT:
            if row + down >= 0 and 0 <= column + right < columns:
                assert wave[(row + down) * columns + column + right] < number


def test_predictions_of_a_wave_know_no_later_tokens() -> None:
    frames = drive(6, 3, 4, 9)
    known, unknown = ContextMixing(3, 4, 9), ContextMixing(3, 4, 9)
    every = np.arange(12)
    for tokens in frames:
        known.reveal(every, tokens)
        whole = known.predict(every)
        assert (whole > 0).all() and (whole.sum(1) < 2**31).all() and (whole.sum(1) > 0.9 * 2**30).all()
        for places in unknown.waves:
            assert np.array_equal(unknown.predict(places), whole[places])
            unknown.reveal(places, tokens[places])
        known.learn(tokens)
        unknown.learn(tokens)


def test_it_learns() -> None:
    frames = drive(120, 4, 6, 16)
    bits = 32 * len(encode_frames(ContextMixing(4, 6, 16), frames)) / frames.size
    # each token is drawn anew with probability 0.2 and is another then with 15 of 16
    entropy = -(0.8125 * np.log2(0.8125) + 0.1875 * np.log2(0.0125))
    # of 4 bits without learning
    assert entropy < bits < 2.4


def test_counts_mix_as_probabilities_do() -> None:
    random = np.random.default_rng(1)
    counts = Counts(2, 6, 5)
    for _ in range(8):
        neighbours = random.integers(0, 6, (2, 6))
        counts.count(counts.look(neighbours, np.arange(6)), random.integers(0, 5, 6))
    places = np.array([1, 4])
    found = counts.look(random.integers(0, 6, (2, 2)), places)
    weights = random.integers(1, 2**14, (4, 2))
    experts = np.stack([counts.probability(found, np.full(2, code)) for code in range(5)], -1)
    # (2, 5)
    expected = (weights[..., None] / 2**16 * experts).sum(0)
    assert np.abs(counts.mix(found, weights) / expected - 1).max() < 1e-3
    assert np.abs(experts.sum(-1) / 2**30 - 1).max() < 1e-6


def test_the_bits_of_a_file_are_pinned() -> None:
    """Files made before must decode: a change of the model needs another version in the file's header."""
    frames = drive(40, 4, 6, 30)
    assert zlib.crc32(encode_frames(ContextMixing(4, 6, 30), frames).astype("<u4").tobytes()) == 3397745076
