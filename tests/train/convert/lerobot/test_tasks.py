"""Which sentence a row gets."""

import numpy as np
import pytest

from tests.train.convert.lerobot.drives import drive
from train.convert.lerobot.tasks import TaskConfig, row_tasks
from train.language.hindsight import CAR_RACING_SPEEDS, Labels, label_rows
from train.language.instructions import phrasings
from train.run.errors import DreamdriveError

KNOWN = dict(phrasings(held_out=False))


def test_an_extra_says_it() -> None:
    episode = drive(steps=3)
    episode.extras["task"] = np.array("go on")
    assert row_tasks("e", episode, 0, TaskConfig()) == ["go on"] * 3
    episode.extras["task"] = np.array(["a", "", "c"])
    assert row_tasks("e", episode, 0, TaskConfig(otherwise="just drive")) == ["a", "just drive", "c"]


def test_another_extra_of_that_name_is_told() -> None:
    episode = drive(steps=3)
    for wrong in (np.array(["a", "b"]), np.arange(3)):
        episode.extras["task"] = wrong
        with pytest.raises(DreamdriveError, match="^e: extra 'task'.*expected one text or 3"):
            row_tasks("e", episode, 0, TaskConfig())


def test_hindsight_says_it_else() -> None:
    episode = drive(steps=20)
    del episode.extras["manoeuvres"], episode.extras["offsets"]
    said = row_tasks("e", episode, 0, TaskConfig(window=4))
    labels = label_rows(episode, CAR_RACING_SPEEDS, 4)
    assert Labels("brisk") in labels and len(set(said)) == len(set(labels))
    for sentence, label in zip(said, labels, strict=True):
        assert KNOWN[sentence] == label if label else sentence == "drive"
    assert said == row_tasks("e", episode, 0, TaskConfig(window=4))
    others = {row_tasks("e", episode, number, TaskConfig(window=4))[0] for number in range(20)}
    assert len(others) > 1


def test_what_was_asked_goes_before_what_was_done() -> None:
    episode = drive(steps=4)
    episode.extras |= {"asked_speeds": np.array(["crawl"] * 4), "asked_places": np.array([""] * 4)}
    (sentence,) = set(row_tasks("e", episode, 0, TaskConfig()))
    assert KNOWN[sentence] == Labels("crawl")


def test_nothing_known_is_said_so() -> None:
    episode = drive(steps=3)
    assert row_tasks("e", episode, 0, TaskConfig(hindsight=False)) == ["drive"] * 3
    del episode.extras["speeds"]
    assert row_tasks("e", episode, 0, TaskConfig()) == ["drive"] * 3


def test_what_hindsight_cannot_use_is_told_with_its_file() -> None:
    episode = drive(steps=3)
    episode.extras["speeds"] = np.zeros((3, 2), np.float32)
    with pytest.raises(DreamdriveError, match=r"^a\.npz: .*'speeds'"):
        row_tasks("a.npz", episode, 0, TaskConfig())
