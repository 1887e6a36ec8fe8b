"""Sampling of commands for demonstrations: a speed and a place on the road, which hold for a while."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, Field, field_validator, model_validator

from train.language.hindsight import PLACES, SPEEDS, Labels

SIDE = 0.5
"""Where the sides of the road or lane are driven, in half widths from its middle."""
_STOPS_THERE = 0.5  # share of the stops that keep the place before


class CommandsConfig(BaseModel, extra="forbid", validate_assignment=True, use_attribute_docstrings=True):
    """Commands of demonstrations, and how long they hold."""

    speeds: tuple[str, ...] = ("crawl", "slow", "brisk", "fast", "stop")
    """Speeds that are commanded: any of stop, crawl, slow, brisk, fast; not only stop."""
    places: tuple[str, ...] = PLACES
    """Places on the road that are commanded: any of left, centre, right; none for no place at all."""
    no_place: float = Field(0.2, ge=0, le=1)
    """Share of the commands that leave the place open."""
    shortest: int = Field(25, ge=1)
    """Least that a command holds [decisions]."""
    longest: int = Field(60, ge=1)
    """Most that a command holds [decisions]; the last one ends with the episode."""
    shortest_stop: int = Field(15, ge=1)
    """Least that a command to stop holds [decisions]; the car may have to pull over first."""
    longest_stop: int = Field(30, ge=1)
    """Most that a command to stop holds [decisions]."""

    @field_validator("speeds")
    @classmethod
    def _speeds(cls, words: tuple[str, ...]) -> tuple[str, ...]:
        if not set(words) - {"stop"}:
            raise ValueError(f"{', '.join(words) or 'nothing'}: expected one that moves the car")
        return _known(words, SPEEDS)

    @field_validator("places")
    @classmethod
    def _places(cls, words: tuple[str, ...]) -> tuple[str, ...]:
        return _known(words, PLACES)

    @model_validator(mode="after")
    def _lengths(self) -> "CommandsConfig":
        if self.shortest > self.longest or self.shortest_stop > self.longest_stop:
            raise ValueError("shortest, shortest_stop: expected at most longest and longest_stop")
        return self


def _known(words: tuple[str, ...], known: tuple[str, ...]) -> tuple[str, ...]:
    if unknown := [word for word in words if word not in known]:
        raise ValueError(f"{unknown[0]!r}: expected some of {', '.join(known)}")
    return words


def sample_commands(config: CommandsConfig, decisions: int, rng: np.random.Generator) -> list[Labels]:
    """The command in each of an episode's decisions; each holds for a while.

    No stop follows a stop; half of the stops keep the place before.
    """
    moving = [speed for speed in config.speeds if speed != "stop"]
    commands: list[Labels] = []
    stops = len(moving) < len(config.speeds)
    standing, place = False, None
    while len(commands) < decisions:
        standing = stops and not standing and rng.random() < 1 / len(config.speeds)
        if not (standing and rng.random() < _STOPS_THERE):
            open_place = not config.places or rng.random() < config.no_place
            place = None if open_place else str(rng.choice(config.places))
        if standing:
            asked = Labels("stop", place)
            length = int(rng.integers(config.shortest_stop, config.longest_stop + 1))
        else:
            asked = Labels(str(rng.choice(moving)), place)
            length = int(rng.integers(config.shortest, config.longest + 1))
        commands += [asked] * length
    return commands[:decisions]


def lateral_target(place: str | None) -> float:
    """How far from the middle of the road or lane a place, one of PLACES, is driven, in half widths, left
    positive; 0 for None."""
    return {None: 0.0, "left": SIDE, "centre": 0.0, "right": -SIDE}[place]


def settled(commands: Sequence[Labels], after: int) -> NDArray[np.bool_]:
    """Which decisions (T,) come at least `after` decisions after the command they follow was given."""
    result = np.zeros(len(commands), bool)
    since = 0
    for row, asked in enumerate(commands):
        since = since + 1 if row and asked == commands[row - 1] else 0
        result[row] = since >= after
    return result
