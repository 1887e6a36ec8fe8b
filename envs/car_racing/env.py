"""CarRacing-v3 as a Gymnasium vector environment for training.

A decision of the agent lasts several frames of a simulator (action repeat).
"""

from functools import partial
from typing import Annotated, Any, ClassVar, Literal

import gymnasium
import numpy as np
from gymnasium.error import AlreadyPendingCallError, NoAsyncCallError
from gymnasium.vector import AutoresetMode, VectorEnv
from numpy.typing import NDArray
from pydantic import BaseModel, Field, model_validator

from envs import TRAINING_SEEDS
from envs.car_racing.frame_skip import Decision, InProcess, SimulatorGroup, Subprocess
from envs.car_racing.observation import (
    ON_GRASS,
    ON_ROAD,
    CarRacingObservation,
    grass_share,
    native_action,
)
from envs.car_racing.simulators import EnvPoolSimulators, GymnasiumSimulators, envpool_available, seeds_below

_ZOOM_FRAMES = 50  # the camera zooms in during the first second


class CarRacingConfig(BaseModel, extra="forbid", validate_assignment=True, use_attribute_docstrings=True):
    """CarRacing: its simulators, observations, actions and training reward."""

    fixed_on_resume: ClassVar[str] = "the replay's pictures and steps were made with it"

    kind: Literal["car_racing"] = "car_racing"
    """The kind of environment."""
    backend: Literal["auto", "envpool", "gymnasium"] = "auto"
    """Simulator for training: EnvPool's (fast, Linux) or Gymnasium's; `auto` is EnvPool where installed."""
    num_envs: Annotated[int, "fixed on resume: the replay has a stream for each simulator"] = Field(16, ge=1)
    """Simulators stepped at the same time."""
    action_repeat: int = Field(4, ge=1)
    """Frames each decision lasts [frames of 1/50 s]."""
    image_size: int = Field(64, ge=16)
    """Side of the square picture [px]."""
    crop_hud: bool = True
    """Cut off the dashboard below the picture."""
    instruments: bool = False
    """Observe the numbers read from the dashboard as the vector `instruments`: speed, wheels, steering, yaw
    rate. They are accurate with the backend `gymnasium` only; EnvPool draws the speed in steps of 20 m/s."""
    action: Literal["2d", "3d"] = "2d"
    """`2d`: steer, accelerate or brake; `3d`: steer, gas, brake. All in [-1, 1]."""
    max_frames: Annotated[int, "may change on resume"] = Field(1000, ge=1)
    """Time limit of an episode [frames]."""
    hopeless_after: Annotated[int, "may change on resume"] = Field(0, ge=0)
    """Decisions without a new tile after which a training episode is cut (truncated); 0 never cuts."""
    off_road_cost: Annotated[float, "may change on resume"] = Field(0.0, ge=0)
    """Subtracted from the training reward whenever the car leaves the road [reward]: a lap is complete only
    when no tile is missing, which a discounted return hardly notices. Reported scores do not include it.
    Gymnasium's simulator reports when no wheel touches the road; for EnvPool it is estimated from the grass
    in the picture."""
    mirror: Annotated[bool, "may change on resume"] = False
    """Mirror each training episode left-right with probability 1/2: tracks run counter-clockwise, so right
    turns are rare otherwise."""
    threads: Annotated[int, "may change on resume"] = Field(2, ge=1)
    """Threads that step EnvPool's simulators."""
    processes: Annotated[int, "may change on resume"] = Field(0, ge=0)
    """Processes that share the simulators and step them while the networks learn; 0 steps them in the
    training process, between updates. The episodes are the same."""

    @model_validator(mode="after")
    def _mirror_needs_crop(self) -> "CarRacingConfig":
        if self.mirror and (self.instruments or not self.crop_hud):
            raise ValueError("mirror: needs crop_hud and no instruments, the dashboard has no mirror image")
        return self

    @property
    def action_size(self) -> int:
        """Numbers in an action."""
        return 2 if self.action == "2d" else 3


