"""Lessons for the reader of instructions: true, of all that can be said, and none in the kept words."""

import hashlib
from collections import Counter
from collections.abc import Sequence

import pytest
import torch
from torch import Tensor

from agent.behaviour.vla.instruction_classifier import InstructionClassifier
from train.language.fit_classifier import (
    CLASS_COUNTS,
    class_indices,
    fit_classifier,
    fit_instruction_classifier,
    labelled_sentences,
)
from train.language.hindsight import Labels
from train.language.instructions import lookup_labels


def bag(texts: Sequence[str]) -> Tensor:
    """(B, 256), length 1: what words there are."""
    found = torch.zeros(len(texts), 256)
    for row, text in enumerate(texts):
        for word in text.replace(",", "").split():
            found[row, hashlib.sha256(word.encode()).digest()[0]] += 1
    return torch.nn.functional.normalize(found, dim=1)


def test_lessons_are_true_and_say_everything() -> None:
    texts, said = labelled_sentences(3, held_out=False)
    assert len(texts) == len(set(texts)) == len(said)
    for text, row in list(zip(texts, said.tolist(), strict=True))[::7]:
        labels = lookup_labels(text)
        assert labels is not None and class_indices(labels) == row
    for kind, size in enumerate(CLASS_COUNTS):
        assert set(said[:, kind].tolist()) == set(range(size))
    named = Counter((said != torch.tensor(CLASS_COUNTS) - 1).sum(1).tolist())
    assert set(named) == {1, 2} and min(named.values()) > 300
    assert labelled_sentences(3, held_out=False)[0] == texts != labelled_sentences(4, held_out=False)[0]


def test_nothing_kept_for_testing_is_learnt() -> None:
    assert not set(labelled_sentences(0, held_out=False)[0]) & set(labelled_sentences(0, held_out=True)[0])


def test_classes_of_nothing_are_the_last_ones() -> None:
    assert class_indices(Labels()) == [size - 1 for size in CLASS_COUNTS]
    assert class_indices(Labels("stop", "left", "left")) == [0, 0, 0]


@pytest.mark.slow
def test_a_classifier_knows_what_it_learnt_and_most_of_what_it_did_not() -> None:
    torch.manual_seed(0)
    reader = InstructionClassifier(256, CLASS_COUNTS)
    kept = fit_instruction_classifier(reader, bag, 0)
    texts, said = labelled_sentences(0, held_out=False)
    assert (reader.read(bag(texts)) == said).all(1).float().mean() > 0.97
    assert 0.3 < kept < 1.0  # by chance less than 0.02


def sentences() -> tuple[Tensor, Tensor]:
    """(24, 16) embeddings that say one of 3 and one of 4 things, with some noise, and what they say."""
    generator = torch.Generator().manual_seed(0)
    said = torch.cartesian_prod(torch.arange(3), torch.arange(4)).repeat(2, 1)
    clean = torch.cat(
        [torch.nn.functional.one_hot(said[:, 0], 8), torch.nn.functional.one_hot(said[:, 1], 8)], 1
    )
    noisy = clean + 0.1 * torch.randn(24, 16, generator=generator)
    return torch.nn.functional.normalize(noisy, dim=1), said


def fitted(seed: int) -> InstructionClassifier:
    torch.manual_seed(0)
    reader = InstructionClassifier(16, (3, 4))
    fit_classifier(reader, *sentences(), updates=60, batch_size=32, seed=seed)
    return reader


def test_it_learns_to_read_and_the_seed_decides_how() -> None:
    text, said = sentences()
    reader = fitted(1)
    assert torch.equal(reader.read(text), said)
    assert (reader(text).max() > 0.9) and all(p.grad is None for p in reader.parameters())
    again, other = fitted(1).state_dict(), fitted(2).state_dict()
    assert all(torch.equal(value, again[name]) for name, value in reader.state_dict().items())
    assert any(not torch.equal(value, other[name]) for name, value in reader.state_dict().items())
