"""The task sentence of each row: the recorded one, or one found by hindsight relabelling."""

from typing import Literal

import numpy as np
from pydantic import BaseModel, Field

from train.convert.lerobot.columns import TASK_EXTRA
from train.data.episodes import Episode
from train.language.hindsight import CAR_RACING_SPEEDS, CARLA_SPEEDS, Labels, commanded_rows, label_rows
from train.language.instructions import sample_sentence
from train.run.errors import DreamdriveError


class TaskConfig(BaseModel, extra="forbid", validate_assignment=True, use_attribute_docstrings=True):
    """Where sentences come from: an extra `task`, else extras `asked_*`, else hindsight, else `otherwise`."""

    hindsight: bool = True
    """Label episodes with `speeds` but without a sentence by hindsight relabelling."""
    speeds: Literal["car-racing", "carla"] = "car-racing"
    """Environment whose classes of speed hindsight relabelling uses."""
    window: int = Field(8, ge=1)
    """Decisions after a row from which hindsight relabelling finds its label."""
    otherwise: str = Field("drive", min_length=1)
    """The sentence of rows without a label."""
    seed: int = Field(0, ge=0)
    """Seed of the choice of phrasings."""


def row_tasks(where: str, episode: Episode, number: int, config: TaskConfig) -> list[str]:
    """A sentence for each of the T rows; rows of an episode with equal labels have the same.

    Args:
        where: begins every error message.
        episode: of T actions.
        number: of the episode, so that each chooses phrasings of its own.
        config: where sentences come from.

    Raises:
        DreamdriveError: the extra `task` is neither a text nor T of them, or what hindsight needs is broken.
    """
    steps = len(episode)
    given = episode.extras.get(TASK_EXTRA)
    if given is not None:
        if given.dtype.kind != "U" or given.shape not in ((), (steps,)):
            raise DreamdriveError(
                f"{where}: extra {TASK_EXTRA!r}: {given.shape} {given.dtype}, expected one text or {steps}"
            )
        return [str(text) or config.otherwise for text in np.broadcast_to(given, (steps,))]
    if not config.hindsight or "speeds" not in episode.extras:
        return [config.otherwise] * steps
    rng = np.random.default_rng([config.seed, number])
    said = {Labels(): config.otherwise}
    sentences = []
    for labels in _labels(where, episode, config):
        if labels not in said:
            said[labels] = sample_sentence(labels, rng)
        sentences.append(said[labels])
    return sentences


def _labels(where: str, episode: Episode, config: TaskConfig) -> list[Labels]:
    """What each row was asked for or, where that says nothing, turned out to obey."""
    scale = CAR_RACING_SPEEDS if config.speeds == "car-racing" else CARLA_SPEEDS
    try:
        found = label_rows(episode, scale, config.window)
        asked = commanded_rows(episode)
    except DreamdriveError as error:
        raise DreamdriveError(f"{where}: {error}") from error
    return found if asked is None else [a or b for a, b in zip(asked, found, strict=True)]
