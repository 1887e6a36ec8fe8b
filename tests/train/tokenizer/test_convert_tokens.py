"""Pictures to tokens and back through the command line, and tokens from outside."""

from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from tests.train.data.test_episodes import assert_same
from tests.train.tokenizer.token_runs import CODES, HEIGHT, WIDTH, drive, episode_folder, tokenizer_run
from train.cli import main
from train.data.episodes import read_episode, write_episode
from train.data.hdf5 import EpisodeFile
from train.drive.tokenizers import load_tokenizer
from train.tokenizer.token_folder import TokenFolder


def told(words: list[object], capsys: pytest.CaptureFixture[str], status: int = 0) -> str:
    """What a command says."""
    capsys.readouterr()
    assert main([str(word) for word in words]) == status
    found = capsys.readouterr()
    text = found.out if status == 0 else found.err
    assert status == 0 or (text.startswith("dreamdrive: error: ") and text.count("\n") == 1)
    return text


def test_there_and_back_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run, episodes = tokenizer_run(tmp_path / "run"), episode_folder(tmp_path / "episodes")
    tokens, back = tmp_path / "tokens", tmp_path / "back"
    words = ["tokenise", run, "--episodes", episodes, "--output", tokens, "--fps", "8", "--device", "cpu"]
    assert "3 episodes, 3 of them written now with 21 pictures of 2x4 tokens, 60 codes" in told(words, capsys)
    assert TokenFolder(tokens).notes.fps == 8
    tokenizer = load_tokenizer(run, "cpu").tokenizer
    assert "3 episodes, 3 of them" in told(
        ["convert", "tokens", tokens, "--decode", "--output", back], capsys
    )
    for path in sorted(episodes.glob("*.npz")):
        recorded, token, decoded = (read_episode(folder / path.name) for folder in (episodes, tokens, back))
        images = torch.from_numpy(recorded.observations["image"])
        np.testing.assert_array_equal(token.observations["token"], tokenizer.tokenize(images))
        painted = (tokenizer.decode(tokenizer.encode(images)) * 255).round().byte().numpy()
        np.testing.assert_array_equal(decoded.observations["image"], painted)
        # Nothing else has changed.
        recorded.observations["image"] = painted
        assert_same(decoded, recorded)