class CarRacing(VectorEnv[dict[str, Any], NDArray[np.float32], Any]):
    """N CarRacing simulators; observations {"image": (N, 3, S, S) uint8} and, with `instruments` in the
    config, "instruments" (N, 7) float32; actions (N, 2 or 3) in [-1, 1].

    Rewards are the simulator's, summed over the frames of a decision, less the config's `off_road_cost`.
    After an episode has ended, the next `step` only resets it: its action is ignored, its reward is 0.
    Without `autoreset`, an ended episode stays as it is, with reward 0, until `reset` begins another. Infos:
    "frames" (N,), the frames each simulator moved in this decision; "cost" (N,), the `off_road_cost`
    subtracted from the rewards; and when episodes ended, "episode" with "r" (undiscounted return) and "l"
    (frames), "hopeless", and "_episode", the mask of those that ended.
    """

    def __init__(
        self, config: CarRacingConfig, simulators: SimulatorGroup, seed: int, autoreset: bool = True
    ) -> None:
        self.config = config
        self.num_envs = n = config.num_envs
        self._autoreset = autoreset
        mode = AutoresetMode.NEXT_STEP if autoreset else AutoresetMode.DISABLED
        self.metadata = {"autoreset_mode": mode, "render_fps": 50 / config.action_repeat}
        self._simulators = simulators
        self._view = CarRacingObservation(
            config.image_size, config.crop_hud, config.instruments, simulators.antialias
        )
        self.single_observation_space = gymnasium.spaces.Dict(self._view.spaces)
        self.single_action_space = gymnasium.spaces.Box(-1.0, 1.0, (config.action_size,), np.float32)
        self.observation_space = gymnasium.vector.utils.batch_space(self.single_observation_space, n)
        self.action_space = gymnasium.vector.utils.batch_space(self.single_action_space, n)
        self._mirrors = np.random.default_rng([seed, 1])
        self._mirrored = np.zeros(n, bool)
        self._ended = np.zeros(n, bool)
        self._sent = False
        self._return = np.zeros(n)
        self._frames = np.zeros(n, np.int64)
        self._idle = np.zeros(n, np.int64)
        self._on_road = np.ones(n, bool)
        self._seen = self._view(np.zeros((n, 96, 96, 3), np.uint8))

    def reset(
        self, *, seed: int | list[int | None] | None = None, options: dict[str, Any] | None = None
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """Start new episodes: all, or those in options' "reset_mask" (N,), as in Gymnasium.

        The seed is given when the environment is made.

        Raises:
            ValueError: a seed or other options are given.
        """
        if seed is not None or (options is not None and set(options) != {"reset_mask"}):
            raise ValueError(
                "CarRacing.reset: make_car_racing takes the seed; expected none, and no option but reset_mask"
            )
        which = np.ones(self.num_envs, bool) if options is None else np.asarray(options["reset_mask"], bool)
        self._begin(which)
        fresh = self._observe(self._simulators.reset(which))
        self._ended &= ~which
        self._seen = {name: seen.copy() for name, seen in self._seen.items()}
        for name, seen in self._seen.items():
            seen[which] = fresh[name][which]
        return dict(self._seen), {}

    def step(
        self, actions: NDArray[np.float32]
    ) -> tuple[dict[str, Any], NDArray[np.float32], NDArray[np.bool_], NDArray[np.bool_], dict[str, Any]]:
        """One decision in every simulator: `step_async`, then `step_wait`."""
        self.step_async(actions)
        return self.step_wait()

    def step_async(self, actions: NDArray[np.float32]) -> None:
        """Begin a decision in every simulator; those in processes of their own start moving now.

        Raises:
            ValueError: actions of another shape than (N, A), or not finite.
            AlreadyPendingCallError: `step_wait` was not called after the decision before.
            WorkerDied: a process of the simulators died.
        """
        if self._sent:
            raise AlreadyPendingCallError("step_async: expected step_wait first", "step_async")
        expected = (self.num_envs, self.config.action_size)
        if actions.shape != expected or not np.isfinite(actions).all():
            raise ValueError(f"CarRacing actions {actions.shape}: expected {expected}, all finite")
        native = native_action(actions)
        native[:, 0] *= np.where(self._mirrored, -1.0, 1.0)
        self._simulators.send(native, ~self._ended, self._ended & self._autoreset)
        self._sent = True

    def step_wait(
        self,
    ) -> tuple[dict[str, Any], NDArray[np.float32], NDArray[np.bool_], NDArray[np.bool_], dict[str, Any]]:
        """Finish the decision that `step_async` began: see the class for the results.

        Raises:
            NoAsyncCallError: `step_async` was not called.
            WorkerDied: a process of the simulators died.
        """
        if not self._sent:
            raise NoAsyncCallError("step_wait: expected step_async before", "step_wait")
        self._sent = False
        n, resetting = self.num_envs, self._ended & self._autoreset
        stays = self._ended & ~resetting
        made = self._simulators.receive()
        if resetting.any():
            self._begin(resetting)
        reward, frames, picture = made.reward, made.frames, made.picture
        terminated, truncated = made.terminated, made.truncated
        self._return += reward
        self._frames += frames
        cost = np.zeros(n, np.float32)
        if self.config.off_road_cost:
            cost = self.config.off_road_cost * self._leaves_road(made).astype(np.float32)
            reward -= cost
        self._idle = np.where(made.tile | self._ended, 0, self._idle + 1)
        hopeless = np.zeros(n, bool)
        if self.config.hopeless_after:
            hopeless = ~terminated & ~truncated & (self._idle >= self.config.hopeless_after)
            truncated |= hopeless
        over = terminated | truncated
        self._ended = over | stays
        info: dict[str, Any] = {"frames": frames, "cost": cost}
        if over.any():
            info["episode"] = {"r": self._return.copy(), "l": self._frames.copy()}
            info["hopeless"], info["_episode"] = hopeless, over
        observation = self._observe(picture)
        for name, seen in observation.items():
            seen[stays] = self._seen[name][stays]
        self._seen = observation
        return observation, reward, terminated, truncated, info

    def close_extras(self, **_: Any) -> None:
        """Close the simulators; called by `close`."""
        self._simulators.close()

    def _leaves_road(self, made: Decision) -> NDArray[np.bool_]:
        """Whether the car left the road in this decision, (N,): as the simulators report it, or else
        judged by the grass around the car."""
        if self._simulators.reports_off_road:
            leaves = self._on_road & made.off_road
            self._on_road = made.on_road
            return leaves
        grass = grass_share(made.picture)
        near = self._frames >= _ZOOM_FRAMES
        leaves = near & self._on_road & (grass > ON_GRASS)
        # Between the two thresholds the flag keeps its value: wheels at the edge of the road count once.
        self._on_road = np.where(near, (self._on_road & ~leaves) | (grass < ON_ROAD), True)
        return leaves

    def _begin(self, which: NDArray[np.bool_]) -> None:
        """Reset the counters of the episodes that begin where `which` (N,)."""
        self._return[which] = 0.0
        self._frames[which] = self._idle[which] = 0
        # Drawn for all, so that the random stream does not depend on when episodes end.
        draw = self._mirrors.random(self.num_envs) < 0.5
        self._mirrored = np.where(which, draw & self.config.mirror, self._mirrored)

    def _observe(self, picture: NDArray[np.uint8]) -> dict[str, Any]:
        seen = self._view(picture)
        flipped = self._mirrored
        if flipped.any():
            seen["image"][flipped] = seen["image"][flipped][..., ::-1]
        return seen


def make_car_racing(
    config: CarRacingConfig, seed: int, tracks: int | None = None, autoreset: bool = True
) -> CarRacing:
    """The training environment.

    Args:
        config: the simulators and what is observed of them.
        seed: of all random choices in the environment.
        tracks: simulators i, i + tracks, i + 2 tracks, ... drive the same tracks; None: each has its own.
        autoreset: begin the next episode in the step after an end; otherwise `reset` does.

    Raises:
        ValueError: a seed reserved for evaluation, or a backend that is not installed.
    """
    n = config.num_envs
    seeds_below(TRAINING_SEEDS, [seed])
    backend = config.backend
    if backend == "auto":
        backend = "envpool" if envpool_available() else "gymnasium"
    # Consecutive from a first one drawn from the seed, so that runs of neighbouring seeds share no tracks.
    first = int(np.random.default_rng([seed, 2]).integers(TRAINING_SEEDS - n))
    seeds = [first + i % (tracks or n) for i in range(n)]
    if backend == "envpool" and not envpool_available():
        raise ValueError(
            "env.backend envpool: EnvPool is not installed (it is made for Linux); use gymnasium"
        )
    parts = [part.tolist() for part in np.array_split(seeds, min(max(config.processes, 1), n))]
    kind: type[EnvPoolSimulators | GymnasiumSimulators] = (
        EnvPoolSimulators if backend == "envpool" else GymnasiumSimulators
    )
    more = config.threads if backend == "envpool" else TRAINING_SEEDS
    make = [partial(kind, part, config.max_frames, more) for part in parts]
    simulators: SimulatorGroup
    if config.processes:
        counts = [len(part) for part in parts]
        simulators = Subprocess(list(zip(counts, make, strict=True)), config.action_repeat, kind)
    else:
        simulators = InProcess(make[0](), config.action_repeat)
    return CarRacing(config, simulators, seed, autoreset)
