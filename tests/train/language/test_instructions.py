"""Labels in words, and words as labels."""

import re
from collections.abc import Sequence
from itertools import product

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from train.language.hindsight import MANOEUVRES, PLACES, SPEEDS, Labels
from train.language.instructions import lookup_labels, parse_instruction, phrasings, sample_sentence
from train.run.errors import DreamdriveError

_ALL = [Labels(*each) for each in product((None, *SPEEDS), (None, *PLACES), (None, *MANOEUVRES))]


class WordCounts:
    """A stand-in for a sentence encoder: the words of a text, counted in hashed places."""

    def __call__(self, texts: Sequence[str]) -> Tensor:
        rows = torch.zeros(len(texts), 512)
        for row, text in enumerate(texts):
            for word in re.findall(r"\w+", text.lower()):
                rows[row, sum(ord(letter) * 31**place for place, letter in enumerate(word)) % 512] += 1
        return rows


@given(labels=st.sampled_from(_ALL[1:]), seed=st.integers(0, 2**31), held_out=st.booleans())
def test_what_is_said_is_what_was_meant(labels: Labels, seed: int, held_out: bool) -> None:
    text = sample_sentence(labels, np.random.default_rng(seed), held_out)
    assert lookup_labels(text) == labels == lookup_labels(text.upper())
    assert text == sample_sentence(labels, np.random.default_rng(seed), held_out)
    singles = {said for said, _ in phrasings(not held_out)}
    # Not one clause of it is among the other set's.
    assert not any(said in re.split(r", and | and please | and |, ", text) for said in singles)


def test_each_thing_is_said_in_at_least_ten_ways_and_three_are_kept() -> None:
    for labels in _ALL:
        if sum(value is not None for value in (labels.speed, labels.place, labels.manoeuvre)) == 1:
            learnt, kept = ([t for t, meant in phrasings(h) if meant == labels] for h in (False, True))
            assert len(learnt) >= 10 and len(kept) >= 3
            rng = np.random.default_rng(0)
            assert {sample_sentence(labels, rng) for _ in range(2000)} == set(learnt)
            assert {sample_sentence(labels, rng, True) for _ in range(300)} == set(kept)


def test_no_phrasing_is_there_twice_or_holds_a_joint() -> None:
    texts = [text for held_out in (False, True) for text, _ in phrasings(held_out)]
    assert len(texts) == len(set(texts))
    assert all(text == text.strip().lower() and not re.search(r" and |,|^please ", text) for text in texts)


def test_joined_sentences_vary_but_are_not_endless() -> None:
    rng, labels = np.random.default_rng(0), Labels("slow", "left")
    learnt, kept = (
        {sample_sentence(labels, rng, held_out) for _ in range(3000)} for held_out in (False, True)
    )
    assert 100 <= len(learnt) <= 120 and 50 <= len(kept) <= 120 and not learnt & kept


def test_labels_that_ask_for_nothing_cannot_be_said() -> None:
    with pytest.raises(ValueError, match="ask for nothing"):
        sample_sentence(Labels(), np.random.default_rng(0))


@pytest.mark.parametrize("text", ["", "sing a song", "keep left and sing a song", "keep left and keep right"])
def test_other_words_are_not_looked_up(text: str) -> None:
    assert lookup_labels(text) is None


@pytest.mark.parametrize(
    ("text", "labels"),
    [
        ("take it easy and stay on the left", Labels("slow", "left")),
        ("Please drive as fast as possible!", Labels("fast")),
        ("please keep to the right side of the road, then drive very slowly", Labels("crawl", "right")),
        ("at the junction please turn left; stop the car", Labels("stop", None, "left")),
    ],
)
def test_other_words_are_understood_by_the_nearest_phrasing(text: str, labels: Labels) -> None:
    assert parse_instruction(text, WordCounts()) == labels


def test_sides_are_kept_apart_whatever_the_encoder_says() -> None:
    def blind(texts: Sequence[str]) -> Tensor:
        return WordCounts()([re.sub("left|right", "there", text) for text in texts])

    for side in ("left", "right"):
        assert parse_instruction(f"please stay on the {side}", blind).place == side


def test_what_is_near_to_nothing_is_not_understood() -> None:
    with pytest.raises(DreamdriveError, match=r"instruction 'buy bread'.*not understood, expected a speed"):
        parse_instruction("buy bread", WordCounts())
