"""Small environments with known answers, shaped like `make_car_racing`, and configs to learn from them."""

import os
import signal
from collections.abc import Callable
from typing import Any

import gymnasium
import numpy as np
from gymnasium.vector import AutoresetMode, VectorEnv

from agent.behaviour.actor_critic import ActorCriticConfig
from agent.dreamer import DreamerConfig, OptimizerConfig
from agent.world_model.decoder import DecoderConfig
from agent.world_model.dynamics import DynamicsConfig
from agent.world_model.encoder import EncoderConfig
from agent.world_model.rssm import RSSMConfig
from envs.car_racing.env import CarRacingConfig
from train.data.replay import ReplayConfig
from train.drive.environments import EnvConfig
from train.online.config import OnlineConfig, TrainerConfig

SIDE = 16
REPEAT = 2  # frames each decision is said to last


class TinyEnv(VectorEnv[dict[str, Any], np.ndarray, Any]):
    """What the tiny environments share: spaces, the next-step autoreset and the infos."""

    vectors: dict[str, int] = {}

    def __init__(self, count: int, seed: int) -> None:
        self.num_envs, self.seed = count, seed
        self.metadata = {"autoreset_mode": AutoresetMode.NEXT_STEP}
        spaces: dict[str, gymnasium.Space[Any]] = {
            "image": gymnasium.spaces.Box(0, 255, (1, SIDE, SIDE), np.uint8),
            **{
                n: gymnasium.spaces.Box(-np.inf, np.inf, (size,), np.float32)
                for n, size in self.vectors.items()
            },
        }
        self.single_observation_space = gymnasium.spaces.Dict(spaces)
        self.single_action_space = gymnasium.spaces.Box(-1.0, 1.0, (2,), np.float32)
        self.observation_space = gymnasium.vector.utils.batch_space(self.single_observation_space, count)
        self.action_space = gymnasium.vector.utils.batch_space(self.single_action_space, count)
        self.rng = np.random.default_rng(seed)
        self.ended = np.zeros(count, bool)
        self.returns, self.lengths = np.zeros(count), np.zeros(count, int)

    def info(self, reward: np.ndarray, terminated: np.ndarray, truncated: np.ndarray) -> dict[str, Any]:
        """The infos of a step; takes note of who ended."""
        moved = ~self.ended
        self.returns = np.where(moved, self.returns + reward, 0.0)
        self.lengths = np.where(moved, self.lengths + 1, 0)
        self.ended = terminated | truncated
        info: dict[str, Any] = {"frames": REPEAT * moved.astype(int)}
        if self.ended.any():
            info["episode"] = {"r": self.returns.copy(), "l": REPEAT * self.lengths}
            info["_episode"] = self.ended.copy()
        return info


def ends_after(env: int, episode: int) -> tuple[int, bool]:
    """Actions of a counting simulator's episode, and whether it terminates (or is truncated)."""
    return 5 + (2 * env + episode) % 4, episode % 2 == 0


def count_reward(count: float) -> float:
    """The reward that arrives with an observation that shows `count`."""
    return count % 7 - 3.0


class Counting(TinyEnv):
    """Shows, in each simulator: a counter of steps, the simulator, the episode, and the action that led here.

    The counter never repeats within a segment and starts from the seed; the picture is noise from the seed,
    but for two pixels with the counter's low byte and the simulator.
    """

    vectors = {"facts": 4, "echo": 2}  # facts: counter, simulator, episode, step of the episode

    def __init__(self, count: int, seed: int) -> None:
        super().__init__(count, seed)
        self.counter = np.full(count, (seed % 1000) * 1000.0)
        self.episode, self.step_of = np.zeros(count, int), np.zeros(count, int)

    def reset(self, **_: Any) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        return self.show(np.zeros((self.num_envs, 2))), {}

    def step(
        self, actions: np.ndarray
    ) -> tuple[dict[str, np.ndarray], np.ndarray, np.ndarray, np.ndarray, dict[str, Any]]:
        resets = self.ended
        self.counter += 1
        self.episode += resets
        self.step_of = np.where(resets, 0, self.step_of + 1)
        terminated, truncated = np.zeros(self.num_envs, bool), np.zeros(self.num_envs, bool)
        for i in np.flatnonzero(~resets):
            length, terminates = ends_after(i, int(self.episode[i]))  # type: ignore[arg-type]
            over = self.step_of[i] == length
            terminated[i], truncated[i] = over and terminates, over and not terminates
        reward = np.where(resets, 0.0, count_reward(self.counter))  # type: ignore[arg-type]
        info = self.info(reward, terminated, truncated)
        return self.show(np.where(resets[:, None], 0.0, actions)), reward, terminated, truncated, info

    def show(self, action: np.ndarray) -> dict[str, np.ndarray]:
        image = self.rng.integers(256, size=(self.num_envs, 1, SIDE, SIDE)).astype(np.uint8)
        image[:, 0, 0, 0], image[:, 0, 0, 1] = self.counter % 256, np.arange(self.num_envs)
        facts = np.stack([self.counter, np.arange(self.num_envs), self.episode, self.step_of], 1)
        return {"image": image, "facts": facts.astype(np.float32), "echo": action.astype(np.float32)}


