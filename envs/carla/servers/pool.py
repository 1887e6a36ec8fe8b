"""Several simulators that get their orders together; those that answer do not wait for one that does not."""

import math
import time
from collections.abc import Sequence
from typing import Any

import numpy as np

from envs.car_racing.env import TRAINING_SEEDS
from envs.carla.config import ServerConfig
from envs.carla.errors import SimulatorLost
from envs.carla.servers.supervisor import Lost, SupervisedSimulator, wait_for


class SimulatorPool:
    """Simulators, each there or away; one that is away is reset again and again, until it is back.

    Args:
        simulators: all of them.
        limits: how long to wait for them.
        seed: of the episodes.
    """

    def __init__(self, simulators: Sequence[SupervisedSimulator], limits: ServerConfig, seed: int) -> None:
        self.simulators, self.limits = list(simulators), limits
        self.away: dict[int, str] = {}
        """Those that are away, and why."""
        self._seeds = [np.random.default_rng([seed, i]) for i in range(len(self.simulators))]
        self._resetting: set[int] = set()
        self._stepping: set[int] = set()
        self._answers: dict[int, Any] = {}
        self._not_before = [-math.inf] * len(self.simulators)

    def order_reset(self, i: int) -> None:
        """Have it begin an episode, unless it is about to, or was lost in that a moment ago."""
        if i not in self._resetting and time.monotonic() >= self._not_before[i]:
            self.simulators[i].order(("reset", int(self._seeds[i].integers(TRAINING_SEEDS)), None))
            self._resetting.add(i)

    def order_step(self, i: int, action: Any) -> None:
        """Have it make a decision; it must be there and have an episode."""
        self.simulators[i].order(("step", action))
        self._stepping.add(i)

    def look(self) -> None:
        """Without waiting, move on whatever can be: keep answers for `gather`, notice and replace the lost.

        Raises:
            CarlaSetupError: the user must change something.
        """
        for i in sorted(self._stepping | self._resetting):
            answer = self.simulators[i].poll()
            if answer is None:
                continue
            if i in self._resetting and isinstance(answer, Lost):
                self.away[i] = answer.reason
                self._not_before[i] = time.monotonic() + self.limits.max_pause_seconds
            else:
                self.away.pop(i, None)
                self._answers[i] = answer
            self._stepping.discard(i)
            self._resetting.discard(i)

    def gather(self, patience: float) -> dict[int, Any]:
        """The answers to the orders, as `SupervisedSimulator` gives them; a reset's is never Lost.

        A reset is waited for until it is answered or Lost, at most `patience` [s] from now; then its
        simulator is away and not waited for any more. But where all are away, any of them is waited for, as
        long as `patience_seconds` allows.

        Raises:
            SimulatorLost: nobody answers.
        """
        began = time.monotonic()
        longest = max(self.limits.patience_seconds, self.limits.start_seconds)
        while True:
            self.look()
            waited = time.monotonic() - began
            coming = self._resetting - self.away.keys()
            somebody = len(self._resetting | self.away.keys()) < len(self.simulators)
            if not self._stepping and somebody and (not coming or waited >= patience):
                break
            if not somebody and (not self._resetting or waited >= longest):
                self._answers = {}
                raise SimulatorLost(self._nobody(waited))
            wait_for([self.simulators[i] for i in sorted(self._stepping | self._resetting)])
        for i in coming:
            self.away[i] = self.simulators[i].last_loss or f"not reset within {patience:g} s"
        answers, self._answers = self._answers, {}
        return answers

    def _nobody(self, waited: float) -> str:
        first = min(set(self.away) | self._resetting)
        why = self.away.get(first) or self.simulators[first].last_loss or f"no answer within {waited:.0f} s"
        others = len(self.simulators) - 1
        return f"simulator {first}: {why}" + (f"; nor does any of the {others} others work" if others else "")
