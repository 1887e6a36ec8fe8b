"""The job that records demonstrations: CarRacing driven as asked, with mistakes that are put right."""

from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field

from envs.car_racing import TRAINING_SEEDS, CarRacingConfig
from envs.preprocess import native_action
from envs.simulators import OfficialSimulator
from envs.track import HALF_WIDTH, CarOnTrack, Track, car_on_track, state_vector
from envs.view import View
from train.agents import Trained, load_agent
from train.carla.folder import EpisodeFiles, opened
from train.data.episodes import Episode
from train.environments import require_car_racing
from train.errors import DreamdriveError
from train.progress import Progress
from train.vla.demonstrator import Mistakes, OrdersConfig, demonstrate, draw_orders, settled
from train.vla.hindsight import CAR_RACING_SPEEDS, Labels, asked_rows, obeys

SETTLE = 12
"""Decisions after which an order is expected to be obeyed; about a second."""


class DemonstrationsConfig(OrdersConfig):
    """Demonstrations in CarRacing."""

    decisions: int = Field(120, ge=2)
    """Length of an episode [decisions]."""
    simulators: int = Field(8, ge=1)
    """Driven at the same time."""


@dataclass
class _Row:
    """What is noted in a decision."""

    seen: Mapping[str, NDArray[Any]]
    car: CarOnTrack
    wanted: NDArray[np.float32]
    mistake: float
    reward: float = 0.0

    @property
    def action(self) -> NDArray[np.float32]:
        """What was done."""
        steering = np.clip(self.wanted[0] + self.mistake, -1.0, 1.0)
        return np.array([steering, self.wanted[1]], np.float32)


class _Seat:
    """A simulator, and the episode that is driven in it."""

    def __init__(self, config: DemonstrationsConfig, env: CarRacingConfig, view: View) -> None:
        self._config, self._env, self._view = config, env, view
        self.simulator = OfficialSimulator(config.decisions * env.action_repeat + 1)
        self.number = -1

    def begin(self, number: int, seed: int) -> None:
        """Start the episode of that number; it depends on the seed and the number only."""
        rng = np.random.default_rng([seed, number])
        self.number, self.seed = number, int(rng.integers(TRAINING_SEEDS))
        self.orders = draw_orders(self._config, self._config.decisions, rng)
        self._mistakes = Mistakes(self._config.mistakes, rng)
        self.rows: list[_Row] = []
        self.over = self.terminated = False
        self.seen = self._see(self.simulator.reset(self.seed))
        self._track = Track.of(self.simulator)
        self._car = car_on_track(self.simulator, self._track)
        self.action = np.zeros(2, np.float32)

    def drive(self, agent: NDArray[np.float32]) -> None:
        """One decision, in which the agent would do (2,)."""
        asked = self.orders[len(self.rows)]
        wanted = demonstrate(asked, self._car, self._track, agent)
        row = _Row(self.seen, self._car, wanted, self._mistakes.step(self._car.speed))
        self.action = row.action
        native = native_action(row.action[None])[0]
        for _ in range(self._env.action_repeat):
            reward, self.terminated, _ = self.simulator.step(native)
            row.reward += reward
            if self.terminated:
                break
        self.rows.append(row)
        self.over = self.terminated or len(self.rows) == len(self.orders)
        self._car = car_on_track(self.simulator, self._track)
        self.seen = self._see(self.simulator.picture())

    def _see(self, picture: NDArray[np.uint8]) -> dict[str, NDArray[Any]]:
        return {name: value[0] for name, value in self._view(picture[None]).items()}

    def episode(self) -> Episode:
        """The episode driven, of T decisions; for its extras see `collect_demonstrations`."""
        rows, orders = self.rows, self.orders[: len(self.rows)]
        cars = [row.car for row in rows]
        count = len(rows) + 1
        actions = np.stack([np.zeros(2, np.float32), *(row.action for row in rows)])  # (T+1, 2)
        return Episode(
            observations={
                # (T+1, ...)
                **{
                    name: np.stack([*(row.seen[name] for row in rows), self.seen[name]]) for name in self.seen
                },
                "state": np.stack([state_vector(car) for car in (*cars, self._car)]),  # (T+1, 4)
            },
            actions=actions,
            rewards=np.array([0.0, *(row.reward for row in rows)], np.float32),
            is_first=np.arange(count) == 0,
            is_terminal=(np.arange(count) == count - 1) & self.terminated,
            extras={
                "speeds": np.array([car.speed for car in cars], np.float32),
                "offsets": np.array([car.offset for car in cars], np.float32),
                "half_widths": np.full(len(rows), HALF_WIDTH, np.float32),
                "expert_actions": np.stack([row.wanted for row in rows]).astype(np.float32),
                "perturbed": np.array([row.mistake != 0.0 for row in rows]),
                "asked_speeds": np.array([asked.speed or "" for asked in orders]),
                "asked_places": np.array([asked.place or "" for asked in orders]),
                "seed": np.array(self.seed),
            },
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
    agent: Path, episodes: int, output: Path, seed: int, config: DemonstrationsConfig
) -> Shown:
    """Drive until there are `episodes` demonstrations in the folder `output`; run again, it goes on.

    The files are `train.data.episodes`'s, with pictures, the vector "state" (see `envs.track.state_vector`),
    and these extras, row t the moment of observation t: `speeds` (T,) m/s; `offsets` (T,) from the middle of
    the road, left positive, and `half_widths` (T,) m; `expert_actions` (T, 2), what the demonstrator wanted;
    `perturbed` (T,) bool, where a mistake was made instead; `asked_speeds`, `asked_places` (T,), what was
    asked, "" for nothing; and `seed` of the track.

    Args:
        agent: a run that drives CarRacing with steering and a pedal.
        episodes: how many there shall be.
        output: the folder; made if missing.
        seed: of everything: episode N is drawn from the seed and N.
        config: what is asked, and how often.

    Raises:
        DreamdriveError: the run is none, or drives something else; the folder holds other episodes; or the
            disk refuses.
    """
    trained = load_agent(agent)
    env = require_car_racing(trained.config.env, str(agent))
    if env.action != "2d":
        raise DreamdriveError(f"{agent}: env.action {env.action}: expected 2d, steering and a pedal")
    made: dict[str, Any] = {"agent": str(agent), "seed": seed}
    made |= config.model_dump(mode="json", exclude={"simulators"})
    with opened(output, made) as files:
        return _Job(trained, env, config, files, seed).run(episodes, output)


