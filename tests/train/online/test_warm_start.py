"""An agent begins with what another run has learnt: a tokenizer that stays, a world model, a whole agent."""

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from agent.dreamer import DreamerConfig
from agent.tokenizer.fsq_vae import FSQVAE, FSQVAEConfig
from tests.agent.tiny import LSTM
from tests.train.online.tiny_envs import SIDE, Sides, sides, tiny_config
from tests.train.world_models.small import small_config
from train.drive.agents import load_agent
from train.drive.descriptions import WORLD_MODEL_JOB, AgentDescription, describe_agent
from train.drive.environments import EnvConfig
from train.online.config import OnlineConfig
from train.online.trainer import train_agent
from train.run.checkpoint import load_checkpoint, load_weights, save_weights
from train.run.errors import DreamdriveError
from train.run.folder import Run
from train.world_model.config import WorldModelTrainConfig


class Colours(Sides):
    """`Sides` in colour, in episodes that are long enough to be drawn."""

    length = 12

    def __init__(self, count: int, seed: int) -> None:
        super().__init__(count, seed)
        space = self.single_observation_space
        space.spaces["image"] = type(space["image"])(0, 255, (3, SIDE, SIDE), np.uint8)  # type: ignore[attr-defined]

    def show(self) -> dict[str, np.ndarray]:
        return {"image": np.repeat(super().show()["image"], 3, 1)}


def colours(config: EnvConfig, seed: int) -> Colours:
    return Colours(config.num_envs, seed)


@pytest.fixture(autouse=True)
def _without_mlflow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "mlflow", None)


def learnt_tokenizer() -> FSQVAE:
    """One that tells left from right."""
    torch.manual_seed(1)
    vae = FSQVAEConfig.model_validate(LSTM.tokenizer.model_dump()).build()
    optimizer = torch.optim.Adam(vae.parameters(), 3e-3)
    env = Colours(32, 7)
    for _ in range(60):
        loss, _ = vae.loss(torch.from_numpy(env.show()["image"]))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return vae


