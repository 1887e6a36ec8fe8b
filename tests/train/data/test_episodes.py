"""Episode files: round trip, alignment, and errors that name file, key and expectation."""

import errno
import io
import os
import zipfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from train.data.episodes import Episode, EpisodeLimits, read_episode, write_episode
from train.run.errors import DreamdriveError


def gym_arrays(steps: int = 3) -> dict[str, np.ndarray]:
    """A valid file's arrays in the users' order; every number tells where it came from."""
    dones = np.zeros(steps, bool)
    dones[-1] = True
    frames = np.arange(steps, dtype=np.uint8)[:, None, None, None] * np.ones((3, 4, 5), np.uint8)
    return {
        "observations": frames,
        "actions": np.arange(1, steps + 1, dtype=np.float32)[:, None] * np.ones(2, np.float32),
        "rewards": np.arange(10, 10 + steps, dtype=np.float32),
        "dones": dones,
        "terminated": dones.copy(),
        "truncated": np.zeros(steps, bool),
    }


def save(path: Path, arrays: dict[str, np.ndarray]) -> Path:
    np.savez(path, **arrays)  # type: ignore[arg-type]
    return path


def assert_same(left: Episode, right: Episode) -> None:
    assert left.observations.keys() == right.observations.keys()
    for name in left.observations:
        np.testing.assert_array_equal(left.observations[name], right.observations[name])
        assert left.observations[name].dtype == right.observations[name].dtype
    for name in ("actions", "rewards", "is_first", "is_terminal"):
        np.testing.assert_array_equal(getattr(left, name), getattr(right, name))
        assert getattr(left, name).dtype == getattr(right, name).dtype
    assert left.extras.keys() == right.extras.keys()
    for name in left.extras:
        np.testing.assert_array_equal(left.extras[name], right.extras[name])


@st.composite
def episodes(draw: st.DrawFn) -> Episode:
    steps = draw(st.integers(1, 6))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    observations: dict[str, np.ndarray] = {}
    if draw(st.booleans()):
        shape = (
            steps + 1,
            draw(st.sampled_from([1, 3, 4])),
            draw(st.integers(1, 5)),
            draw(st.integers(1, 5)),
        )
        observations["image"] = rng.integers(0, 256, shape, dtype=np.uint8)
    names = draw(
        st.lists(st.sampled_from(["vector", "speed", "lidar"]), unique=True, min_size=not observations)
    )
    for name in names:
        observations[name] = rng.normal(size=(steps + 1, draw(st.integers(1, 4)))).astype(np.float32)
    if draw(st.booleans()):
        codes = draw(st.sampled_from([2, 2**16, 2**31 - 1]))
        observations["token"] = rng.integers(codes, size=(steps + 1, draw(st.integers(1, 4)))).astype(np.int32)
    actions = rng.normal(size=(steps + 1, draw(st.integers(1, 3)))).astype(np.float32)
    rewards = rng.normal(size=steps + 1).astype(np.float32)
    actions[0], rewards[0] = 0, 0
    is_first, is_terminal = np.zeros(steps + 1, bool), np.zeros(steps + 1, bool)
    is_first[0], is_terminal[-1] = True, draw(st.booleans())
    extras = {"seed": np.array(draw(st.integers(0, 9)))} if draw(st.booleans()) else {}
    return Episode(observations, actions, rewards, is_first, is_terminal, extras)


@given(episode=episodes())
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_what_is_written_is_read(episode: Episode, tmp_path: Path) -> None:
    write_episode(tmp_path / "e.npz", episode)
    assert_same(read_episode(tmp_path / "e.npz"), episode)
    assert os.listdir(tmp_path) == ["e.npz"]


def test_reading_aligns_actions_and_rewards_with_where_they_lead(tmp_path: Path) -> None:
    arrays = gym_arrays() | {"final_observation": np.full((3, 4, 5), 3, np.uint8)}
    episode = read_episode(save(tmp_path / "e.npz", arrays))
    assert len(episode) == 3
    assert episode.observations["image"][:, 0, 0, 0].tolist() == [0, 1, 2, 3]
    assert episode.actions[:, 0].tolist() == [0, 1, 2, 3]
    assert episode.rewards.tolist() == [0, 10, 11, 12]
    assert episode.is_first.tolist() == [True, False, False, False]
    assert episode.is_terminal.tolist() == [False, False, False, True]


def test_a_written_file_has_the_users_order(tmp_path: Path) -> None:
    episode = read_episode(save(tmp_path / "e.npz", gym_arrays()))
    write_episode(tmp_path / "f.npz", episode)
    with np.load(tmp_path / "f.npz", allow_pickle=False) as written:
        for key, value in gym_arrays().items():
            np.testing.assert_array_equal(written[key], value)
            assert written[key].dtype == value.dtype
        np.testing.assert_array_equal(written["final_observation"], gym_arrays()["observations"][-1])


