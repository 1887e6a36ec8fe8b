"""commaVQ's networks by the command line: tokens to video and back, and dreams, from files and from runs."""

from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

import train.tokenizer.commavq_models as models
from agent.tokenizer.image_nets import FastNetConfig
from agent.tokenizer.token_codec import TokenCodecConfig
from agent.tokenizer.vqgan import VQGANConfig
from agent.world_model.token_sampling import Sampling
from agent.world_model.token_stream import commavq_gpt
from tests.agent.tokenizer.published_vqgan import published_decoder, published_encoder
from train.cli import main
from train.convert.recorded.commavq_tokens import read_token_frames, token_stream
from train.run.checkpoint import save_weights
from train.run.folder import Run
from train.tokenizer.pictures import open_pictures
from train.tokenizer.token_codec_config import TokenCodecTrainConfig
from train.tokenizer.train_token_codec import CODEC_JOB


def published_gpt(width: int = 64, layers: int = 1, context: int = 3 * 129) -> dict[str, Tensor]:
    """Weights with the names and shapes of commaVQ's GPT."""
    shapes = {
        "transformer.wte.weight": (1025, width),
        "transformer.wpe.weight": (context, width),
        "transformer.ln_f.weight": (width,),
        "transformer.ln_f.bias": (width,),
        "lm_head.weight": (1025, width),
    }
    matrices = {"attn.c_attn": (1, 3), "attn.c_proj": (1, 1), "mlp.c_fc": (1, 4), "mlp.c_proj": (4, 1)}
    for layer in range(layers):
        at = f"transformer.h.{layer}"
        for name in ("ln_1", "ln_2"):
            shapes |= {f"{at}.{name}.weight": (width,), f"{at}.{name}.bias": (width,)}
        for name, (inputs, outputs) in matrices.items():
            shapes[f"{at}.{name}.weight"] = (inputs * width, outputs * width)
            shapes[f"{at}.{name}.bias"] = (outputs * width,)
    return {name: torch.randn(shape) * 0.1 for name, shape in shapes.items()}


@pytest.fixture
def tokens(tmp_path: Path) -> NDArray[np.int16]:
    """Five frames, in tokens.npy."""
    frames = np.random.default_rng(0).integers(0, 7, (5, 128)).astype(np.int16)
    np.save(tmp_path / "tokens.npy", token_stream(frames))
    return frames


def test_commavqs_sizes_are_read_from_its_shapes() -> None:
    with torch.device("meta"):
        tensors = published_gpt(1024, 24, 2580)
    assert models.stream_config(tensors) == commavq_gpt()


def test_a_dream_of_published_weights(tmp_path: Path, tokens: NDArray[np.int16]) -> None:
    torch.manual_seed(0)
    torch.save(published_gpt(), tmp_path / "gpt.bin")
    command = ["commavq", "dream", str(tmp_path / "gpt.bin"), "--tokens", str(tmp_path / "tokens.npy")]
    command += ["--frames", "2", "--top-k", "3", "--device", "cpu", "--output"]
    assert main([*command, str(tmp_path / "a.npy")]) == main([*command, str(tmp_path / "b.npy")]) == 0
    assert main([*command, str(tmp_path / "c.npy"), "--seed", "1"]) == 0
    one, again, other = (read_token_frames(tmp_path / f"{name}.npy") for name in "abc")
    assert one.shape == (2, 128) and np.array_equal(one, again) and not np.array_equal(one, other)
    stream = models.load_stream(tmp_path / "gpt.bin", torch.device("cpu"))
    start = torch.from_numpy(tokens.astype(np.int64)).unsqueeze(0)
    wanted = stream.generate(start, 2, Sampling(top_k=3), 1024, torch.Generator().manual_seed(0))
    np.testing.assert_array_equal(one, wanted.squeeze(0).numpy())


@pytest.fixture
def published(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with decoder.bin and encoder.bin of a smaller VQGAN, for pictures of 16x32."""
    small = VQGANConfig(channels=4, multipliers=[1, 2], code_size=6, codebook_size=7, groups=2)
    monkeypatch.setattr(models, "VQGANConfig", lambda: small)
    monkeypatch.setattr(models, "GRID", (1, 2))
    torch.save(published_decoder(), tmp_path / "decoder.bin")
    torch.save(published_encoder(), tmp_path / "encoder.bin")
    return tmp_path


def test_published_weights_draw_and_tell(published: Path, tokens: NDArray[np.int16]) -> None:
    at = ["--device", "cpu", "--output"]
    command = ["commavq", "decode", str(published / "decoder.bin"), "--tokens", str(published / "tokens.npy")]
    assert main([*command, *at, str(published / "a.mp4")]) == 0
    assert len(open_pictures(published / "a.mp4", 16, 32, published / "cache")) == len(tokens)
    command = ["commavq", "encode", str(published / "encoder.bin"), "--video", str(published / "a.mp4")]
    assert main([*command, *at, str(published / "b.npy")]) == 0
    told = read_token_frames(published / "b.npy")
    assert told.shape == tokens.shape and told.max() < 7


def test_a_run_draws_and_tells(tmp_path: Path, tokens: NDArray[np.int16]) -> None:
    config = TokenCodecConfig(code_size=4, net=FastNetConfig(channels=[4, 4, 8], blocks=1))
    run = Run.create(tmp_path / "run", CODEC_JOB, TokenCodecTrainConfig(codec=config))
    save_weights(run.path, config.build().state_dict(), {"codec": config.model_dump(mode="json")})
    at = ["--device", "cpu", "--output"]
    command = ["commavq", "decode", str(run.path), "--tokens", str(tmp_path / "tokens.npy")]
    assert main([*command, *at, str(tmp_path / "a.mp4")]) == 0
    command = ["commavq", "encode", str(run.path), "--video", str(tmp_path / "a.mp4")]
    assert main([*command, *at, str(tmp_path / "b.npy")]) == 0
    assert read_token_frames(tmp_path / "b.npy").shape == tokens.shape


def test_what_does_not_fit_is_one_line(
    tmp_path: Path, tokens: NDArray[np.int16], capsys: pytest.CaptureFixture[str]
) -> None:
    torch.save(published_encoder(), tmp_path / "small.bin")
    torch.save(published_gpt() | {"transformer.wte.weight": torch.zeros(9, 64)}, tmp_path / "few.bin")
    inputs, out = ["--tokens", str(tmp_path / "tokens.npy")], ["--output", str(tmp_path / "x")]
    small, few = str(tmp_path / "small.bin"), str(tmp_path / "few.bin")
    for command, said in (
        (
            ["decode", small, *inputs, *out],
            "small.bin: VQGAN weights: codebook.weight is [7, 6]: expected",
        ),
        (["decode", str(tmp_path), *inputs, *out], "run.json"),
        (["dream", small, *inputs, *out], "small.bin: no transformer.wte.weight"),
        (["dream", few, *inputs, *out], "few.bin: 9 kinds of tokens: expected 1025"),
        (["dream", few, *inputs, *out, "--temperature", "0"], "--temperature 0"),
        (["dream", few, *inputs, "--output", str(tmp_path / "no" / "x")], "expected a file in a folder"),
    ):
        assert main(["commavq", *command, "--device", "cpu"]) == 1
        told = capsys.readouterr().err
        assert said in told and told.count("\n") == 1, told
    assert not (tmp_path / "x").exists()
