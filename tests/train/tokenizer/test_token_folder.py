"""Folders of tokens: what is written is read, and everything that does not fit is one line."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from agent.world_model.lstm import LSTMConfig
from tests.agent.tiny import tiny_rssm
from tests.train.data.test_episodes import assert_same
from tests.train.tokenizer.token_runs import CODES, COLUMNS, ROWS, drive, tokenizer_run
from train.data.episodes import Episode, write_episode
from train.drive.tokenizers import load_tokenizer, tokenizer_fingerprint
from train.run.errors import DreamdriveError
from train.tokenizer.token_folder import NOTES, TokenFolder, TokenNotes, read_for_model, written_tokens

G = ROWS * COLUMNS


def of_tokens(seed: int, steps: int = 5, tokens: int = G, codes: int = CODES) -> Episode:
    episode = drive(seed, steps)
    token = np.random.default_rng(seed).integers(codes, size=(steps + 1, tokens)).astype(np.int32)
    return replace(episode, observations={"speed": episode.observations["speed"], "token": token})


def folder_of_tokens(path: Path, notes: TokenNotes | None = None) -> Path:
    notes = notes or TokenNotes(grid=(ROWS, COLUMNS), codebook_size=CODES)
    with written_tokens(path, notes, None) as writer:
        for number in range(2):
            writer.write(f"drive_{number}", of_tokens(number))
    return path


@given(
    rows=st.integers(1, 3),
    columns=st.integers(1, 3),
    codes=st.sampled_from([1, 2, 1024, 2**16, 2**16 + 1, 2**31 - 1]),
    fps=st.none() | st.floats(0.1, 100),
    lengths=st.lists(st.integers(1, 4), min_size=1, max_size=3),
    group=st.sampled_from(["", "train/"]),
)
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_what_is_written_is_read(
    tmp_path_factory: pytest.TempPathFactory,
    rows: int,
    columns: int,
    codes: int,
    fps: float | None,
    lengths: list[int],
    group: str,
) -> None:
    path = tmp_path_factory.mktemp("tokens")
    notes = TokenNotes(grid=(rows, columns), codebook_size=codes, fps=fps)
    written = [of_tokens(seed, length, rows * columns, codes) for seed, length in enumerate(lengths)]
    written[0].observations["token"][0, 0] = codes - 1
    with written_tokens(path, notes, None) as writer:
        for number, episode in enumerate(written):
            assert not writer.has(f"{group}{number}")
            writer.write(f"{group}{number}", episode)
            assert writer.has(f"{group}{number}")
    folder = TokenFolder(path)
    assert folder.notes == notes and len(folder) == len(written)
    for found, episode in zip(folder, written, strict=True):
        assert_same(found, episode)


def test_the_tokenizer_travels_with_its_tokens(tmp_path: Path) -> None:
    tokenizer = load_tokenizer(tokenizer_run(tmp_path / "run"), "cpu").tokenizer
    with written_tokens(tmp_path / "tokens", TokenNotes.of(tokenizer, 5.0), tokenizer) as writer:
        writer.write("one", of_tokens(0))
    folder = TokenFolder(tmp_path / "tokens")
    own = folder.tokenizer("cpu")
    assert tokenizer_fingerprint(own) == folder.notes.fingerprint == tokenizer_fingerprint(tokenizer)
    tokens = torch.from_numpy(folder.read(0).observations["token"])
    assert torch.equal(own.decode(own.codes(tokens)), tokenizer.decode(tokenizer.codes(tokens)))


def test_a_fingerprint_tells_weights_and_sizes_apart(tmp_path: Path) -> None:
    runs = [
        tokenizer_run(tmp_path / "a"),
        tokenizer_run(tmp_path / "b", seed=1),
        tokenizer_run(tmp_path / "c", fsq_levels=[4, 5, 3]),
        tokenizer_run(tmp_path / "d", width=48),
        tokenizer_run(tmp_path / "e", save_memory=True),
    ]
    found = [tokenizer_fingerprint(load_tokenizer(run, "cpu").tokenizer) for run in runs]
    # How it learns does not matter.
    assert len(set(found)) == 4 and found[0] == found[4]


def test_tokens_that_are_not_as_noted_are_not_written(tmp_path: Path) -> None:
    notes = TokenNotes(grid=(ROWS, COLUMNS), codebook_size=CODES)
    too_large = of_tokens(0)
    too_large.observations["token"][3, 2] = CODES
    with written_tokens(tmp_path, notes, None) as writer:
        with pytest.raises(
            DreamdriveError, match=f"one.npz: 'token': {CODES} in row 3, expected codes from 0"
        ):
            writer.write("one", too_large)
        with pytest.raises(DreamdriveError, match="one.npz: 'token': 3 a picture, expected 8 as tokens.json"):
            writer.write("one", of_tokens(0, tokens=3))
        with pytest.raises(DreamdriveError, match="observations .'image', 'speed'., expected 'token'"):
            writer.write("one", drive(0))
        assert not writer.has("one")


def test_codes_out_of_range_are_found_by_a_reader(tmp_path: Path) -> None:
    folder_of_tokens(tmp_path)
    wrong = of_tokens(0)
    wrong.observations["token"][2, 1] = 5000
    write_episode(tmp_path / "drive_1.npz", wrong)
    folder = TokenFolder(tmp_path)
    folder.read(0)
    with pytest.raises(
        DreamdriveError, match="drive_1.npz: 'token': 5000 in row 2, expected codes from 0 to 59"
    ):
        folder.read(1)


def test_a_cut_file_is_one_line(tmp_path: Path) -> None:
    folder_of_tokens(tmp_path)
    data = (tmp_path / "drive_0.npz").read_bytes()
    for length in (0, 10, len(data) // 2, len(data) - 1):
        (tmp_path / "drive_0.npz").write_bytes(data[:length])
        with pytest.raises(DreamdriveError, match="drive_0.npz"):
            TokenFolder(tmp_path).read(0)


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (lambda text: "", "tokens.json: broken"),
        (lambda text: text[:40], "tokens.json: broken"),
        (lambda text: text.replace('"format": 1', '"format": 2'), "tokens.json: broken.*format"),
        (lambda text: text.replace("60", '"many"'), "tokens.json: broken.*codebook_size"),
        (lambda text: text.replace('"fps": null', '"fps": -1'), "tokens.json: broken.*fps"),
        (lambda text: text.replace('"fps"', '"rate"'), "tokens.json: broken.*rate"),
        (lambda text: text.replace("2,", "0,"), "grid .0, 4.: expected rows and columns"),
    ],
)
def test_broken_notes_are_one_line(tmp_path: Path, change: Callable[[str], str], complaint: str) -> None:
    folder_of_tokens(tmp_path)
    (tmp_path / NOTES).write_text(change((tmp_path / NOTES).read_text()))
    with pytest.raises(DreamdriveError, match=complaint) as caught:
        TokenFolder(tmp_path)
    assert "\n" not in str(caught.value)


def test_what_is_no_folder_of_tokens_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(DreamdriveError, match="nowhere: no tokens.json in it"):
        TokenFolder(tmp_path / "nowhere")
    with pytest.raises(DreamdriveError, match="no tokens.json in it"):
        TokenFolder(tmp_path)
    folder_of_tokens(tmp_path)
    for path in tmp_path.glob("*.npz"):
        path.unlink()
    with pytest.raises(DreamdriveError, match="no episode"):
        TokenFolder(tmp_path)


def test_a_folder_with_other_things_is_not_written_to(tmp_path: Path) -> None:
    notes = TokenNotes(grid=(ROWS, COLUMNS), codebook_size=CODES)
    folder_of_tokens(tmp_path / "tokens")
    other = notes.model_copy(update={"fps": 3.0})
    with (
        pytest.raises(DreamdriveError, match="was made with fps None, expected 3.0; give another"),
        written_tokens(tmp_path / "tokens", other, None),
    ):
        pass
    (tmp_path / "pictures").mkdir()
    write_episode(tmp_path / "pictures" / "one.npz", drive(0))
    with (
        pytest.raises(DreamdriveError, match="has other episodes, expected an empty folder"),
        written_tokens(tmp_path / "pictures", notes, None),
    ):
        pass
    assert sorted(p.name for p in (tmp_path / "pictures").iterdir()) == ["one.npz"]
    again = written_tokens(tmp_path / "new", notes, None)
    with written_tokens(tmp_path / "new", notes, None), pytest.raises(DreamdriveError, match="in use"), again:
        pass


def test_a_damaged_copy_of_the_tokenizer_is_found(tmp_path: Path) -> None:
    tokenizer = load_tokenizer(tokenizer_run(tmp_path / "run"), "cpu").tokenizer
    with written_tokens(tmp_path / "tokens", TokenNotes.of(tokenizer, None), tokenizer) as writer:
        writer.write("one", of_tokens(0))
    weights = tmp_path / "tokens" / "tokenizer.safetensors"
    data = weights.read_bytes()
    weights.write_bytes(data[:-1])
    with pytest.raises(DreamdriveError, match="tokenizer.safetensors: is damaged"):
        TokenFolder(tmp_path / "tokens").tokenizer("cpu")
    weights.write_bytes(data)
    notes = json.loads((tmp_path / "tokens" / NOTES).read_text())
    (tmp_path / "tokens" / NOTES).write_text(json.dumps(notes | {"fingerprint": "0" * 64}))
    with pytest.raises(DreamdriveError, match="tokens of another tokenizer .fingerprint 00000000., expected"):
        TokenFolder(tmp_path / "tokens").tokenizer("cpu")


def test_tokens_without_a_tokenizer_cannot_be_decoded(tmp_path: Path) -> None:
    with pytest.raises(DreamdriveError, match="tokens without a tokenizer, expected one.*--tokenizer RUN"):
        TokenFolder(folder_of_tokens(tmp_path)).tokenizer("cpu")


def test_a_world_model_reads_the_tokens_of_its_own_tokenizer_only(tmp_path: Path) -> None:
    trained = load_tokenizer(tokenizer_run(tmp_path / "run"), "cpu")
    model = LSTMConfig(tokenizer=trained.config, embedding=4, hidden_size=6, units=4).build(
        {"token": (G,)}, 2
    )
    model.tokenizer.load_state_dict(trained.tokenizer.state_dict())
    with written_tokens(
        tmp_path / "own", TokenNotes.of(trained.tokenizer, None), trained.tokenizer
    ) as writer:
        writer.write("train/one", of_tokens(0))
    assert_same(read_for_model(tmp_path / "own" / "train" / "one.npz", model), of_tokens(0))
    other = load_tokenizer(tokenizer_run(tmp_path / "other", seed=1), "cpu").tokenizer
    with written_tokens(tmp_path / "others", TokenNotes.of(other, None), other) as writer:
        writer.write("one", of_tokens(0))
    with pytest.raises(DreamdriveError, match="one.npz: tokens of another tokenizer .*the world model"):
        read_for_model(tmp_path / "others" / "one.npz", model)
    # A file alone says nothing of its tokenizer: its codes are compared at least.
    write_episode(tmp_path / "alone.npz", of_tokens(0, codes=2**15))
    with pytest.raises(DreamdriveError, match="alone.npz: 'token': .* expected codes from 0 to 59"):
        read_for_model(tmp_path / "alone.npz", model)
    write_episode(tmp_path / "pictures.npz", drive(1))
    assert_same(read_for_model(tmp_path / "pictures.npz", model), drive(1))


def test_a_world_model_of_pictures_reads_no_tokens(tmp_path: Path) -> None:
    write_episode(tmp_path / "one.npz", of_tokens(0))
    with pytest.raises(DreamdriveError, match="one.npz: an episode of tokens, expected pictures.*--decode"):
        read_for_model(tmp_path / "one.npz", tiny_rssm())