@pytest.fixture(scope="module")
def tokens_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A World Models run whose only finished stage is the VAE."""
    path = tmp_path_factory.mktemp("start") / "tokens"
    config = small_config(env={"action_repeat": 2}, fsq_vae=LSTM.tokenizer.model_dump())
    Run.create(path, "world-models", config)
    save_weights(path, learnt_tokenizer().state_dict(), {"fsq_levels": [4, 3]}, name="vae")
    return path


def lstm_config(start: Path | str, **trainer: Any) -> OnlineConfig:
    config = tiny_config(**trainer)
    config.agent = DreamerConfig(world_model=LSTM.model_copy(deep=True), behaviour=config.agent.behaviour)
    config.start = str(start)
    return config


def test_the_lstm_learns_online_with_a_tokenizer_that_stays(tokens_run: Path, tmp_path: Path) -> None:
    config = lstm_config(tokens_run, frames=400, picture_frames=300)
    run = train_agent(config, tmp_path / "run", make_env=colours)
    vae, _ = load_weights(tokens_run, name="vae")
    learnt, meta = load_weights(run.path)
    assert all(torch.equal(learnt[f"world_model.tokenizer.{name}"], value) for name, value in vae.items())
    torch.manual_seed(config.seed)
    fresh = config.agent.build({"image": (3, SIDE, SIDE)}, 2).state_dict()
    changed = [n for n in learnt if not torch.equal(learnt[n], fresh[n]) and "tokenizer" not in n]
    assert {n.split(".")[1] for n in changed} >= {"recur", "predict", "reward_head", "value_head", "actor"}
    # Pictures are tokenised once: the replay has no others, and dreams are drawn from what tokens stand for.
    assert {file.name.split(".")[1] for file in run.replay.rglob("*observation*")} <= {"token"}
    assert meta["observations"] == {"image": [3, SIDE, SIDE]}
    told = AgentDescription(seed=config.seed, env=config.env, agent=config.agent)
    assert describe_agent(run) == told and meta.items() >= told.meta().items()
    assert list(run.pictures.rglob("filmstrip.png"))
    # What drives takes pictures.
    agent = load_agent(run.path, "cpu").agent
    seen = {"image": torch.from_numpy(Colours(2, 3).show()["image"])}
    first = torch.ones(2, dtype=torch.bool)
    action, _ = agent.act(seen, agent.world_model.initial(2), torch.zeros(2, 2), first, explore=False)
    assert action.shape == (2, 2)


def test_a_resumed_run_needs_its_start_no_more(tokens_run: Path, tmp_path: Path) -> None:
    whole = train_agent(lstm_config(tokens_run, frames=200), tmp_path / "whole", make_env=colours)
    train_agent(lstm_config(tokens_run, frames=100), tmp_path / "parts", make_env=colours)
    moved = tokens_run.rename(tokens_run.with_name("moved"))
    try:
        longer = lstm_config(tokens_run, frames=200)
        parts = train_agent(longer, tmp_path / "parts", resume=True, make_env=colours)
    finally:
        moved.rename(tokens_run)
    a, b = (load_checkpoint(run.checkpoint_path, "cpu")["agent"] for run in (whole, parts))
    assert all(torch.equal(a[name], b[name]) for name in a)


def test_a_whole_agent_goes_on_where_another_ended(tmp_path: Path) -> None:
    first = train_agent(tiny_config(frames=120), tmp_path / "first", make_env=sides)
    config = tiny_config(frames=20, prefill_frames=1000)
    config.start = str(first.path)
    second = train_agent(config, tmp_path / "second", make_env=sides)
    # The prefill is not over, so nothing was learnt.
    a, b = load_weights(first.path)[0], load_weights(second.path)[0]
    assert all(torch.equal(a[name], b[name]) for name in a)
    # Another actor does not fit: only the world model is taken, without the critic.
    config.agent.behaviour.units = 6
    third, _ = load_weights(train_agent(config, tmp_path / "third", make_env=sides).path)
    model = {n for n in a if n.startswith("world_model") and "value_head" not in n}
    assert all(torch.equal(a[n], third[n]) for n in model)
    assert not torch.equal(
        a["world_model.value_head.net.0.0.weight"], third["world_model.value_head.net.0.0.weight"]
    )
    assert third["behaviour.actor.0.0.weight"].shape != a["behaviour.actor.0.0.weight"].shape


def test_a_world_model_of_recorded_driving_is_begun_with(tmp_path: Path) -> None:
    config = tiny_config(frames=20, prefill_frames=1000)
    torch.manual_seed(99)
    learnt = config.agent.world_model.build({"image": (1, SIDE, SIDE)}, 2).state_dict()
    Run.create(tmp_path / "recorded", WORLD_MODEL_JOB, WorldModelTrainConfig())
    save_weights(
        tmp_path / "recorded", learnt, {"observations": {"image": [1, SIDE, SIDE]}, "action_size": 2}
    )
    config.start = str(tmp_path / "recorded")
    begun, _ = load_weights(train_agent(config, tmp_path / "run", make_env=sides).path)
    same = {n for n, value in learnt.items() if torch.equal(begun[f"world_model.{n}"], value)}
    # The policy cannot drive yet as the recorded one did, whose returns the critic knows: it begins anew.
    assert same >= {n for n in learnt if not n.startswith("value_head.")}
    assert "value_head.net.0.0.weight" in learnt.keys() - same


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"start": ""}, "start: expected a run with a trained tokenizer, which does not learn here"),
        ({"start": "nowhere"}, "nowhere"),
        ({"levels": [4, 4]}, r"tokenizer.fsq_levels \[4, 4\]: expected \[4, 3\], as in start"),
        ({"action_repeat": 4}, "env.action_repeat 4: expected 2, as in start"),
        ({"empty": True}, "has no weights yet, expected those of the stage vae at least"),
    ],
)
def test_a_start_that_does_not_fit_is_one_line_and_leaves_nothing(
    change: dict[str, Any], complaint: str, tokens_run: Path, tmp_path: Path
) -> None:
    config = lstm_config(change.get("start", tokens_run))
    config.env.action_repeat = change.get("action_repeat", 2)
    if "levels" in change:
        config.agent.world_model.tokenizer.fsq_levels = change["levels"]
    if "empty" in change:
        Run.create(tmp_path / "empty", "world-models", small_config(env={"action_repeat": 2}))
        config.start = str(tmp_path / "empty")
    with pytest.raises(DreamdriveError, match=complaint):
        train_agent(config, tmp_path / "run", make_env=colours)
    assert not (tmp_path / "run").exists()
