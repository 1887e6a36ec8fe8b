"""A world model's dream as a Gymnasium environment, so that any reinforcement learner can train in it.

A dream begins in the state after some recorded frames and continues as the world model imagines. It is
terminated when the continue head predicts the end of the episode, and truncated at a time limit.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated, Any, Literal

import gymnasium
import numpy as np
import torch
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space, iterate
from numpy.typing import NDArray
from pydantic import BaseModel, Field

from agent.world_model.interface import Observation, State, WorldModel

DreamObservation = NDArray[Any] | dict[str, Any]
"""Features (..., F) float32, or {"image": (..., C, H, W) uint8}."""


class DreamConfig(BaseModel, extra="forbid", validate_assignment=True, use_attribute_docstrings=True):
    """Observations and ends of a dream environment."""

    observation: Annotated[Literal["features", "image"], "fixed on resume: it is what the policy sees"] = (
        "features"
    )
    """The observation: the features of the world model's state, or the decoded picture."""
    max_steps: Annotated[int, "may change on resume"] = Field(250, ge=1)
    """Time limit of a dream [decisions]."""
    ends: Annotated[Literal["sampled", "threshold"], "may change on resume"] = "sampled"
    """How the continue head ends a dream: `sampled` draws from its probability, `threshold` ends where that
    falls below `threshold`."""
    threshold: Annotated[float, "may change on resume"] = Field(0.5, ge=0, le=1)
    """Smallest probability of continuing with `ends: threshold`."""


@torch.no_grad()
def states_after(
    model: WorldModel,
    observations: Observation,
    actions: torch.Tensor,
    is_first: torch.Tensor | None = None,
) -> State:
    """Posterior states (E) after the first C recorded steps of E episodes, for dreams to begin in.

    Args:
        model: the world model that filters the episodes.
        observations: name -> (E, C, ...).
        actions: (E, C, A), each the one that led to its observation.
        is_first: (E, C), where an episode begins; in the first of the C steps by default.
    """
    if is_first is None:
        is_first = torch.zeros(actions.shape[:2], dtype=torch.bool, device=actions.device)
        is_first[:, 0] = True
    states, _ = model.observe(observations, actions, is_first, model.initial(len(actions)))
    return states[:, -1]


def pixels(image: torch.Tensor) -> NDArray[np.uint8]:
    """Pictures in [0, 1], (..., C, H, W) float -> uint8."""
    return (image.clamp(0, 1) * 255).round().byte().cpu().numpy()


