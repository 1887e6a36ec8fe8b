"""Compressing and decompressing tokens, end to end through the command line."""

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from agent.tokenizer.fsq_vae import FSQVAEConfig
from agent.world_model.attention import BlockConfig
from agent.world_model.encoder import ObservationShapes
from agent.world_model.lstm import LSTMConfig
from agent.world_model.transformer import TransformerConfig
from train.cli import main
from train.drive.descriptions import WORLD_MODEL_JOB, ModelDescription
from train.run.checkpoint import save_weights
from train.run.folder import Run
from train.tokenizer.compression.compress import compress_tokens, decompress_tokens, square_grid
from train.tokenizer.compression.fixed_point import Ints
from train.tokenizer.compression.machine import MachineNotes
from train.tokenizer.compression.online_transformer import OnlineTransformer, OnlineTransformerConfig
from train.tokenizer.compression.predictor import Predictor
from train.tokenizer.compression.token_file import read_token_file

TOKENIZER = FSQVAEConfig(image_size=16, channels=[4, 8], latent_dim=8, fsq_levels=[4, 3], grid=4)
MODEL = TransformerConfig(
    kind="transformer",
    tokenizer=TOKENIZER,
    blocks=BlockConfig(width=16, layers=2, heads=2),
    window=4,
    units=8,
)
DTYPES = ["|u1", "|i1", "<u2", ">u2", "<i2", "<i4", ">i4", "<u4", "<i8", "<u8"]


@st.composite
def token_arrays(draw: st.DrawFn) -> NDArray[np.integer]:
    """Arrays (T, G) or (T, rows, columns) of integers."""
    shape = draw(st.lists(st.integers(1, 4), min_size=1, max_size=2))
    count = draw(st.integers(0, 6))
    codes = draw(st.sampled_from([1, 2, 3, 100]))
    random = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    array = random.integers(0, codes, (count, *shape)).astype(draw(st.sampled_from(DTYPES)))
    return np.asfortranarray(array) if draw(st.booleans()) else array


@settings(max_examples=25, deadline=None)
@given(array=token_arrays())
def test_round_trip_of_any_small_array(
    tmp_path_factory: pytest.TempPathFactory, array: NDArray[np.integer]
) -> None:
    folder = tmp_path_factory.mktemp("trip")
    made = compress_tokens(array, folder / "a.dd")
    assert made.tokens == array.size and made.bytes == (folder / "a.dd").stat().st_size
    assert decompress_tokens(folder / "a.dd", folder / "b.npy") == array.shape
    back = np.load(folder / "b.npy")
    assert np.array_equal(back, array) and back.dtype == array.dtype


@pytest.mark.parametrize(("places", "grid"), [(128, (8, 16)), (16, (4, 4)), (7, (1, 7)), (1, (1, 1))])
def test_square_grid(places: int, grid: tuple[int, int]) -> None:
    assert square_grid(places) == grid


@pytest.fixture
def tokens(tmp_path: Path) -> Path:
    """A file of tokens (20, 12) of 50 codes."""
    path = tmp_path / "tokens.npy"
    np.save(path, np.random.default_rng(0).integers(0, 50, (20, 12)).astype(np.uint16))
    return path


