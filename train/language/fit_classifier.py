"""The phrasebook as lessons for the policy's reader of instructions."""

from itertools import combinations, product

import numpy as np
import torch

from agent.behaviour.vla.instruction_classifier import InstructionReader
from train.language.hindsight import MANOEUVRES, PLACES, SPEEDS, Labels
from train.language.instructions import Encoder, phrase, phrasings

_KINDS = {"speed": SPEEDS, "place": PLACES, "manoeuvre": MANOEUVRES}
READING = tuple(len(words) + 1 for words in _KINDS.values())
"""Classes of each kind: speeds, places and manoeuvres, and after each a class for none."""
_PER_PAIR = 40  # joined sentences of two labels
_UPDATES, _BATCH = 800, 256


def fit_reader(reader: InstructionReader, encoder: Encoder, seed: int) -> float:
    """Teach a reader the phrasings that are learnt from; the share of the kept ones that it reads aright.

    Args:
        reader: of the classes READING, freshly initialised.
        encoder: of sentences.
        seed: of the sentences and their order.
    """
    texts, said = lessons(seed, held_out=False)
    reader.fit(encoder(texts), said, _UPDATES, _BATCH, seed)
    texts, said = lessons(seed, held_out=True)
    return float((reader.read(encoder(texts)) == said).all(1).float().mean())


def lessons(seed: int, held_out: bool) -> tuple[list[str], torch.Tensor]:
    """N sentences and what they say (N, kinds): every phrasing, and 40 drawn for each two labels together."""
    found = dict(phrasings(held_out))
    rng = np.random.default_rng([seed, 44])
    for one, other in combinations(_KINDS, 2):
        for values in product(_KINDS[one], _KINDS[other]):
            labels = Labels(**dict(zip((one, other), values, strict=True)))
            for _ in range(_PER_PAIR):
                found[phrase(labels, rng, held_out)] = labels
    return list(found), torch.tensor([classes(labels) for labels in found.values()])


def classes(labels: Labels) -> list[int]:
    """The class of each kind that labels name, in the order of READING."""
    values = [(words, getattr(labels, kind)) for kind, words in _KINDS.items()]
    return [len(words) if value is None else words.index(value) for words, value in values]
