"""The folder that episodes from CARLA are collected in: numbered files, and notes on how they were made."""

import fcntl
import json
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from train.data.episodes import Episode, write_episode
from train.run.checkpoint import write_text_aside
from train.run.errors import DreamdriveError, explain_os_errors
from train.run.options import flatten

NOTES = "collect.json"
_NAME = re.compile(r"episode_(\d+)\.npz")


class EpisodeFiles:
    """`episode_NNNNNN.npz` in a folder that this process has for itself; see `opened`."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.numbers = {number for number, _ in numbered(path)}
        """Those of the episodes that are there."""

    def write(self, number: int, episode: Episode) -> None:
        """Write an episode, whole or not at all.

        Raises:
            DreamdriveError: the disk refuses.
        """
        write_episode(self.path / f"episode_{number:06d}.npz", episode)
        self.numbers.add(number)

    def missing(self, episodes: int) -> list[int]:
        """The smallest free numbers that make it `episodes` in all: gaps first, then those after the last."""
        free = (number for number in range(episodes) if number not in self.numbers)
        return [number for number, _ in zip(free, range(episodes - len(self.numbers)), strict=False)]


def numbered(path: Path) -> list[tuple[int, Path]]:
    """The episodes of a folder with their numbers, in order."""
    with explain_os_errors("cannot read", path):
        found = [(_NAME.fullmatch(file.name), file) for file in path.iterdir()]
    return sorted((int(match[1]), file) for match, file in found if match)


@contextmanager
def opened(path: Path, made: Mapping[str, Any]) -> Iterator[EpisodeFiles]:
    """Make the folder, or go on in one of the same kind; no other process collects there meanwhile.

    Args:
        path: the folder.
        made: how its episodes are made, in JSON's types; the folder remembers it.

    Raises:
        DreamdriveError: it is in use, its episodes were made in another way, or the disk refuses.
    """
    with explain_os_errors("cannot make the folder", path):
        path.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise DreamdriveError(f"{path}: in use, expected that nobody else collects there") from error
        _same(path, made)
        yield EpisodeFiles(path)
    finally:
        os.close(descriptor)


def _same(path: Path, made: Mapping[str, Any]) -> None:
    notes = path / NOTES
    if not notes.exists():
        if numbered(path):
            raise DreamdriveError(f"{path}: has episodes but no {NOTES}, expected one that this command made")
        write_text_aside(notes, json.dumps(made, indent=1) + "\n")
        return
    try:
        with explain_os_errors("cannot read", notes):
            found = flatten(json.loads(notes.read_text()))
    except (ValueError, AttributeError) as error:
        raise DreamdriveError(f"{notes}: broken, expected what collecting wrote there") from error
    wanted = flatten(made)
    for name in sorted(wanted.keys() | found.keys()):
        if wanted.get(name) != found.get(name):
            raise DreamdriveError(
                f"{path}: was collected with {name} {found.get(name)}, expected {wanted.get(name)}; give "
                "another folder"
            )
