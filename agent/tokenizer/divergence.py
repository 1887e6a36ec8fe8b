"""When a discriminator learns and pulls, and what is done when adversarial training diverges.

A discriminator that pulls too early or too hard ruins pictures that were good, and its own loss does not say
so. Here is what counts as diverged, and how the discriminator goes back to a state before that.
"""

import math
from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, Field
from torch import Tensor
from torch.optim import Optimizer

from agent.schedules import linear_rise
from agent.tokenizer.adversarial import PatchDiscriminator


def pull_factor(step: int, start: int, ramp: int) -> float:
    """How strongly a discriminator pulls at an update, 0 to 1: nothing before `start`, then a linear ramp.

    Args:
        step: updates done before this one.
        start: update of the first pull.
        ramp: updates up to the whole pull; 0 has it at once.
    """
    return linear_rise(step - start + 1, ramp) if step >= start else 0.0


def discriminator_learns(step: int, start: int, warm_up: int) -> bool:
    """Whether a discriminator learns at an update: from `warm_up` updates before its first pull on."""
    return step >= start - warm_up


class DivergenceConfig(BaseModel, extra="forbid", validate_assignment=True, use_attribute_docstrings=True):
    """What counts as diverged, judged while the discriminator pulls, on running means."""

    collapsed_below: float = Field(1e-4, ge=0, lt=1)
    """Hinge loss of the discriminator below which it has collapsed: it is right everywhere by a margin, so it
    learns no more. Judged from the end of the ramp on, as it wins while it pulls little; 0 never says so."""
    lost_above: float = Field(1.5, gt=1)
    """Hinge loss above which it is worse than one that gives everything the score 0, which has 1."""
    ruined_above: float = Field(1.5, gt=1)
    """Reconstruction error above which pictures are ruined, as a multiple of the lowest that there was."""
    memory: int = Field(100, ge=1)
    """Updates that the running means reach back: each weighs 1 / memory."""
    keep_every: int = Field(500, ge=1)
    """Updates between the states that are kept; the last good one is the one before the newest."""
    most_restarts: int = Field(3, ge=0)
    """Restarts after which the discriminator is given up: it learns and pulls no more."""


class DivergenceGuard:
    """Schedule of a discriminator's pull, watch over it, and restart from its last good state.

    It has diverged when its loss or the reconstruction error is not finite, when the running mean of its loss
    is below `collapsed_below` or above `lost_above`, or when that of the reconstruction error is more than
    `ruined_above` times the lowest that it had. The last three are judged only while it pulls. A restart
    takes the last good weights, forgets the optimiser's averages, and begins the warm-up anew, so that the
    autoencoder first recovers without it.

    Args:
        config: the criteria.
        discriminator: watched, and changed in place at a restart.
        start: update of the first pull; at least `warm_up`.
        warm_up: updates that it learns before it pulls.
        ramp: updates from the first pull to the whole.

    Attributes:
        start: update of the first pull since the last restart.
        restarts: how often it was restarted.
        given_up: whether it has diverged more often than is allowed.
    """

    def __init__(
        self, config: DivergenceConfig, discriminator: PatchDiscriminator, start: int, warm_up: int, ramp: int
    ) -> None:
        self.config, self.discriminator = config, discriminator
        self.start, self.warm_up, self.ramp = max(start, warm_up), warm_up, ramp
        self.restarts, self.given_up = 0, False
        # Running means of the discriminator's loss and of the reconstruction error; the lowest of the latter.
        self._loss, self._error, self._lowest = math.nan, math.nan, math.inf
        # The state before the newest, and the newest.
        self._kept = [self._state(), self._state()]

    def pull(self, step: int) -> float:
        """How strongly the discriminator pulls at an update, 0 to 1."""
        return 0.0 if self.given_up else pull_factor(step, self.start, self.ramp)

    def learns(self, step: int) -> bool:
        """Whether the discriminator learns at an update."""
        return not self.given_up and discriminator_learns(step, self.start, self.warm_up)

    def watch(self, step: int, error: float, loss: float | None = None) -> str | None:
        """Take an update in, before the discriminator's optimiser makes its step; once for each update.

        Args:
            step: updates done before this one.
            error: of the reconstruction, of any one kind.
            loss: the discriminator's hinge loss, None where it does not learn.

        Returns:
            None while all is well, or why it has diverged, in one sentence: then `restart` it.
        """
        c = self.config
        values = [error] if loss is None else [error, loss]
        if not all(map(math.isfinite, values)):
            return f"discriminator loss {loss}, reconstruction error {error:.4g}: not finite"
        self._error = _mixed(self._error, error, c.memory)
        if loss is None:
            self._lowest = self._lowest_error(step)
            return None
        self._loss = _mixed(self._loss, loss, c.memory)
        if self.pull(step) > 0.0:
            if self._loss < c.collapsed_below and step >= self.start + self.ramp + c.memory:
                return f"discriminator loss {self._loss:.3g}: collapsed, below {c.collapsed_below:g}"
            if self._loss > c.lost_above and step >= self.start + c.memory:
                return f"discriminator loss {self._loss:.3g}: above {c.lost_above:g}, worse than guessing"
            if self._error > c.ruined_above * self._lowest:
                return (
                    f"reconstruction error {self._error:.3g}: pictures are ruined, more than "
                    f"{c.ruined_above:g} times the lowest, {self._lowest:.3g}"
                )
        self._lowest = self._lowest_error(step)
        if step % c.keep_every == 0:
            self._kept = [self._kept[1], self._state()]
        return None

    def restart(self, step: int, optimizer: Optimizer) -> None:
        """Put the discriminator back into its last good state, and begin its warm-up anew at this update.

        After more than `most_restarts` it is given up instead.

        Args:
            step: updates done before this one.
            optimizer: of the discriminator; what it remembers of past gradients is forgotten.
        """
        self.discriminator.load_state_dict(self._kept[0])
        optimizer.state.clear()
        optimizer.zero_grad(set_to_none=True)
        self._kept[1] = self._state()
        self._loss = math.nan
        self.start = step + self.warm_up
        if self.restarts == self.config.most_restarts:
            self.given_up = True
        else:
            self.restarts += 1

    def state_dict(self) -> dict[str, Any]:
        """All that a resumed run needs, as plain numbers and tensors."""
        return {
            "start": self.start,
            "restarts": self.restarts,
            "given_up": self.given_up,
            "means": [self._loss, self._error, self._lowest],
            "kept": self._kept,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on with what `state_dict` gave."""
        self.start, self.restarts = int(state["start"]), int(state["restarts"])
        self.given_up = bool(state["given_up"])
        self._loss, self._error, self._lowest = map(float, state["means"])
        self._kept = [{name: tensor.clone() for name, tensor in kept.items()} for kept in state["kept"]]

    def _state(self) -> dict[str, Tensor]:
        return {name: tensor.clone() for name, tensor in self.discriminator.state_dict().items()}

    def _lowest_error(self, step: int) -> float:
        # A mean over fewer updates than it reaches back may be low by chance.
        return min(self._lowest, self._error) if step >= self.config.memory else math.inf


def _mixed(mean: float, value: float, memory: int) -> float:
    """A running mean with one value more; the first value is the mean."""
    return value if math.isnan(mean) else mean + (value - mean) / memory