class DreamVectorEnv(VectorEnv[Any, NDArray[np.float32], Any]):
    """N dreams of one world model, stepped in one batch. Actions (N, A) in [-1, 1].

    Rewards are the means of the reward head. After an episode has ended, the next `step` only resets it: its
    action is ignored, its reward 0, as in `envs.car_racing.env`. Infos, when episodes ended: "episode" with
    "r" (undiscounted return) and "l" (decisions), and "_episode", the mask of those that ended.

    The same seed gives the same dreams. The state of torch's global random generators does not change.

    Args:
        model: the world model, in evaluation mode, on any device.
        starts: (S) states; each dream begins in one drawn at random; see `states_after`.
        num_envs: N.
        config: the observation, and when a dream ends.
        render_mode: None, or "rgb_array".

    Raises:
        ValueError: no starts, or pictures requested from a world model that decodes none.
    """

    def __init__(
        self,
        model: WorldModel,
        starts: State,
        num_envs: int = 1,
        config: DreamConfig | None = None,
        render_mode: Literal["rgb_array"] | None = None,
    ) -> None:
        self.model, self.config, self.num_envs = model, config or DreamConfig(), num_envs
        self.render_mode = render_mode
        self.metadata = {
            "autoreset_mode": AutoresetMode.NEXT_STEP,
            "render_modes": ["rgb_array"],
            "render_fps": 12.5,
        }
        if len(starts.batch_size) != 1 or not len(starts):
            raise ValueError(f"dream: starts {tuple(starts.batch_size)}: expected (S) states, at least one")
        self._starts = starts
        with torch.no_grad():
            seen = self.model.decode(starts[:1])
        if "image" not in seen and (self.config.observation == "image" or render_mode is not None):
            raise ValueError("dream: this world model decodes no image: expected observation 'features'")
        if self.config.observation == "image":
            shape = tuple(seen["image"].shape[1:])
            picture = gymnasium.spaces.Box(0, 255, shape, np.uint8)
            self.single_observation_space = gymnasium.spaces.Dict({"image": picture})
        else:
            size = (model.feature_size,)
            self.single_observation_space = gymnasium.spaces.Box(-np.inf, np.inf, size, np.float32)
        self.single_action_space = gymnasium.spaces.Box(-1.0, 1.0, (model.action_size,), np.float32)
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.action_space = batch_space(self.single_action_space, num_envs)
        self._device = next(model.parameters()).device
        self._state: State | None = None
        self._ended = np.zeros(num_envs, bool)
        self._return = np.zeros(num_envs)
        self._steps = np.zeros(num_envs, np.int64)

    def reset(
        self, *, seed: int | list[int | None] | None = None, options: dict[str, Any] | None = None
    ) -> tuple[DreamObservation, dict[str, Any]]:
        """Begin new dreams: all, or those in options' "reset_mask" (N,), as in Gymnasium.

        Raises:
            ValueError: other options, or a mask before the first reset.
        """
        if isinstance(seed, list):
            # One random generator for all dreams: they are stepped in one batch.
            parts = [0 if one is None else one for one in seed]
            seed = int(np.random.SeedSequence(parts).generate_state(1)[0])
        super().reset(seed=seed)
        which = np.ones(self.num_envs, bool)
        if options:
            if set(options) != {"reset_mask"} or self._state is None:
                raise ValueError(
                    f"dream: reset options {sorted(options)}: expected reset_mask, after a reset"
                )
            which = np.asarray(options["reset_mask"], bool)
        self._state = self._begin(self._state, which)
        self._ended &= ~which
        return self._observe(self._state), {}

    @torch.no_grad()
    def step(
        self, actions: NDArray[np.float32]
    ) -> tuple[DreamObservation, NDArray[np.float32], NDArray[np.bool_], NDArray[np.bool_], dict[str, Any]]:
        """One imagined decision in every dream: see the class.

        Raises:
            ValueError: actions of another shape than (N, A), or not finite; or `reset` was never called.
        """
        expected = (self.num_envs, self.model.action_size)
        actions = np.asarray(actions, np.float32)
        if self._state is None:
            raise ValueError("dream: step before the first reset")
        if actions.shape != expected or not np.isfinite(actions).all():
            raise ValueError(f"dream: actions {actions.shape}: expected {expected}, all finite")
        resetting = self._ended
        with self._own_random_numbers():
            action = torch.from_numpy(actions).to(self._device).clamp(-1.0, 1.0)
            state = self.model.imagine_step(self._state, action)
        reward = np.where(resetting, 0.0, self.model.reward(state).float().cpu().numpy()).astype(np.float32)
        cont = self.model.cont(state).float().cpu().numpy()
        # Drawn even where nothing depends on it, so that the random stream stays the same.
        draw = self.np_random.random(self.num_envs)
        over = draw >= cont if self.config.ends == "sampled" else cont < self.config.threshold
        self._return += reward
        self._steps += 1
        terminated = over & ~resetting
        truncated = (self._steps >= self.config.max_steps) & ~over & ~resetting
        self._state = self._begin(state, resetting) if resetting.any() else state
        self._ended = terminated | truncated
        info: dict[str, Any] = {}
        if self._ended.any():
            info["episode"] = {"r": self._return.copy(), "l": self._steps.copy()}
            info["_episode"] = self._ended.copy()
        return self._observe(self._state), reward, terminated, truncated, info

    def render(self) -> tuple[NDArray[np.uint8], ...] | None:
        """The picture of each dream, N x (H, W, 3) uint8; None without a render mode or before a reset."""
        if self.render_mode is None or self._state is None:
            return None
        with torch.no_grad():
            image = pixels(self.model.decode(self._state)["image"])
        # (N, H, W, C)
        return tuple(np.ascontiguousarray(image.transpose(0, 2, 3, 1)))

    @contextmanager
    def _own_random_numbers(self) -> Iterator[None]:
        """Inside, torch draws from this environment's random stream."""
        devices = [self._device] if self._device.type == "cuda" else []
        with torch.random.fork_rng(devices=devices):
            torch.manual_seed(int(self.np_random.integers(2**63)))
            yield

    def _begin(self, state: State | None, which: NDArray[np.bool_]) -> State:
        """`state` (N) with fresh starts where `which` (N,); a copy."""
        drawn = self.np_random.integers(len(self._starts), size=self.num_envs)
        self._return[which] = 0.0
        self._steps[which] = 0
        fresh: State = self._starts[torch.from_numpy(drawn).to(self._device)]
        if state is None:
            return fresh
        kept = torch.from_numpy(np.flatnonzero(~which)).to(self._device)
        fresh[kept] = state[kept]
        return fresh

    @torch.no_grad()
    def _observe(self, state: State) -> DreamObservation:
        if self.config.observation == "image":
            return {"image": pixels(self.model.decode(state)["image"])}
        return self.model.features(state).float().cpu().numpy()


class DreamEnv(gymnasium.Env[Any, NDArray[np.float32]]):
    """A single dream: a `DreamVectorEnv` of one, without its automatic reset.

    Args:
        model, starts, config, render_mode: see `DreamVectorEnv`.
    """

    metadata: dict[str, Any] = {"render_modes": ["rgb_array"], "render_fps": 12.5}  # noqa: RUF012

    def __init__(
        self,
        model: WorldModel,
        starts: State,
        config: DreamConfig | None = None,
        render_mode: Literal["rgb_array"] | None = None,
    ) -> None:
        self.render_mode = render_mode
        self._dream = DreamVectorEnv(model, starts, 1, config, render_mode)
        self.observation_space = self._dream.single_observation_space
        self.action_space = self._dream.single_action_space

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        """Begin a new dream; options are not used."""
        super().reset(seed=seed)
        seen, _ = self._dream.reset(seed=int(self.np_random.integers(2**31)))
        return next(iterate(self._dream.observation_space, seen)), {}

    def step(self, action: NDArray[np.float32]) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """One imagined decision. Raises ValueError for an action of another shape, or not finite."""
        seen, reward, terminated, truncated, _ = self._dream.step(np.asarray(action, np.float32)[None])
        one = next(iterate(self._dream.observation_space, seen))
        return one, float(reward[0]), bool(terminated[0]), bool(truncated[0]), {}

    def render(self) -> NDArray[np.uint8] | None:
        """The picture of the dream, (H, W, 3) uint8; None without a render mode."""
        frames = self._dream.render()
        return None if frames is None else frames[0]
