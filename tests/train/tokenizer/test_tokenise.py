import json
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.train.world_models.small import counted_tokens, open_small, small_config, write_rollouts
from train.run.errors import DreamdriveError
from train.run.stage_loop import Stopped, Watch
from train.tokenizer.tokenise import Tokens, tokenize_rollouts

CPU = torch.device("cpu")


class StopAfter:
    """Asks to stop when it has been asked a number of times."""

    def __init__(self, times: int) -> None:
        self.left = times

    @property
    def requested(self) -> bool:
        self.left -= 1
        return self.left < 0


def same(a: Tokens, b: Tokens) -> bool:
    return all(np.array_equal(getattr(a, name), getattr(b, name)) for name in vars(a))


def test_the_cache_holds_every_row(tmp_path: Path) -> None:
    rollouts = open_small(write_rollouts(tmp_path / "rollouts.h5"))
    torch.manual_seed(0)
    vae = small_config().fsq_vae.build()
    tokens = tokenize_rollouts(rollouts, vae, tmp_path / "tokens", "a")
    assert len(tokens) == 6
    for number in range(6):
        rows, episode = tokens.rows([number]), rollouts.read(number)
        images = torch.from_numpy(episode.observations["image"])
        np.testing.assert_array_equal(tokens.token[rows], vae.tokenize(images).numpy())
        np.testing.assert_array_equal(tokens.action[rows], episode.actions)
        np.testing.assert_array_equal(tokens.reward[rows], episode.rewards)
        np.testing.assert_array_equal(tokens.is_first[rows], episode.is_first)
        np.testing.assert_array_equal(tokens.is_terminal[rows], episode.is_terminal)


def test_a_stopped_cache_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rollouts = open_small(write_rollouts(tmp_path / "rollouts.h5"))
    vae = small_config().fsq_vae.build()
    whole = tokenize_rollouts(rollouts, vae, tmp_path / "whole", "a")
    with pytest.raises(Stopped):
        tokenize_rollouts(rollouts, vae, tmp_path / "part", "a", Watch(stop=StopAfter(3)))  # type: ignore[arg-type]
    assert len(json.loads((tmp_path / "part" / "tokens.json").read_text())["ends"]) == 3
    with open(tmp_path / "part" / "reward.bin", "ab") as file:
        file.write(b"what a kill left behind")
    read: list[int] = []
    plain = rollouts.read
    monkeypatch.setattr(rollouts, "read", lambda n: (read.append(n), plain(n))[1])
    assert same(tokenize_rollouts(rollouts, vae, tmp_path / "part", "a"), whole)
    assert read == [3, 4, 5]


def test_a_cache_is_made_once_and_anew_for_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rollouts = open_small(write_rollouts(tmp_path / "rollouts.h5"))
    vae = small_config().fsq_vae.build()
    first = tokenize_rollouts(rollouts, vae, tmp_path / "tokens", "a")
    read: list[int] = []
    plain = rollouts.read
    monkeypatch.setattr(rollouts, "read", lambda n: (read.append(n), plain(n))[1])
    assert same(tokenize_rollouts(rollouts, vae, tmp_path / "tokens", "a"), first) and read == []
    tokenize_rollouts(rollouts, vae, tmp_path / "tokens", "b")
    assert read == list(range(6))


def test_a_cache_cut_short_is_one_line(tmp_path: Path) -> None:
    rollouts = open_small(write_rollouts(tmp_path / "rollouts.h5"))
    vae = small_config().fsq_vae.build()
    tokenize_rollouts(rollouts, vae, tmp_path / "tokens", "a")
    (tmp_path / "tokens" / "token.bin").write_bytes(b"0")
    with pytest.raises(DreamdriveError, match="token.bin: cut short"):
        tokenize_rollouts(rollouts, vae, tmp_path / "tokens", "a")


def test_sequences_reach_into_the_next_episode_only_by_a_first_row() -> None:
    tokens = counted_tokens([7, 12, 5, 9, 30, 4], codes=1000)
    episodes = [0, 1, 3, 4, 5]
    episode_of = np.searchsorted(tokens.ends, np.arange(len(tokens.reward)), side="right")
    crossings = 0
    for epoch in range(5):
        used: list[int] = []
        for batch in tokens.windows(episodes, 3, 6, 0, [0, epoch], CPU):
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
        [b.observation["token"] for b in tokens.windows([0, 1], 2, 5, 0, [s], CPU)] for s in (1, 1, 2)
    )
    assert all(map(torch.equal, first, again)) and not all(map(torch.equal, first, other))
    limited = list(tokens.windows([0, 1], 2, 5, 15, [1], CPU))
    assert sum(b.reward.numel() for b in limited) == 15


def test_sequences_longer_than_the_rollouts_are_one_line() -> None:
    tokens = counted_tokens([3, 3])
    assert len(list(tokens.windows([0, 1], 2, 6, 0, [1], CPU))) == 1
    with pytest.raises(DreamdriveError, match="training.sequence_length 7: expected at most 6"):
        list(tokens.windows([0, 1], 2, 7, 0, [1], CPU))
