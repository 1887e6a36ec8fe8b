import numpy as np
import pytest

from train.run.errors import DreamdriveError
from train.data.columns import EpisodeColumns
from train.data.split import Segments, acceptance, accepted, bin_numbers, hold_out, split_by_file, split_by_place, split_rollouts


def cache(position: np.ndarray, ends: list[int], groups: str = "", places: list[str] | None = None) -> EpisodeColumns:
    names = [f"{n}.npz" for n in range(len(ends))]
    folders = groups.split() if groups else [""] * len(ends)
    return EpisodeColumns({"position": position}, np.array(ends), names, folders, places or [""] * len(ends))


def rows(segments: Segments) -> np.ndarray:
    parts = [np.arange(s, e) for s, e in zip(segments.start, segments.end, strict=True)]
    return np.concatenate(parts) if parts else np.zeros(0, int)


def drive(seed: int, count: int) -> np.ndarray:
    """A wandering drive of one metre a row, (count, 2) metres."""
    rng = np.random.default_rng(seed)
    heading = np.cumsum(rng.normal(0, 0.05, count))
    return rng.uniform(-300, 300, 2) + np.cumsum(np.stack([np.cos(heading), np.sin(heading)], 1), 0)


def test_files_are_held_out_whole_and_by_the_seed() -> None:
    data = cache(np.zeros((100, 2)), list(range(10, 101, 10)))
    parts = split_by_file(data, 0.2, 0.1, 0)
    assert [len(parts[name].start) for name in ("train", "val", "test")] == [7, 2, 1]
    everything = np.concatenate([rows(parts[name]) for name in parts])
    assert sorted(everything.tolist()) == list(range(100))
    again, other = split_by_file(data, 0.2, 0.1, 0), split_by_file(data, 0.2, 0.1, 1)
    assert np.array_equal(again["val"].episode, parts["val"].episode)
    assert not np.array_equal(other["val"].episode, parts["val"].episode)


def test_at_least_one_file_is_held_out_and_none_if_none_is_wanted() -> None:
    data = cache(np.zeros((30, 2)), [10, 20, 30])
    assert len(split_by_file(data, 0.01, 0.0, 0)["val"].start) == 1
    assert len(split_by_file(data, 0.0, 0.0, 0)["train"].start) == 3
    with pytest.raises(DreamdriveError, match="1 episodes to train on, 1 of them to hold out"):
        split_by_file(cache(np.zeros((10, 2)), [10]), 0.1, 0.0, 0)


def test_folders_sorted_by_hand_are_kept() -> None:
    data = cache(np.zeros((40, 2)), [10, 20, 30, 40], "train val train test")
    parts = split_by_file(data, 0.5, 0.5, 0)
    assert parts["train"].episode.tolist() == [0, 2]
    assert parts["val"].episode.tolist() == [1] and parts["test"].episode.tolist() == [3]


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("fence", [5.0, 20.0])
def test_held_out_places_are_far_from_those_learnt_from(seed: int, fence: float) -> None:
    drives = [drive(seed * 10 + n, 1000) for n in range(4)]
    position = np.concatenate(drives)
    data = cache(position, [1000, 2000, 3000, 4000])
    parts = split_by_place(data, 0.2, 0.1, fence, seed)
    for kept, held_out in (("train", "val"), ("train", "test"), ("val", "test")):
        here, there = position[rows(parts[kept])], position[rows(parts[held_out])]
        distance = np.linalg.norm(here[:, None] - there[None], axis=-1)
        assert distance.min() >= fence
    share = len(rows(parts["val"])) / len(position)
    assert 0.02 < share < 0.5 and len(rows(parts["train"])) > 0.2 * len(position)


def test_stretches_of_a_place_never_cross_an_episode() -> None:
    # Two episodes that go on in the same place: one stretch each.
    position = np.concatenate([np.zeros((10, 2)), np.ones((10, 2)), np.full((20, 2), 900.0)])
    parts = split_by_place(cache(position, [10, 20, 40]), 0.4, 0.0, 5.0, 1)
    whole = {name: list(zip(p.episode, p.start, p.end, strict=True)) for name, p in parts.items()}
    near, far = [(0, 0, 10), (1, 10, 20)], [(2, 20, 40)]
    assert (whole["train"], whole["val"]) in ((near, far), (far, near)) and whole["test"] == []