def test_commands(tokens: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    small, back = tmp_path / "small.dd", tmp_path / "back.npy"
    words = ["compress", "portable", "--tokens", str(tokens), "--output", str(small)]
    assert main([*words, "--grid", "2x6", "--codes", "64", "--rate", "20"]) == 0
    assert "240 tokens in" in capsys.readouterr().out
    header, _ = read_token_file(small)
    assert (header.kind, header.grid, header.codes, header.rate) == ("portable", (2, 6), 64, 20.0)
    assert main(["decompress", str(small), "--output", str(back)]) == 0
    assert back.read_bytes() == tokens.read_bytes()


@pytest.mark.parametrize(
    ("array", "options", "said"),
    [
        (np.zeros((2, 3)), [], "dtype float64, expected integers"),
        (np.zeros((2, 3), bool), [], "dtype bool, expected integers"),
        (np.zeros(4, np.int64), [], "expected (frames, tokens)"),
        (np.array([[1, -2]]), [], "a token of -2, expected codes from 0"),
        (np.array([[1, 64]]), ["--codes", "64"], "a token of 64, expected codes from 0 to 63"),
        (np.array([[1, 70000]]), [], "a token of 70000, expected codes from 0 to 65534"),
        (np.zeros((2, 12), int), ["--grid", "2x5"], "12 tokens do not fit a grid of 2x5"),
        (np.zeros((2, 3, 4), int), ["--grid", "4x3"], "frames of 3x4 tokens, but --grid"),
        (np.zeros((3, 0), int), [], "frames of no tokens"),
        (np.zeros((1, 70000), int), [], "70,000 tokens, expected at most"),
        (b"no array", [], "not a .npy file of tokens"),
        (None, [], "cannot read"),
    ],
)
def test_bad_tokens_are_one_line_and_leave_nothing(
    array: NDArray[np.integer] | bytes | None,
    options: list[str],
    said: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    path = tmp_path / "a.npy"
    if isinstance(array, bytes):
        path.write_bytes(array)
    elif array is not None:
        np.save(path, array)
    words = ["compress", "portable", "--tokens", str(path), "--output", str(tmp_path / "a.dd"), *options]
    assert main(words) == 1
    error = capsys.readouterr().err
    assert said in error and error.count("\n") == 1
    assert [one.name for one in tmp_path.iterdir() if one != path] == []


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda whole: whole[:-4], "checksum"),
        (lambda whole: whole[:-1], "checksum"),
        (lambda whole: whole[:40], "its header is missing"),
        (lambda whole: whole[:9], "its header is missing"),
        (lambda whole: b"RIFF" + whole[4:], "not a file of compressed tokens"),
        (lambda whole: b"", "not a file of compressed tokens"),
        (lambda whole: whole[:-6] + bytes([whole[-6] ^ 1]) + whole[-5:], "checksum"),
        (lambda whole: whole.replace(b'"version":1', b'"version":9'), "header: version"),
        (lambda whole: whole.replace(b'"grid":[3,4]', b'"grid":[4,4]'), "does not fit grid"),
        (lambda whole: whole.replace(b'"codes":50', b'"codes":51'), "damaged"),
        (lambda whole: whole.replace(b'"kind"', b'"sort"'), "header: sort"),
        (lambda whole: whole.replace(b'{"', b'["', 1), "no JSON"),
    ],
)
def test_damaged_files_are_one_line_and_leave_nothing(
    damage: object, said: str, tokens: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "a.dd"
    compress_tokens(np.load(tokens), path)
    assert callable(damage)
    path.write_bytes(damage(path.read_bytes()))
    assert main(["decompress", str(path), "--output", str(tmp_path / "b.npy")]) == 1
    error = capsys.readouterr().err
    assert said in error and str(path) in error and error.count("\n") == 1
    assert not (tmp_path / "b.npy").exists()


def test_bad_outputs_are_found_before_the_work(
    tokens: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for output in (tmp_path, tmp_path / "nowhere" / "a.dd"):
        assert main(["compress", "portable", "--tokens", str(tokens), "--output", str(output)]) == 1
        assert "expected a file in a folder" in capsys.readouterr().err


TINY = OnlineTransformerConfig(width=16, layers=2, heads=2, every=4, steps=1, sequences=2, frames=4, window=4)


@pytest.fixture
def networked(tokens: Path, tmp_path: Path) -> Path:
    """The tokens, compressed with a network."""
    compress_tokens(np.load(tokens), tmp_path / "n.dd", Predictor(TINY), rate=5)
    return tmp_path / "n.dd"


def test_with_a_network(networked: Path, tokens: Path, tmp_path: Path) -> None:
    header, _ = read_token_file(networked)
    assert header.kind == "network" and header.machine == MachineNotes.here()
    assert header.checks_every == 5 and len(header.checks) == 2 * 4
    decompress_tokens(networked, tmp_path / "b.npy")
    assert (tmp_path / "b.npy").read_bytes() == tokens.read_bytes()


def test_the_network_command(tokens: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    few = tmp_path / "few.npy"
    np.save(few, np.load(tokens)[:3])
    assert main(["compress", "network", "--tokens", str(few), "--output", str(tmp_path / "few.dd")]) == 0
    assert f"decode only with PyTorch {torch.__version__}" in capsys.readouterr().err
    assert main(["decompress", str(tmp_path / "few.dd"), "--output", str(tmp_path / "b.npy")]) == 0
    assert (tmp_path / "b.npy").read_bytes() == few.read_bytes()


def test_another_machine_is_said_before_it_begins(
    networked: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    there = MachineNotes(torch="1.0 abc", threads=2, processor=MachineNotes.here().processor)
    monkeypatch.setattr(MachineNotes, "here", lambda: there)
    monkeypatch.setattr(OnlineTransformer, "probability", lambda self: pytest.fail("it began"))
    assert main(["decompress", str(networked), "--output", str(tmp_path / "b.npy")]) == 1
    said = capsys.readouterr().err
    assert "(here 1.0 abc)" in said and "threads 1 (here 2)" in said and said.count("\n") == 1
    assert not (tmp_path / "b.npy").exists()


def test_the_first_second_that_differs_stops_it(
    networked: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    probability, frames = OnlineTransformer.probability, set[int]()

    def other(self: OnlineTransformer) -> Ints:
        frames.add(self.count)
        return np.roll(probability(self), self.count >= 7, 1)

    monkeypatch.setattr(OnlineTransformer, "probability", other)
    assert main(["decompress", str(networked), "--output", str(tmp_path / "b.npy")]) == 1
    said = capsys.readouterr().err
    assert "frames 5 to 9 fail their check" in said and max(frames) <= 9
    assert not (tmp_path / "b.npy").exists()


def trained_run(folder: Path, seed: int, model: TransformerConfig | LSTMConfig = MODEL) -> Path:
    """A run of a world model over frames of 4x4 tokens of 12 codes, with random weights."""
    torch.manual_seed(seed)
    description = ModelDescription(world_model=model)
    Run.create(folder, WORLD_MODEL_JOB, description)
    shapes: ObservationShapes = {"token": (16,)}
    meta = {**description.meta(), "observations": {"token": [16]}, "action_size": 2}
    save_weights(folder, model.build(shapes, 2).state_dict(), meta)
    return folder


def test_with_a_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run, other = trained_run(tmp_path / "run", 0), trained_run(tmp_path / "other", 1)
    tokens, small, back = tmp_path / "t.npy", tmp_path / "t.dd", tmp_path / "b.npy"
    np.save(tokens, np.random.default_rng(0).integers(0, 12, (6, 4, 4)).astype(np.uint8))
    assert main(["compress", str(run), "--tokens", str(tokens), "--output", str(small)]) == 0
    assert "decode only with PyTorch" in capsys.readouterr().err
    header, _ = read_token_file(small)
    assert (header.kind, header.codes) == ("run", 12)
    decode = ["decompress", str(small), "--output", str(back)]
    for words, said in (([], "--run RUN must name it"), (["--run", str(other)], "not the run that")):
        assert main([*decode, *words]) == 1
        assert said in capsys.readouterr().err and not back.exists()
    assert main([*decode, "--run", str(run)]) == 0
    assert back.read_bytes() == tokens.read_bytes()


def test_runs_that_do_not_fit(tokens: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lstm = LSTMConfig(kind="lstm", tokenizer=TOKENIZER, embedding=8, hidden_size=16)
    runs = {
        str(tmp_path / "nowhere"): "nowhere",
        str(trained_run(tmp_path / "lstm", 0, lstm)): "no transformer over tokens",
        str(
            trained_run(tmp_path / "run", 0)
        ): "frames of 16 tokens of 12 codes; these are frames of 12 tokens",
    }
    for run, said in runs.items():
        words = ["--tokens", str(tokens), "--output", str(tmp_path / "a.dd")]
        codes = [] if "lstm" in run else ["--codes", "50"]
        assert main(["compress", run, *words, *codes]) == 1
        error = capsys.readouterr().err
        assert said in error and not (tmp_path / "a.dd").exists()


def test_two_seconds_of_commavq(recorded_data: Path, tmp_path: Path) -> None:
    """The first two seconds of the minute, as much as a test has time for."""
    array = np.load(recorded_data / "commavq" / "tokens.npy")[:40]
    made = compress_tokens(array, tmp_path / "a.dd", codes=1024, rate=20)
    assert made.ratio > 1.7
