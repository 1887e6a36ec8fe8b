"""The job that records demonstrations: CarRacing driven as asked, with mistakes that are put right."""

from collections import deque
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
from envs.car_racing.observation import CarRacingObservation
from envs.car_racing.track import HALF_WIDTH
from train.collect.demonstrator import Mistakes, demonstrate
from train.collect.recorder import Seat
from train.data.episode_store import EpisodeFolder
from train.data.episodes import Episode
from train.drive.agents import Trained, load_agent
from train.drive.environments import require_car_racing
from train.language.command_sampling import OrdersConfig, draw_orders, settled
from train.language.hindsight import CAR_RACING_SPEEDS, LEARNER_DROVE, Labels, asked_rows, obeys
from train.language.instructions import phrase
from train.run.errors import DreamdriveError
from train.run.progress import Progress
from train.vla.compatibility import check_car_racing
from train.vla.features import own_copy
from train.vla.instructed_driver import Ride, told_by_run

SETTLE = 12
"""Decisions after which an order is expected to be obeyed; about a second."""
_LOST = 3.0  # half widths from the middle of the road, from where it may be out of the picture


class DemonstrationsConfig(OrdersConfig):
    """Demonstrations in CarRacing."""

    decisions: int = Field(120, ge=2)
    """Length of an episode [decisions]."""
    mistakes: float = Field(0.02, ge=0, le=1)
    """Chance that a decision begins a mistake: a wrong steering for 2 to 5 decisions, which is to be
    corrected."""
    simulators: int = Field(8, ge=1)
    """Driven at the same time."""


class _Seat:
    """A simulator, and the demonstration that is driven in it, by the learner where there is one."""

    def __init__(
        self,
        config: DemonstrationsConfig,
        env: CarRacingConfig,
        view: CarRacingObservation,
        learner: ChunkPolicy | None,
    ) -> None:
        self._config, self._learner = config, learner
        self.car = Seat(config.decisions, env, view)
        self.number = -1
        self._ride: Ride | None = None

    @property
    def over(self) -> bool:
        """Whether the episode has ended; a learner's also ends where the road is out of sight."""
        lost = self._ride is not None and abs(self.car.car.offset) > _LOST * HALF_WIDTH
        return self.car.over or lost

    def begin(self, number: int, seed: int) -> None:
        """Start the episode of that number; it depends on the seed and the number only."""
        rng = np.random.default_rng([seed, number])
        self.number = number
        self.car.begin(int(rng.integers(TRAINING_SEEDS)))
        self.orders = draw_orders(self._config, self._config.decisions, rng)
        self._mistakes = Mistakes(self._config.mistakes, rng)
        self._perturbed: list[bool] = []
        self._words = np.random.default_rng([seed, number, 61])
        if self._learner is not None:
            self._ride = Ride(own_copy(self._learner, int(self._words.integers(2**31))), "")

    def drive(self, agent: NDArray[np.float32]) -> None:
        """One decision, in which the agent would do (2,)."""
        car, now = self.car, len(self.car)
        wanted = demonstrate(self.orders[now], car.car, car.track, agent)
        if self._ride is not None:
            if not now or self.orders[now] != self.orders[now - 1]:
                self._ride.instruction = phrase(self.orders[now], self._words)
            car.drive(wanted, self._ride.act(car.observation))
            return
        mistake = self._mistakes.step(car.car.speed)
        self._perturbed.append(mistake != 0.0)
        done = wanted.copy()
        done[0] = np.clip(wanted[0] + mistake, -1.0, 1.0)
        car.drive(wanted, done)

    def episode(self) -> Episode:
        """The episode driven; for its extras see `collect_demonstrations`."""
        orders = self.orders[: len(self.car)]
        learner = self._ride is not None
        return self.car.episode(
            {
                "expert_actions": self.car.wanted,
                "perturbed": np.full(len(orders), False) if learner else np.array(self._perturbed),
                LEARNER_DROVE: np.full(len(orders), learner),
                "asked_speeds": np.array([asked.speed or "" for asked in orders]),
                "asked_places": np.array([asked.place or "" for asked in orders]),
            }
        )


@dataclass
class Shown:
    """What demonstrations came to."""

    episodes: int = 0
    decisions: int = 0
    settled: int = 0
    """Decisions at least `SETTLE` after their order."""
    obeyed: int = 0
    """Of those, the ones in which the car is as asked."""
    off_road: int = 0
    """Decisions with the middle of the car beyond the edge of the road."""

    def add(self, episode: Episode) -> None:
        """Count an episode of demonstrations."""
        extras = episode.extras
        orders = asked_rows(episode) or []
        late = settled(orders, SETTLE)
        self.episodes += 1
        self.decisions += len(episode)
        self.settled += int(late.sum())
        self.obeyed += int((late & obeyed_rows(episode, orders)).sum())
        self.off_road += int((abs(extras["offsets"]) > extras["half_widths"]).sum())

    def __str__(self) -> str:
        obeyed, off = self.obeyed / max(self.settled, 1), self.off_road / max(self.decisions, 1)
        return (
            f"{self.episodes} episodes, {self.decisions} decisions; {obeyed:.1%} as asked, from {SETTLE} "
            f"decisions after an order on; {off:.2%} off the road"
        )


