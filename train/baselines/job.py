"""Train a policy of stable-baselines3, in the real environment or in a world model's dream."""

import importlib.util
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import torch
from gymnasium.vector import VectorEnv
from numpy.typing import NDArray
from torch import Tensor

from agent.world_model.interface import State
from envs.car_racing.env import CarRacingConfig, make_car_racing
from envs.dream import DreamVectorEnv
from train.baselines.config import BaselineConfig
from train.baselines.dream_starts import dream_starts, recorded_starts
from train.drive.agents import Trained, export_run, load_agent
from train.drive.descriptions import BASELINE_JOB
from train.drive.drivers import Driver, FilteredDriver
from train.run.checkpoint import load_checkpoint, load_weights
from train.run.device import pick_device, set_up_cpu
from train.run.errors import DreamdriveError, explain_value_errors, one_line
from train.run.folder import Run, run_to_resume
from train.run.monitor import monitored
from train.run.options import Change, refuse_changes


def require_stable_baselines() -> None:
    """Raise `DreamdriveError` where stable-baselines3 is not installed."""
    if importlib.util.find_spec("stable_baselines3") is None:
        raise DreamdriveError(
            "stable-baselines3 is not installed: pip install 'dreamdrive[baselines]' brings it"
        )


def train_baseline(config: BaselineConfig, run_path: Path | None = None, resume: bool = False) -> Run:
    """Train a baseline into a run's folder, until its frames are driven or dreamt, or a signal stops it.

    A run that learnt in a dream keeps a copy of the dreaming run in `dream/`. One that is resumed goes on
    with networks, optimisers, counts and replay; its simulators start anew, on tracks of their own, and what
    PPO had collected but not learnt from is lost.

    Raises:
        DreamdriveError: stable-baselines3 is missing, the folder holds a run, or (resuming) holds none, an
            option changed that may not, the dreaming run or the recorded starts do not fit.
    """
    require_stable_baselines()
    from train.baselines.learner import BaselineLearner

    device = pick_device(config.device)
    set_up_cpu(config.threads)
    run, saved, changed = _open(config, run_path) if resume else (_begin(config, run_path), None, [])
    decisions = int(saved["algorithm"]["counts"]["num_timesteps"]) if saved else 0
    seed = config.seed
    if decisions:
        # A resumed run drives other tracks than at first.
        seed = int(np.random.SeedSequence([config.seed, decisions]).generate_state(1)[0]) % 900_000
    env: VectorEnv[Any, Any, Any]
    if config.in_dream:
        # The very weights that will filter what the policy sees when it is scored.
        env, real = _dream(config, load_agent(run.path / "dream", config.device), run)
    else:
        env, real = _car_racing(config, seed), 0
    repeat = config.env.action_repeat
    with (
        closing(env),
        monitored(run, config.frames, "frames", done=decisions * repeat) as monitor,
    ):
        monitor.say(*(f"changed on resume: {change}" for change in changed))
        learner = BaselineLearner(config, env, run, real, device, seed)
        monitor.track(run, BASELINE_JOB, config, decisions * repeat if saved else None)
        if saved:
            learner.load(saved)
        # What it holds, the replay above all, is in the learner now.
        saved = None
        learner.learn(config.frames, config.checkpoint_minutes, monitor)
    return run


def _begin(config: BaselineConfig, run_path: Path | None) -> Run:
    """A new run's folder, with a copy of the dream."""
    if not config.in_dream:
        # What is wrong with it is found before anything is written.
        _car_racing(config, config.seed).close()
        return Run.create(run_path, BASELINE_JOB, config)
    dreamer = load_agent(Path(config.in_dream), config.device)
    if config.starts.episodes:
        recorded_starts(config.starts, dreamer, Path(config.starts.episodes), config.seed)
    run = Run.create(run_path, BASELINE_JOB, config)
    export_run(Path(config.in_dream), run.path / "dream")
    return run


def _open(config: BaselineConfig, run_path: Path | None) -> tuple[Run, dict[str, Any], list[Change]]:
    """The run to go on with, its checkpoint, and the options changed since."""
    begun = run_to_resume(run_path)
    changed = refuse_changes(begun.own_config(BaselineConfig), config)
    saved = load_checkpoint(begun.checkpoint_path)
    run = Run.resume(begun.path)
    run.write_config(config)
    return run, saved, changed


def _car_racing(config: BaselineConfig, seed: int) -> VectorEnv[Any, Any, Any]:
    with explain_value_errors("config: "):
        return make_car_racing(config.env, seed)


def _dream(config: BaselineConfig, dreamer: Trained, run: Run) -> tuple[VectorEnv[Any, Any, Any], int]:
    """Dreams to learn in, and the real frames behind them: the world model's, and those of the starts."""
    torch.manual_seed(config.seed)
    starts, driven = dream_starts(config.starts, dreamer, run.path / "starts", config.seed)
    model, count = dreamer.agent.world_model, config.env.num_envs
    with explain_value_errors("config: "):
        return DreamVectorEnv(model, starts, count, config.dream), dreamer.frames + driven


class PicturePolicy:
    """Drives by a policy that sees the last pictures; a `train.drive.drivers.Driver`."""

    def __init__(self, policy: Any, stack: int) -> None:
        self._policy, self._size = policy, stack
        self.reset(1)

    def reset(self, count: int) -> None:
        """See `Driver`."""
        from train.baselines.adapter import Stack

        self._stack = Stack(self._size)

    def act(
        self, observation: Mapping[str, NDArray[Any]], is_first: NDArray[np.bool_]
    ) -> NDArray[np.float32]:
        """See `Driver`."""
        self._stack.push(observation["image"])
        seen = self._stack.restart(observation["image"], is_first)
        actions: NDArray[np.float32] = self._policy.predict(seen, deterministic=True)[0]
        return actions


def load_baseline(path: Path, device: str = "auto") -> tuple[CarRacingConfig, Driver, int]:
    """The environment, the driver, and the real frames it took, of the baseline in `path`.

    Raises `DreamdriveError` when stable-baselines3 is missing, or the weights are missing or do not fit.
    """
    require_stable_baselines()
    config = Run.open(path).config(BaselineConfig)
    tensors, meta = load_weights(path)
    where = pick_device(device)
    actions = gymnasium.spaces.Box(-1.0, 1.0, (config.env.action_size,), np.float32)
    try:
        shape = tuple(int(n) for n in meta["observation"]["shape"])
        bounds = (0, 255, shape, np.uint8) if config.kind == "image" else (-np.inf, np.inf, shape, np.float32)
        seen: gymnasium.spaces.Box = gymnasium.spaces.Box(*bounds)
        policy = config.algo.policy(config.kind, seen, actions).to(where)
        policy.load_state_dict(tensors)
        frames = int(meta["frames"])
    except (KeyError, TypeError, RuntimeError, ValueError) as error:
        raise DreamdriveError(
            f"{path / 'weights.safetensors'}: does not fit config.yaml: {one_line(error)[:200]}"
        ) from error
    policy.eval()
    if config.kind == "image":
        return config.env, PicturePolicy(policy, config.stack), frames
    dreamer = load_agent(path / "dream", device)
    model = dreamer.agent.world_model

    def choose(state: State, _: Tensor) -> Tensor:
        chosen = policy.predict(model.features(state).float().cpu().numpy(), deterministic=True)[0]
        return torch.from_numpy(chosen).to(dreamer.device)

    return config.env, FilteredDriver(model, choose, dreamer.device), frames