class _Job:
    """Demonstrations under way: every simulator takes the next episode when it has ended one."""

    def __init__(
        self,
        trained: Trained,
        env: CarRacingConfig,
        config: DemonstrationsConfig,
        files: EpisodeFiles,
        seed: int,
    ) -> None:
        self._trained, self._env, self._config = trained, env, config
        self._files, self._seed = files, seed

    def run(self, episodes: int, output: Path) -> Shown:
        queue = deque(self._files.missing(episodes))
        shown, done = Shown(), len(self._files.numbers)
        view = View(self._env.image_size, self._env.crop_hud, self._env.instruments)
        count = min(self._config.simulators, len(queue))
        seats = [_Seat(self._config, self._env, view) for _ in range(count)]
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
                            seat.simulator.close()
                    seats, state = [seats[i] for i in kept], state[kept]
                    progress.update(
                        done + shown.episodes,
                        {"decisions": shown.decisions + sum(len(seat.rows) for seat in seats)},
                    )
            finally:
                for seat in seats:
                    seat.simulator.close()
        return shown

    def _agent(self, seats: Sequence[_Seat], state: Any) -> tuple[NDArray[np.float32], Any]:
        """What the agent would do in each seat (M, 2), and what it believes then; it sees what was done."""
        device = self._trained.device
        seen = {
            name: torch.from_numpy(np.stack([seat.seen[name] for seat in seats])).to(device)
            for name in seats[0].seen
        }
        actions = torch.from_numpy(np.stack([seat.action for seat in seats])).to(device)
        is_first = torch.tensor([not seat.rows for seat in seats], device=device)
        chosen, state = self._trained.agent.act(seen, state, actions, is_first, explore=False)
        return chosen.cpu().numpy(), state
