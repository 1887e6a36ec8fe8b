"""Drive the simulators with the agent and put what happens into the replay, row by row."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import gymnasium
import numpy as np
import torch
import torch.nn.functional as functional
from gymnasium.vector import VectorEnv
from torch import Tensor

from agent.dreamer import Dreamer
from train.data.replay import Replay
from train.drive.filtering import ObservationFilter
from train.run.errors import DreamdriveError
from train.run.loop import diverged

MakeEnv = Callable[[int], VectorEnv[Any, Any, Any]]


@runtime_checkable
class _Asynchronous(Protocol):
    """Vector environments that begin a step and give its results later, by the methods of Gymnasium's
    AsyncVectorEnv."""

    def step_async(self, actions: np.ndarray) -> None: ...

    def step_wait(self) -> tuple[Any, np.ndarray, np.ndarray, np.ndarray, dict[str, Any]]: ...


@runtime_checkable
class _Watched(Protocol):
    """Vector environments whose simulators may be lost, and are replaced in `look`."""

    def poll(self) -> None: ...


@dataclass
class Arrival:
    """One row of all N streams on its way into the replay, in arrival alignment."""

    observation: dict[str, np.ndarray]
    action: np.ndarray
    reward: np.ndarray
    is_first: np.ndarray
    is_terminal: np.ndarray
    cost: np.ndarray

    def lent(self, rows: np.ndarray) -> "Arrival":
        """The row in which stream i has what stream `rows`[i] has, (N,)."""
        return Arrival(
            {name: value[rows] for name, value in self.observation.items()},
            self.action[rows],
            self.reward[rows],
            self.is_first[rows],
            self.is_terminal[rows],
            self.cost[rows],
        )


@dataclass
class Score:
    """What is reported of a finished training episode: undiscounted return, length, when in the run, and
    what its environment has to log of it besides."""

    score: float
    frames: int
    at_frame: int
    logged: dict[str, float]


class Collector:
    """Steps N simulators, one decision at a time; all randomness is torch's generator's and the seed's.

    Simulators cannot be saved. So they start anew, from a seed derived from the run's, at each planned
    checkpoint (`restart`), in a run that is never stopped too; and a run that was stopped in between goes on
    where it was by driving the recorded actions of the running segment again.

    A simulator may be away for a while (info's "away" says why): its stream then repeats the rows of another
    one, beginning like an episode, so that nothing is learnt that was not driven. They count as no decisions.

    Args:
        make_env: seed -> vector environment, next-step autoreset.
        replay: gets every row.
        seed: the run's seed.
        device: where the agent is.
        say: gets a line for each simulator that goes away or comes back.

    Attributes:
        frames: simulator frames so far.
        decisions: over all simulators so far; first rows count as one.
        finished: episodes that ended since this list was emptied.
        resumed_exactly: whether `load` arrived where the run was.
    """

    def __init__(
        self, make_env: MakeEnv, replay: Replay, seed: int, device: torch.device, say: Callable[[str], None]
    ) -> None:
        self.finished: list[Score] = []
        self.resumed_exactly = True
        self._make_env, self._replay, self._seed, self._device = make_env, replay, seed, device
        self.frames, self.decisions = 0, 0
        self._segment, self._say = 0, say
        self._actions: list[np.ndarray] = []
        self._env: VectorEnv[Any, Any, Any] | None = None
        self._discrete = False
        self._filter: ObservationFilter | None = None
        self._row: Arrival
        self._action: np.ndarray
        self._ended: np.ndarray
        self._lender: np.ndarray
        self._away: set[int] = set()

    def close(self) -> None:
        """Shut the simulators down."""
        if self._env is not None:
            self._env.close()
            self._env = None

    def start(self, agent: Dreamer) -> None:
        """Start the simulators of the current segment."""
        self.close()
        self._env = self._make_env(self._segment_seed())
        self._discrete = isinstance(self._env.single_action_space, gymnasium.spaces.Discrete)
        observation, info = self._env.reset()
        count = self._env.num_envs
        self._filter = ObservationFilter(agent.world_model, self._device)
        self._filter.reset(count)
        self._lender = np.arange(count)
        row = Arrival(
            observation=dict(observation),
            action=np.zeros((count, agent.world_model.action_size), np.float32),
            reward=np.zeros(count, np.float32),
            is_first=np.ones(count, bool),
            is_terminal=np.zeros(count, bool),
            cost=np.zeros(count, np.float32),
        )
        self._ended = np.zeros(count, bool)
        self._row = self._without_away(row, info)
        self._actions.clear()

    def restart(self, agent: Dreamer) -> None:
        """End the running segment, keeping its last row, and start the next one."""
        self._remember(agent)
        self._segment += 1
        self.start(agent)

    def step(self, agent: Dreamer, random: bool) -> None:
        """One decision of every simulator, by the exploring policy or uniformly at random."""
        self.begin(agent, random)
        self.end()

    def begin(self, agent: Dreamer, random: bool) -> None:
        """Store the row at hand and decide what follows; simulators in processes of their own are on their
        way then, until `end`."""
        chosen = self._remember(agent)
        if random:
            chosen = self._any_action(chosen)
        action = chosen.cpu().numpy()
        self._actions.append(action)
        self._send(action)

    def look(self) -> None:
        """Between `begin` and `end`, now and then: simulators lost meanwhile are replaced at once."""
        if isinstance(self._env, _Watched):
            self._env.poll()

    def _any_action(self, like: Tensor) -> Tensor:
        """Actions (N, A) drawn uniformly: from the box, or one of the choices."""
        noise = torch.rand_like(like)
        if self._discrete:
            return functional.one_hot(noise.argmax(-1), like.shape[-1]).to(like.dtype)
        return noise * 2 - 1

    def state_dict(self) -> dict[str, Any]:
        """Plain tensors and numbers from which `load` goes on."""
        assert self._filter is not None
        return {
            "segment": self._segment,
            "frames": self.frames,
            "decisions": self.decisions,
            "actions": torch.from_numpy(np.stack(self._actions)) if self._actions else torch.zeros(0),
            "state": {name: value.cpu() for name, value in self._filter.state.items()},
            "observation": {name: torch.from_numpy(v.copy()) for name, v in self._row.observation.items()},
        }

    def load(self, saved: Mapping[str, Any], agent: Dreamer) -> None:
        """Go on where `state_dict` was taken: start the segment's simulators and drive its actions again.

        If they arrive elsewhere (a simulator that is not deterministic), the next segment is started instead,
        and `resumed_exactly` is false.
        """
        self._segment = int(saved["segment"])
        self.start(agent)
        recorded = saved["actions"].numpy()
        for action in recorded:
            self._actions.append(action)
            self._send(action)
            self.end(report=False)
        self.frames, self.decisions = int(saved["frames"]), int(saved["decisions"])
        assert self._filter is not None
        for name, value in saved["state"].items():
            self._filter.state[name] = value.to(self._device)
        saved_row = saved["observation"].items()
        if not all(np.array_equal(self._row.observation[name], value.numpy()) for name, value in saved_row):
            self.resumed_exactly = False
            self._segment += 1
            self.start(agent)

    def _segment_seed(self) -> int:
        return int(np.random.SeedSequence([self._seed, self._segment]).generate_state(1)[0]) % 900_000

    @torch.no_grad()
    def _remember(self, agent: Dreamer) -> Tensor:
        """Store the row at hand with the agent's filtered state; returns its next action (N, A)."""
        row = self._row
        assert self._filter is not None
        seen = {name: torch.from_numpy(v).to(self._device) for name, v in row.observation.items()}
        observation = agent.world_model.digest(seen)
        self._filter.follow(row.action)
        state = self._filter.see(observation, row.is_first)
        chosen = agent.choose(state, explore=True)
        if not torch.isfinite(chosen).all():
            raise diverged("an action of the agent")
        latent = {name: value.cpu() for name, value in agent.world_model.compress(state).items()}
        self._replay.add(
            {name: value.cpu() for name, value in observation.items()},
            row.action,
            row.reward,
            row.is_first,
            row.is_terminal,
            latent,
            row.cost,
        )
        self.decisions += len(row.reward) - len(self._away)
        return chosen

    def _send(self, action: np.ndarray) -> None:
        """Send the simulators their actions (N, A)."""
        if self._env is None:
            raise DreamdriveError("collector: stepped before its simulators were started")
        self._action = action
        if isinstance(self._env, _Asynchronous):
            self._env.step_async(self._given(action))

    def _given(self, action: np.ndarray) -> np.ndarray:
        """Actions (N, A) as the environment takes them."""
        return action.argmax(-1) if self._discrete else action

    def end(self, report: bool = True) -> None:
        """Take what the decision brought as the row at hand; `report` adds to `finished`."""
        env, action, ended = self._env, self._action, self._ended
        if isinstance(env, _Asynchronous):
            observation, reward, terminated, truncated, info = env.step_wait()
        else:
            assert env is not None
            observation, reward, terminated, truncated, info = env.step(self._given(action))
        # After an end, this step only reset: the action led nowhere.
        row = Arrival(
            observation=dict(observation),
            action=np.where(ended[:, None], 0.0, action).astype(np.float32),
            reward=np.where(ended, 0.0, reward).astype(np.float32),
            is_first=ended,
            is_terminal=terminated,
            cost=np.where(ended, 0.0, info.get("cost", 0.0)).astype(np.float32),
        )
        self._ended = terminated | truncated
        self._row = self._without_away(row, info)
        self.frames += int(info["frames"].sum())
        if report and "episode" in info:
            for i in np.flatnonzero(info["_episode"]):
                score, frames = float(info["episode"]["r"][i]), int(info["episode"]["l"][i])
                logged = {name: float(values[i]) for name, values in info.get("logged", {}).items()}
                self.finished.append(Score(score, frames, self.frames, logged))

    def _without_away(self, row: Arrival, info: Mapping[str, Any]) -> Arrival:
        """The row; a stream whose simulator is being replaced gets the row of the first that runs."""
        why = info.get("away", [""] * len(row.reward))
        there = np.array([not text for text in why])
        away = set(np.flatnonzero(~there).tolist())
        for i in sorted(away ^ self._away):
            told = f"is away, the others go on without it: {why[i]}" if i in away else "is back"
            self._say(f"simulator {i} {told}")
        # (N,)
        lender = np.where(there, np.arange(len(there)), there.argmax())
        begins = lender != self._lender
        self._away, self._lender = away, lender
        if not away and not begins.any():
            return row
        self._ended = self._ended | ~there
        row = row.lent(lender)
        # A stream that takes another's rows, or goes back to its own, does so in the middle of an episode.
        row.is_first |= begins
        row.action[row.is_first], row.reward[row.is_first], row.cost[row.is_first] = 0.0, 0.0, 0.0
        return row
