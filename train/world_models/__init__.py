"""The World Models agent (Ha & Schmidhuber 2018), trained stage by stage from recorded driving.

Its parts under the names that they are known by. `WorldModel` here is
`agent.world_model.lstm.LSTMWorldModel`; the interface that it and every other world model implement is
`agent.world_model.interface.WorldModel`.

    config = WorldModelAgentConfig()
    config.fsq_vae.fsq_levels = [8, 5, 5, 5]
    config.controller.state_dim = 4
    vae = FSQVAE(config.fsq_vae)
    world_model = WorldModel(config.world_model, {"image": (3, 64, 64)}, config.env.action_size)
    controller = EvolutionaryController(config.controller.controller, world_model)
    VAETrainer(vae, config).train(rollouts)
    WorldModelTrainer(world_model, vae, config).train(tokens)
    ControllerTrainer(vae, world_model, config).train(tokens)

with `rollouts = train.tokenizer.picture_stream.open_rollouts(path, image_shape, action_size)` and
`tokens = train.tokenizer.tokenise.tokenize_rollouts(rollouts, vae, folder, "")`.
`train.world_models.pipeline` does all of it in a run's folder.
"""

from agent.behaviour.evolution import EvolutionaryController
from agent.tokenizer.fsq_vae import FSQVAE
from agent.world_model.lstm import LSTMWorldModel as WorldModel
from train.collect.car_racing import DataCollector
from train.evolve import controller
from train.tokenizer.train_tokenizer import TokenizerTrainer
from train.world_model.token_trainer import TokenModelTrainer
from train.world_models.config import WorldModelAgentConfig


def _tokenizer_trainer(vae: FSQVAE, config: WorldModelAgentConfig) -> TokenizerTrainer:
    return TokenizerTrainer(vae, config.training, config.seed)


def _token_model_trainer(
    world_model: WorldModel, vae: FSQVAE, config: WorldModelAgentConfig
) -> TokenModelTrainer:
    return TokenModelTrainer(world_model, vae, config.training, config.seed)


def _controller_trainer(
    vae: FSQVAE, world_model: WorldModel, config: WorldModelAgentConfig
) -> controller.ControllerTrainer:
    return controller.ControllerTrainer(
        vae, world_model, config.controller, config.training, config.env, config.seed
    )


# The trainers take the parts of the config that they need; these take the whole.
VAETrainer = _tokenizer_trainer
WorldModelTrainer = _token_model_trainer
ControllerTrainer = _controller_trainer

__all__ = [
    "FSQVAE",
    "ControllerTrainer",
    "DataCollector",
    "EvolutionaryController",
    "VAETrainer",
    "WorldModel",
    "WorldModelAgentConfig",
    "WorldModelTrainer",
]
