"""Collecting in CARLA with several simulators at a time; what is lost with one of them is driven again."""

from collections import Counter, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from envs import TRAINING_SEEDS
from envs.carla.actions import Actions
from envs.carla.servers.supervisor import Lost, SupervisedSimulator, wait_for
from train.collect.autopilot import autopilot_target, native_choice
from train.collect.carla_drivers import CarlaCollectConfig, CarlaPolicy, EpisodeDriver
from train.collect.carla_episode import CarlaRecorder
from train.data.episode_store import EpisodeFolder
from train.drive.drivers import act_alone
from train.run.errors import DreamdriveError, one_line
from train.run.progress import Progress

_SAME_SEED = 3  # times that an episode which was lost is driven again before another takes its place
_HOPELESS = 20  # losses in a row after which a simulator is given up


@dataclass
class Collected:
    """What was driven."""

    begun: int = 0
    """Episodes that were tried, each counted once."""
    written: int = 0
    """Of those."""
    steps: int = 0
    """Of the episodes written."""
    lost: int = 0
    """Episodes that broke off with their simulator, each of which was begun again."""
    restarts: int = 0
    """Simulators that were replaced."""


class _Defect(Lost):
    """Lost by a defect of ours, which the next attempt may not meet."""


@dataclass
class _Slot:
    """A simulator, and the episode that is driven in it."""

    name: str
    simulator: SupervisedSimulator
    number: int | None = None
    """Of the episode; None while there is none."""
    seed: int = 0
    driver: EpisodeDriver | None = None
    recording: CarlaRecorder | None = None
    """None until the episode has begun."""
    losses: int = 0
    """In a row."""
    given_up: bool = False


@dataclass
class CarlaCollector:
    """Drives several simulators, none of which ever waits for another.

    Args as of `train.collect.carla_job.collect_episodes`, and the caller opens and closes `files` and
    `simulators`. Episode N is drawn from the seed and N, whichever simulator drives it.
    """

    files: EpisodeFolder
    episodes: int
    config: CarlaCollectConfig
    policy: CarlaPolicy
    seed: int
    simulators: Sequence[SupervisedSimulator]
    progress: Progress
    stopping: Callable[[], bool]
    total: Collected = field(default_factory=Collected)

    def run(self) -> Collected:
        """Drive until all episodes are there.

        Raises:
            DreamdriveError: the user must change something, the disk refuses, or no simulator works.
        """
        self._queue = deque(self.files.missing(self.episodes))
        self._losses: Counter[int] = Counter()
        self._begun: set[int] = set()
        self._actions = Actions(self.config.env)
        self._slots = [_Slot(f"simulator {i}", one) for i, one in enumerate(self.simulators)]
        self._frames = 0
        while True:
            if self.stopping():
                self._queue = deque(number for number in self._queue if number in self._begun)
            for slot in self._slots:
                if slot.number is None and not slot.given_up and self._queue:
                    self._begin(slot, self._queue.popleft())
            busy = [slot for slot in self._slots if slot.number is not None]
            if not busy:
                return self.total
            answers = [(slot, self._poll(slot)) for slot in busy]
            for slot, answer in answers:
                if answer is not None:
                    self._take(slot, answer)
            if all(answer is None for _, answer in answers):
                wait_for([slot.simulator for slot in busy])
            self._show()

    def _poll(self, slot: _Slot) -> Any:
        """What `SupervisedSimulator.poll` gives. A defect of ours is logged in full; the other simulators go
        on."""
        try:
            return slot.simulator.poll()
        except RuntimeError as error:
            self.progress.say(str(error))
            return _Defect("its client failed, see above")

    def _begin(self, slot: _Slot, number: int) -> None:
        self._begun.add(number)
        self.total.begun = len(self._begun)
        attempt = self._losses[number] // _SAME_SEED
        drawn = np.random.SeedSequence([self.seed, number, attempt]).generate_state(2)
        slot.number, slot.seed, slot.recording = number, int(drawn[0]) % TRAINING_SEEDS, None
        slot.driver = self.policy.episode_driver(self.config, int(drawn[1]))
        options: dict[str, Any] | None = None
        if slot.driver.autopilot is not None:
            options = {
                "drive_autopilot": True,
                "autopilot_targets": [autopilot_target(one) for one in slot.driver.commands],
            }
        slot.simulator.request(("reset", slot.seed, options))

    def _take(self, slot: _Slot, answer: Any) -> None:
        """Go on after an answer to `reset` or `step`."""
        assert slot.number is not None and slot.driver is not None
        if isinstance(answer, Lost):
            self._lose(slot, slot.number, answer)
            return
        if slot.recording is None:
            observation, info = answer
            slot.recording = CarlaRecorder(
                self._actions, observation, info, slot.driver.instruction, slot.driver.commands
            )
        else:
            observation, reward, terminated, truncated, info = answer
            self._frames += info["frames"]
            expert, perturbed = None, False
            if (autopilot := slot.driver.autopilot) is not None:
                expert, perturbed = autopilot.expert(info["applied_action"]), autopilot.perturbed
            slot.recording.add(expert, perturbed, observation, reward, info)
            if terminated or truncated:
                self._keep(slot, slot.number, slot.recording, terminated)
                return
        action = act_alone(slot.driver.driver, slot.recording.observation, len(slot.recording) == 0)
        slot.simulator.request(("step", native_choice(self._actions, action)))

    def _keep(self, slot: _Slot, number: int, recording: CarlaRecorder, terminated: bool) -> None:
        self.files.write(number, recording.episode(terminated, slot.seed))
        self.total.written += 1
        self.total.steps += len(recording)
        slot.number, slot.recording, slot.losses = None, None, 0

    def _lose(self, slot: _Slot, number: int, answer: Lost) -> None:
        """An episode without its end is none: it is driven again, here or in another simulator."""
        reason = answer.reason
        slot.losses += 1
        self._losses[number] += 1
        # One that cannot even begin was waited for long enough by `SupervisedSimulator`.
        hopeless = slot.recording is None and not isinstance(answer, _Defect)
        hopeless = hopeless or slot.losses >= _HOPELESS
        if slot.recording is not None:
            self.total.lost += 1
            self.progress.say(f"{slot.name} is lost, episode {number} is driven again: {reason}")
        slot.number, slot.recording = None, None
        self._queue.appendleft(number)
        if hopeless:
            slot.given_up = True
            if all(other.given_up for other in self._slots):
                raise DreamdriveError(f"{slot.name} does not work: {one_line(reason)}")
            self.progress.say(f"{slot.name} is given up, the others go on: {reason}")

    def _show(self) -> None:
        self.total.restarts = sum(max(one.starts - 1, 0) for one in self.simulators)
        fields = {"frames": self._frames, "restarts": self.total.restarts, "lost": self.total.lost}
        self.progress.update(len(self.files), fields)
