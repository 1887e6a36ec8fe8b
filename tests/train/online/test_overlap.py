"""Simulators that move while the agent learns: what is learnt is the same."""

from pathlib import Path

import pytest
import torch

from tests.train.online.tiny_envs import tiny_config
from train.online import trainer
from train.run.checkpoint import load_checkpoint


@pytest.mark.slow
def test_a_run_learns_the_same_beside_its_simulators(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    weights = []
    # In this process; in others, while the networks rest; in others, while they learn.
    for processes, cores in ((0, 1), (2, 1), (2, 99)):
        monkeypatch.setattr(trainer, "usable_cores", lambda cores=cores: cores)
        config = tiny_config()
        config.env.backend, config.env.image_size, config.env.max_frames = "gymnasium", 16, 60
        config.env.num_envs, config.env.processes = 2, processes
        config.trainer.frames, config.trainer.prefill_frames = 280, 60
        run = trainer.train_agent(config, tmp_path / f"{processes}-{cores}")
        saved = load_checkpoint(run.checkpoint_path, "cpu")
        assert saved["updates"] > 3
        weights.append(saved["agent"])
    for others in weights[1:]:
        assert all(torch.equal(value, others[name]) for name, value in weights[0].items())
