from pathlib import Path

import numpy as np
import pytest
import torch

from agent.world_model.lstm import LSTMWorldModel
from tests.train.tokenizer.test_tokenise import StopAfter
from tests.train.world_models.small import SIDE, counted_tokens, small_config
from train.data.columns import EpisodeColumns
from train.data.split import split_rollouts
from train.data.windows import windows_end_to_end
from train.run.epochs import StageCheckpoint
from train.run.monitor import JobMonitor, Stopped
from train.world_model.token_trainer import TokenModelTrainer, baselines, held_out_metrics
from train.world_models.config import WorldModelAgentConfig

CPU = torch.device("cpu")


def model_of(config: WorldModelAgentConfig) -> LSTMWorldModel:
    torch.manual_seed(0)
    return config.world_model.build({"image": (3, SIDE, SIDE)}, 2)


def trainer_of(config: WorldModelAgentConfig) -> tuple[LSTMWorldModel, TokenModelTrainer]:
    model = model_of(config)
    return model, TokenModelTrainer(model, config.fsq_vae.build(), config.training, config.seed)


def rewarded(tokens: EpisodeColumns) -> EpisodeColumns:
    """The reward is that of the token: 1 for the even ones."""
    tokens.columns["reward"] = (tokens["observation.token"][:, 0] % 2 == 0).astype(np.float32)
    tokens.columns["is_terminal"] = np.zeros_like(tokens["is_first"])
    return tokens


def test_it_learns_to_count_and_beats_the_baselines() -> None:
    config = small_config(
        training={"world_model_epochs": 30, "world_model_learning_rate": 1e-2, "validation_share": 0.25}
    )
    tokens = rewarded(counted_tokens([25] * 8))
    found = trainer_of(config)[1].train(tokens)
    assert found["validation/token_accuracy"] > 0.9
    assert found["validation/token_nll"] < min(found["baseline/same_nll"], found["baseline/marginal_nll"]) / 2
    assert found["validation/reward_mse"] < found["baseline/reward_mse"] / 2
    assert found["validation/token_perplexity"] == pytest.approx(np.exp(found["validation/token_nll"]))
    assert found["rollouts/codebook_use"] == 1.0


def test_the_tokenizer_is_copied_and_stays_as_it_is() -> None:
    config = small_config()
    torch.manual_seed(5)
    vae = config.fsq_vae.build()
    model = model_of(config)
    TokenModelTrainer(model, vae, config.training, config.seed).train(rewarded(counted_tokens([25] * 4)))
    for name, value in vae.state_dict().items():
        assert torch.equal(model.tokenizer.state_dict()[name], value)


def test_baselines_of_known_tokens() -> None:
    # 24 rows to train on, 0 0 1 1 0 0 1 1 ...; the first has no predecessor
    tokens = counted_tokens([24, 4])
    tokens.columns["observation.token"] = token = (np.arange(28) // 2 % 2).astype(np.int32)[:, None]
    tokens.columns["reward"] = np.ones(28, np.float32)
    tokens["reward"][24:] = 3
    found = baselines(tokens, [0], [1], codebook_size=4)
    # 23 rows, 11 of code 0 and 12 of code 1, one added to each of four
    shares = np.array([12, 13, 1, 1]) / 27
    stays = 13 / 25
    after, before = token[25:, 0], token[24:27, 0]
    wanted = -np.log(shares[after]).mean()
    assert found["baseline/marginal_nll"] == pytest.approx(wanted)
    assert found["baseline/marginal_accuracy"] == pytest.approx((after == 1).mean())
    same = -np.log(stays * (after == before) + (1 - stays) * shares[after]).mean()
    assert found["baseline/same_nll"] == pytest.approx(same)
    assert found["baseline/same_accuracy"] == pytest.approx((after == before).mean())
    assert found["baseline/reward_mse"] == pytest.approx(4.0)


def test_validation_does_not_depend_on_how_it_is_cut() -> None:
    """Cut into short pieces or long, the memory is carried over; one lane, so that no row is left out."""
    model = model_of(small_config()).eval()
    tokens = rewarded(counted_tokens([11, 9]))
    whole = held_out_metrics(model, tokens, [0, 1], 20, CPU)
    # two lanes for pieces of 10, one for 11
    pieces = held_out_metrics(model, tokens, [0, 1], 11, CPU)
    assert pieces == pytest.approx(whole, rel=1e-4)


def test_a_resumed_training_is_one_never_stopped(tmp_path: Path) -> None:
    config = small_config()
    tokens = rewarded(counted_tokens([25] * 6))
    training, _ = split_rollouts(6, config.training.validation_share, config.seed)
    per_epoch = len(list(windows_end_to_end(tokens, training, 4, 6, 0, [0], CPU)))
    whole, trainer = trainer_of(config)
    wanted = trainer.train(tokens)
    saves = StageCheckpoint(tmp_path / "world_model.pt", "mark")
    with pytest.raises(Stopped):
        trainer_of(config)[1].train(tokens, saves, JobMonitor(stop=StopAfter(per_epoch + 2)))  # type: ignore[arg-type]
    resumed, trainer = trainer_of(config)
    assert trainer.train(tokens, saves) == wanted
    assert all(map(torch.equal, resumed.state_dict().values(), whole.state_dict().values()))
