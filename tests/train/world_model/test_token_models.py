"""World models over tokens learn from recorded episodes by the same job: tokens, resume, use by others."""

from pathlib import Path
from typing import Any

import pytest
import torch

from agent.tokenizer.fsq_vae import FSQVAEConfig
from agent.world_model.transformer import TransformerWorldModel
from tests.train.tokenizer.token_runs import episode_folder, tokenizer_run
from tests.train.world_model.small import config, write_drives
from train.cli import main
from train.drive.agents import load_world_model
from train.drive.descriptions import TOKENIZER_JOB, TokenizerDescription
from train.drive.tokenizers import load_tokenizer, tokenizer_fingerprint
from train.run.checkpoint import load_checkpoint, save_weights
from train.run.errors import DreamdriveError
from train.run.folder import Run
from train.tokenizer.tokenise import tokenise
from train.world_model.config import WorldModelTrainConfig
from train.world_model.token_data import threads_for
from train.world_model.trainer import WorldModelTrainer, train_world_model

TOKENIZER = FSQVAEConfig(image_size=16, channels=[4, 8], latent_dim=8, fsq_levels=[4, 3], grid=4)
TRANSFORMER = {
    "kind": "transformer",
    "blocks": {"width": 16, "layers": 2, "heads": 2},
    "window": 4,
    "units": 8,
    "head": {"kind": "at_once", "token": {"kind": "digits", "units": 8}},
}
LSTM = {"kind": "lstm", "embedding": 8, "hidden_size": 16, "units": 8}
MODELS = {"transformer": TRANSFORMER, "lstm": LSTM}


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tokenizer's run, with random weights."""
    path = tmp_path_factory.mktemp("tokenizer") / "run"
    torch.manual_seed(3)
    description = TokenizerDescription(tokenizer=TOKENIZER)
    Run.create(path, TOKENIZER_JOB, description)
    weights = TOKENIZER.build().state_dict()
    save_weights(path, {f"tokenizer.{n}": value for n, value in weights.items()}, description.meta())
    return path


def options(tmp_path: Path, run: Path, model: str, **changed: Any) -> WorldModelTrainConfig:
    data = write_drives(tmp_path / "data", [20, 24, 28])
    values = {"model": MODELS[model], "tokenizer": str(run), "workers": 0, **changed}
    return config(data, tmp_path / values.pop("name", "run"), **values)


@pytest.mark.parametrize("model", sorted(MODELS))
def test_tokens_are_learnt_and_dreamt(model: str, tokenizer: Path, tmp_path: Path) -> None:
    found = train_world_model(options(tmp_path, tokenizer, model, num_epochs=12, learning_rate=1e-2))
    assert found["validation/loss/token"] < 2.3
    assert {"validation/psnr", "validation/psnr_repeat", "validation/loss/value"} <= set(found)
    run = tmp_path / "run"
    assert list((run / "pictures").glob("filmstrip_epoch_*.png"))
    loaded = load_world_model(run, "cpu")
    own = load_tokenizer(tokenizer, "cpu").tokenizer
    inside = load_tokenizer(run, "cpu").tokenizer
    assert tokenizer_fingerprint(own) == tokenizer_fingerprint(inside)
    assert loaded.shapes == {"image": (3, 16, 16)}
    dream = loaded.world_model.imagine_along(loaded.world_model.initial(2), torch.zeros(2, 3, 3))
    assert loaded.world_model.decode(dream.states)["image"].shape == (2, 4, 3, 16, 16)


def test_other_commands_take_the_run(tokenizer: Path, tmp_path: Path) -> None:
    train_world_model(options(tmp_path, tokenizer, "transformer"))
    words = ["imagine", str(tmp_path / "run"), "--episode", str(tmp_path / "data" / "drive_002.npz")]
    assert main([*words, "--context", "4", "--horizon", "6"]) == 0
    assert list((tmp_path / "run" / "pictures").rglob("*.png"))


