"""Several CARLA simulators as one Gymnasium vector environment that survives the loss of simulators."""

import math
from typing import Any

import numpy as np
from gymnasium.error import AlreadyPendingCallError, NoAsyncCallError
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space, create_empty_array
from numpy.typing import NDArray

from envs.carla.actions import Actions
from envs.carla.config import CarlaConfig, ServerConfig
from envs.carla.ends import REASONS, SIMULATOR_LOST
from envs.carla.env import OpenEnv, open_carla
from envs.carla.servers.pool import SimulatorPool
from envs.carla.servers.supervisor import Lost, SupervisedSimulator, close_all
from envs.carla.state import carla_observation_space


class CarlaVectorEnv(VectorEnv[dict[str, Any], NDArray[Any], Any]):
    """N simulators side by side, each a server and a client process; nothing is started before `reset`.

    Observations and actions are `CarlaEnv`'s, stacked. After an episode has ended, the next `step` only
    resets it: its action is ignored, its reward 0.

    `step` is `step_async`, which sends the requests, followed by `step_wait`, which waits for the answers.
    Any time may pass in between, without effect on time-outs; `poll` may be called meanwhile.

    A simulator that dies or stalls ends its episode: truncated, reason "simulator_lost", with the last
    observation and reward 0. Its replacement starts at once, while the others go on. The next `step`, which
    resets it, waits for it as long as a start may take (`start_seconds`). After that it is away: each `step`
    tries to reset it without waiting, until it answers. The row of a simulator that is away has its last
    observation, reward 0, no frames and truncated (the next `step` resets it, too); "away" in the infos marks
    it. If all are away, `step` waits for any of them, at most `patience_seconds`. For simulators that never
    wait for each other, use N of `SupervisedSimulator` instead.

    Infos: "away" (N,) of str, why it is away, "" otherwise; "frames" (N,), the frames of this decision;
    "speed" (N,) m/s; "route_completion" (N,); "position" (N, 4), x, y, z [m] and yaw [degrees]; "terms", a
    dictionary name -> (N,) of the reward's terms; and when episodes ended, "episode" with "r" (undiscounted
    return) and "l" (frames), "reason" (N,) of str, "infractions" (N,) of dictionaries kind -> count,
    "logged", a dictionary name -> (N,) of values to log of an episode (share of the route, sum of each term
    of the reward, one-hot reason of its end), and "_episode", the mask of those that ended.

    Args:
        config: of the environments.
        pool: the simulators.
    """

    def __init__(self, config: CarlaConfig, pool: SimulatorPool) -> None:
        self.config, self.simulators, self._pool = config, pool.simulators, pool
        self.num_envs = n = len(self.simulators)
        frames_per_second = 1 / (config.step_seconds * config.action_repeat)
        self.metadata = {"autoreset_mode": AutoresetMode.NEXT_STEP, "render_fps": frames_per_second}
        self.single_observation_space = carla_observation_space(config)
        self.single_action_space = Actions(config).space
        self.observation_space = batch_space(self.single_observation_space, n)
        self.action_space = batch_space(self.single_action_space, n)
        self._pending = False
        self._ended = np.zeros(n, bool)
        self._return = np.zeros(n)
        self._frames = np.zeros(n, np.int64)
        self._terms: dict[str, NDArray[np.float64]] = {}
        self._seen: Any = create_empty_array(self.single_observation_space, n, np.zeros)

    @property
    def restarts(self) -> NDArray[np.int64]:
        """How often each simulator was replaced, (N,)."""
        return np.array([max(one.starts - 1, 0) for one in self.simulators], np.int64)

    def reset(
        self, *, seed: int | list[int | None] | None = None, options: dict[str, Any] | None = None
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """Start new episodes: all, or those in options' "reset_mask" (N,), as in Gymnasium.

        The seed is given when the environment is made.

        Raises:
            ValueError: a seed or other options are given.
            CarlaSetupError: a mistake in the config.
            SimulatorLost: no simulator starts in time.
            AlreadyPendingCallError: `step_wait` was not called after `step_async`.
        """
        self._expect_none("reset")
        if seed is not None or (options is not None and set(options) != {"reset_mask"}):
            raise ValueError(
                "CarlaVectorEnv.reset: make_carla takes the seed; expected none, and no option but reset_mask"
            )
        which = np.ones(self.num_envs, bool) if options is None else np.asarray(options["reset_mask"], bool)
        for i in np.flatnonzero(which).tolist():
            self._pool.request_reset(i)
        info = self._begin(self._pool.gather(math.inf))
        self._ended = (self._ended & ~which) | (info["away"] != "")
        return self._observation(), info

    def step(
        self, actions: NDArray[Any]
    ) -> tuple[dict[str, Any], NDArray[np.float32], NDArray[np.bool_], NDArray[np.bool_], dict[str, Any]]:
        """One decision in every simulator: see the class. Raises what `step_async` and `step_wait` raise."""
        self.step_async(actions)
        return self.step_wait()

    def step_async(self, actions: NDArray[Any]) -> None:
        """Begin a decision in every simulator, without waiting for it.

        Raises:
            ValueError: actions of another shape than the action space's, or not finite.
            AlreadyPendingCallError: `step_wait` was not called after the decision before.
        """
        self._expect_none("step_async")
        if actions.shape != self.action_space.shape or not np.isfinite(actions).all():
            raise ValueError(f"CARLA actions {actions.shape}: expected {self.action_space.shape}, all finite")
        for i in range(self.num_envs):
            if self._ended[i]:
                self._pool.request_reset(i)
            else:
                self._pool.request_step(i, actions[i])
        self._pending = True

    def poll(self) -> None:
        """Check the simulators without waiting, between `step_async` and `step_wait`.

        Nothing runs in the background: a lost simulator is noticed, and its replacement started, only here or
        in `step_wait`.

        Raises:
            CarlaSetupError: a mistake in the config.
        """
        self._pool.poll()

    def step_wait(
        self,
    ) -> tuple[dict[str, Any], NDArray[np.float32], NDArray[np.bool_], NDArray[np.bool_], dict[str, Any]]:
        """Wait for the decision that `step_async` began; returns what `step` does.

        Raises:
            NoAsyncCallError: `step_async` was not called.
            SimulatorLost: all simulators are lost, and none was replaced in time.
        """
        if not self._pending:
            raise NoAsyncCallError(
                "step_wait: no decision has begun, expected step_async before", "step_wait"
            )
        self._pending = False
        n, resetting = self.num_envs, self._ended
        answers = self._pool.gather(self._pool.limits.start_seconds)
        info = self._begin({i: answer for i, answer in answers.items() if resetting[i]})
        reward = np.zeros(n, np.float32)
        terminated, truncated = np.zeros(n, bool), np.zeros(n, bool)
        reason, infractions = np.full(n, "", object), np.full(n, None, object)
        for i in np.flatnonzero(~resetting).tolist():
            answer = answers[i]
            if isinstance(answer, Lost):
                truncated[i], reason[i], infractions[i] = True, SIMULATOR_LOST, {}
                continue
            observation, reward[i], terminated[i], truncated[i], about = answer
            self._note(i, observation, about, info)
            info["frames"][i] = about["frames"]
            reason[i], infractions[i] = about.get("reason", ""), about.get("infractions", {})
        self._return += reward
        self._frames += info["frames"]
        ended = terminated | truncated
        if ended.any():
            info["episode"] = {"r": self._return.copy(), "l": self._frames.copy()}
            info["_episode"] = ended
            info["reason"], info["infractions"] = reason, infractions
            known_reasons = (*REASONS, SIMULATOR_LOST)
            info["logged"] = {
                "episode/route_completion": info["route_completion"].copy(),
                **{f"terms/{name}": total.copy() for name, total in self._terms.items()},
                **{f"ended/{known}": (reason == known).astype(np.float32) for known in known_reasons},
            }
        truncated |= info["away"] != ""
        self._ended = terminated | truncated
        return self._observation(), reward, terminated, truncated, info

    def close_extras(self, **_: Any) -> None:
        """Stop all clients and servers; called by `close`."""
        close_all(self.simulators)

    def _expect_none(self, name: str) -> None:
        if self._pending:
            raise AlreadyPendingCallError(f"{name}: a decision has begun, expected step_wait first", name)

    def _begin(self, answers: dict[int, Any]) -> dict[str, Any]:
        """Apply the answers to resets; returns the info with rows for all simulators."""
        n = self.num_envs
        info: dict[str, Any] = {
            "frames": np.zeros(n, np.int64),
            "speed": np.zeros(n, np.float32),
            "route_completion": np.zeros(n, np.float32),
            "position": np.zeros((n, 4)),
            "terms": {},
            "away": np.array([self._pool.away.get(i, "") for i in range(n)], object),
        }
        for i, (observation, about) in answers.items():
            self._return[i] = self._frames[i] = 0
            for total in self._terms.values():
                total[i] = 0.0
            self._note(i, observation, about, info)
        return info

    def _note(self, i: int, observation: dict[str, Any], about: dict[str, Any], info: dict[str, Any]) -> None:
        for name, value in observation.items():
            self._seen[name][i] = value
        for name in ("speed", "route_completion", "position"):
            info[name][i] = about.get(name, 0)
        for name, value in about.get("terms", {}).items():
            info["terms"].setdefault(name, np.zeros(self.num_envs, np.float32))[i] = value
            self._terms.setdefault(name, np.zeros(self.num_envs))[i] += value

    def _observation(self) -> dict[str, Any]:
        return {name: value.copy() for name, value in self._seen.items()}


def make_carla(
    config: CarlaConfig,
    seed: int,
    servers: ServerConfig | None = None,
    open_env: OpenEnv = open_carla,
) -> CarlaVectorEnv:
    """The training environment: `config.num_envs` simulators, started at the first `reset`.

    Args:
        config: of the environments.
        seed: of all random choices in them.
        servers: how the servers are started; None: as in the config.
        open_env: opens the environment in each client process.

    Raises:
        CarlaSetupError: fewer servers than environments, or the program that starts one does not exist.
    """
    servers = servers or config.servers
    first = int(np.random.default_rng([seed, 2]).integers(2**31 - config.num_envs))
    simulators = [
        SupervisedSimulator(config, servers, i, first + i, open_env) for i in range(config.num_envs)
    ]
    return CarlaVectorEnv(config, SimulatorPool(simulators, servers, seed))
