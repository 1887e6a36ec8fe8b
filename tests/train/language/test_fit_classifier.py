"""Lessons for the reader of instructions: true, of all that can be said, and none in the kept words."""

import hashlib
from collections import Counter
from collections.abc import Sequence

import torch
from torch import Tensor

from agent.behaviour.vla.instruction_classifier import InstructionReader
from train.language.fit_classifier import READING, classes, fit_reader, lessons
from train.language.hindsight import Labels
from train.language.instructions import lookup


def bag(texts: Sequence[str]) -> Tensor:
    """(B, 256), length 1: what words there are."""
    found = torch.zeros(len(texts), 256)
    for row, text in enumerate(texts):
        for word in text.replace(",", "").split():
            found[row, hashlib.sha256(word.encode()).digest()[0]] += 1
    return torch.nn.functional.normalize(found, dim=1)


def test_lessons_are_true_and_say_everything() -> None:
    texts, said = lessons(3, held_out=False)
    assert len(texts) == len(set(texts)) == len(said)
    for text, row in list(zip(texts, said.tolist(), strict=True))[::7]:
        labels = lookup(text)
        assert labels is not None and classes(labels) == row
    for kind, size in enumerate(READING):
        assert set(said[:, kind].tolist()) == set(range(size))
    named = Counter((said != torch.tensor(READING) - 1).sum(1).tolist())
    assert set(named) == {1, 2} and min(named.values()) > 300
    assert lessons(3, held_out=False)[0] == texts != lessons(4, held_out=False)[0]


def test_nothing_kept_for_testing_is_taught() -> None:
    assert not set(lessons(0, held_out=False)[0]) & set(lessons(0, held_out=True)[0])


def test_classes_of_nothing_are_the_last_ones() -> None:
    assert classes(Labels()) == [size - 1 for size in READING]
    assert classes(Labels("stop", "left", "left")) == [0, 0, 0]


def test_a_reader_reads_what_it_was_taught_and_most_of_what_it_was_not() -> None:
    torch.manual_seed(0)
    reader = InstructionReader(256, READING)
    kept = fit_reader(reader, bag, 0)
    texts, said = lessons(0, held_out=False)
    assert (reader.read(bag(texts)) == said).all(1).float().mean() > 0.97
    assert 0.3 < kept < 1.0  # by chance less than 0.02
