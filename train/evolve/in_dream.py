"""The actor-critic learns in the dreams of a frozen world model, by the losses it has in every other."""

from collections.abc import Iterator

import torch

from agent.behaviour.actor_critic import ActorCritic
from agent.dreamer import DreamerConfig
from agent.world_model.interface import Batch, Metrics
from agent.world_model.lstm import LSTMWorldModel
from train.data.columns import EpisodeColumns
from train.data.split import split_rollouts
from train.data.windows import windows_end_to_end
from train.evolve.config import EvolveConfig
from train.run.epochs import EpochState, StageCheckpoint
from train.run.loop import Cadence, LearnerReport, TrainingLoop, require_finite
from train.run.monitor import JobMonitor
from train.world_model.token_trainer import TokenModelTrainConfig

_LOG_UPDATES = 50
_SAVE_UPDATES = 1000


class DreamLearner:
    """Trains actor and critic in dreams; a `Learner`.

    Args:
        world_model: frozen but for its value head, which is the critic.
        behaviour: the actor.
        tokens: recorded rollouts, whose states dreams begin in.
        config: number of updates, and the optimiser.
        recorded: how sequences are drawn from the rollouts.
        seed: of their order.
    """

    resumable = True

    def __init__(
        self,
        world_model: LSTMWorldModel,
        behaviour: ActorCritic,
        tokens: EpisodeColumns,
        config: EvolveConfig,
        recorded: TokenModelTrainConfig,
        seed: int,
    ) -> None:
        self.world_model, self.behaviour, self.tokens = world_model, behaviour, tokens
        self.config, self.recorded, self.seed = config, recorded, seed
        self.episodes, _ = split_rollouts(len(tokens), recorded.validation_share, seed)
        whole = DreamerConfig(world_model=world_model.config, behaviour=behaviour.config)
        # Only for its parts' parameters, which the optimiser's config knows how to group.
        agent = whole.build({"image": world_model.tokenizer.image_shape}, world_model.action_size)
        agent.world_model, agent.behaviour = world_model, behaviour
        self.optimizer = config.optimizer.build(agent)
        self.state = EpochState(
            {"behaviour": behaviour, "value_head": world_model.value_head}, self.optimizer
        )

    @property
    def step(self) -> int:
        """See `Learner`."""
        return self.state.step

    @property
    def done(self) -> int:
        """Updates done."""
        return self.state.step

    @property
    def finished(self) -> bool:
        """See `Learner`."""
        return self.state.step >= self.config.updates

    def round(self) -> Iterator[Metrics]:
        """Everything to the end: nothing is held out; see `Learner`."""
        state, t, seed = self.state, self.recorded, self.seed
        device = next(self.world_model.parameters()).device
        while True:
            order = [seed, 40, state.epoch]
            windows = windows_end_to_end(
                self.tokens, self.episodes, t.batch_size, t.sequence_length, 0, order, device
            )
            for batch in state.unseen(windows):
                yield {} if batch is None else self._update(batch)
                if self.finished:
                    return
            state.next_epoch()

    def _update(self, batch: Batch) -> Metrics:
        c, model = self.config, self.world_model
        with torch.no_grad():
            start = model.initial(batch.reward.shape[0])
            states, _ = model.observe(batch.observation, batch.action, batch.is_first, start)
        c.optimizer.schedule(self.optimizer, self.step, self.step / c.updates)
        loss, metrics = self.behaviour.loss(model, batch, states)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        self.optimizer.step()
        self.behaviour.update_slow(model)
        self.state.updated()
        return metrics

    def report(self, means: dict[str, float], updates: int, seconds: float) -> LearnerReport:
        """See `Learner`. Raises `DreamdriveError` where a mean is no number."""
        require_finite(means, self.step, "the actor-critic")
        return LearnerReport(means, {"return": means["imagined/return"], "entropy": means["policy/entropy"]})

    def validate(self) -> LearnerReport:
        """Nothing is held out."""
        return LearnerReport({}, {})


def learn_in_dream(
    learner: DreamLearner, checkpoint: StageCheckpoint, monitor: JobMonitor
) -> dict[str, float]:
    """Train actor and critic from states of the recorded rollouts; gives the means of the last updates.

    Raises:
        DreamdriveError: the loss is no number any more.
        Stopped: a signal came; all is saved.
    """
    learner.state.load(checkpoint)
    if learner.step == 0:
        slow = learner.behaviour.slow_value
        slow.load_state_dict(learner.world_model.value_head.state_dict())
    cadence = Cadence(log_updates=_LOG_UPDATES, save_updates=_SAVE_UPDATES)
    loop = TrainingLoop(learner, lambda: learner.state.save(checkpoint), cadence, monitor)
    loop.run()
    return loop.means
