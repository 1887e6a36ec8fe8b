"""Instructions: sentences sampled for labels, and labels parsed from sentences."""

import re
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from train.language.hindsight import Labels
from train.language.phrasebook import MANOEUVRE_PHRASES, PLACE_PHRASES, SPEED_PHRASES, Phrasings
from train.run.errors import DreamdriveError, one_line

TextEncoder: TypeAlias = Callable[[Sequence[str]], Tensor]
"""Sentences -> (B, E) embeddings, such as `train.language.sentence_encoder.SentenceEncoder`."""

_KINDS: Mapping[str, Mapping[str, Phrasings]] = {
    "speed": SPEED_PHRASES,
    "place": PLACE_PHRASES,
    "manoeuvre": MANOEUVRE_PHRASES,
}
_LEARNT_JOINTS = (" and ", ", ")
_KEPT_JOINTS = (" and please ", ", and ")
# The longest first, so that none is taken for a part of another.
_JOINT = re.compile("|".join(sorted(map(re.escape, _LEARNT_JOINTS + _KEPT_JOINTS), key=len, reverse=True)))
_CLAUSE = re.compile(r"[,.;:!?]|\b(?:and|but|while|then)\b")
_JOINED = 120  # sentences for each combination of labels
_SIDE = re.compile(r"\b(?:left|right)\b")
_RUNS = range(2, 5)  # words
_NEAR, _NEAR_RUN = 0.6, 0.8  # least cosine between a clause, or words of one, and the nearest phrasing


def sample_sentence(labels: Labels, rng: np.random.Generator, held_out: bool = False) -> str:
    """A sentence that asks for the labels: a phrasing for each, in any order, joined.

    There are 120 joined sentences for the same labels, drawn once and for all: an encoder needs its time for
    each new one.

    Args:
        labels: at least one that is not None.
        rng: chooses.
        held_out: choose among the words kept for testing, in which no policy is trained.

    Raises:
        ValueError: the labels leave everything open.
    """
    choices = [_choices(_KINDS[kind][value], held_out) for kind, value in _said(labels).items()]
    if not choices:
        raise ValueError(
            "sample_sentence: labels that ask for nothing, expected a speed, a place or a manoeuvre"
        )
    if len(choices) == 1:
        return str(rng.choice(choices[0]))
    order = np.random.default_rng([int(rng.integers(_JOINED)), held_out])
    text = ""
    for index in order.permutation(len(choices)):
        joint = str(order.choice(_KEPT_JOINTS if held_out else _LEARNT_JOINTS))
        text += (joint if text else "") + str(order.choice(choices[index]))
    return text


@cache
def _single(held_out: bool) -> tuple[tuple[str, Labels], ...]:
    return tuple(
        (text, Labels(**{kind: value}))
        for kind, words in _KINDS.items()
        for value, choices in words.items()
        for text in _choices(choices, held_out)
    )


def phrasings(held_out: bool) -> list[tuple[str, Labels]]:
    """Every phrasing of a single label, with that label; sentences for several labels join them."""
    return list(_single(held_out))


def lookup_labels(text: str) -> Labels | None:
    """What a text means that `sample_sentence` could have made; None of any other."""
    known = dict(_single(False) + _single(True))
    found: dict[str, str] = {}
    for clause in _JOINT.split(text.strip().lower()):
        if clause not in known:
            return None
        for kind, value in _said(known[clause]).items():
            if kind in found:
                return None
            found[kind] = value
    return Labels(**found)


def parse_instruction(text: str, encoder: TextEncoder) -> Labels:
    """The labels that an instruction, in any words, asks for.

    Sentences of `sample_sentence` are looked up. Of others, the whole, its clauses, and runs of words in
    them are each compared with every phrasing; for each of speed, place and manoeuvre the nearest counts,
    if it is near.

    Args:
        text: in English, such as "take it easy and stay on the left".
        encoder: of sentences.

    Raises:
        DreamdriveError: nothing in it is near to any instruction, or the encoder refuses it.
    """
    known = lookup_labels(text)
    if known is not None:
        return known
    parts = _parts(text)
    examples = _single(False) + _single(True)
    near = _unit(encoder(list(parts))) @ _unit(encoder([example for example, _ in examples])).T
    # Sentence encoders put opposite sides close together: another side's phrasing is not compared at all.
    sides = [_sides(example) for example, _ in examples]
    for row, part in enumerate(parts):
        near[row, [side != _sides(part) for side in sides]] = 0.0
    found: dict[str, tuple[float, str]] = {}
    for row, least in enumerate(parts.values()):
        # A part says one thing: what it is nearest to.
        example = int(near[row].argmax())
        how_near = float(near[row, example])
        for kind, value in _said(examples[example][1]).items():
            if how_near >= least and how_near > found.get(kind, (0.0, ""))[0]:
                found[kind] = how_near, value
    sided = [kind for kind, (_, value) in found.items() if value in ("left", "right")]
    if len(sided) == 2 and len(_SIDE.findall(text.lower())) == 1:
        # A side that is named once is either a place or a turn.
        del found[min(sided, key=lambda kind: found[kind][0])]
    if not found:
        closest = examples[int(near.max(0).argmax())][0]
        raise DreamdriveError(
            f"instruction {one_line(text)[:80]!r}: not understood, expected a speed, a place on the road or "
            f"a manoeuvre; the nearest one known is {closest!r}"
        )
    return Labels(**{kind: value for kind, (_, value) in found.items()})


def _parts(text: str) -> dict[str, float]:
    """The whole text, its clauses and runs of words in them, each with how near it must be to count."""
    parts = {text: _NEAR}
    for clause in _CLAUSE.split(text.lower()):
        words = clause.split()
        if words:
            parts.setdefault(" ".join(words), _NEAR)
        for length in _RUNS:
            for start in range(len(words) - length + 1):
                parts.setdefault(" ".join(words[start : start + length]), _NEAR_RUN)
    return parts


def _sides(text: str) -> frozenset[str]:
    return frozenset(_SIDE.findall(text.lower()))


def _choices(words: Phrasings, held_out: bool) -> tuple[str, ...]:
    return words.kept if held_out else words.learnt


def _said(labels: Labels) -> dict[str, str]:
    """The labels that are not None, by kind."""
    return {kind: value for kind in _KINDS if (value := getattr(labels, kind)) is not None}


def _unit(embeddings: Tensor) -> NDArray[Any]:
    """Rows of length 1."""
    values: NDArray[Any] = embeddings.detach().cpu().double().numpy()
    return values / np.linalg.norm(values, axis=1, keepdims=True).clip(min=1e-12)
