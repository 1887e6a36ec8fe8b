"""The job that records demonstrations in CarRacing, with perturbations and recoveries, or by DAgger."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field

from agent.behaviour.vla.interface import ChunkPolicy, require_policy
from envs import TRAINING_SEEDS
from envs.car_racing.env import CarRacingConfig
from envs.car_racing.track import HALF_WIDTH
from train.collect.demonstrator import SteeringMistakes, demonstrate
from train.collect.recorder import EpisodeRecorder, record_missing
from train.data.episode_store import EpisodeFolder
from train.data.episodes import Episode
from train.drive.agents import load_agent
from train.drive.drivers import act_alone
from train.drive.environments import require_car_racing
from train.drive.filtering import ObservationFilter
from train.language.command_sampling import CommandsConfig, sample_commands, settled
from train.language.hindsight import (
    CAR_RACING_SPEEDS,
    LEARNER_DROVE,
    Labels,
    commanded_extras,
    commanded_rows,
    obeys,
)
from train.language.instructions import sample_sentence
from train.run.errors import DreamdriveError
from train.run.progress import Progress
from train.vla.checks import check_env
from train.vla.features import fork_policy
from train.vla.instructed_driver import InstructedDriver, instructed_policy

SETTLE = 12
"""Decisions after which a command is expected to be obeyed; about a second."""
_LOST = 3.0  # half widths from the middle of the road, from where it may be out of the picture


class DemonstrationsConfig(CommandsConfig):
    """Demonstrations in CarRacing."""

    decisions: int = Field(120, ge=2)
    """Length of an episode [decisions]."""
    mistakes: float = Field(0.02, ge=0, le=1)
    """Chance that a decision begins a mistake: a wrong steering for 2 to 5 decisions, which is to be
    corrected."""
    simulators: int = Field(8, ge=1)
    """Driven at the same time."""


class _DemonstrationRecorder(EpisodeRecorder):
    """A simulator, and the demonstration that is driven in it, by the learner where there is one.

    The episode of a number depends on the seed and the number only.
    """

    def __init__(
        self, config: DemonstrationsConfig, env: CarRacingConfig, learner: ChunkPolicy | None, seed: int
    ) -> None:
        super().__init__(config.decisions, env)
        self._config, self._learner, self._run_seed = config, learner, seed
        self._driver: InstructedDriver | None = None

    def begin(self, number: int) -> None:
        """See `EpisodeRecorder`."""
        rng = np.random.default_rng([self._run_seed, number])
        self.start(number, int(rng.integers(TRAINING_SEEDS)))
        self.commands = sample_commands(self._config, self._config.decisions, rng)
        self._mistakes = SteeringMistakes(self._config.mistakes, rng)
        self._expert: list[NDArray[np.float32]] = []
        self._perturbed: list[bool] = []
        self._words = np.random.default_rng([self._run_seed, number, 61])
        if self._learner is not None:
            learner = fork_policy(self._learner, int(self._words.integers(2**31)))
            self._driver = InstructedDriver(learner, [""])

    def decide(self, agent: NDArray[np.float32]) -> None:
        """One decision, in which the agent would do (2,)."""
        now = len(self)
        action = expert = demonstrate(self.commands[now], self.car, self.track, agent)
        self._expert.append(expert)
        if self._driver is None:
            mistake = self._mistakes.step(self.car.speed)
            self._perturbed.append(mistake != 0.0)
            action = expert.copy()
            action[0] = np.clip(expert[0] + mistake, -1.0, 1.0)
        else:
            self._perturbed.append(False)
            if not now or self.commands[now] != self.commands[now - 1]:
                self._driver.instructions = [sample_sentence(self.commands[now], self._words)]
            action = act_alone(self._driver, self.observation, now == 0)
        self.step(action.astype(np.float32))
        # A learner's episode also ends where the road is out of sight.
        self.over |= self._driver is not None and abs(self.car.offset) > _LOST * HALF_WIDTH

    def extras(self) -> dict[str, NDArray[Any]]:
        """See `collect_demonstrations`."""
        return {
            "expert_actions": np.stack(self._expert).astype(np.float32),
            "perturbed": np.array(self._perturbed),
            LEARNER_DROVE: np.full(len(self), self._driver is not None),
            **commanded_extras(self.commands[: len(self)]),
        }


@dataclass
class DemonstrationStatistics:
    """What demonstrations came to."""

    episodes: int = 0
    decisions: int = 0
    settled: int = 0
    """Decisions at least `SETTLE` after their command."""
    obeyed: int = 0
    """Of those, the ones in which the car does as commanded."""
    off_road: int = 0
    """Decisions with the middle of the car beyond the edge of the road."""

    def add(self, episode: Episode) -> None:
        """Count an episode of demonstrations."""
        extras = episode.extras
        commands = commanded_rows(episode) or []
        late = settled(commands, SETTLE)
        self.episodes += 1
        self.decisions += len(episode)
        self.settled += int(late.sum())
        self.obeyed += int((late & obeyed_rows(episode, commands)).sum())
        self.off_road += int((abs(extras["offsets"]) > extras["half_widths"]).sum())

    def __str__(self) -> str:
        obeyed, off = self.obeyed / max(self.settled, 1), self.off_road / max(self.decisions, 1)
        return (
            f"{self.episodes} episodes, {self.decisions} decisions; {obeyed:.1%} as asked, from {SETTLE} "
            f"decisions after an order on; {off:.2%} off the road"
        )


def obeyed_rows(episode: Episode, commands: Sequence[Labels]) -> NDArray[np.bool_]:
    """Which rows (T,) of an episode of CarRacing do as commanded in them."""
    facts = [episode.extras[name] for name in ("speeds", "offsets", "half_widths")]
    result = np.zeros(len(commands), bool)
    for command in set(commands):
        rows = np.array([other == command for other in commands])
        result |= rows & obeys(command, facts[0], facts[1], facts[2], CAR_RACING_SPEEDS)
    return result


def collect_demonstrations(
    agent: Path,
    episodes: int,
    output: Path,
    seed: int,
    config: DemonstrationsConfig,
    learner: Path | None = None,
) -> DemonstrationStatistics:
    """Drive until there are `episodes` demonstrations in the folder `output`; run again, it goes on.

    The files are `train.data.episodes`'s, with pictures, the vector "state" (see
    `envs.car_racing.track.state_vector`),
    and these extras, row t the moment of observation t: `speeds` (T,) m/s; `offsets` (T,) from the middle of
    the road, left positive, and `half_widths` (T,) m; `expert_actions` (T, 2), what the demonstrator wanted;
    `perturbed` (T,) bool, where a mistake was made instead; `learner_drove` (T,) bool; `asked_speeds`,
    `asked_places` (T,), the command, "" for none; and `seed` of the track.

    Args:
        agent: a run that drives CarRacing with steering and a pedal.
        episodes: how many there shall be.
        output: the folder; made if missing.
        seed: of everything: episode N is drawn from the seed and N.
        config: the commands, and how often they change.
        learner: a run with a policy that takes instructions. It drives by the commands in words; learnt
            is what the demonstrator would have done in its place (DAgger: Ross et al. 2011, algorithm 3.1,
            with beta 0); no mistakes are added. An episode ends where it is farther from the middle
            of the road than three half widths.

    Raises:
        DreamdriveError: a run is none, or drives something else; the folder holds other episodes; or the
            disk refuses.
    """
    trained = load_agent(agent)
    env = require_car_racing(trained.config.env, str(agent))
    if env.action != "2d":
        raise DreamdriveError(f"{agent}: env.action {env.action}: expected 2d, steering and a pedal")
    made: dict[str, Any] = {"agent": str(agent), "seed": seed}
    made |= config.model_dump(mode="json", exclude={"simulators"})
    driver = None
    if learner is not None:
        made["learner"] = str(learner)
        instructed = instructed_policy(learner)
        check_env(instructed.own, env, str(learner))
        driver = require_policy(instructed.policy)
    with EpisodeFolder(output, "a", made=made) as files:
        count = min(config.simulators, len(files.missing(episodes)))
        simulators = [_DemonstrationRecorder(config, env, driver, seed) for _ in range(count)]
        shown, done = DemonstrationStatistics(), len(files)
        torch.manual_seed(seed)
        filtered = ObservationFilter(trained.agent.world_model, trained.device)
        filtered.reset(count)

        def step(going: Sequence[_DemonstrationRecorder]) -> None:
            """The agent sees what was done, and chooses what it would do (M, 2)."""
            rows = np.flatnonzero([one in going for one in simulators])
            seen = {name: np.stack([one.seen[name] for one in simulators]) for name in simulators[0].seen}
            state = filtered.see(seen, np.array([len(one) == 0 for one in simulators]), rows)
            actions = trained.agent.choose(state, explore=False).cpu().numpy()
            for one, action in zip(going, actions, strict=True):
                one.decide(action)
            filtered.follow(np.stack([one.action for one in simulators]))

        def figures() -> dict[str, float]:
            return {"decisions": shown.decisions + sum(len(one) for one in simulators if not one.over)}

        title = f"demonstrating {files.path}"
        with Progress(title, episodes, "episodes", ("decisions",), done=done) as progress:
            record_missing(files, episodes, simulators, step, progress, shown.add, figures)
        return shown
