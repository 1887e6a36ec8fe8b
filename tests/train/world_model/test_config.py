from pathlib import Path

import pytest

from agent.world_model.latents import GaussianLatent
from train.run.errors import DreamdriveError
from train.run.options import build, to_yaml, validate
from train.world_model.config import WorldModelTrainConfig

SEED = {
    "state_dim": 256,
    "action_dim": 3,
    "hidden_dim": 512,
    "latent_dim": 32,
    "num_categories": 32,
    "deterministic_dim": 256,
    "stochastic_dim": 32,
    "batch_size": 32,
    "sequence_length": 50,
    "learning_rate": 3e-4,
    "weight_decay": 1e-6,
    "num_epochs": 100,
    "max_grad_norm": 100.0,
    "warmup_steps": 1000,
    "reconstruction_weight": 1.0,
    "kl_weight": 1.0,
    "kl_balance": 0.8,
    "reward_weight": 1.0,
    "value_weight": 0.5,
    "dynamics_weight": 1.0,
    "kl_free_bits": 1.0,
    "kl_anneal_steps": 10000,
    "imagination_horizon": 15,
    "num_imagination_samples": 8,
}


def test_the_defaults_are_those_that_users_know() -> None:
    config = WorldModelTrainConfig()
    assert {name: getattr(config, name) for name in SEED} == SEED


@pytest.mark.parametrize(
    "given",
    [
        {"state_dim": 256, "deterministic_dim": 512},
        {"latent_dim": 32, "stochastic_dim": 16},
    ],
)
def test_two_names_of_one_size_must_not_contradict(given: dict[str, int]) -> None:
    names = " and ".join(f"{name} is {value}" for name, value in given.items())
    with pytest.raises(DreamdriveError, match=f"{names}: two names of one size, expected one of them"):
        validate(WorldModelTrainConfig, given, "config")
    with pytest.raises(DreamdriveError, match=names):
        build(WorldModelTrainConfig, None, {name: str(value) for name, value in given.items()})


def test_either_name_of_a_size_will_do() -> None:
    assert WorldModelTrainConfig(deterministic_dim=512).state_dim == 512
    assert WorldModelTrainConfig(state_dim=512).deterministic_dim == 512
    assert build(WorldModelTrainConfig, None, {"stochastic_dim": "8"}).latent_dim == 8
    assert WorldModelTrainConfig(latent_dim=8, stochastic_dim=8).latent_dim == 8


def test_a_config_read_back_is_the_same(tmp_path: Path) -> None:
    config = WorldModelTrainConfig(stochastic_dim=8, latent="gaussian")
    file = tmp_path / "c.yaml"
    file.write_text(to_yaml(config))
    assert build(WorldModelTrainConfig, file) == config


def test_the_config_is_that_of_model_and_objective() -> None:
    config = WorldModelTrainConfig(
        state_dim=64, hidden_dim=48, latent_dim=6, num_categories=5, kl_free_bits=2.0
    )
    dynamics = config.world_model.dynamics
    assert (dynamics.deter, dynamics.hidden, dynamics.variables, dynamics.classes) == (64, 48, 6, 5)
    assert config.world_model.units == 48
    assert config.world_model.free_nats == 2.0 and config.objective.value_weight == 0.5
    assert config.objective.ssim_weight == config.objective.gradient_weight == 0.0
    sharp = WorldModelTrainConfig(ssim_weight=3.0, gradient_weight=2.0, structure_scales=2).objective
    assert (sharp.ssim_weight, sharp.gradient_weight, sharp.structure_scales) == (3.0, 2.0, 2)
    latent = config.model_copy(update={"latent": "gaussian"}).world_model.dynamics.latent()
    assert isinstance(latent, GaussianLatent) and latent.size == 6


def test_the_weights_that_users_know_are_those_of_the_losses() -> None:
    config = WorldModelTrainConfig(
        reconstruction_weight=0.3,
        kl_weight=0.5,
        kl_balance=0.75,
        reward_weight=1.1,
        continue_weight=1.3,
        value_weight=0.9,
        dynamics_weight=1.7,
    )
    own, beside = config.world_model, config.objective
    assert (own.prior_weight, own.representation_weight) == (0.375, 0.125)
    assert (own.reconstruction_weight, own.reward_weight, own.continue_weight) == (0.3, 1.1, 1.3)
    assert (beside.value_weight, beside.consistency_weight) == (0.9, 1.7)


@pytest.mark.parametrize(
    ("given", "complaint"),
    [
        ({"image_size": "48"}, "image_size: 48: expected 16, 32, 64"),
        ({"val_fraction": "0.6", "test_fraction": "0.5"}, "expected less than 1 together"),
        ({"learning_rat": "1"}, "did you mean learning_rate"),
        ({"latent": "discrete"}, "latent: .*'categorical' or 'gaussian'"),
    ],
)
def test_a_bad_option_is_one_line(given: dict[str, str], complaint: str) -> None:
    with pytest.raises(DreamdriveError, match=complaint) as told:
        build(WorldModelTrainConfig, None, given)
    assert "\n" not in str(told.value)
