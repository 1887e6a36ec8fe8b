from pathlib import Path

import numpy as np
import pytest
import torch

from agent.behaviour.vla.interface import ACTION, IMAGE, PAD, STATE, TASK
from tests.train.vla.tiny_demonstrations import config, episode, write
from train.data.episodes import write_episode
from train.language.hindsight import Labels
from train.language.instructions import lookup_labels, phrasings
from train.run.errors import DreamdriveError
from train.vla.config import VLATrainConfig
from train.vla.dataset import (
    InstructionBatches,
    LabelledRows,
    mean_and_std,
    read_rows,
    sample_subset,
    split_paths,
    to_device,
)


def rows_of(folder: Path, run: VLATrainConfig) -> LabelledRows:
    return read_rows(sorted(folder.glob("*.npz")), run.data, run.scale)


def test_a_batch_has_lerobots_keys_shapes_and_types(tmp_path: Path) -> None:
    run = config(write(tmp_path / "d"))
    batch = to_device(InstructionBatches(rows_of(tmp_path / "d", run), run)[0], torch.device("cpu"))
    assert set(batch) == {IMAGE, STATE, TASK, ACTION, PAD}
    assert batch[IMAGE].shape == (8, 3, 16, 16) and batch[IMAGE].dtype == torch.float32
    assert float(batch[IMAGE].min()) >= 0.0 and 0.5 < float(batch[IMAGE].max()) <= 1.0
    assert batch[STATE].shape == (8, 4) and batch[ACTION].shape == (8, 4, 2)
    assert batch[PAD].shape == (8, 4) and batch[PAD].dtype == torch.bool
    assert len(batch[TASK]) == 8 and all(isinstance(text, str) and text for text in batch[TASK])


def test_the_chunk_is_what_the_demonstrator_wanted_from_this_row_on(tmp_path: Path) -> None:
    run = config(write(tmp_path / "d", 1), batch_size=200, data={"window": 2})
    batch = InstructionBatches(rows_of(tmp_path / "d", run), run)[0]
    # Row t wants t / 100; the last of the 24 rows is 23.
    first = (batch[ACTION][:, 0, 0] * 100).round().long()
    wanted = first[:, None] + torch.arange(4)
    assert torch.equal(batch[PAD], wanted > 23)
    assert torch.allclose(batch[ACTION][..., 0], wanted.clamp(max=23) / 100)
    assert torch.allclose(batch[ACTION][..., 1], -batch[ACTION][..., 0])
    assert batch[PAD].any() and len(first.unique()) > 15


def test_without_what_the_demonstrator_wanted_what_was_done_is_learnt(tmp_path: Path) -> None:
    one = episode(0)
    del one.extras["expert_actions"]
    (tmp_path / "d").mkdir()
    write_episode(tmp_path / "d" / "episode_000000.npz", one)
    run = config(tmp_path / "d")
    rows = rows_of(tmp_path / "d", run)
    np.testing.assert_allclose(rows.action.numpy(), one.actions[1:])


def test_a_row_gets_its_own_picture_and_a_sentence_it_obeys(tmp_path: Path) -> None:
    run = config(write(tmp_path / "d"), batch_size=64)
    rows = rows_of(tmp_path / "d", run)
    batch = InstructionBatches(rows, run)[3]
    for picture, state, text in zip(batch[IMAGE], batch[STATE], batch[TASK], strict=True):
        row = next(i for i in range(len(rows.end)) if torch.equal(rows.seen[IMAGE][i], picture))
        assert torch.equal(rows.seen[STATE][row], state)
        said, true = lookup_labels(text), rows.labels[row]
        assert said is not None and said.speed in (None, true.speed) and said.place in (None, true.place)


def test_no_chunk_reaches_into_the_next_episode(tmp_path: Path) -> None:
    run = config(write(tmp_path / "d", 3), batch_size=300, data={"window": 2})
    batch = InstructionBatches(rows_of(tmp_path / "d", run), run)[0]
    steps = (batch[ACTION][..., 0].diff(dim=1) * 100).round()
    # A row of the next episode would begin again at 0.
    assert bool((steps >= 0).all())


