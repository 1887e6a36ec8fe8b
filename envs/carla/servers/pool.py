"""Pool of supervised simulators: requests go to all at once, and a lost one does not delay the others."""

import math
import time
from collections.abc import Sequence
from typing import Any

import numpy as np

from envs import TRAINING_SEEDS
from envs.carla.config import ServerConfig
from envs.carla.errors import SimulatorLost
from envs.carla.servers.supervisor import Lost, SupervisedSimulator, wait_for


class SimulatorPool:
    """Simulators, each available or away; one that is away is reset repeatedly until it answers.

    Args:
        simulators: the simulators.
        limits: how long to wait for them.
        seed: of the episodes.
    """

    def __init__(self, simulators: Sequence[SupervisedSimulator], limits: ServerConfig, seed: int) -> None:
        self.simulators, self.limits = list(simulators), limits
        self.away: dict[int, str] = {}
        """The simulators that are away, and why."""
        self._seeds = [np.random.default_rng([seed, i]) for i in range(len(self.simulators))]
        self._resetting: set[int] = set()
        self._stepping: set[int] = set()
        self._answers: dict[int, Any] = {}
        self._not_before = [-math.inf] * len(self.simulators)

    def request_reset(self, i: int) -> None:
        """Begin an episode in simulator i, unless that is pending or has just failed."""
        if i not in self._resetting and time.monotonic() >= self._not_before[i]:
            self.simulators[i].request(("reset", int(self._seeds[i].integers(TRAINING_SEEDS)), None))
            self._resetting.add(i)

    def request_step(self, i: int, action: Any) -> None:
        """Begin a decision in simulator i, which must be available and in an episode."""
        self.simulators[i].request(("step", action))
        self._stepping.add(i)

    def poll(self) -> None:
        """Without waiting, keep answers for `gather`, and replace simulators that were lost.

        Raises:
            CarlaSetupError: a mistake in the config.
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
        """The answers to the requests, as `SupervisedSimulator` gives them; that to a reset is never Lost.

        A reset is waited for until it is answered or Lost, at most `patience` [s] from now; then its
        simulator is away and is not waited for. If all are away, the first answer of any of them is waited
        for, at most `patience_seconds`.

        Raises:
            SimulatorLost: no simulator answers.
        """
        began = time.monotonic()
        longest = max(self.limits.patience_seconds, self.limits.start_seconds)
        while True:
            self.poll()
            waited = time.monotonic() - began
            pending = self._resetting - self.away.keys()
            available = len(self._resetting | self.away.keys()) < len(self.simulators)
            if not self._stepping and available and (not pending or waited >= patience):
                break
            if not available and (not self._resetting or waited >= longest):
                self._answers = {}
                raise SimulatorLost(self._failure_message(waited))
            wait_for([self.simulators[i] for i in sorted(self._stepping | self._resetting)])
        for i in pending:
            self.away[i] = self.simulators[i].last_loss or f"not reset within {patience:g} s"
        answers, self._answers = self._answers, {}
        return answers

    def _failure_message(self, waited: float) -> str:
        first = min(set(self.away) | self._resetting)
        why = self.away.get(first) or self.simulators[first].last_loss or f"no answer within {waited:.0f} s"
        others = len(self.simulators) - 1
        return f"simulator {first}: {why}" + (f"; nor does any of the {others} others work" if others else "")
