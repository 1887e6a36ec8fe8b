import numpy as np
import pytest
import torch

from tests.train.world_models.small import counted_tokens
from train.data.windows import cut, windows_end_to_end
from train.run.errors import DreamdriveError

CPU = torch.device("cpu")


def test_rows_are_cut_in_a_row_or_not() -> None:
    tokens = counted_tokens([4, 5, 6], codes=1000)
    rows = np.array([[3, 4, 5], [8, 2, 9], [12, 13, 14]])
    plain, begun = cut(tokens, rows, afresh=False), cut(tokens, rows, afresh=True)
    assert plain["observation.token"][..., 0].tolist() == rows.tolist()
    assert plain["reward"].tolist() == rows.tolist() and plain["action"].shape == (3, 3, 2)
    assert plain["is_first"].tolist() == [[False, True, False], [False, False, True], [False] * 3]
    assert begun["is_first"][:, 0].all() and torch.equal(begun["is_first"][:, 1:], plain["is_first"][:, 1:])
    assert not begun["reward"][:, 0].any() and torch.equal(begun["reward"][:, 1:], plain["reward"][:, 1:])
    assert not begun["action"][:, 0].any() and torch.equal(begun["action"][:, 1:], plain["action"][:, 1:])


def test_sequences_reach_into_the_next_episode_only_by_a_first_row() -> None:
    tokens = counted_tokens([7, 12, 5, 9, 30, 4], codes=1000)
    episodes = [0, 1, 3, 4, 5]
    episode_of = np.searchsorted(tokens.ends, np.arange(len(tokens["reward"])), side="right")
    crossings = 0
    for epoch in range(5):
        used: list[int] = []
        for batch in windows_end_to_end(tokens, episodes, 3, 6, 0, [0, epoch], CPU):
            rows = batch.observation["token"][..., 0].numpy()
            used += rows.ravel().tolist()
            assert batch.is_first[:, 0].all()
            assert not batch.action[:, 0].any() and not batch.reward[:, 0].any()
            assert np.isin(episode_of[rows], episodes).all()
            inside = ~batch.is_first.numpy()[:, 1:]
            assert (rows[:, 1:] == rows[:, :-1] + 1)[inside].all()
            changes = episode_of[rows[:, 1:]] != episode_of[rows[:, :-1]]
            assert not (changes & inside).any()
            crossings += int(changes.sum())
            # every other row is as it was recorded
            np.testing.assert_array_equal(batch.reward[:, 1:], rows[:, 1:])
        assert len(set(used)) == len(used) > 40
    assert crossings > 0


def test_windows_repeat_themselves_and_have_a_limit() -> None:
    tokens = counted_tokens([30, 30])
    first, again, other = (
        [b.observation["token"] for b in windows_end_to_end(tokens, [0, 1], 2, 5, 0, [s], CPU)]
        for s in (1, 1, 2)
    )
    assert all(map(torch.equal, first, again)) and not all(map(torch.equal, first, other))
    limited = list(windows_end_to_end(tokens, [0, 1], 2, 5, 15, [1], CPU))
    assert sum(b.reward.numel() for b in limited) == 15


def test_sequences_longer_than_the_rollouts_are_one_line() -> None:
    tokens = counted_tokens([3, 3])
    assert len(list(windows_end_to_end(tokens, [0, 1], 2, 6, 0, [1], CPU))) == 1
    with pytest.raises(DreamdriveError, match="training.sequence_length 7: expected at most 6"):
        list(windows_end_to_end(tokens, [0, 1], 2, 7, 0, [1], CPU))


def test_rows_of_many_bytes_are_cut_as_those_of_few() -> None:
    tokens = counted_tokens([4, 5, 6], codes=1000)
    tokens.columns["observation.wide"] = np.repeat(np.arange(15)[:, None], 100, 1).astype(np.float64)
    rows = np.array([[3, 4, 5], [8, 2, 9], [12, 13, 14]])
    wide = cut(tokens, rows, afresh=False)["observation.wide"]
    assert wide.shape == (3, 3, 100) and (wide == torch.from_numpy(rows)[..., None]).all()


def test_sequences_come_in_random_order_and_tokens_as_indices() -> None:
    (batch,) = windows_end_to_end(counted_tokens([60], codes=1000), [0], 12, 5, 0, [1], CPU)
    firsts = batch.observation["token"][:, 0, 0]
    assert firsts.dtype == torch.int64 and len(firsts) in (11, 12)
    assert firsts.tolist() != sorted(firsts.tolist())