def obeyed_rows(episode: Episode, orders: Sequence[Labels]) -> NDArray[np.bool_]:
    """Which rows (T,) of an episode of CarRacing are as asked in them."""
    facts = [episode.extras[name] for name in ("speeds", "offsets", "half_widths")]
    result = np.zeros(len(orders), bool)
    for asked in set(orders):
        rows = np.array([order == asked for order in orders])
        result |= rows & obeys(asked, facts[0], facts[1], facts[2], CAR_RACING_SPEEDS)
    return result


def collect_demonstrations(
    agent: Path,
    episodes: int,
    output: Path,
    seed: int,
    config: DemonstrationsConfig,
    learner: Path | None = None,
) -> Shown:
    """Drive until there are `episodes` demonstrations in the folder `output`; run again, it goes on.

    The files are `train.data.episodes`'s, with pictures, the vector "state" (see
    `envs.car_racing.track.state_vector`),
    and these extras, row t the moment of observation t: `speeds` (T,) m/s; `offsets` (T,) from the middle of
    the road, left positive, and `half_widths` (T,) m; `expert_actions` (T, 2), what the demonstrator wanted;
    `perturbed` (T,) bool, where a mistake was made instead; `learner_drove` (T,) bool; `asked_speeds`,
    `asked_places` (T,), what was asked, "" for nothing; and `seed` of the track.

    Args:
        agent: a run that drives CarRacing with steering and a pedal.
        episodes: how many there shall be.
        output: the folder; made if missing.
        seed: of everything: episode N is drawn from the seed and N.
        config: what is asked, and how often.
        learner: a run with a policy that takes instructions. It drives, told what is asked, and what is kept
            to learn is what the demonstrator would have done in its place (DAgger: Ross et al. 2011,
            algorithm 3.1, with beta 0); no mistakes are added to its own. An episode ends where it is farther
            from the middle of the road than three half widths.

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
        told = told_by_run(learner)
        check_car_racing(told.own, env, str(learner))
        driver = require_policy(told.policy)
    with EpisodeFolder(output, "a", made=made) as files:
        return _Job(trained, env, config, files, seed, driver).run(episodes, output)


class _Job:
    """Demonstrations under way: every simulator takes the next episode when it has ended one."""

    def __init__(
        self,
        trained: Trained,
        env: CarRacingConfig,
        config: DemonstrationsConfig,
        files: EpisodeFolder,
        seed: int,
        learner: ChunkPolicy | None,
    ) -> None:
        self._trained, self._env, self._config = trained, env, config
        self._files, self._seed, self._learner = files, seed, learner

    def run(self, episodes: int, output: Path) -> Shown:
        queue = deque(self._files.missing(episodes))
        shown, done = Shown(), len(self._files)
        view = CarRacingObservation(self._env.image_size, self._env.crop_hud, self._env.instruments)
        count = min(self._config.simulators, len(queue))
        seats = [_Seat(self._config, self._env, view, self._learner) for _ in range(count)]
        torch.manual_seed(self._seed)
        state = self._trained.agent.world_model.initial(len(seats))
        with Progress(f"demonstrating {output}", episodes, "episodes", ("decisions",), done=done) as progress:
            progress.update(done)
            try:
                for seat in seats:
                    seat.begin(queue.popleft(), self._seed)
                while seats:
                    actions, state = self._agent(seats, state)
                    for seat, action in zip(seats, actions, strict=True):
                        seat.drive(action)
                    for seat in [seat for seat in seats if seat.over]:
                        episode = seat.episode()
                        self._files.write(seat.number, episode)
                        shown.add(episode)
                        if queue:
                            seat.begin(queue.popleft(), self._seed)
                    kept = [i for i, seat in enumerate(seats) if not seat.over]
                    for seat in seats:
                        if seat.over:
                            seat.car.close()
                    seats, state = [seats[i] for i in kept], state[kept]
                    progress.update(
                        done + shown.episodes,
                        {"decisions": shown.decisions + sum(len(seat.car) for seat in seats)},
                    )
            finally:
                for seat in seats:
                    seat.car.close()
        return shown

    def _agent(self, seats: Sequence[_Seat], state: Any) -> tuple[NDArray[np.float32], Any]:
        """What the agent would do in each seat (M, 2), and what it believes then; it sees what was done."""
        device = self._trained.device
        seen = {
            name: torch.from_numpy(np.stack([seat.car.seen[name] for seat in seats])).to(device)
            for name in seats[0].car.seen
        }
        actions = torch.from_numpy(np.stack([seat.car.action for seat in seats])).to(device)
        is_first = torch.tensor([not len(seat.car) for seat in seats], device=device)
        chosen, state = self._trained.agent.act(seen, state, actions, is_first, explore=False)
        return chosen.cpu().numpy(), state