def test_without_a_final_observation_the_last_is_repeated(tmp_path: Path) -> None:
    episode = read_episode(save(tmp_path / "e.npz", gym_arrays()))
    assert episode.observations["image"][:, 0, 0, 0].tolist() == [0, 1, 2, 2]


@pytest.mark.parametrize(
    ("drop", "change", "terminal"),
    [
        (["terminated", "truncated"], {}, True),
        (["terminated", "truncated"], {"dones": np.zeros(3, bool)}, False),
        (["terminated"], {"truncated": np.array([0, 0, 1], bool)}, False),
        (["terminated"], {}, True),
        (["truncated"], {"terminated": np.zeros(3, bool)}, False),
        ([], {"terminated": np.zeros(3, bool), "truncated": np.array([0, 0, 1], bool)}, False),
    ],
)
def test_what_ended_the_episode(
    tmp_path: Path, drop: list[str], change: dict[str, np.ndarray], terminal: bool
) -> None:
    arrays = {key: value for key, value in (gym_arrays() | change).items() if key not in drop}
    assert read_episode(save(tmp_path / "e.npz", arrays)).is_terminal.tolist() == [False] * 3 + [terminal]


def test_safe_casts_are_made(tmp_path: Path) -> None:
    arrays = gym_arrays()
    for key in ("actions", "rewards"):
        arrays[key] = arrays[key].astype(">f8")
    for key in ("dones", "terminated", "truncated"):
        arrays[key] = arrays[key].astype(np.uint8)
    arrays["observations"] = np.asfortranarray(arrays["observations"])
    assert_same(
        read_episode(save(tmp_path / "a.npz", arrays)), read_episode(save(tmp_path / "b.npz", gym_arrays()))
    )


def with_nan(array: np.ndarray) -> np.ndarray:
    array = array.astype(np.float64)
    array[1] = np.nan
    return array


BAD = [
    ("observations", None, "uint8"),
    ("observations", np.zeros((3, 3, 4, 5), np.float32), "uint8"),
    ("observations", np.zeros((3, 64, 5, 3), np.uint8), "(T, C, H, W)"),
    ("observations", np.zeros((3, 4, 5), np.uint8), "(T, C, H, W)"),
    ("observations", np.zeros((3, 3, 0, 5), np.uint8), "(T, C, H, W)"),
    ("observations", np.zeros((2, 3, 4, 5), np.uint8), "expected 3 as in 'actions'"),
    ("final_observation", np.zeros((3, 4, 4), np.uint8), "(3, 4, 5) uint8"),
    ("final_observation", np.zeros((3, 4, 5), np.float32), "(3, 4, 5) uint8"),
    ("vectors", np.zeros((3, 2), bool), "float32"),
    ("vectors", np.zeros((3,), np.float32), "(T, D)"),
    ("vectors", np.full((3, 1), np.inf, np.float32), "finite"),
    ("token", np.zeros((3, 2), np.int64), "uint16 or int32"),
    ("token", np.full((3, 2), -1, np.int32), "from 0 on"),
    ("token", np.zeros(3, np.uint16), "(T, G)"),
    ("token", np.zeros((3, 0), np.uint16), "(T, G)"),
    ("token", np.zeros((2, 2), np.uint16), "expected 3 as in 'actions'"),
    ("actions", None, "(T, A) float32"),
    ("actions", np.zeros(3, np.float32), "(T, A)"),
    ("actions", np.zeros((0, 2), np.float32), "at least 1"),
    ("actions", with_nan(np.zeros((3, 2))), "finite"),
    ("actions", np.array([["a"]] * 3), "float32"),
    ("rewards", None, "(T,) float32"),
    ("rewards", np.zeros((3, 1), np.float32), "(T,)"),
    ("rewards", np.full(3, 1e300), "finite"),
    ("rewards", np.zeros(4, np.float32), "expected 3 as in 'actions'"),
    ("dones", None, "(T,) bool"),
    ("dones", np.array([0, 0, 2]), "0 and 1"),
    ("dones", np.zeros(3, np.float32), "(T,) bool"),
    ("dones", np.array([1, 0, 1], bool), "row 0"),
    ("dones", np.zeros(3, bool), "terminated or truncated"),
    ("terminated", np.zeros(3, bool), "'dones'"),
    ("truncated", np.array([1, 0, 0], bool), "'dones'"),
    ("rewards", np.array([None] * 3, object), "never unpickled"),
]


@pytest.mark.parametrize(("key", "value", "expectation"), BAD)
def test_a_bad_key_gives_one_line_with_file_key_and_expectation(
    tmp_path: Path, key: str, value: np.ndarray | None, expectation: str
) -> None:
    arrays = gym_arrays() | ({} if value is None else {key: value})
    if value is None:
        del arrays[key]
    with pytest.raises(DreamdriveError) as caught:
        read_episode(save(tmp_path / "bad.npz", arrays))
    message = str(caught.value)
    assert "bad.npz" in message and expectation in message and "\n" not in message
    assert f"'{key}'" in message or f"'{key}'" in expectation or "'dones'" in message


