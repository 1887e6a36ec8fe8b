"""Metrics of following instructions: the trials of an evaluation, and the scores of what was driven."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from train.drive.rollout import held_out_seeds
from train.language.hindsight import PLACES, SPEEDS, Labels, SpeedScale, obeys
from train.language.instructions import parse_instruction, sample_sentence
from train.language.sentence_encoder import SentenceEncoder
from train.run.errors import DreamdriveError

SETTLE = 40
"""Decisions at the beginning of an episode that do not count: the car starts at rest."""
_MANOEUVRE_NAMES = {
    "left": "turn-left",
    "right": "turn-right",
    "straight": "go-straight",
    "change": "change-lane",
}
_RESAMPLES = 2000
_CONFIDENCE = 0.95


@dataclass(frozen=True)
class Trial:
    """One episode to be driven."""

    seed: int
    asked: Labels
    """The labels that are scored."""
    instruction: str
    """The sentence that the policy gets."""

    @property
    def name(self) -> str:
        """What is asked, in labels, such as "slow left" or "slow turn-left"."""
        turn = None if self.asked.manoeuvre is None else _MANOEUVRE_NAMES[self.asked.manoeuvre]
        words = (self.asked.speed, self.asked.place, turn)
        return " ".join(word for word in words if word is not None)


@dataclass
class TrialRecord:
    """How a trial was driven, one entry a decision."""

    trial: Trial
    speeds: list[float] = field(default_factory=list)
    """[m/s]."""
    offsets: list[float] = field(default_factory=list)
    """From the middle of road or lane, left positive [m]."""
    half_widths: list[float] = field(default_factory=list)
    """[m]."""
    manoeuvres: list[str] = field(default_factory=list)
    """What the route does ahead, one of MANOEUVRES or ""; always "" where there are no junctions."""

    def add(self, speed: float, offset: float, half_width: float, manoeuvre: str = "") -> None:
        """Add a decision."""
        self.speeds.append(speed)
        self.offsets.append(offset)
        self.half_widths.append(half_width)
        self.manoeuvres.append(manoeuvre)


@dataclass(frozen=True)
class EpisodeScore:
    """One episode driven."""

    seed: int
    asked: str
    told: str
    obedience: float
    """Share of the decisions after settling that are as asked; 0 for an episode that ended before."""
    speed_obedience: float | None
    """The same of the speed alone; None where none is asked for."""
    place_obedience: float | None
    """The same of the place alone."""
    score: float
    """Undiscounted return."""
    off_road: float
    """Share of all decisions with the car's middle beyond the edge of the road."""
    mean_speed: float
    """After settling [m/s]."""
    decisions: int
    manoeuvre_obedience: float | None = None
    """The share of the manoeuvre alone, of the decisions before and in places where the route does it."""


@dataclass(frozen=True)
class Interval:
    """A mean over episodes and its 95% interval, by the percentile bootstrap over episodes."""

    mean: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.mean:.2f} ({self.low:.2f}-{self.high:.2f})"


@dataclass(frozen=True)
class CellScore:
    """All episodes of which the same was asked."""

    asked: str
    episodes: int
    obedience: Interval
    speed_obedience: float | None
    place_obedience: float | None
    score: float
    off_road: float
    mean_speed: float
    manoeuvre_obedience: float | None = None


def suite_cells(junctions: bool = False) -> list[Labels]:
    """Every speed with every place, and where there are junctions every way through one."""
    turns = [Labels(manoeuvre=word) for word in ("left", "right", "straight")] if junctions else []
    return [Labels(speed, place) for speed in SPEEDS for place in PLACES] + turns


def evaluation_suite(episodes: int, first_seed: int, junctions: bool = False) -> list[Trial]:
    """`episodes` trials of every cell, by turns, each on a track of its own, in words that no training uses.

    The words are drawn by the seed of the track.
    """
    asked = suite_cells(junctions) * episodes
    return [
        Trial(seed, labels, sample_sentence(labels, np.random.default_rng([seed, 50]), True))
        for seed, labels in enumerate(asked, first_seed)
    ]


def repeated_trials(
    instructions: Sequence[tuple[str, Labels]], episodes: int, first_seed: int
) -> list[Trial]:
    """`episodes` trials of every instruction, by turns, each on a track of its own."""
    asked = list(instructions) * episodes
    return [Trial(seed, labels, text) for seed, (text, labels) in enumerate(asked, first_seed)]


def shuffled_trials(trials: Sequence[Trial]) -> list[Trial]:
    """The same trials, each with the instruction of one that asks for something else: the control.

    Every instruction is used once, and never where its own labels are asked for.

    Raises:
        DreamdriveError: more than half of the trials ask for the same.
    """
    names = [trial.name for trial in trials]
    # Sorted by what is asked, half a turn leads out of every group, and far: to another speed, too.
    order = sorted(range(len(trials)), key=lambda i: names[i])
    shift = len(trials) // 2
    if max(map(names.count, names)) > shift:
        raise DreamdriveError(
            "shuffle: more than half of the episodes are asked for the same: expected other instructions, too"
        )
    other = {order[i]: trials[order[(i + shift) % len(order)]] for i in range(len(order))}
    return [Trial(trial.seed, trial.asked, other[i].instruction) for i, trial in enumerate(trials)]


