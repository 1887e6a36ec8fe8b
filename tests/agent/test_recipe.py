"""The defaults are the published recipes: a change of one is a change of every result that used it."""

import pytest
from pydantic import BaseModel

from agent.behaviour.actor_critic import ActorCriticConfig
from agent.behaviour.planner import PlannerConfig
from agent.dreamer import OptimizerConfig
from agent.world_model.decoder import DecoderConfig
from agent.world_model.dynamics import DynamicsConfig
from agent.world_model.encoder import EncoderConfig
from agent.world_model.losses import ObjectiveConfig
from agent.world_model.rssm import RSSMConfig

RECIPES: list[tuple[type[BaseModel], dict[str, object]]] = [
    (
        DynamicsConfig,
        {
            "deter": 512,
            "hidden": 256,
            "variables": 32,
            "classes": 16,
            "blocks": 8,
            "dynamics_layers": 1,
            "posterior_layers": 1,
            "prior_layers": 2,
            "unimix": 0.01,
            "gaussian": None,
        },
    ),
    (
        EncoderConfig,
        {
            "patch": 4,
            "depth": 16,
            "multipliers": [2, 3, 4],
            "vector_layers": 3,
            "vector_units": 256,
            "quantizer": "none",
            "fsq_levels": [8, 5, 5, 5],
        },
    ),
    (
        DecoderConfig,
        {"patch": 4, "depth": 16, "multipliers": [2, 3, 4], "vector_layers": 3, "vector_units": 256},
    ),
    (
        RSSMConfig,
        {
            "kind": "rssm",
            "dynamics": DynamicsConfig().model_dump(),
            "encoder": EncoderConfig().model_dump(),
            "decoder": DecoderConfig().model_dump(),
            "norm": "rms",
            "advection": False,
            "units": 256,
            "reward_layers": 1,
            "continue_layers": 1,
            "value_layers": 3,
            "free_nats": 1.0,
            "prior_weight": 1.0,
            "representation_weight": 0.1,
            "reconstruction_weight": 1.0,
            "vector_weight": 1.0,
            "reward_weight": 1.0,
            "continue_weight": 1.0,
        },
    ),
    (
        ActorCriticConfig,
        {
            "kind": "actor_critic",
            "units": 256,
            "layers": 3,
            "norm": "rms",
            "actions": "continuous",
            "min_std": 0.1,
            "max_std": 1.0,
            "unimix": 0.01,
            "gradient": "reinforce",
            "imagination_length": 15,
            "starts": 0,
            "horizon": 333.0,
            "lambda_": 0.95,
            "entropy": 3e-4,
            "slow_rate": 0.02,
            "slow_weight": 1.0,
            "replay_value_weight": 0.3,
        },
    ),
    (
        OptimizerConfig,
        {
            "world_model_lr": 4e-5,
            "actor_lr": 4e-5,
            "critic_lr": 4e-5,
            "clip": 0.3,
            "beta1": 0.9,
            "beta2": 0.999,
            "eps": 1e-20,
            "warmup": 1000,
            "decay_from": 1.0,
            "final_share": 0.1,
        },
    ),
    (
        PlannerConfig,
        {
            "method": "cem",
            "samples": 128,
            "horizon": 12,
            "iterations": 3,
            "elites": 12,
            "temperature": 0.3,
            "noise": 0.6,
            "min_noise": 0.05,
            "correlation": 0.6,
            "policy_share": None,
            "use_value": True,
        },
    ),
    (
        ObjectiveConfig,
        {
            "kl_anneal_steps": 10_000,
            "consistency_weight": 1.0,
            "value_weight": 0.5,
            "discount": 0.99,
            "lambda_": 0.95,
            "ssim_weight": 0.0,
            "gradient_weight": 0.0,
            "structure_scales": 3,
            "advection_weight": 1.0,
            "advection_steps": 15,
        },
    ),
]


@pytest.mark.parametrize(("config", "recipe"), RECIPES, ids=lambda value: getattr(value, "__name__", ""))
def test_defaults_are_the_recipes(config: type[BaseModel], recipe: dict[str, object]) -> None:
    assert config().model_dump() == recipe
