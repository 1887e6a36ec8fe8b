"""Replay: alignment, the ring, uniformity, the online queue, write-back and episodes."""

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.train.data.counted_rows import (
    SPEC,
    STREAMS,
    add,
    assert_aligned,
    image,
    make,
    make_config,
    trained,
)
from train.data.replay import Replay, ReplayConfig
from train.run.errors import DreamdriveError


@pytest.mark.parametrize("rows_added", [5, 13, 45, 60, 61, 100, 250])
def test_rows_keep_their_fields_together_also_when_the_ring_wraps(tmp_path: Path, rows_added: int) -> None:
    replay = make(tmp_path)
    add(replay, rows_added)
    assert len(replay) == STREAMS * min(rows_added, replay.window) and replay.window == 45
    for _ in range(20):
        batch = replay.sample()
        assert batch.observation["image"].dtype == torch.uint8 and batch.action.dtype == torch.float32
        assert_aligned(batch)
        assert batch.index[:, 1].min() >= rows_added - min(rows_added, 45)


def test_initial_latents_are_those_of_the_row_before(tmp_path: Path) -> None:
    replay = make(tmp_path)
    add(replay, 70)
    oldest = 70 - replay.window
    seen = set()
    for _ in range(100):
        batch = replay.sample()
        for b, (n, start) in enumerate(batch.index.tolist()):
            known = start > oldest
            seen.add(known)
            assert batch.has_initial[b].item() == known
            assert batch.initial["deter"][b].tolist() == ([n, start - 1] if known else [0, 0])
            assert batch.initial["stoch"][b].tolist() == ([(start - 1) % 256] * 2 if known else [0, 0])
    assert seen == {True, False}


def test_sequences_cross_resets(tmp_path: Path) -> None:
    replay = make(tmp_path)
    add(replay, 40)
    assert any(replay.sample().is_first[:, 1:].any() for _ in range(5))


def test_sampling_is_uniform_over_all_windows(tmp_path: Path) -> None:
    replay = make(tmp_path, rows=30, batch_size=50)
    add(replay, 47)
    counts: Counter[tuple[int, ...]] = Counter()
    for _ in range(400):
        counts.update(tuple(row) for row in replay.sample().index.tolist())
    windows = STREAMS * (replay.window - 5 + 1)
    assert len(counts) == windows
    expected = 400 * 50 / windows
    chi_square = sum((count - expected) ** 2 / expected for count in counts.values())
    # Mean windows - 1, standard deviation sqrt(2 (windows - 1)): five of them above is no accident.
    assert chi_square < windows - 1 + 5 * np.sqrt(2 * (windows - 1))


def test_each_new_chunk_leaves_the_online_queue_exactly_once(tmp_path: Path) -> None:
    replay = make(tmp_path, rows=400, online_queue=True, batch_size=2)
    online: Counter[tuple[int, int]] = Counter()
    for _ in range(200):
        add(replay)
        waiting = set(replay._queue)
        if replay.can_sample:
            drawn = [tuple(row) for row in replay.sample().index.tolist()][: len(waiting)]
            assert set(drawn) <= waiting
            online.update(drawn)
    online.update(replay._queue)
    assert online == Counter({(n, start): 1 for n in range(STREAMS) for start in range(0, 200, 5)})


def test_a_queue_that_nobody_empties_stays_bounded(tmp_path: Path) -> None:
    replay = make(tmp_path, online_queue=True)
    add(replay, 500)
    assert len(replay._queue) <= STREAMS * replay.window // 5
    assert_aligned(replay.sample())


def test_latents_are_written_back_and_read_again(tmp_path: Path) -> None:
    replay = make(tmp_path, batch_size=1)
    add(replay, 50)
    batch = replay.sample()
    stream, start = batch.index[0].tolist()
    latent = {"deter": torch.randn(1, 5, 2), "stoch": torch.randint(0, 9, (1, 5, 2))}
    assert replay.write_latents(batch.index, latent) == 5
    seen = set()
    for _ in range(2000):
        again = replay.sample()
        n, first = again.index[0].tolist()
        if n == stream and start < first <= start + 5:
            seen.add(first)
            assert torch.equal(again.initial["deter"][0], latent["deter"][0, first - 1 - start].half())
            assert again.initial["stoch"][0].tolist() == latent["stoch"][0, first - 1 - start].tolist()
        elif again.has_initial[0]:
            assert again.initial["deter"][0].tolist() == [n, first - 1]
    assert len(seen) >= 4


def test_rows_overwritten_in_between_keep_their_own_latents(tmp_path: Path) -> None:
    replay = make(tmp_path, batch_size=64)
    add(replay, 60)
    batch = replay.sample()
    add(replay, 28)
    oldest = 88 - replay.window
    live = sum(max(0, min(5, start + 5 - oldest)) for start in batch.index[:, 1].tolist())
    assert 0 < live < 64 * 5
    assert replay.write_latents(batch.index, trained(batch, 0)) == live
    add(replay, 30)
    # By now every row that could have been written is gone, so whatever is read is the rows' own.
    assert replay.write_latents(batch.index, trained(batch, 0)) == 0
    later = replay.sample()
    for b in range(64):
        if later.has_initial[b] and later.index[b, 1] > 88:
            assert later.initial["deter"][b].tolist() == [later.index[b, 0], later.index[b, 1] - 1]