def test_a_zip_bomb_is_refused_by_its_header(tmp_path: Path) -> None:
    path = tmp_path / "bomb.npz"
    np.savez_compressed(
        path, allow_pickle=False, **gym_arrays() | {"observations": np.zeros((3, 3, 1024, 1024), np.uint8)}
    )
    assert path.stat().st_size < 100_000
    with pytest.raises(DreamdriveError, match="expected at most 1000000"):
        read_episode(path, EpisodeLimits(max_bytes=1_000_000))
    assert len(read_episode(path)) == 3


def test_a_header_that_promises_more_than_there_is(tmp_path: Path) -> None:
    header = io.BytesIO()
    forged = {"descr": "<f4", "fortran_order": False, "shape": (2**40, 2**40)}
    np.lib.format.write_array_header_1_0(header, forged)
    path = save(tmp_path / "forged.npz", {k: v for k, v in gym_arrays().items() if k != "rewards"})
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("rewards.npy", header.getvalue() + bytes(12))
    with pytest.raises(DreamdriveError, match="forged.npz: 'rewards': shape"):
        read_episode(path)


@pytest.mark.parametrize("saver", [np.savez, np.savez_compressed])
def test_damaged_bytes_never_give_another_exception(tmp_path: Path, saver: object) -> None:
    assert callable(saver)
    whole, path = tmp_path / "whole.npz", tmp_path / "damaged.npz"
    saver(whole, **gym_arrays())
    data, expected = whole.read_bytes(), read_episode(whole)
    rng = np.random.default_rng(0)
    refused = 0
    cuts = [data[:length] for length in range(0, len(data), 37)]
    flips = []
    for at in range(0, len(data), 7):
        damaged = bytearray(data)
        damaged[at] ^= int(rng.integers(1, 256))
        flips.append(bytes(damaged))
    for damage in cuts + flips:
        path.write_bytes(damage)
        try:
            episode = read_episode(path)
        except DreamdriveError as error:
            assert "damaged.npz" in str(error) and "\n" not in str(error)
            refused += 1
        else:
            # Only bytes that carry no data (time stamps and the like) may be damaged unseen.
            assert_same(episode, expected)
    assert refused > len(cuts + flips) // 2


def test_not_a_file(tmp_path: Path) -> None:
    with pytest.raises(DreamdriveError, match="missing.npz"):
        read_episode(tmp_path / "missing.npz")
    (tmp_path / "folder.npz").mkdir()
    with pytest.raises(DreamdriveError, match="folder.npz"):
        read_episode(tmp_path / "folder.npz")


def test_a_full_disk_leaves_the_old_file_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = save(tmp_path / "e.npz", gym_arrays())
    before = path.read_bytes()

    def full(file: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    episode = read_episode(path)
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(DreamdriveError, match="disk is full"):
        write_episode(path, episode)
    assert os.listdir(tmp_path) == ["e.npz"] and path.read_bytes() == before


@pytest.mark.parametrize(
    ("final", "expectation"),
    [
        (np.zeros(3, np.uint16), "(3,) uint16, expected (2,) uint16"),
        (np.zeros(2, np.int32), "(2,) int32, expected (2,) uint16"),
        (np.zeros((1, 2), np.uint16), "(G,)"),
        (np.zeros(2, np.float32), "uint16 or int32"),
    ],
)
def test_final_tokens_are_like_the_others(tmp_path: Path, final: np.ndarray, expectation: str) -> None:
    arrays = gym_arrays() | {"token": np.ones((3, 2), np.uint16), "final_token": final}
    with pytest.raises(DreamdriveError) as caught:
        read_episode(save(tmp_path / "e.npz", arrays))
    assert "e.npz: 'final_token': " in str(caught.value) and expectation in str(caught.value)


@pytest.mark.parametrize("tokens", [np.zeros((4, 2), np.float32), np.full((4, 2), -1), np.full((4, 2), 2**31)])
def test_what_is_no_token_is_not_written(tmp_path: Path, tokens: np.ndarray) -> None:
    episode = read_episode(save(tmp_path / "e.npz", gym_arrays()))
    episode.observations["token"] = tokens
    with pytest.raises(DreamdriveError, match="f.npz: 'token'"):
        write_episode(tmp_path / "f.npz", episode)
    assert not (tmp_path / "f.npz").exists()


def test_an_episode_that_breaks_the_alignment_is_not_written(tmp_path: Path) -> None:
    episode = read_episode(save(tmp_path / "e.npz", gym_arrays()))
    episode.is_first[1] = True
    with pytest.raises(DreamdriveError, match="is_first"):
        write_episode(tmp_path / "f.npz", episode)
    assert not (tmp_path / "f.npz").exists()
