"""Fits the instruction classifier on the phrasebook, before a policy is trained with it."""

from itertools import combinations, product

import numpy as np
import torch

from agent.behaviour.vla.instruction_classifier import InstructionClassifier
from train.language.hindsight import MANOEUVRES, PLACES, SPEEDS, Labels
from train.language.instructions import TextEncoder, phrasings, sample_sentence

_KINDS = {"speed": SPEEDS, "place": PLACES, "manoeuvre": MANOEUVRES}
CLASS_COUNTS = tuple(len(words) + 1 for words in _KINDS.values())
"""Classes of each kind: speeds, places and manoeuvres, and after each a class for none."""
_PER_PAIR = 40  # joined sentences of two labels
_UPDATES, _BATCH = 800, 256
_LEARNING_RATE, _WEIGHT_DECAY = 1e-3, 0.1


def fit_instruction_classifier(classifier: InstructionClassifier, encoder: TextEncoder, seed: int) -> float:
    """Fit a classifier on the phrasings for training; its accuracy on those kept for testing.

    Args:
        classifier: with CLASS_COUNTS, freshly initialised.
        encoder: of sentences.
        seed: of the sentences and their order.
    """
    texts, targets = labelled_sentences(seed, held_out=False)
    fit_classifier(classifier, encoder(texts), targets, _UPDATES, _BATCH, seed)
    texts, targets = labelled_sentences(seed, held_out=True)
    return float((classifier.read(encoder(texts)) == targets).all(1).float().mean())


@torch.enable_grad()
def fit_classifier(
    classifier: InstructionClassifier,
    text: torch.Tensor,
    targets: torch.Tensor,
    updates: int,
    batch_size: int,
    seed: int,
) -> None:
    """Train a classifier on N sentences, by AdamW.

    Args:
        classifier: changed in place; it has no gradients afterwards.
        text: (N, E) embeddings.
        targets: (N, kinds) int64, the class of each kind.
        updates: steps of the optimiser.
        batch_size: sentences in each, drawn with replacement.
        seed: of the draws; the first weights are as they are.
    """
    optimizer = torch.optim.AdamW(classifier.parameters(), lr=_LEARNING_RATE, weight_decay=_WEIGHT_DECAY)
    generator = torch.Generator().manual_seed(seed)
    for _ in range(updates):
        rows = torch.randint(len(text), (batch_size,), generator=generator).to(text.device)
        loss = classifier.loss(text[rows], targets[rows])
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
    optimizer.zero_grad(set_to_none=True)


def labelled_sentences(seed: int, held_out: bool) -> tuple[list[str], torch.Tensor]:
    """N sentences and what they say (N, kinds): every phrasing, and 40 drawn for each two labels together."""
    found = dict(phrasings(held_out))
    rng = np.random.default_rng([seed, 44])
    for one, other in combinations(_KINDS, 2):
        for values in product(_KINDS[one], _KINDS[other]):
            labels = Labels(**dict(zip((one, other), values, strict=True)))
            for _ in range(_PER_PAIR):
                found[sample_sentence(labels, rng, held_out)] = labels
    return list(found), torch.tensor([class_indices(labels) for labels in found.values()])


def class_indices(labels: Labels) -> list[int]:
    """The class of each kind that labels name, in the order of CLASS_COUNTS."""
    values = [(words, getattr(labels, kind)) for kind, words in _KINDS.items()]
    return [len(words) if value is None else words.index(value) for words, value in values]