class Sides(TinyEnv):
    """Half of the picture is bright; an action's first number of that side's sign brings 1, the other 0.

    Episodes have 4 actions; sides are drawn anew after each. By chance an episode brings 2.
    """

    length = 4

    def reset(self, **_: Any) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        return self.show(), {}

    def step(
        self, actions: np.ndarray
    ) -> tuple[dict[str, np.ndarray], np.ndarray, np.ndarray, np.ndarray, dict[str, Any]]:
        reward = np.where(self.ended, 0.0, (actions[:, 0] > 0) == self.right).astype(np.float32)
        truncated = ~self.ended & (self.lengths + 1 == self.length)
        terminated = np.zeros_like(truncated)
        info = self.info(reward, terminated, truncated)
        return self.show(), reward, terminated, truncated, info

    def show(self) -> dict[str, np.ndarray]:
        self.right = self.rng.random(self.num_envs) < 0.5
        image = np.full((self.num_envs, 1, SIDE, SIDE), 20, np.uint8)
        image[self.right, :, :, SIDE // 2 :] = 220
        image[~self.right, :, :, : SIDE // 2] = 220
        return {"image": image}


class Choices(Sides):
    """The same with two choices for an action: 0 is left, 1 is right."""

    def __init__(self, count: int, seed: int) -> None:
        super().__init__(count, seed)
        self.single_action_space = gymnasium.spaces.Discrete(2)
        self.action_space = gymnasium.vector.utils.batch_space(self.single_action_space, count)

    def step(self, actions: np.ndarray) -> Any:
        assert actions.shape == (self.num_envs,) and set(actions.tolist()) <= {0, 1}
        return super().step(np.where(actions == 1, 1.0, -1.0)[:, None])


def counting(config: EnvConfig, seed: int) -> Counting:
    """Counting simulators, as many as the config says."""
    return Counting(config.num_envs, seed)


def sides(config: EnvConfig, seed: int) -> Sides:
    """Simulators of `Sides`, as many as the config says."""
    return Sides(config.num_envs, seed)


def choices(config: EnvConfig, seed: int) -> Choices:
    """Simulators of `Choices`, as many as the config says."""
    return Choices(config.num_envs, seed)


def signalling(
    make: Callable[[EnvConfig, int], TinyEnv], what: signal.Signals | type[Exception], at: list[int]
) -> Callable[[EnvConfig, int], TinyEnv]:
    """The same environments, but this process gets the signal, or raises the exception, in the steps `at`.

    Steps are counted over all environments that are made, beginning with 1.
    """
    steps = 0

    def make_signalling(config: EnvConfig, seed: int) -> TinyEnv:
        env = make(config, seed)
        step = env.step

        def stepped(actions: np.ndarray) -> Any:
            nonlocal steps
            steps += 1
            if steps in at:
                if not isinstance(what, signal.Signals):
                    raise what
                os.kill(os.getpid(), what)
            return step(actions)

        env.step = stepped  # type: ignore[method-assign]
        return env

    return make_signalling


def tiny_config(**trainer: Any) -> OnlineConfig:
    """Three simulators and networks of a few units; `trainer` goes over the trainer's fields."""
    pictures = {"patch": 4, "depth": 2, "multipliers": [2], "vector_layers": 1, "vector_units": 8}
    fields = {
        "frames": 240,
        "train_ratio": 8.0,
        "prefill_frames": 24,
        "checkpoint_frames": 100,
        "log_updates": 5,
        "precision": "fp32",
        "device": "cpu",
        "threads": 1,
    }
    return OnlineConfig(
        seed=3,
        env=CarRacingConfig(num_envs=3, action_repeat=REPEAT, image_size=SIDE),
        agent=DreamerConfig(
            world_model=RSSMConfig(
                dynamics=DynamicsConfig(deter=16, hidden=8, variables=3, classes=4, blocks=2),
                encoder=EncoderConfig(**pictures),
                decoder=DecoderConfig(**pictures),
                units=8,
                value_layers=1,
            ),
            behaviour=ActorCriticConfig(units=8, layers=1, imagination_length=3, starts=8),
        ),
        optimizer=OptimizerConfig(world_model_lr=1e-3, actor_lr=1e-3, critic_lr=1e-3, warmup=10),
        replay=ReplayConfig(capacity_bytes=2_000_000, batch_size=4, sequence_length=8),
        trainer=TrainerConfig(**(fields | trainer)),
    )