@pytest.mark.parametrize("model", sorted(MODELS))
def test_a_resumed_run_is_the_run_that_was_never_stopped(model: str, tokenizer: Path, tmp_path: Path) -> None:
    whole = options(tmp_path, tokenizer, model, name="whole", num_epochs=2)
    train_world_model(whole)
    train_world_model(options(tmp_path, tokenizer, model, name="parts", num_epochs=1))
    train_world_model(options(tmp_path, tokenizer, model, name="parts", num_epochs=2), resume=True)
    one, other = (
        load_checkpoint(tmp_path / name / "checkpoint.pt")["world_model"] for name in ("whole", "parts")
    )
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_the_tokenizer_stays_and_the_heads_learn(tokenizer: Path, tmp_path: Path) -> None:
    cfg = options(tmp_path, tokenizer, "transformer")
    train_world_model(cfg)
    model = load_world_model(tmp_path / "run", "cpu").world_model
    assert isinstance(model, TransformerWorldModel)
    assert not any(p.requires_grad for p in model.tokenizer.parameters())
    assert float(model.value_head.net[-1].weight.abs().sum()) > 0


def test_rates_and_threads_follow_the_size(tokenizer: Path, tmp_path: Path) -> None:
    cfg = options(tmp_path, tokenizer, "transformer", base_width=8, warmup_steps=0, decay_from=0.5)
    learner = WorldModelTrainer(cfg).learner
    learner.total = 100
    rates = []
    for step in (0, 50, 75, 100):
        learner.step = step
        rates.append(learner.learning_rate / cfg.learning_rate)
    assert rates == pytest.approx([0.5, 0.5, 0.5 * (0.05 + 0.95 / 2), 0.5 * 0.05])
    assert cfg.model is not None and threads_for(cfg.model) == 1


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"tokenizer": ""}, "tokenizer: missing, expected a run of `dreamdrive train tokenizer`"),
        ({"tokenizer": "nowhere"}, "nowhere"),
        ({"action_dim": 2}, "actions of 3 numbers, expected action_dim 2"),
    ],
)
def test_what_does_not_fit_is_one_line(
    changed: dict[str, Any], said: str, tokenizer: Path, tmp_path: Path
) -> None:
    with pytest.raises(DreamdriveError, match=said):
        train_world_model(options(tmp_path, tokenizer, "transformer", **changed))
    assert not (tmp_path / "run").exists()


def test_pictures_of_another_size_are_named(tokenizer: Path, tmp_path: Path) -> None:
    data = write_drives(tmp_path / "large", [20, 24], size=32)
    with pytest.raises(
        DreamdriveError, match="drive_000.npz: RGB pictures of 32x32 px, expected RGB of 16x16 px"
    ):
        train_world_model(options(tmp_path, tokenizer, "transformer", data_path=str(data)))


def test_a_folder_of_tokens_has_its_own_tokenizer(tokenizer: Path, tmp_path: Path) -> None:
    data, tokens = write_drives(tmp_path / "data", [20, 24, 28]), tmp_path / "tokens"
    tokenise(tokenizer, data, tokens, 10.0, "cpu")
    train_world_model(options(tmp_path, tokenizer, "transformer", name="pictures"))
    from_tokens = {"tokenizer": "", "data_path": str(tokens)}
    train_world_model(options(tmp_path, tokenizer, "transformer", name="tokens", **from_tokens))
    one, other = (
        load_checkpoint(tmp_path / name / "checkpoint.pt")["world_model"] for name in ("pictures", "tokens")
    )
    assert all(torch.equal(one[name], other[name]) for name in one)
    # Its dreams begin at files of either.
    for episode in (data / "drive_002.npz", tokens / "drive_002.npz"):
        words = ["imagine", str(tmp_path / "tokens"), "--episode", str(episode), "--context", "4"]
        assert main([*words, "--horizon", "6", "--output", str(tmp_path / "dream")]) == 0


def test_tokens_of_another_tokenizer_are_refused(tokenizer: Path, tmp_path: Path) -> None:
    tokens = tmp_path / "tokens"
    tokenise(tokenizer_run(tmp_path / "other"), episode_folder(tmp_path / "data"), tokens, 10.0, "cpu")
    with pytest.raises(DreamdriveError, match="data_path .*tokens of another tokenizer"):
        train_world_model(options(tmp_path, tokenizer, "transformer", data_path=str(tokens)))
    (tokens / "tokenizer.json").unlink()
    with pytest.raises(DreamdriveError, match="tokenizer.json is missing"):
        train_world_model(options(tmp_path, tokenizer, "transformer", data_path=str(tokens), tokenizer=""))


def test_a_tokenizer_without_a_model_over_tokens_is_refused() -> None:
    with pytest.raises(ValueError, match="expected a `model` that reads tokens"):
        WorldModelTrainConfig(tokenizer="somewhere")
