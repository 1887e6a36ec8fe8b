"""Futures of a recorded moment: they differ, come back with their seed, and follow the options."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from agent.dreamer import DreamerConfig
from agent.tokenizer.fsq_vae import FSQVAEConfig
from agent.world_model.interface import State
from agent.world_model.transformer import TransformerConfig, TransformerWorldModel
from envs.car_racing.env import CarRacingConfig
from tests.agent.tiny import tiny_rssm
from tests.train.data.test_episodes import assert_same
from tests.train.tokenizer.token_runs import drive, tokenizer_run
from train.cli import main
from train.data.episodes import read_episode, write_episode
from train.drive.agents import load_world_model
from train.drive.descriptions import AgentDescription
from train.drive.open_loop import dream_futures, open_loop
from train.look.generate import DreamSampling, usual_context
from train.look.road_keeping import keeps_road
from train.run.checkpoint import save_weights
from train.run.errors import DreamdriveError
from train.run.folder import Run
from train.tokenizer.tokenise import tokenise

SIDE = 16


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An agent with a transformer, not trained."""
    path = tmp_path_factory.mktemp("agent") / "run"
    model = TransformerConfig.model_validate(
        {
            "kind": "transformer",
            "tokenizer": FSQVAEConfig(
                image_size=SIDE, channels=[4, 8], latent_dim=8, fsq_levels=[4, 3], grid=4
            ),
            "blocks": {"width": 16, "layers": 2, "heads": 2},
            "window": 4,
            "units": 8,
        }
    )
    agent = DreamerConfig(world_model=model)
    description = AgentDescription(env=CarRacingConfig(image_size=SIDE, action="2d"), agent=agent)
    torch.manual_seed(1)
    built = agent.build({"image": (3, SIDE, SIDE)}, 2)
    Run.create(path, "train-agent", description)
    sizes: dict[str, Any] = {"observations": {"image": [3, SIDE, SIDE]}, "action_size": 2}
    save_weights(path, built.state_dict(), description.meta() | sizes)
    return path


@pytest.fixture
def episode(tmp_path: Path) -> Path:
    recorded = drive(0, 12, (SIDE, SIDE))
    del recorded.observations["speed"]
    write_episode(tmp_path / "drive.npz", recorded)
    return tmp_path / "drive.npz"


def said(words: list[object], capsys: pytest.CaptureFixture[str], status: int = 0) -> str:
    capsys.readouterr()
    assert main([str(word) for word in words]) == status
    found = capsys.readouterr()
    text = found.out if status == 0 else found.err
    assert status == 0 or text.count("\n") == 1
    return text


