"""Trains in the counting environment in a process of its own: RUN FRAMES resume|begin SIGNAL STEP [STEP ...].

The process sends itself the signal in each of these steps.
"""

import signal
import sys
from pathlib import Path

from tests.train.online.tiny_envs import counting, signalling, tiny_config
from train.online.trainer import train_agent

if __name__ == "__main__":
    sys.modules["mlflow"] = None  # type: ignore[assignment]  # takes seconds to import, and has its own tests
    run, frames, how, name, *steps = sys.argv[1:]
    number = signal.Signals[name]
    train_agent(
        tiny_config(frames=int(frames)),
        Path(run),
        how == "resume",
        signalling(counting, number, [*map(int, steps)]),
    )
