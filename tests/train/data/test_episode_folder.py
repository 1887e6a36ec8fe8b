"""Which numbers the next episodes get."""

from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from train.data.episode_folder import EpisodeFiles, numbered


@given(st.sets(st.integers(0, 40)), st.integers(0, 40))
def test_gaps_are_filled_up_to_the_number_asked_for(there: set[int], episodes: int) -> None:
    files = EpisodeFiles.__new__(EpisodeFiles)
    files.numbers = there
    missing = files.missing(episodes)
    assert len(missing) == max(0, episodes - len(there)) and not set(missing) & there
    assert missing == sorted(missing) and all(number < episodes for number in missing)


def test_only_whole_files_are_counted(tmp_path: Path) -> None:
    for name in ("episode_000007.npz", ".episode_000008.npz.partial", "episode_2.txt", "episode_000001.npz"):
        (tmp_path / name).touch()
    assert [number for number, _ in numbered(tmp_path)] == [1, 7]