def test_rows_without_latents_have_none_until_they_are_written_back(tmp_path: Path) -> None:
    replay = make(tmp_path)
    add(replay, 40, latents=False)
    batch = replay.sample()
    assert not batch.has_initial.any()
    replay.write_latents(batch.index, trained(batch, 1))
    assert any(replay.sample().has_initial.any() for _ in range(20))
    add(replay, 200, latents=False)
    assert not any(replay.sample().has_initial.any() for _ in range(20))


def one_row(**changes: object) -> dict[str, object]:
    n = np.arange(STREAMS)
    row: dict[str, object] = {
        "observation": {"image": image(n, 0), "vector": np.zeros((STREAMS, 2))},
        "action": np.zeros((STREAMS, 2), np.float32),
        "reward": np.zeros(STREAMS, np.float32),
        "is_first": np.ones(STREAMS, bool),
        "is_terminal": np.zeros(STREAMS, bool),
    }
    return row | changes


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"action": np.ones((STREAMS, 2))}, "first row has an action"),
        ({"reward": np.ones(STREAMS)}, "first row has an action or a reward"),
        ({"is_first": np.zeros(STREAMS, bool)}, "expected is_first"),
        ({"reward": np.full(STREAMS, np.nan)}, "reward: NaN"),
        ({"action": np.zeros((STREAMS, 3))}, "action: shape"),
        ({"is_first": np.ones(STREAMS)}, "is_first: dtype"),
        ({"observation": {"image": np.zeros((STREAMS, 1, 2, 2), np.uint8)}}, "expected"),
        ({"latent": {"deter": np.zeros((STREAMS, 2))}}, "latent.stoch"),
        ({"latent": {"deter": np.zeros((STREAMS, 2)), "stoch": np.full((STREAMS, 2), 256)}}, "to fit uint8"),
    ],
)
def test_bad_rows_are_refused(tmp_path: Path, changes: dict[str, object], message: str) -> None:
    replay = make(tmp_path)
    with pytest.raises(DreamdriveError, match=message):
        replay.add(**one_row(**changes))  # type: ignore[arg-type]
    assert replay.position == 0
    replay.add(**one_row())  # type: ignore[arg-type]


def test_a_terminal_row_is_followed_by_a_first_one(tmp_path: Path) -> None:
    replay = make(tmp_path)
    replay.add(**one_row(is_terminal=np.array([True, False, False])))  # type: ignore[arg-type]
    with pytest.raises(DreamdriveError, match="expected is_first"):
        replay.add(**one_row(is_first=np.zeros(STREAMS, bool)))  # type: ignore[arg-type]
    replay.add(**one_row(is_first=np.array([True, False, False])))  # type: ignore[arg-type]


def test_episodes_come_out_whole_and_go_in_again(tmp_path: Path) -> None:
    replay = make(tmp_path / "many")
    add(replay, 7 * 9 + 3)
    newest, older = replay.latest_episodes(stream=1, count=2)
    assert (
        newest.observations["vector"][:, 1].tolist() == list(range(56, 63)) and not newest.is_terminal.any()
    )
    assert older.rewards.tolist() == [0.0, *(float(1000 + t) for t in range(50, 56))]
    assert (
        older.is_terminal.tolist() == [False] * 6 + [True] and older.is_first.tolist() == [True] + [False] * 6
    )
    assert len(replay.latest_episodes(stream=0, count=100)) == 6

    single = Replay.create(tmp_path / "one", make_config(), SPEC, streams=1, seed=0)
    for episode in (older, newest):
        single.add_episode(episode)
    assert len(single) == 14
    (again,) = single.latest_episodes(stream=0)
    np.testing.assert_array_equal(again.rewards, older.rewards)
    with pytest.raises(DreamdriveError, match="expected 1"):
        replay.add_episode(newest)


def test_sampling_needs_one_sequence_and_capacity_for_it(tmp_path: Path) -> None:
    replay = make(tmp_path / "a")
    add(replay, 4)
    with pytest.raises(DreamdriveError, match="4 rows a stream, expected at least 5"):
        replay.sample()
    with pytest.raises(DreamdriveError, match="capacity_bytes"):
        make(tmp_path / "b", rows=6)


def test_capacity_is_read_as_people_write_it() -> None:
    assert ReplayConfig.model_validate({"capacity_bytes": "500MB"}).capacity_bytes == 500_000_000
    assert ReplayConfig.model_validate({"capacity_bytes": "2GiB"}).capacity_bytes == 2 * 1024**3
    assert type(ReplayConfig.model_validate({"capacity_bytes": "1234"}).capacity_bytes) is int