def test_a_stopped_job_goes_on(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run, episodes = tokenizer_run(tmp_path / "run"), episode_folder(tmp_path / "episodes")
    words = ["tokenize", run, "--episodes", episodes, "--output", tmp_path / "tokens"]
    told(words, capsys)
    files = sorted((tmp_path / "tokens").glob("*.npz"))
    whole = [file.read_bytes() for file in files]
    files[1].unlink()
    kept = files[0].stat().st_mtime_ns
    assert "3 episodes, 1 of them written now" in told(words, capsys)
    assert [file.read_bytes() for file in files] == whole and files[0].stat().st_mtime_ns == kept


def test_a_broken_episode_stops_the_job_and_leaves_whole_files(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run, episodes = tokenizer_run(tmp_path / "run"), episode_folder(tmp_path / "episodes")
    broken = episodes / "episode_000002.npz"
    broken.write_bytes(broken.read_bytes()[:-40])
    words = ["tokenise", run, "--episodes", episodes, "--output", tmp_path / "tokens"]
    assert str(broken) in told(words, capsys, 1)
    assert len(list(TokenFolder(tmp_path / "tokens"))) == 2


def test_sorted_folders_and_hdf5_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = tokenizer_run(tmp_path / "run")
    for group in ("train", "val"):
        episode_folder(tmp_path / "sorted" / group, 1)
    told(["tokenise", run, "--episodes", tmp_path / "sorted", "--output", tmp_path / "a"], capsys)
    assert TokenFolder(tmp_path / "a").episodes.groups == ["train", "val"]
    told(["convert", "tokens", tmp_path / "a", "--decode", "--output", tmp_path / "pictures"], capsys)
    assert (tmp_path / "pictures" / "val" / "episode_000000.npz").is_file()
    with EpisodeFile(tmp_path / "drives.h5", "a") as file:
        for number in range(11):
            file.append(drive(number, 1))
    told(["tokenise", run, "--episodes", tmp_path / "drives.h5", "--output", tmp_path / "b"], capsys)
    # In the order of the file.
    tracks = [int(episode.extras["track"]) for episode in TokenFolder(tmp_path / "b")]
    assert tracks == list(range(11))


def test_films(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run, episodes = tokenizer_run(tmp_path / "run"), episode_folder(tmp_path / "episodes", 1)
    told(["tokenise", run, "--episodes", episodes, "--output", tmp_path / "tokens"], capsys)
    words = ["convert", "tokens", tmp_path / "tokens", "--decode", "--video", "--output", tmp_path / "films"]
    assert "1 film, 1 of them written now" in told(words, capsys)
    assert b"ftyp" in (tmp_path / "films" / "episode_000000.mp4").read_bytes()[:16]
    assert "1 film, 0 of them written now" in told(words, capsys)


def test_pictures_that_do_not_fit(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = tokenizer_run(tmp_path / "run")
    words = ["tokenise", run, "--output", tmp_path / "tokens", "--episodes"]
    large = episode_folder(tmp_path / "large", size=(32, 32))
    assert "RGB pictures of 32x32 px, expected RGB of 16x32 px" in told([*words, large], capsys, 1)
    grey = drive(0)
    grey.observations["image"] = grey.observations["image"][:, :1]
    (tmp_path / "grey").mkdir()
    write_episode(tmp_path / "grey" / "one.npz", grey)
    assert "pictures of 1 channel of 16x32 px, expected RGB" in told([*words, tmp_path / "grey"], capsys, 1)
    del grey.observations["image"]
    write_episode(tmp_path / "grey" / "one.npz", grey)
    assert "observations ['speed'], expected pictures" in told([*words, tmp_path / "grey"], capsys, 1)
    assert "no such" in told([*words, tmp_path / "nowhere"], capsys, 1)
    # Nothing was begun.
    assert not (tmp_path / "tokens").exists()


def test_tokens_of_another_tokenizer(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run, other = tokenizer_run(tmp_path / "run"), tokenizer_run(tmp_path / "other", seed=1)
    episodes, tokens = episode_folder(tmp_path / "episodes"), tmp_path / "tokens"
    words = ["--episodes", episodes, "--output", tokens]
    told(["tokenise", run, *words], capsys)
    assert "was made with fingerprint" in told(["tokenise", other, *words], capsys, 1)
    decode = ["convert", "tokens", tokens, "--decode", "--output", tmp_path / "back"]
    assert "tokens of another tokenizer" in told([*decode, "--tokenizer", other], capsys, 1)
    told([*decode, "--tokenizer", run], capsys)
    assert "expected pictures" in told(["tokenise", run, *words[:1], tokens, "--output", tmp_path], capsys, 1)
    assert "no tokens.json" in told([*decode[:2], episodes, *decode[3:]], capsys, 1)
    assert "no weights yet" in told(["tokenise", _empty(tmp_path / "empty"), *words], capsys, 1)


def _empty(path: Path) -> Path:
    run = tokenizer_run(path)
    (run / "weights.safetensors").unlink()
    return run


def npy(path: Path, array: NDArray[np.generic]) -> Path:
    np.save(path, array)
    return path


def counted(*shape: int) -> NDArray[np.int16]:
    return (np.arange(np.prod(shape)) % CODES).reshape(shape).astype(np.int16)


def test_tokens_from_outside(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    a, b = npy(tmp_path / "a.token.npy", counted(5, 8, 16)), npy(tmp_path / "b.npy", counted(4, 128))
    text = told(["convert", "tokens", a, b, "--output", tmp_path / "tokens"], capsys)
    assert "2 episodes, 2 of them written now with 9 pictures of 8x16 tokens, 1,024 codes" in text
    assert "--decode will need --tokenizer RUN" in text
    folder = TokenFolder(tmp_path / "tokens")
    assert folder.notes.fps == 20 and folder.episodes.names == ["a.npz", "b.npz"]
    np.testing.assert_array_equal(folder.read(0).observations["token"], counted(5, 128))
    np.testing.assert_array_equal(folder.read(1).observations["token"], counted(4, 128))
    assert not folder.read(0).actions.any() and folder.read(0).actions.shape == (5, 3)
    words = ["convert", "tokens", tmp_path / "tokens", "--decode", "--output", tmp_path / "back"]
    assert "tokens without a tokenizer" in told(words, capsys, 1)
    run = tokenizer_run(tmp_path / "run")
    assert "8x16 tokens of 1,024 codes, expected 2x4 of 60" in told([*words, "--tokenizer", run], capsys, 1)


def test_tokens_from_outside_with_their_tokenizer(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run, file = tokenizer_run(tmp_path / "run"), npy(tmp_path / "a.npy", counted(5, 8))
    words = ["convert", "tokens", file, "--tokenizer", run, "--fps", "5", "--output", tmp_path / "tokens"]
    assert "1 episode, 1 of them" in told(words, capsys)
    told(["convert", "tokens", tmp_path / "tokens", "--decode", "--output", tmp_path / "back"], capsys)
    assert read_episode(tmp_path / "back" / "a.npz").observations["image"].shape == (5, 3, HEIGHT, WIDTH)
    assert TokenFolder(tmp_path / "tokens").notes.fps == 5


def test_poses_beside_tokens_become_actions(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = npy(tmp_path / "a.token.npy", counted(40, 128))
    pose = np.zeros((40, 6))
    pose[:, 0] = np.linspace(10, 14, 40)
    npy(tmp_path / "a.pose.npy", pose)
    for source, output in ((file, "one"), (tmp_path, "all")):
        told(["convert", "tokens", source, "--output", tmp_path / output], capsys)
        episode = TokenFolder(tmp_path / output).read(0)
        np.testing.assert_array_equal(episode.observations["token"], counted(40, 128))
        # It accelerates, straight on.
        assert (episode.actions[1:, 1] > 0).all() and not episode.actions[:, 0].any()


@pytest.mark.parametrize(
    ("array", "options", "complaint"),
    [
        (np.zeros((5, 8, 16)), [], "(5, 8, 16) float64, expected whole numbers"),
        (np.zeros(5, np.int32), [], "a stream of 5 tokens, expected a BOS"),
        (np.zeros((1, 8, 16), np.int32), [], "1 pictures, expected at least 2"),
        (np.full((5, 8, 16), -1), [], "-1 to -1, expected codes from 0 on"),
        (np.full((5, 8, 16), 1024), [], "'token': 1024 in row 0, expected codes from 0 to 1023"),
        (np.zeros((5, 6), np.int32), [], "6 tokens a picture, expected --grid ROWSxCOLUMNS, too"),
        (np.zeros((5, 6), np.int32), ["--grid", "2x4"], "6 tokens a picture, expected 2x4"),
        (np.zeros((5, 4, 2), np.int32), ["--grid", "2x4"], "4x2 tokens a picture, expected 2x4"),
        (np.zeros((5, 2, 4), np.int32), ["--video"], "--video: needs --decode"),
        (np.zeros((5, 2, 4), np.int32), ["--decode", "--grid", "2x4"], "--grid: not with --decode"),
        (np.array([[None] * 4] * 5), [], "broken, expected an array of numbers"),
    ],
)
def test_files_that_do_not_fit(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    array: NDArray[np.generic],
    options: list[str],
    complaint: str,
) -> None:
    file, output = npy(tmp_path / "a.npy", array), tmp_path / "tokens"
    assert complaint in told(["convert", "tokens", file, *options, "--output", output], capsys, 1)
    assert not output.exists()


def test_names_and_missing_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "b").mkdir()
    files = [npy(folder / "a.npy", counted(5, 8, 16)) for folder in (tmp_path, tmp_path / "b")]
    words = ["convert", "tokens", "--output", tmp_path / "tokens"]
    assert "a: found twice, expected each name once" in told([*words, *files], capsys, 1)
    assert "none.npy: No such file" in told([*words, tmp_path / "none.npy"], capsys, 1)
    files[0].write_bytes(files[0].read_bytes()[:-9])
    assert "a.npy: broken" in told([*words, files[0]], capsys, 1)
    assert main(["convert", "tokens", str(files[1]), "--grid", "x4", "--output", "t"]) == 2
