"""A world model and its updates: loss, gradient, one step of AdamW, and a stop at what is no number."""

import gc
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from agent.schedules import linear_decay, linear_warm_up
from agent.world_model.interface import Batch, Metrics, State, WorldModel
from agent.world_model.losses import ObjectiveConfig, recorded_value_loss
from agent.world_model.rssm import RSSM
from agent.world_model.transformer import TransformerConfig
from train.data.augment import augment
from train.data.loader import Share
from train.run.device import autocast
from train.run.loop import diverged
from train.world_model.config import WorldModelTrainConfig
from train.world_model.distributed import Team

_FINAL_RATE = 0.05  # of the learning rate is left at the end, where it falls


class Loss(nn.Module):
    """A world model whose `forward` is its loss, as DistributedDataParallel wants it.

    Args:
        world_model: what learns.
        config: of the run.
    """

    def __init__(self, world_model: WorldModel, config: WorldModelTrainConfig) -> None:
        super().__init__()
        self.world_model, self.config = world_model, config.objective

    def forward(self, batch: Batch, step: int) -> tuple[Tensor, Metrics]:
        """The loss of a batch, a scalar, and its metrics, after `step` updates."""
        start = self.world_model.initial(batch.reward.shape[0])
        loss, metrics, _ = recorded_loss(self.world_model, batch, start, self.config, step)
        return loss, metrics


def recorded_loss(
    model: WorldModel, batch: Batch, start: State, config: ObjectiveConfig, step: int
) -> tuple[Tensor, Metrics, State]:
    """The loss of any world model on recorded driving alone, its metrics, and the states with their graph.

    Models over tokens have their own loss and that of the value; what else `config` weighs is of an RSSM.

    Args:
        model: what learns.
        batch: B sequences of T >= 2 rows.
        start: (B), the state before the first rows.
        config: weights beside the model's own.
        step: updates done before this one.
    """
    if isinstance(model, RSSM):
        return model.objective(batch, start, config, step)
    loss, metrics, states = model.loss_and_states(batch, start)
    value, of_value = recorded_value_loss(model.value_head, model.features(states), batch, config)
    loss = loss + config.value_weight * value
    return loss, {**metrics, **of_value, "loss/world_model": loss.detach()}, states


class WorldModelLearner:
    """Updates a world model, alone or with other processes, whose gradients are averaged.

    The random numbers of an update come from the seed, the number of the update and the process, so that a
    run that goes on from a checkpoint ends as one that was never stopped.

    Args:
        world_model: what learns, on the team's device.
        config: of the run.
        team: the processes.
        seen: called with the number of updates and the gradient's norm, once for each update.
        names: the episodes of a batch, as text.

    Attributes:
        step: updates done.
        total: updates of the whole run, as far as known, which the learning rate falls by.
    """

    def __init__(
        self,
        world_model: WorldModel,
        config: WorldModelTrainConfig,
        team: Team,
        seen: Callable[[int, float], None],
        names: Callable[[Any], str],
    ) -> None:
        self.world_model, self.config, self.team = world_model, config, team
        self.step = 0
        self.total = 0
        self.optimizer = torch.optim.AdamW(
            [p for p in world_model.parameters() if p.requires_grad],
            lr=config.learning_rate,
            weight_decay=config.weight_decay,
        )
        self.loss: nn.Module = Loss(world_model, config)
        if team.world > 1:
            on = [team.device] if team.device.type == "cuda" else None
            self.loss = DistributedDataParallel(self.loss, device_ids=on)
        self._seen, self._names = seen, names
        self._pending: tuple[Tensor, Tensor, Share] | None = None

    @property
    def learning_rate(self) -> float:
        """The learning rate of the next update: a linear warm-up, then constant, then linear decay."""
        c = self.config
        rate = c.learning_rate * linear_warm_up(self.step, c.warmup_steps)
        if c.base_width and isinstance(c.model, TransformerConfig):
            rate *= c.base_width / c.model.blocks.width
        falls = c.decay_from * self.total
        if c.decay_from < 1.0 and self.step > falls:
            rate *= linear_decay(self.step - falls, self.total - falls, _FINAL_RATE)
        return rate

    def update(self, part: Share, batch: Batch) -> Metrics:
        """One update of the weights; its metrics. Raises `DreamdriveError` as `settle`."""
        c = self.config
        for group in self.optimizer.param_groups:
            group["lr"] = self.learning_rate
        mixed = np.random.SeedSequence([c.seed, self.step, self.team.rank])
        torch.manual_seed(int(mixed.generate_state(1)[0]))
        batch = augment(batch, c.augment_shift, c.augment_mirror, c.augment_light)
        with autocast(self.team.device, c.precision):
            loss, metrics = self.loss(batch, self.step)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        norm = nn.utils.clip_grad_norm_(self.world_model.parameters(), c.max_grad_norm)
        self.settle()
        self._pending = (torch.isfinite(loss.detach()) & torch.isfinite(norm), norm, part)
        if self.team.device.type == "cpu":
            # On a GPU this is read an update later, so that the update is not waited for.
            self.settle()
        self.optimizer.step()
        self.step += 1
        return {**metrics, "optimizer/grad_norm": norm}

    def settle(self) -> None:
        """Look at the latest update, if that is not done yet.

        Raises:
            DreamdriveError: its loss or gradient was no number; the batch's episodes are named.
        """
        if self._pending is None:
            return
        finite, norm, part = self._pending
        self._pending = None
        if not bool(finite):
            episodes = f"; episodes of the batch: {self._names(part.together)}"
            raise diverged("the loss or its gradient", self.step, more=episodes)
        self._seen(self.step, float(norm))

    def leave(self) -> None:
        """Part from the other processes; the world model stays as it is.

        DistributedDataParallel goes first: destroyed after its process group, it may wait for ever.
        """
        self.loss = Loss(self.world_model, self.config)
        gc.collect()
        self.team.leave()