def test_films_and_a_strip(
    run: Path, episode: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    words = ["generate", run, "--episode", episode, "--frames", "8", "--futures", "2", "--output", out]
    assert "4 pictures seen, 2 futures of 8 dreamt, which differ by" in said(words, capsys)
    assert sorted(path.name for path in out.iterdir()) == ["future_1.mp4", "future_2.mp4", "futures.png"]
    strip = Image.open(out / "futures.png")
    # A row of what happened, and one for each future, of 8 moments.
    assert strip.width > 8 * 120 and 3 * 120 < strip.height < 4 * 160
    # Longer than the recording, which is needed no more once the agent acts.
    longer = [*words[:4], "--frames", "30", "--actions", "policy", "--output", tmp_path / "policy"]
    assert "4 futures of 30 dreamt" in said([*longer, "--top-k", "3", "--temperature", "0.5"], capsys)


def test_futures_differ_and_come_back_with_their_seed(run: Path, episode: Path) -> None:
    model, recorded = load_world_model(run, "cpu").world_model, read_episode(episode)
    torch.manual_seed(5)
    found = dream_futures(model, recorded, 4, 6, 3)
    assert found.dreamt.shape == (3, 6, 3, SIDE, SIDE)
    assert all((found.dreamt[i] != found.dreamt[j]).any() for i, j in ((0, 1), (0, 2), (1, 2)))
    torch.manual_seed(5)
    np.testing.assert_array_equal(dream_futures(model, recorded, 4, 6, 3).dreamt, found.dreamt)
    np.testing.assert_array_equal(found.truth, recorded.observations["image"][:10])


def test_one_future_is_the_open_loop_dream(run: Path, episode: Path) -> None:
    model, recorded = load_world_model(run, "cpu").world_model, read_episode(episode)
    torch.manual_seed(2)
    truth, dream = open_loop(model, recorded, 4, 6)
    torch.manual_seed(2)
    found = dream_futures(model, recorded, 4, 6)
    np.testing.assert_array_equal(dream, np.concatenate([found.seen, found.dreamt[0]]))
    np.testing.assert_array_equal(truth, found.truth)


def test_what_was_seen_is_filtered_once(run: Path, episode: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = load_world_model(run, "cpu").world_model
    sizes: list[int] = []
    plain = type(model).observe

    def observe(self: Any, observations: Any, actions: Any, is_first: Any, state: State) -> Any:
        sizes.append(len(actions))
        return plain(self, observations, actions, is_first, state)

    monkeypatch.setattr(type(model), "observe", observe)
    dream_futures(model, read_episode(episode), 4, 3, 5)
    assert sizes == [1]


def test_greedy_futures_are_equal(run: Path, episode: Path) -> None:
    model = load_world_model(run, "cpu").world_model
    DreamSampling(top_k=1).apply(model, "run")
    dreamt = dream_futures(model, read_episode(episode), 4, 5, 3).dreamt
    assert (dreamt == dreamt[:1]).all()


def test_sampling_is_of_models_that_have_it(run: Path) -> None:
    model = load_world_model(run, "cpu").world_model
    assert isinstance(model, TransformerWorldModel) and usual_context(model) == 4
    DreamSampling(0.5, 7, 0.9).apply(model, "run")
    assert model.sampling == type(model.sampling)(0.5, 7, 0.9)
    with pytest.raises(DreamdriveError, match="--top-p: the world model of x has no such number"):
        DreamSampling(top_p=0.5).apply(tiny_rssm(), "x")
    DreamSampling().apply(tiny_rssm(), "x")


def test_episodes_that_do_not_fit(
    run: Path, episode: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["generate", run, "--output", tmp_path / "out", "--episode"]
    text = said([*words, episode, "--context", "20", "--actions", "policy"], capsys, 1)
    assert "drive.npz: the episode has 13 observations: expected 20, the context" in text
    assert "expected 104, context and horizon" in said([*words, episode], capsys, 1)
    write_episode(tmp_path / "wide.npz", drive(0, 12))
    text = said([*words, tmp_path / "wide.npz", "--frames", "2"], capsys, 1)
    assert "wide.npz: pictures of 3x16x32, expected 3x16x16 as the run's tokenizer reads" in text
    (tmp_path / "wide").mkdir()
    write_episode(tmp_path / "wide" / "drive.npz", drive(0, 12))
    tokenise(tokenizer_run(tmp_path / "other"), tmp_path / "wide", tmp_path / "tokens", 5.0, "cpu")
    text = said([*words, tmp_path / "tokens" / "drive.npz", "--frames", "2"], capsys, 1)
    assert "tokens of another tokenizer" in text
    assert not (tmp_path / "out").exists()


def test_tokens_lead_to_the_same_futures(run: Path, episode: Path, tmp_path: Path) -> None:
    tokenise(run, episode.parent, tmp_path / "tokens", 5.0, "cpu")
    model, recorded = load_world_model(run, "cpu").world_model, read_episode(episode)
    tokens = read_episode(tmp_path / "tokens" / "drive.npz")
    torch.manual_seed(0)
    one = dream_futures(model, recorded, 4, 5, 2)
    torch.manual_seed(0)
    other = dream_futures(model, tokens, 4, 5, 2)
    np.testing.assert_array_equal(one.dreamt, other.dreamt)
    np.testing.assert_array_equal(one.seen, other.truth[:4])
    assert_same(tokens, read_episode(tmp_path / "tokens" / "drive.npz"))


def road(shift: int) -> np.ndarray:
    """A road seen from above, 3 x 64 x 64, its middle `shift` pixels beside the car, which is not drawn."""
    image = np.zeros((3, 64, 64), np.uint8)
    image[0], image[1], image[2] = 100, 220, 100
    image[:, :, 32 + shift - 6 : 32 + shift + 6] = 105
    return image


def test_the_road_is_kept_while_it_is_under_the_car() -> None:
    drives = np.stack([[road(0)] * 3, [road(0), road(3), road(20)], [road(4)] * 3, [road(-20)] * 3])
    assert keeps_road(drives, crop_hud=True).tolist() == [True, False, True, False]


def test_futures_on_the_road_are_counted(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recorded = drive(0, 30, (SIDE, SIDE))
    del recorded.observations["speed"]
    recorded.observations["image"][:] = 105
    (tmp_path / "drives").mkdir()
    for number in range(3):
        write_episode(tmp_path / "drives" / f"{number}.npz", recorded)
    words = ["generate", run, "--episode", tmp_path / "drives", "--road-keeping", "2", "--frames", "5"]
    text = said([*words, "--futures", "3", "--json", tmp_path / "found.json"], capsys)
    assert "of 6 futures of 2 moments keep the road for 0.4 s; 100% of the recorded drives do" in text
    assert '"kept_recorded": 1.0' in (tmp_path / "found.json").read_text()
    assert "--output: not with --road-keeping" in said([*words, "--output", "x"], capsys, 1)
    assert "no moment on the road" in said([*words, "--context", "28"], capsys, 1)
    assert "--json: needs --road-keeping" in said([*words[:4], "--json", "x"], capsys, 1)
