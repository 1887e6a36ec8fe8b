"""The job that records episodes in CARLA; what is lost with a simulator is driven again."""

from collections import Counter, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from envs import TRAINING_SEEDS
from envs.carla.actions import Actions
from envs.carla.env import OpenEnv, open_carla
from envs.carla.errors import CarlaSetupError
from envs.carla.servers.supervisor import Lost, SupervisedSimulator, wait_for
from train.collect.autopilot import autopilot_target, native_choice
from train.collect.carla_drivers import CarlaCollectConfig, CarlaPolicy, EpisodeDriver
from train.collect.carla_episode import CarlaRecorder
from train.data.episode_store import EpisodeFolder
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

    Args:
        files: where episodes go.
        episodes: how many there shall be.
        config: what is driven.
        policy: what drives.
        seed: of everything: episode N is drawn from the seed and N, whichever simulator drives it.
        simulators: to drive in; the caller closes them.
        progress: shows how far it is.
        stopping: asked again and again whether to begin no more episodes; those begun are driven to their
            ends.
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
            return _Defect("its client failed, as told above")

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
        # (1, ...)
        seen = {name: value[None] for name, value in slot.recording.observation.items()}
        action = slot.driver.driver.act(seen, np.array([len(slot.recording) == 0]))[0]
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


def collect(
    output: Path,
    episodes: int,
    config: CarlaCollectConfig,
    policy: CarlaPolicy,
    seed: int,
    progress: Progress | None = None,
    stopping: Callable[[], bool] = lambda: False,
    open_env: OpenEnv = open_carla,
) -> Collected:
    """Drive until there are `episodes` episodes in the folder `output`.

    Each is written as soon as it ends, whole or not at all; those that are there count, and are kept.

    Args:
        output: made if missing.
        episodes: how many there shall be.
        config: what is driven, and by how many simulators.
        policy: what drives.
        seed: of everything: episode N is the same in any collection with this seed, as far as the simulator
            is.
        progress: shows how far it is; None shows a bar of its own.
        stopping: asked again and again whether to begin no more episodes; those begun are driven to their
            ends.
        open_env: makes the environment in each client's process.

    Raises:
        DreamdriveError: the user must change something, `output` holds something else or is in use, the disk
            refuses, or no simulator works.
    """
    policy.check(config)
    if not (config.env.image or config.env.state):
        raise DreamdriveError(
            "env: image and state are off, expected one of them on: pictures from above and semantic ones "
            "are extras of an episode's file, not observations"
        )
    with EpisodeFolder(output, "a", made=_notes(config, policy, seed)) as files:
        wanted = len(files.missing(episodes))
        if not wanted:
            return Collected()
        simulators: list[SupervisedSimulator] = []
        try:
            for i in range(min(config.env.num_envs, wanted)):
                simulators.append(SupervisedSimulator(config.env, config.env.servers, i, seed + i, open_env))
            title, done = f"collecting {output}", len(files)
            with progress or Progress(title, episodes, "episodes", ("frames",), done=done) as shown:
                shown.update(done)
                collector = CarlaCollector(files, episodes, config, policy, seed, simulators, shown, stopping)
                return collector.run()
        except CarlaSetupError as error:
            raise DreamdriveError(one_line(error)) from error
        finally:
            # All at the same time, then one after the other.
            for one in simulators:
                one.begin_close()
            for one in simulators:
                one.close()


def _notes(config: CarlaCollectConfig, policy: CarlaPolicy, seed: int) -> dict[str, Any]:
    """What the episodes depend on."""
    env = config.env.model_dump(mode="json", exclude={"num_envs", "servers", "timeout_seconds"})
    noise = config.noise.model_dump(mode="json")
    made: dict[str, Any] = {"policy": policy.name, "seed": seed, "env": env, "noise": noise}
    if config.asked:
        made["orders"] = config.orders.model_dump(mode="json")
    told = policy.instructed.instructions if policy.instructed is not None else ()
    return made | ({"instructions": list(told)} if told else {})
