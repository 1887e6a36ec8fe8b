"""The actor-critic learns in the dreams of a frozen world model, by the losses it has in every other."""

import numpy as np
import torch
from torch import Tensor

from agent.behaviour.actor_critic import ActorCritic
from agent.dreamer import DreamerConfig
from agent.world_model.lstm import LSTMWorldModel
from train.data.columns import EpisodeColumns
from train.data.split import split_rollouts
from train.data.windows import windows_end_to_end
from train.run.checkpoint import rng_state, set_rng_state
from train.run.errors import DreamdriveError
from train.run.stage_loop import Saves, Stopped, Watch
from train.world_models.config import WorldModelAgentConfig

_LOG_UPDATES = 50
_SAVE_UPDATES = 1000


class _Learner:
    """Behaviour, optimiser, and where in the rollouts it is."""

    def __init__(
        self, world_model: LSTMWorldModel, behaviour: ActorCritic, config: WorldModelAgentConfig
    ) -> None:
        self.world_model, self.behaviour = world_model, behaviour
        self.epoch = self.done = self.updates = 0
        self.options = config.controller.optimizer
        shapes = {"image": (3, config.env.image_size, config.env.image_size)}
        whole = DreamerConfig(world_model=config.world_model, behaviour=config.controller.controller)
        # Only for its parts' parameters, which the optimiser's config knows how to group.
        agent = whole.build(shapes, world_model.action_size)
        agent.world_model, agent.behaviour = world_model, behaviour
        self.optimizer = self.options.build(agent)

    def load(self, saves: Saves) -> None:
        """Take up the saved state, if there is one."""
        state = saves.load()
        if state is None:
            return
        self.behaviour.load_state_dict(state["behaviour"])
        self.world_model.value_head.load_state_dict(state["value_head"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.epoch, self.done, self.updates = state["epoch"], state["done"], state["step"]
        set_rng_state(state["rng"])

    def save(self, saves: Saves) -> None:
        """Save everything that a resumed run needs to go on exactly."""
        saves.save(
            self.updates,
            {
                "behaviour": self.behaviour.state_dict(),
                "value_head": self.world_model.value_head.state_dict(),
                "optimizer": self.optimizer.state_dict(),
                "epoch": self.epoch,
                "done": self.done,
                "rng": rng_state(),
            },
        )


def learn_in_dream(
    world_model: LSTMWorldModel,
    behaviour: ActorCritic,
    tokens: EpisodeColumns,
    config: WorldModelAgentConfig,
    saves: Saves,
    watch: Watch,
) -> dict[str, float]:
    """Train actor and critic from states of the recorded rollouts; gives the means of the last updates.

    The world model is frozen but for its value head, which is the critic.

    Raises:
        DreamdriveError: the loss is no number any more.
        Stopped: a signal came; all is saved.
    """
    c, t = config.controller, config.training
    device = next(world_model.parameters()).device
    learner = _Learner(world_model, behaviour, config)
    learner.load(saves)
    if learner.updates == 0:
        behaviour.slow_value.load_state_dict(world_model.value_head.state_dict())
    episodes, _ = split_rollouts(len(tokens), t.validation_share, config.seed)
    sums: dict[str, Tensor] = {}
    means: dict[str, float] = {}
    summed = 0
    watch.show(learner.updates)
    while learner.updates < c.updates:
        windows = windows_end_to_end(
            tokens, episodes, t.batch_size, t.sequence_length, 0, [config.seed, 40, learner.epoch], device
        )
        skipped = learner.done
        for number, batch in enumerate(windows):
            if watch.stopping:
                learner.save(saves)
                raise Stopped
            if number < skipped:
                continue
            with torch.no_grad():
                start = world_model.initial(batch.reward.shape[0])
                states, _ = world_model.observe(batch.observation, batch.action, batch.is_first, start)
            c.optimizer.schedule(learner.optimizer, learner.updates, learner.updates / c.updates)
            loss, metrics = behaviour.loss(world_model, batch, states)
            learner.optimizer.zero_grad(set_to_none=True)
            loss.backward()
            learner.optimizer.step()
            behaviour.update_slow(world_model)
            learner.updates, learner.done = learner.updates + 1, learner.done + 1
            for name, value in metrics.items():
                sums[name] = sums[name] + value if name in sums else value.detach().clone()
            summed += 1
            if summed == _LOG_UPDATES or learner.updates == c.updates:
                means = {name: float(value) / summed for name, value in sums.items()}
                sums, summed = {}, 0
                _note(means, learner.updates, watch)
            if learner.updates % _SAVE_UPDATES == 0:
                learner.save(saves)
            if learner.updates == c.updates:
                break
        else:
            learner.epoch, learner.done = learner.epoch + 1, 0
    learner.save(saves)
    return means


def _note(means: dict[str, float], updates: int, watch: Watch) -> None:
    bad = [name for name, value in means.items() if not np.isfinite(value)]
    if bad:
        raise DreamdriveError(
            f"the actor-critic diverged: {bad[0]} is not finite after {updates} updates; "
            "lower learning rates may help"
        )
    watch.log(means, updates)
    watch.show(updates, {"return": means["imagined/return"], "entropy": means["policy/entropy"]})
