from pathlib import Path

import pytest
import torch

from agent.tokenizer.fsq_vae import FSQVAE
from tests.train.tokenizer.test_tokenise import StopAfter
from tests.train.world_models.small import open_small, small_config, write_rollouts
from train.data.episode_store import EpisodeStore
from train.run.epochs import StageCheckpoint
from train.run.errors import DreamdriveError
from train.run.monitor import JobMonitor, Stopped
from train.tokenizer.train_tokenizer import TokenizerTrainer
from train.world_models.config import WorldModelAgentConfig


@pytest.fixture(scope="module")
def rollouts(tmp_path_factory: pytest.TempPathFactory) -> EpisodeStore:
    return open_small(write_rollouts(tmp_path_factory.mktemp("rollouts") / "rollouts.h5"))


def trainer_of(vae: FSQVAE, config: WorldModelAgentConfig) -> TokenizerTrainer:
    return TokenizerTrainer(vae, config.training, config.seed)


def fresh() -> FSQVAE:
    torch.manual_seed(0)
    return small_config().fsq_vae.build()


def same(a: FSQVAE, b: FSQVAE) -> bool:
    return all(map(torch.equal, a.state_dict().values(), b.state_dict().values()))


@pytest.mark.slow
def test_it_learns_to_see(rollouts: EpisodeStore) -> None:
    config = small_config(training={"vae_epochs": 12, "vae_learning_rate": 3e-3, "compare_plain_vae": True})
    metrics = trainer_of(fresh(), config).train(rollouts)
    one = small_config(training={"vae_epochs": 1, "vae_learning_rate": 1e-6})
    untrained = trainer_of(fresh(), one).train(rollouts)
    assert metrics["validation/psnr"] > untrained["validation/psnr"] + 3
    assert metrics["validation/codebook_use"] > 1 / 12
    assert 1 <= metrics["validation/codebook_perplexity"] <= 12
    assert metrics["validation/plain_vae_psnr"] > 10


# Within the first epoch, at its end, and in a later one.
@pytest.mark.parametrize("updates", [3, 28, 41])
def test_a_resumed_training_is_one_never_stopped(
    rollouts: EpisodeStore, updates: int, tmp_path: Path
) -> None:
    whole = fresh()
    wanted = trainer_of(whole, small_config()).train(rollouts)

    saves = StageCheckpoint(tmp_path / "vae.pt", "mark")
    with pytest.raises(Stopped):
        trainer_of(fresh(), small_config()).train(rollouts, saves, JobMonitor(stop=StopAfter(updates)))  # type: ignore[arg-type]
    resumed = fresh()
    torch.rand(5)
    metrics = trainer_of(resumed, small_config()).train(rollouts, saves)
    assert metrics == wanted and same(resumed, whole)


def test_a_checkpoint_of_other_options_does_not_count(rollouts: EpisodeStore, tmp_path: Path) -> None:
    with pytest.raises(Stopped):
        trainer_of(fresh(), small_config()).train(
            rollouts,
            StageCheckpoint(tmp_path / "vae.pt", "mark"),
            JobMonitor(stop=StopAfter(3)),  # type: ignore[arg-type]
        )
    assert StageCheckpoint(tmp_path / "vae.pt", "mark").load() is not None
    assert StageCheckpoint(tmp_path / "vae.pt", "another").load() is None


def test_a_loss_that_is_no_number_stops(rollouts: EpisodeStore) -> None:
    vae = fresh()
    with torch.no_grad():
        next(vae.parameters()).fill_(torch.nan)
    with pytest.raises(DreamdriveError, match="the VAE diverged: .* is not finite"):
        trainer_of(vae, small_config()).train(rollouts)