def manoeuvre_decisions(
    word: str, manoeuvres: Sequence[str], offsets: NDArray[Any], half_widths: NDArray[Any]
) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """In which of T decisions the route does the manoeuvre `word`, and in which of those the car does, too.

    The car does it in the decisions within its lane, if it also leaves the manoeuvre within the lane; a car
    that does not get through, or only beside the lane, has not done it at all.

    Args:
        word: one of MANOEUVRES.
        manoeuvres, offsets, half_widths: (T,), as in `TrialRecord`.
    """
    wanted = np.array([found == word for found in manoeuvres], bool)
    within = abs(offsets) <= half_widths
    done = np.zeros(len(wanted), bool)
    edges = np.flatnonzero(np.diff(np.concatenate([[False], wanted, [False]]).astype(int)))
    for first, after in zip(edges[::2], edges[1::2], strict=True):
        if after < len(wanted) and within[after - 1]:
            done[first:after] = within[first:after]
    return wanted, done


def score_trial(record: TrialRecord, score: float, scale: SpeedScale, settle: int = SETTLE) -> EpisodeScore:
    """The score of an episode with the return `score`, of which the first `settle` decisions do not count.

    Where a manoeuvre is asked for, only the decisions count in which the route does it; see
    `manoeuvre_decisions`.
    """
    asked = record.trial.asked
    speeds, offsets, half_widths = (
        np.array(column, np.float64) for column in (record.speeds, record.offsets, record.half_widths)
    )

    def share(labels: Labels) -> float:
        kept = obeys(labels, speeds, offsets, half_widths, scale)[settle:]
        if labels.manoeuvre is not None:
            wanted, done = manoeuvre_decisions(labels.manoeuvre, record.manoeuvres, offsets, half_widths)
            kept = (kept & done[settle:])[wanted[settle:]]
        return float(kept.mean()) if len(kept) else 0.0

    return EpisodeScore(
        seed=record.trial.seed,
        asked=record.trial.name,
        told=record.trial.instruction,
        obedience=share(asked),
        speed_obedience=None if asked.speed is None else share(Labels(speed=asked.speed)),
        place_obedience=None if asked.place is None else share(Labels(place=asked.place)),
        score=score,
        off_road=float((abs(offsets) > half_widths).mean()) if len(offsets) else 0.0,
        mean_speed=float(speeds[settle:].mean()) if len(speeds) > settle else 0.0,
        decisions=len(speeds),
        manoeuvre_obedience=None if asked.manoeuvre is None else share(Labels(manoeuvre=asked.manoeuvre)),
    )


def score_cells(episodes: Sequence[EpisodeScore]) -> list[CellScore]:
    """The scores of what is asked, in the order in which it first is."""
    result = []
    for name in dict.fromkeys(episode.asked for episode in episodes):
        own = [episode for episode in episodes if episode.asked == name]
        result.append(
            CellScore(
                asked=name,
                episodes=len(own),
                obedience=bootstrap_interval([[episode.obedience for episode in own]]),
                speed_obedience=_mean([e.speed_obedience for e in own]),
                place_obedience=_mean([e.place_obedience for e in own]),
                score=float(np.mean([e.score for e in own])),
                off_road=float(np.mean([e.off_road for e in own])),
                mean_speed=float(np.mean([e.mean_speed for e in own])),
                manoeuvre_obedience=_mean([e.manoeuvre_obedience for e in own]),
            )
        )
    return result


def mean_obedience(episodes: Sequence[EpisodeScore]) -> Interval:
    """Mean obedience over all episodes; the bootstrap draws as many as there are of each thing asked."""
    names = dict.fromkeys(episode.asked for episode in episodes)
    return bootstrap_interval([[e.obedience for e in episodes if e.asked == name] for name in names])


def bootstrap_interval(groups: Sequence[Sequence[float]], seed: int = 0) -> Interval:
    """The mean of all values, and the 2.5% and 97.5% quantiles of the means of 2000 resamples.

    Each resample draws from every group as many values as it has (a stratified bootstrap: Efron and
    Tibshirani 1993, chapters 8 and 13). With one value in each group there
    is no spread: the interval is the mean.
    """
    rng = np.random.default_rng(seed)
    count = sum(map(len, groups))
    sums: NDArray[np.float64] = np.zeros(_RESAMPLES)
    for group in groups:
        values = np.asarray(group, np.float64)
        sums += values[rng.integers(len(values), size=(_RESAMPLES, len(values)))].sum(1)
    tail = (1 - _CONFIDENCE) / 2
    low, high = np.quantile(sums / count, [tail, 1 - tail])
    mean = float(np.mean([value for group in groups for value in group]))
    return Interval(mean, float(low), float(high))


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known else None


@dataclass(frozen=True)
class InstructionOptions:
    """What an evaluation asks of a policy, and on which tracks."""

    episodes: int
    """For each instruction, or each cell of the suite."""
    first_seed: int = 1_000_000
    """Of the tracks, 1,000,000 or more; the others follow, a track for each episode."""
    instructions: Sequence[str] = ()
    """Instructions; each is driven `episodes` times."""
    suite: bool = False
    """Instead of instructions, every speed with every place (and every way through a junction), in phrasings
    kept for testing."""
    shuffle: bool = False
    """Give each episode the instruction of another one: a control, whose score must be clearly worse."""

    def trials(self, junctions: bool = False) -> list[Trial]:
        """The episodes to drive; `junctions` says whether the environment has any.

        Raises:
            DreamdriveError: both or neither of suite and instructions; a sentence that is not understood;
                seeds that training may have used; or as `shuffled_trials`.
        """
        if self.suite == bool(self.instructions):
            raise DreamdriveError("eval: expected either --instruction, once or several times, or --suite")
        if self.suite:
            trials = evaluation_suite(self.episodes, self.first_seed, junctions)
        else:
            encoder = SentenceEncoder()
            meant = [(text, parse_instruction(text, encoder)) for text in self.instructions]
            trials = repeated_trials(meant, self.episodes, self.first_seed)
        held_out_seeds(len(trials), self.first_seed)
        return shuffled_trials(trials) if self.shuffle else trials
