import json
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.train.world_models.small import open_small, small_config, write_rollouts
from train.data.columns import EpisodeColumns
from train.run.monitor import JobMonitor, Stopped
from train.tokenizer.tokenise import tokenize_rollouts


class StopAfter:
    """Asks to stop when it has been asked a number of times."""

    def __init__(self, times: int) -> None:
        self.left = times

    @property
    def requested(self) -> bool:
        self.left -= 1
        return self.left < 0


def same(a: EpisodeColumns, b: EpisodeColumns) -> bool:
    assert a.ends.tolist() == b.ends.tolist() and a.columns.keys() == b.columns.keys()
    return all(np.array_equal(a[name], b[name]) for name in a.columns)


def test_the_cache_holds_every_row(tmp_path: Path) -> None:
    rollouts = open_small(write_rollouts(tmp_path / "rollouts.h5"))
    torch.manual_seed(0)
    vae = small_config().fsq_vae.build()
    tokens = tokenize_rollouts(rollouts, vae, tmp_path / "tokens", "a")
    assert len(tokens) == 6
    for number in range(6):
        rows, episode = tokens.rows([number]), rollouts.read(number)
        images = torch.from_numpy(episode.observations["image"])
        np.testing.assert_array_equal(tokens["observation.token"][rows], vae.tokenize(images).numpy())
        np.testing.assert_array_equal(tokens["action"][rows], episode.actions)
        np.testing.assert_array_equal(tokens["reward"][rows], episode.rewards)
        np.testing.assert_array_equal(tokens["is_first"][rows], episode.is_first)
        np.testing.assert_array_equal(tokens["is_terminal"][rows], episode.is_terminal)


def test_a_stopped_cache_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rollouts = open_small(write_rollouts(tmp_path / "rollouts.h5"))
    vae = small_config().fsq_vae.build()
    whole = tokenize_rollouts(rollouts, vae, tmp_path / "whole", "a")
    with pytest.raises(Stopped):
        tokenize_rollouts(rollouts, vae, tmp_path / "part", "a", JobMonitor(stop=StopAfter(3)))  # type: ignore[arg-type]
    assert len(json.loads((tmp_path / "part" / "index.json").read_text())["ends"]) == 3
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


def test_tokens_cut_short_are_made_anew(tmp_path: Path) -> None:
    rollouts = open_small(write_rollouts(tmp_path / "rollouts.h5"))
    vae = small_config().fsq_vae.build()
    whole = tokenize_rollouts(rollouts, vae, tmp_path / "whole", "a")
    tokenize_rollouts(rollouts, vae, tmp_path / "tokens", "a")
    (tmp_path / "tokens" / "observation.token.bin").write_bytes(b"0")
    assert same(tokenize_rollouts(rollouts, vae, tmp_path / "tokens", "a"), whole)
