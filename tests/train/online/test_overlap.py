"""Simulators that move while the agent learns: what is learnt is the same."""

from pathlib import Path

import torch

from tests.train.online.tiny_envs import tiny_config
from train.checkpoint import load_checkpoint
from train.online.trainer import train_agent


def test_a_run_learns_the_same_beside_its_simulators(tmp_path: Path) -> None:
    weights = []
    for processes in (0, 2):
        config = tiny_config()
        config.env.backend, config.env.image_size, config.env.max_frames = "gymnasium", 16, 60
        config.env.num_envs, config.env.processes = 3, processes
        config.trainer.frames, config.trainer.prefill_frames = 600, 100
        run = train_agent(config, tmp_path / str(processes))
        saved = load_checkpoint(run.checkpoint_path, "cpu")
        assert saved["updates"] > 3
        weights.append(saved["agent"])
    assert all(torch.equal(value, weights[1][name]) for name, value in weights[0].items())
