"""The environments an agent can learn in: told apart by their kind, made by one function."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from envs.car_racing.env import CarRacing, CarRacingConfig
from envs.carla.config import CarlaConfig
from envs.carla.errors import CarlaSetupError, SimulatorLost
from envs.carla.servers.vector_env import CarlaVectorEnv
from train.drive.environments import (
    decisions_per_second,
    explain_simulator_errors,
    make_env,
    require_car_racing,
    require_carla,
)
from train.online.build import build_parts
from train.online.config import OnlineConfig
from train.run.errors import DreamdriveError
from train.run.options import build, to_yaml, validate

CONFIGS = Path(__file__).parents[3] / "configs"


def test_the_kind_picks_the_config_and_what_is_made() -> None:
    for overrides, config_type, env_type in (
        ({"env.backend": "gymnasium", "env.num_envs": "1"}, CarRacingConfig, CarRacing),
        ({"env.kind": "carla", "env.town": "village"}, CarlaConfig, CarlaVectorEnv),
    ):
        config = build(OnlineConfig, None, overrides).env
        assert type(config) is config_type
        env = make_env(config, 3)
        assert type(env) is env_type
        env.close()


def test_a_run_from_before_there_were_kinds_is_of_car_racing() -> None:
    old = yaml.safe_load(to_yaml(OnlineConfig()))
    del old["env"]["kind"]
    assert validate(OnlineConfig, old, "config.yaml") == OnlineConfig()
    assert OnlineConfig.model_validate({"env": {"num_envs": 3}}).env == CarRacingConfig(num_envs=3)


def test_carla_survives_the_way_through_yaml(tmp_path: Path) -> None:
    config = build(OnlineConfig, CONFIGS / "carla.yaml", {"env.route.ahead": "3"})
    (tmp_path / "c.yaml").write_text(to_yaml(config))
    assert build(OnlineConfig, tmp_path / "c.yaml") == config
    assert isinstance(config.env, CarlaConfig) and config.env.state_size == 12


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        ({"env.kind": "moon"}, "expected one of the kinds 'car_racing', 'carla', not 'moon'"),
        ({"env.town": "village"}, "unknown field of this kind"),
        ({"env.servers.command": "x"}, "unknown field of this kind"),
        ({"env.kind": "carla", "env.crop_hud": "true"}, "unknown field of this kind"),
        ({"env.kind": "carla", "env.image_size": "1"}, "env.image_size"),
    ],
)
def test_mistakes_are_one_line(overrides: dict[str, str], said: str) -> None:
    with pytest.raises(DreamdriveError, match=said):
        build(OnlineConfig, None, overrides)


@pytest.mark.parametrize("name", ["carla", "carla_cardreamer", "carla_gym_carla", "carla_roach"])
def test_the_agent_of_a_config_fits_what_it_observes(name: str) -> None:
    small: dict[str, str] = {"trainer.device": "cpu", "agent.world_model.dynamics.deter": "64"}
    config = build(OnlineConfig, CONFIGS / f"{name}.yaml", small)
    parts = build_parts(config, make_env)
    assert isinstance(config.env, CarlaConfig)
    assert parts.spec.action_size == config.env.action_size


def test_the_pace_of_films() -> None:
    assert decisions_per_second(CarRacingConfig(action_repeat=4)) == 12.5
    assert decisions_per_second(CarlaConfig(step_seconds=0.05, action_repeat=2)) == pytest.approx(10.0)


def test_what_is_for_one_environment_refuses_the_other() -> None:
    car_racing, carla = CarRacingConfig(), CarlaConfig()
    assert require_car_racing(car_racing, "plan") is car_racing and require_carla(carla, "eval") is carla
    with pytest.raises(DreamdriveError, match="^plan runs/a: drives in carla, expected car_racing"):
        require_car_racing(carla, "plan runs/a")
    with pytest.raises(DreamdriveError, match="^runs/a: drives in car_racing, expected carla"):
        require_carla(car_racing, "runs/a")


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (CarlaSetupError("town Atlantis:\n expected another"), "CARLA: town Atlantis: expected another"),
        (SimulatorLost("it is gone"), "CARLA: it is gone; try again"),
    ],
)
def test_what_simulators_raise_is_told_in_one_line(error: Exception, said: str) -> None:
    with pytest.raises(DreamdriveError) as told, explain_simulator_errors("try again"):
        raise error
    assert str(told.value) == said


def test_other_errors_stay_what_they_are() -> None:
    def fails() -> Any:
        raise KeyError("a defect")

    with pytest.raises(KeyError), explain_simulator_errors():
        fails()
