"""Weights describe themselves; where they do not, the config of their run does, as jobs wrote it before."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from pydantic import BaseModel

from envs.carla.config import CarlaConfig
from tests.agent.tiny import CONFIG
from tests.train.online.tiny_envs import SIDE, tiny_config
from tests.train.world_models.small import small_config
from train.drive.agents import export_run, load_agent, load_world_model
from train.drive.descriptions import (
    WORLD_MODEL_JOB,
    AgentDescription,
    ModelDescription,
    describe_agent,
    describe_model,
)
from train.online.config import OnlineConfig
from train.run.checkpoint import read_meta, save_weights
from train.run.errors import DreamdriveError
from train.run.folder import Run
from train.world_model.config import WorldModelTrainConfig
from train.world_models.config import WorldModelAgentConfig

ROOT = Path(__file__).parents[3]
SHAPES = {"image": (3, SIDE, SIDE)}
SIZES: dict[str, Any] = {
    "observations": {name: list(shape) for name, shape in SHAPES.items()},
    "action_size": 2,
    "frames": 7,
}
RECORDED = WorldModelTrainConfig(
    state_dim=16, hidden_dim=8, latent_dim=3, num_categories=4, depth=2, image_size=16, norm="layer", seed=5
)
AGENTS: list[tuple[str, OnlineConfig | WorldModelAgentConfig]] = [
    ("train-agent", tiny_config()),
    ("world-models", small_config()),
    ("world-models", small_config(controller={"controller": {"kind": "actor_critic", "units": 8}})),
]


def saved(path: Path, job: str, config: BaseModel, module: torch.nn.Module, meta: dict[str, Any]) -> Path:
    Run.create(path, job, config)
    save_weights(path, module.state_dict(), SIZES | meta)
    return path


def described(config: OnlineConfig | WorldModelAgentConfig) -> AgentDescription:
    return AgentDescription(seed=config.seed, env=config.env, agent=config.agent)


@pytest.mark.parametrize(("job", "config"), AGENTS)
def test_an_agent_is_loaded_by_its_weights_or_by_its_runs_config(
    job: str, config: OnlineConfig | WorldModelAgentConfig, tmp_path: Path
) -> None:
    agent, expected = config.agent.build(SHAPES, 2), described(config)
    before = saved(tmp_path / "before", job, config, agent, {})
    alone = saved(tmp_path / "alone", job, config, agent, expected.meta())
    (alone / "config.yaml").write_text("of: something else\n")
    for path in (before, alone):
        trained = load_agent(path, "cpu")
        assert trained.config == expected and trained.frames == 7
        own = agent.state_dict()
        assert all(torch.equal(value, own[name]) for name, value in trained.agent.state_dict().items())
        assert load_world_model(path, "cpu").fps == 50 / config.env.action_repeat


@pytest.mark.parametrize("advection", [0.0, 0.5])
@pytest.mark.parametrize("latent", ["categorical", "gaussian"])
def test_a_world_model_is_loaded_by_its_weights_or_by_its_runs_config(
    latent: str, advection: float, tmp_path: Path
) -> None:
    config = RECORDED.model_copy(update={"latent": latent, "advection_weight": advection, "fps": 12.5})
    model = config.world_model.build(SHAPES, 2)
    told = ModelDescription(seed=5, fps=12.5, world_model=config.world_model)
    before = saved(tmp_path / "before", WORLD_MODEL_JOB, config, model, {})
    alone = saved(tmp_path / "alone", WORLD_MODEL_JOB, config, model, told.meta())
    (alone / "config.yaml").write_text("of: something else\n")
    assert describe_model(Run.open(alone)) == told
    for path in (before, alone):
        loaded = load_world_model(path, "cpu")
        assert (loaded.seed, loaded.fps, loaded.shapes, loaded.trained) == (5, 12.5, SHAPES, None)
        own = model.state_dict()
        found = loaded.world_model.state_dict()
        assert all(torch.equal(value, own[name]) for name, value in found.items())


@pytest.mark.parametrize("name", ["car_racing", "car_racing_lstm"])
def test_a_shipped_run_is_described_by_its_config(name: str) -> None:
    run = Run.open(ROOT / "pretrained" / name)
    assert "agent" not in read_meta(run.path / "weights.json")
    assert describe_agent(run) == described(run.config(OnlineConfig))


def test_an_exported_run_describes_itself(tmp_path: Path) -> None:
    config = tiny_config()
    run = saved(tmp_path / "run", "train-agent", config, config.agent.build(SHAPES, 2), {})
    export_run(run, tmp_path / "out")
    meta = read_meta(tmp_path / "out" / "weights.json")
    assert meta == json.loads(json.dumps(SIZES | described(config).meta()))
    assert (meta["kind"], meta["fps"], meta["env"]["kind"]) == ("agent", 50 / 2, "car_racing")


def test_what_only_its_user_may_set_is_neither_written_nor_taken(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = OnlineConfig(env=CarlaConfig(), agent=tiny_config().agent)
    told = described(config)
    assert isinstance(told.env, CarlaConfig)
    usual = told.env.servers.model_copy()
    told.env.servers.command = "rm -r {port}"
    assert told.meta()["env"]["servers"] == usual.model_dump(mode="json")
    assert told.env.servers.command == "rm -r {port}"
    meta = told.meta()
    meta["env"]["servers"]["command"] = "rm -r {port}"
    agent = torch.nn.Linear(1, 1)
    run = Run.open(saved(tmp_path / "run", "train-agent", config, agent, meta))
    found = describe_agent(run).env
    assert isinstance(found, CarlaConfig) and found.servers == usual
    assert "weights.json: env.servers.command" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("meta", "field"),
    [
        ({"agent": {"world_model": {"units": 0.5}}}, r"weights\.json: agent\.world_model\S*units"),
        ({"agent": {"world_model": {"kind": "lstm", "program": "x"}}}, r"weights\.json: agent\S*program"),
        ({"agent": {}, "env": {"kind": "moon"}}, r"weights\.json: env"),
        ({"agent": 3}, r"weights\.json: agent"),
    ],
)
def test_a_description_that_does_not_fit_names_file_and_field(
    meta: dict[str, Any], field: str, tmp_path: Path
) -> None:
    path = saved(tmp_path / "run", "train-agent", tiny_config(), torch.nn.Linear(1, 1), meta)
    with pytest.raises(DreamdriveError, match=field):
        load_agent(path)


def test_a_config_that_does_not_fit_names_file_and_field(tmp_path: Path) -> None:
    Run.create(tmp_path, "world-models", small_config())
    told = yaml.safe_load((tmp_path / "config.yaml").read_text())
    told["world_model"]["hidden_size"] = "wide"
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(told))
    with pytest.raises(DreamdriveError, match=r"config\.yaml: world_model\.hidden_size"):
        describe_agent(Run.open(tmp_path))


def test_weights_of_other_sizes_name_the_tensor(tmp_path: Path) -> None:
    config = tiny_config()
    meta = described(config).meta()
    config.agent.world_model = CONFIG.model_copy(update={"units": 16})
    path = saved(tmp_path / "run", "train-agent", config, config.agent.build(SHAPES, 2), meta)
    with pytest.raises(DreamdriveError, match=r"weights\.safetensors: \S+ is \[.*\], expected \[.*\] by its"):
        load_agent(path, "cpu")


@pytest.mark.parametrize(
    ("job", "hint"),
    [("train-baseline", "a baseline"), ("train-vla", "as it is told"), (WORLD_MODEL_JOB, "dreams")],
)
def test_a_run_without_an_agent_says_what_it_has(job: str, hint: str, tmp_path: Path) -> None:
    run = Run.create(tmp_path / "run", job, tiny_config())
    with pytest.raises(DreamdriveError, match=rf"'{job}': expected train-agent or world-models \(.*{hint}"):
        describe_agent(run)