def test_batches_are_the_same_each_time_and_differ_from_each_other(tmp_path: Path) -> None:
    run = config(write(tmp_path / "d"))
    rows = rows_of(tmp_path / "d", run)
    one, two = InstructionBatches(rows, run), InstructionBatches(rows, run)
    assert one[5][TASK] == two[5][TASK] and torch.equal(one[5][IMAGE], two[5][IMAGE])
    assert not torch.equal(one[5][IMAGE], one[6][IMAGE])
    other = InstructionBatches(rows, run.model_copy(update={"seed": 1}))
    assert not torch.equal(one[5][IMAGE], other[5][IMAGE])


def test_phrasings_for_testing_are_never_learnt_from(tmp_path: Path) -> None:
    run = config(write(tmp_path / "d"), batch_size=200, data={"both_share": 0.0})
    rows = rows_of(tmp_path / "d", run)
    kept = {text for text, _ in phrasings(True)}
    learnt = InstructionBatches(rows, run)
    for number in range(5):
        assert not kept & set(learnt[number][TASK])
    assert set(InstructionBatches(rows, run, held_out=True)[0][TASK]) <= kept


def test_the_share_of_sentences_that_name_two_things(tmp_path: Path) -> None:
    run = config(write(tmp_path / "d"), batch_size=2000, data={"both_share": 0.3})
    texts = InstructionBatches(rows_of(tmp_path / "d", run), run)[0][TASK]
    said = [lookup_labels(text) for text in texts]
    both = np.mean([s is not None and s.speed is not None and s.place is not None for s in said])
    assert both == pytest.approx(0.3, abs=0.05)


def test_choose_keeps_what_is_known() -> None:
    rng = np.random.default_rng(0)
    labels = Labels("slow", "left", "straight")
    for _ in range(20):
        one, two = sample_subset(labels, 0.0, rng), sample_subset(labels, 1.0, rng)
        for kept, count in ((one, 1), (two, 2)):
            known = {k: v for k, v in vars(kept).items() if v is not None}
            assert len(known) == count and known.items() <= vars(labels).items()
    assert sample_subset(Labels("stop"), 1.0, rng) == Labels("stop")


def test_what_was_asked_is_used_in_its_share(tmp_path: Path) -> None:
    asked = {"asked_speeds": np.full(24, "stop"), "asked_places": np.full(24, "")}
    write(tmp_path / "d", 4, **asked)
    for share in (0.0, 1.0):
        run = config(tmp_path / "d", batch_size=100, data={"asked_share": share, "window": 2})
        texts = InstructionBatches(rows_of(tmp_path / "d", run), run)[0][TASK]
        stops = np.mean(
            [(said := lookup_labels(text)) is not None and said.speed == "stop" for text in texts]
        )
        # The last rows of an episode have no hindsight, and always say what was asked.
        assert stops == 1.0 if share else stops < 0.2


def test_imagined_rows_have_their_share_of_a_batch(tmp_path: Path) -> None:
    run = config(write(tmp_path / "d", speed="slow"), batch_size=10, data={"imagined_share": 0.3})
    real = rows_of(tmp_path / "d", run)
    dreamt = rows_of(write(tmp_path / "i", 2, speed="fast"), run)
    batch = InstructionBatches(real, run, dreamt)[0]
    assert batch[IMAGE].shape[0] == len(batch[TASK]) == 10
    assert (batch[STATE][:, 0] > 0.5).tolist() == [False] * 7 + [True] * 3


def test_shares_of_the_data_lie_in_each_other_and_validation_stays(tmp_path: Path) -> None:
    folder = write(tmp_path / "d", 20, rows=4)
    splits = [
        split_paths(config(folder, data={"fraction": share, "validation_share": 0.2}))
        for share in (0.1, 0.3, 1.0)
    ]
    training = [set(split[0]) for split in splits]
    assert [len(paths) for paths in training] == [2, 5, 16]
    assert training[0] < training[1] < training[2]
    assert all(set(split[1]) == set(splits[0][1]) and len(split[1]) == 4 for split in splits)
    assert not training[2] & set(splits[0][1])
    assert split_paths(config(folder, seed=1))[1] != split_paths(config(folder))[1]