def test_a_stretch_ends_where_the_place_does() -> None:
    # One drive along a line: what is learnt from is cut where the fence begins.
    position = np.stack([np.arange(1000.0), np.zeros(1000)], 1)
    parts = split_by_place(cache(position, [1000]), 0.2, 0.0, 10.0, 3)
    assert len(parts["train"].start) >= 1
    for part in parts.values():
        assert (part.end > part.start).all()
        assert (np.diff(np.sort(rows(part))) >= 1).all()
    assert not set(rows(parts["train"]).tolist()) & set(rows(parts["val"]).tolist())


def test_positions_of_different_frames_are_no_neighbours() -> None:
    position = np.zeros((40, 2))
    both = cache(position, [20, 40], places=["boston", "singapore"])
    parts = split_by_place(both, 0.5, 0.0, 5.0, 0)
    assert sorted([len(parts["train"].start), len(parts["val"].start)]) == [1, 1]
    with pytest.raises(DreamdriveError, match="leaves no row for train in 1 places of 40 m"):
        split_by_place(cache(position, [20, 40]), 0.5, 0.0, 5.0, 0)


def test_an_episode_without_positions_is_named() -> None:
    position = np.zeros((20, 2))
    position[15] = np.nan
    with pytest.raises(DreamdriveError, match="1.npz: no 'position' in every row"):
        split_by_place(cache(position, [10, 20]), 0.5, 0.0, 5.0, 0)


def test_bins_are_equal_and_what_is_unknown_has_its_own() -> None:
    values = np.concatenate([np.linspace(0, 10, 1001), [np.nan, 1e9, -1e9]])
    numbers = bin_numbers(values, 5)
    assert set(numbers.tolist()) == {0, 1, 2, 3, 4, 5}
    assert numbers[1001:].tolist() == [5, 4, 0]
    assert abs(np.bincount(numbers[:1001]) - 200).max() < 12
    assert bin_numbers(np.full(3, 2.0), 5).tolist() == [0, 0, 0]
    assert bin_numbers(np.full(3, np.nan), 5).tolist() == [5, 5, 5]


def test_the_power_decides_how_even_it_gets() -> None:
    # 900 sequences straight on, 100 in a bend.
    speed = np.full(1000, 10.0)
    steering = np.repeat([0.0, 1.0], [900, 100])
    for power, ratio in ((0.0, 9.0), (0.5, 3.0), (1.0, 1.0)):
        probability = acceptance(speed, steering, 10, power)
        assert probability.max() == 1.0
        assert np.isclose(900 * probability[0] / (100 * probability[-1]), ratio)
        drawn = accepted(probability, 20_000, np.random.default_rng(0))
        straight = (drawn < 900).mean()
        assert abs(straight / (1 - straight) - ratio) < 0.15 * ratio


def test_the_draw_is_the_same_for_the_same_chance() -> None:
    probability = np.linspace(0.1, 1, 50)
    one, two = (accepted(probability, 10, np.random.default_rng(4)) for _ in range(2))
    assert np.array_equal(one, two) and len(one) == 10


def test_rollouts_are_split_by_episode_and_seed() -> None:
    training, held_out = split_rollouts(40, 0.1, seed=1)
    assert sorted(training + held_out) == list(range(40)) and len(held_out) == 4
    assert split_rollouts(40, 0.1, seed=1) == (training, held_out)
    assert split_rollouts(40, 0.1, seed=2) != (training, held_out)
    assert [len(part) for part in split_rollouts(2, 0.9, 0)] == [1, 1]


def test_a_draw_stays_what_it_was_for_runs_that_go_on() -> None:
    rest, first, second = hold_out(12, [2, 1], [3, 20], "val_fraction")
    assert (first.tolist(), second.tolist()) == ([11, 9], [4]) and len(rest) == 9
    assert split_rollouts(12, 0.2, 3) == ([0, 1, 2, 3, 4, 5, 7, 8, 9, 11], [6, 10])
    parts = split_by_file(cache(np.zeros((12, 2)), list(range(1, 13))), 0.2, 0.1, 3)
    assert parts["val"].episode.tolist() == sorted(first.tolist())
    assert parts["test"].episode.tolist() == second.tolist()
    with pytest.raises(DreamdriveError, match="3 episodes to train on, 3 of them to hold out: .* or share 0"):
        hold_out(3, [2, 1], [0], "share")
