from pathlib import Path

import pytest
from pydantic import ValidationError

import train.world_models as names
from agent.dreamer import DreamerConfig
from agent.world_model.lstm import LSTMWorldModel
from tests.train.world_models.small import small_config
from train.run.errors import DreamdriveError
from train.run.options import build, to_yaml
from train.world_models import WorldModelAgentConfig


def test_the_names_of_the_seed() -> None:
    config = WorldModelAgentConfig()
    config.fsq_vae.fsq_levels = [8, 5, 5, 5]
    config.world_model.hidden_size = 256
    config.controller.state_dim = 4
    config.training.batch_size = 32
    vae = names.FSQVAE(config.fsq_vae)
    world_model = names.WorldModel(config.world_model, {"image": (3, 64, 64)}, config.env.action_size)
    controller = names.EvolutionaryController(config.controller.controller, world_model)  # type: ignore[arg-type]
    assert names.WorldModel is LSTMWorldModel
    assert controller.genome.numel() == 15
    names.VAETrainer(vae, config)
    names.WorldModelTrainer(world_model, vae, config)
    names.ControllerTrainer(vae, world_model, config)


def test_what_is_set_is_checked() -> None:
    config = WorldModelAgentConfig()
    with pytest.raises(ValidationError):
        config.training.batch_size = 0
    with pytest.raises(ValidationError):
        config.controller.state_dim = 0


def test_the_tokenizer_is_set_in_one_place() -> None:
    config = small_config()
    assert config.world_model.tokenizer.fsq_levels == [4, 3]
    config.fsq_vae.fsq_levels = [3, 3]
    assert config.world_model.tokenizer.fsq_levels == [3, 3]
    assert "tokenizer" not in config.model_dump()["world_model"]


def test_another_tokenizer_in_the_world_model_is_refused() -> None:
    with pytest.raises(DreamdriveError, match="world_model.tokenizer: differs from fsq_vae"):
        build(WorldModelAgentConfig, None, {"world_model.tokenizer.latent_dim": "7"})


def test_a_config_comes_back_from_its_file(tmp_path: Path) -> None:
    config = small_config(controller={"train_in": "real", "untrained_memory": True})
    path = tmp_path / "config.yaml"
    path.write_text(to_yaml(config))
    assert build(WorldModelAgentConfig, path) == config


def test_an_option_over_a_run_s_own_config(tmp_path: Path) -> None:
    base = small_config().model_dump()
    config = build(WorldModelAgentConfig, None, {"fsq_vae.fsq_levels": "[5, 5]"}, base)
    assert config.world_model.tokenizer.fsq_levels == [5, 5] and config.training.batch_size == 4


def test_a_controller_of_another_kind_by_option() -> None:
    config = build(WorldModelAgentConfig, None, {"controller.controller.kind": "actor_critic"})
    assert config.agent.behaviour.kind == "actor_critic"
    with pytest.raises(ValueError, match="state_dim"):
        _ = config.controller.state_dim


def test_the_agent_is_world_model_and_controller() -> None:
    config = small_config()
    assert config.agent == DreamerConfig(
        world_model=config.world_model, behaviour=config.controller.controller
    )


@pytest.mark.parametrize(
    ("options", "line"),
    [
        ({"controller.parents": "20"}, "parents: 20: expected at most half of population"),
        ({"controller.untrained_memory": "true"}, "untrained_memory: needs an evolved controller"),
        ({"fsq_vae.image_size": "32"}, "fsq_vae.image_size 32: expected 64, as env.image_size"),
        (
            {"controller.controller.kind": "actor_critic", "controller.train_in": "real"},
            "an actor-critic learns in the dream",
        ),
    ],
)
def test_what_does_not_go_together_is_one_line(options: dict[str, str], line: str) -> None:
    with pytest.raises(DreamdriveError, match=line) as caught:
        build(WorldModelAgentConfig, None, options)
    assert "\n" not in str(caught.value)