def test_a_split_stays_what_it_was_for_runs_that_go_on(tmp_path: Path) -> None:
    for number in range(12):
        (tmp_path / f"{number:02d}.npz").touch()
    run = config(tmp_path, seed=3, data={"fraction": 0.5, "validation_share": 0.2})
    training, validation = ([int(path.stem) for path in part] for part in split_paths(run))
    assert (training, validation) == ([0, 2, 5, 8, 11], [6, 7])


def test_rows_without_any_label_are_left_out(tmp_path: Path) -> None:
    # Too fast for one class and too slow for the other, by turns; off the road as well.
    mixed = {"speeds": np.tile(np.float32([8.0, 70.0]), 12), "offsets": np.full(24, 9.0, np.float32)}  # type: ignore[arg-type]
    half = {"offsets": np.full(24, 9.0, np.float32)}
    (tmp_path / "d").mkdir()
    write_episode(tmp_path / "d" / "a.npz", episode(0, **mixed))  # type: ignore[arg-type]
    with pytest.raises(DreamdriveError, match="obeys any instruction"):
        rows_of(tmp_path / "d", config(tmp_path / "d"))
    write_episode(tmp_path / "d" / "b.npz", episode(0, **half))  # type: ignore[arg-type]
    rows = rows_of(tmp_path / "d", config(tmp_path / "d"))
    assert len(rows.end) == 48 and rows.usable.min() >= 24 and 10 < len(rows) < 24


def test_what_is_wrong_with_a_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "d").mkdir()
    bad = tmp_path / "d" / "episode_000000.npz"
    run = config(tmp_path / "d")
    one = episode(0)
    del one.observations["state"]
    write_episode(bad, one)
    with pytest.raises(DreamdriveError, match=r"episode_000000.npz: no observation 'state'"):
        rows_of(tmp_path / "d", run)
    one = episode(0)
    del one.extras["speeds"]
    write_episode(bad, one)
    with pytest.raises(DreamdriveError, match=r"episode_000000.npz: .*'speeds': missing"):
        rows_of(tmp_path / "d", run)
    write_episode(bad, episode(0, expert_actions=np.zeros((24, 3), np.float32)))
    with pytest.raises(DreamdriveError, match=r"'expert_actions': \(24, 3\)"):
        rows_of(tmp_path / "d", run)
    write_episode(bad, episode(0))
    write_episode(tmp_path / "d" / "episode_000001.npz", episode(1, side=8))
    with pytest.raises(DreamdriveError, match=r"episode_000001.npz: .*\[3, 8, 8\], expected \[3, 16, 16\]"):
        rows_of(tmp_path / "d", run)


def test_more_than_the_memory_allows_is_refused(tmp_path: Path) -> None:
    folder = write(tmp_path / "d")
    # One episode is 24 rows of 768 bytes and some numbers; its file is smaller than the limit.
    with pytest.raises(DreamdriveError, match=r"data.max_bytes 60,000"):
        rows_of(folder, config(folder, data={"max_bytes": 60_000}))


def test_too_few_episodes_to_hold_one_out(tmp_path: Path) -> None:
    folder = write(tmp_path / "d", 1)
    with pytest.raises(DreamdriveError, match="validation_share 0"):
        split_paths(config(folder))
    assert split_paths(config(folder, data={"validation_share": 0.0}))[1] == []
    with pytest.raises(DreamdriveError, match="no folder"):
        split_paths(config(folder, data={"episodes": []}))


def test_moments_are_those_of_all_rows_together() -> None:
    rng = np.random.default_rng(0)
    parts = [rng.normal(3.0, 2.0, (n, 2)) for n in (5, 9)]
    mean, deviation = mean_and_std(torch.from_numpy(part) for part in parts)
    joined = np.concatenate(parts)
    np.testing.assert_allclose(mean.numpy(), joined.mean(0), rtol=1e-6)
    np.testing.assert_allclose(deviation.numpy(), joined.std(0), rtol=1e-6)
