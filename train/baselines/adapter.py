"""Our vector environments as stable-baselines3's, and its training watched by our progress and tracking.

Needs the extra `baselines`: imported only once it is known to be there.
"""

from collections.abc import Callable, Mapping
from typing import Any

import gymnasium
import numpy as np
from gymnasium.vector import VectorEnv
from numpy.typing import NDArray
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.logger import KVWriter
from stable_baselines3.common.vec_env import VecEnv


class Stack:
    """The last S arrays (N, C, ...) of each simulator, side by side along C; the first one S times at first.

    Args:
        size: S.
    """

    def __init__(self, size: int) -> None:
        self.size = size
        self._kept: NDArray[Any] | None = None

    def push(self, newest: NDArray[Any]) -> NDArray[Any]:
        """Add the newest (N, C, ...), drop the oldest; (N, S * C, ...)."""
        if self._kept is None or len(self._kept) != len(newest):
            return self.restart(newest, np.ones(len(newest), bool))
        self._kept = np.concatenate([self._kept[:, newest.shape[1] :], newest], 1)
        return self._kept.copy()

    def restart(self, newest: NDArray[Any], which: NDArray[np.bool_]) -> NDArray[Any]:
        """Begin anew where `which` (N,) with the newest (N, C, ...); (N, S * C, ...)."""
        repeated = np.concatenate([newest] * self.size, 1)
        if self._kept is None or len(self._kept) != len(newest):
            self._kept = repeated
        self._kept[which] = repeated[which]
        return self._kept.copy()


def observation_space(space: gymnasium.Space[Any], stack: int) -> gymnasium.spaces.Box:
    """The space of what `Stack` makes of the environment's one picture, or of its features."""
    box = space["image"] if isinstance(space, gymnasium.spaces.Dict) else space
    assert isinstance(box, gymnasium.spaces.Box)
    low, high = (np.concatenate([bound] * stack, 0) for bound in (box.low, box.high))
    return gymnasium.spaces.Box(low, high, dtype=box.dtype.type)


class Adapted(VecEnv):
    """A vector environment of ours as stable-baselines3 wants it.

    An episode that ends is reset in the same step: the last observation is in the infos, a time limit is
    distinguished from an end, and no action is wasted on a reset.

    Args:
        env: resets what `options["reset_mask"]` says.
        stack: pictures that are seen at once.
        reward_scale: rewards are multiplied by it.
        seed: of the first reset; None for an environment that has its seed.
    """

    def __init__(
        self, env: VectorEnv[Any, Any, Any], stack: int, reward_scale: float, seed: int | None
    ) -> None:
        self.env, self.frames = env, 0
        """The environment, and the simulator frames driven in it; none in a dream."""
        self.finished: list[tuple[float, int]] = []
        """Return (not scaled) and length of the episodes that ended since this list was emptied."""
        self._stack, self._scale, self._seed = Stack(stack), reward_scale, seed
        self._actions: NDArray[np.float32] = np.zeros(0, np.float32)
        space = observation_space(env.single_observation_space, stack)
        super().__init__(env.num_envs, space, env.single_action_space)

    def reset(self) -> NDArray[Any]:
        """New episodes everywhere: observations (N, ...)."""
        seen, _ = self.env.reset(seed=self._seed)
        self._seed = None
        return self._stack.restart(_plain(seen), np.ones(self.num_envs, bool))

    def step_async(self, actions: NDArray[np.float32]) -> None:
        """Keep the actions for `step_wait`."""
        self._actions = actions

    def step_wait(self) -> tuple[NDArray[Any], NDArray[np.float32], NDArray[np.bool_], list[dict[str, Any]]]:
        """One decision: observations, rewards, dones and an info for each."""
        raw, reward, terminated, truncated, info = self.env.step(self._actions)
        seen = self._stack.push(_plain(raw))
        self.frames += int(info["frames"].sum()) if "frames" in info else 0
        done = terminated | truncated
        infos: list[dict[str, Any]] = [{} for _ in range(self.num_envs)]
        if done.any():
            for i in np.flatnonzero(done).tolist():
                infos[i] = {
                    "terminal_observation": seen[i].copy(),
                    "TimeLimit.truncated": bool(truncated[i] and not terminated[i]),
                }
                ended = info["episode"]
                self.finished.append((float(ended["r"][i]), int(ended["l"][i])))
            fresh, _ = self.env.reset(options={"reset_mask": done})
            seen = self._stack.restart(_plain(fresh), done)
        return seen, reward * np.float32(self._scale), done, infos

    def close(self) -> None:
        """Close the environment."""
        self.env.close()

    def get_attr(self, attr_name: str, indices: Any = None) -> list[Any]:
        """The environment's attribute, once for each simulator of `indices`."""
        return [getattr(self.env, attr_name)] * len(list(self._get_indices(indices)))

    def set_attr(self, attr_name: str, value: Any, indices: Any = None) -> None:
        """Not possible: raises AttributeError."""
        raise AttributeError(f"cannot set {attr_name} of one of many simulators")

    def env_method(self, method_name: str, *args: Any, indices: Any = None, **kwargs: Any) -> list[Any]:
        """Not possible: raises AttributeError."""
        raise AttributeError(f"cannot call {method_name} of one of many simulators")

    def env_is_wrapped(self, wrapper_class: type[Any], indices: Any = None) -> list[bool]:
        """Never."""
        return [False] * len(list(self._get_indices(indices)))


def _plain(seen: NDArray[Any] | Mapping[str, Any]) -> NDArray[Any]:
    """The picture, or the features."""
    return seen["image"] if isinstance(seen, Mapping) else seen


class Watch(BaseCallback):
    """Calls `tell` with the decisions done after each step; training ends when it says so by False.

    `settled` is called whenever nothing that was collected waits to be learnt from.
    """

    def __init__(self, tell: Callable[[int], bool], settled: Callable[[], None]) -> None:
        super().__init__()
        self._tell, self._settled = tell, settled

    def _on_rollout_start(self) -> None:
        self._settled()

    def _on_step(self) -> bool:
        return self._tell(self.num_timesteps)


class Writer(KVWriter):
    """Gives the numbers that stable-baselines3 logs to `log`, with the decisions done."""

    def __init__(self, log: Callable[[dict[str, float], int], None]) -> None:
        self._log = log

    def write(self, key_values: dict[str, Any], key_excluded: dict[str, Any], step: int = 0) -> None:
        """Take what is a number of learning; times and returns are logged elsewhere."""
        numbers = {
            name: float(value)
            for name, value in key_values.items()
            if name.startswith("train/") and isinstance(value, int | float | np.number)
        }
        if numbers:
            self._log(numbers, step)

    def close(self) -> None:
        """Nothing is open."""
