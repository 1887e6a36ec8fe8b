"""Let an algorithm of stable-baselines3 learn, watched by our progress and tracking, saved as our runs are.

Needs the extra `baselines`: only `train.baselines.job` imports this, once it knows that it is there.
"""

from collections import deque
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from gymnasium.vector import VectorEnv
from stable_baselines3.common.logger import Logger

from train.baselines.adapter import Adapted, Watch, Writer
from train.baselines.config import BaselineConfig
from train.baselines.saved_model import algorithm_state, generators, load_algorithm
from train.run.checkpoint import rng_state, save_checkpoint, save_weights, set_rng_state
from train.run.errors import one_line
from train.run.folder import Run
from train.run.loop import Cadence, diverged
from train.run.monitor import JobMonitor, Stopped

_RECENT = 20


class BaselineLearner:
    """An algorithm, its environment, and what is written about them.

    Args:
        config: the algorithm, what its policy sees, and whether the environment is a dream.
        env: the environment.
        run: where it is written.
        real: real frames behind the environment, those of a dream's world model and beginnings; not those
            that are driven in it.
        device: of the networks.
        seed: of a dream; that of networks and chance is the config's.
    """

    def __init__(
        self,
        config: BaselineConfig,
        env: VectorEnv[Any, Any, Any],
        run: Run,
        real: int,
        device: torch.device,
        seed: int,
    ) -> None:
        self.run, self.real = run, real
        self._config, self._repeat = config, config.env.action_repeat
        first_seed = seed if config.in_dream else None
        self._adapted = Adapted(env, config.seen_at_once, config.reward_scale, first_seed)
        self._algorithm = config.algo.algorithm(config.kind, self._adapted, device, config.seed)
        self._scores: deque[float] = deque(maxlen=_RECENT)

    def load(self, saved: Mapping[str, Any]) -> None:
        """Go on from a checkpoint; the simulators start anew. Raises `DreamdriveError` if it does not fit."""
        path = self.run.checkpoint_path
        load_algorithm(path, self._algorithm, saved["algorithm"])
        self._adapted.frames, self.real = int(saved["frames"]), int(saved["real"])
        self._scores.extend(saved["scores"])
        # Last: building everything drew random numbers.
        set_rng_state(saved["rng"], generators(self._algorithm))

    def save(self, monitor: JobMonitor) -> None:
        """Write a checkpoint, and the weights to share."""
        if monitor.tracker is not None:
            monitor.tracker.flush()
        state = {
            "algorithm": algorithm_state(self._algorithm),
            "frames": self._adapted.frames,
            "real": self.real,
            "scores": list(self._scores),
            "rng": rng_state(generators(self._algorithm)),
        }
        save_checkpoint(self.run.checkpoint_path, state)
        config = self._config
        meta = {
            "observation": {
                "shape": list(self._adapted.observation_space.shape or ()),
                "kind": self._config.kind,
            },
            "action_size": int(np.prod(self._adapted.action_space.shape or ())),
            "frames": self.real + self._adapted.frames,
            "dreamt_frames": self._algorithm.num_timesteps * self._repeat if config.in_dream else 0,
        }
        save_weights(self.run.path, self._algorithm.policy.state_dict(), meta)

    def learn(self, frames: int, minutes: float, monitor: JobMonitor) -> None:
        """Learn until `frames` are driven, or dreamt, in all, or a signal asks to stop; then save.

        Args:
            frames: length of the run.
            minutes: time between checkpoints.
            monitor: shows how far it is, tracks scores and losses; says after each decision whether to stop.

        Raises:
            DreamdriveError: what is learnt are no numbers any more; the last checkpoint stays.
            Stopped: a signal came; all is saved.
        """
        repeat = self._repeat
        # The first checkpoint is written before anything is collected.
        cadence = Cadence(save_minutes=0.0)

        def tell(decisions: int) -> bool:
            for score, length in self._adapted.finished:
                self._scores.append(score)
                row = {"score/episode": score, "score/train_return": float(np.mean(self._scores))}
                monitor.log(row | {"score/episode_length": float(length)}, decisions * repeat)
            self._adapted.finished.clear()
            shown = {"score": float(np.mean(self._scores))} if self._scores else {}
            monitor.show(decisions * repeat, shown)
            return not monitor.stopping

        def settled() -> None:
            # Before decisions are collected: what was collected before has been learnt from.
            if cadence.must_save(self._algorithm.num_timesteps):
                self.save(monitor)
                cadence.save_minutes = minutes
                cadence.saved()

        writer = Writer(lambda numbers, decisions: monitor.log(numbers, decisions * repeat))
        self._algorithm.set_logger(Logger(folder=None, output_formats=[writer]))
        left = -(-frames // repeat) - self._algorithm.num_timesteps
        if left <= 0:
            monitor.say(f"{self._algorithm.num_timesteps * repeat:,} frames are done; --frames asks for more")
            return
        try:
            # Not reset: it counts on from where it is.
            self._algorithm.learn(left, Watch(tell, settled), log_interval=1, reset_num_timesteps=False)
        except ValueError as error:
            # torch's distributions refuse what is no number.
            raise diverged(f"a number ({one_line(error)[:120]})") from error
        self.save(monitor)
        if monitor.stopping:
            raise Stopped
