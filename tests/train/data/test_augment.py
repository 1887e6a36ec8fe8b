"""Sequences are changed as wholes, as NumPy says they should be."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.world_model.interface import Batch
from tests.train.world_model.small import config, episode
from train.data.episodes import write_episode
from train.run.errors import DreamdriveError
from train.data.augment import augment, relit, shifted
from train.world_model.trainer import WorldModelTrainer


def batch_of(b: int = 6, t: int = 3, size: int = 8) -> Batch:
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (b, t, 3, size, size), generator=generator, dtype=torch.uint8)
    flags = torch.zeros(b, t, dtype=torch.bool)
    actions = torch.rand(b, t, 3, generator=generator) + 0.1
    return Batch({"image": images, "speed": torch.rand(b, t, 1)}, actions, torch.rand(b, t), flags, flags)


@given(st.integers(-4, 4), st.integers(-4, 4))
@settings(deadline=None, max_examples=30)
def test_a_shift_is_a_padded_crop(down: int, right: int) -> None:
    images = batch_of(b=2).observation["image"]
    moved = shifted(images, torch.tensor([down, 0]), torch.tensor([right, 0]))
    padded = np.pad(images.numpy(), ((0, 0),) * 3 + ((4, 4),) * 2, mode="edge")
    np.testing.assert_array_equal(moved[0], padded[0, :, :, 4 - down : 12 - down, 4 - right : 12 - right])
    assert torch.equal(moved[1], images[1])


def test_light_is_a_factor_and_stays_in_range() -> None:
    images = torch.tensor([[100, 250]] * 2, dtype=torch.uint8).view(2, 1, 1, 1, 2)
    lit = relit(images, torch.tensor([0.5, 1.1]))
    assert lit.flatten().tolist() == [50, 125, 110, 255]


def test_nothing_asked_for_changes_nothing_and_draws_nothing() -> None:
    batch, state = batch_of(), torch.get_rng_state()
    assert augment(batch, 0, False, 0.0) is batch
    assert torch.equal(torch.get_rng_state(), state)


def test_mirrored_sequences_steer_the_other_way() -> None:
    torch.manual_seed(0)
    batch = batch_of()
    changed = augment(batch, 0, True, 0.0)
    steers = changed.action[:, 0, 0] / batch.action[:, 0, 0]
    assert set(steers.tolist()) == {-1.0, 1.0}
    for i, sign in enumerate(steers.tolist()):
        truth = batch.observation["image"][i]
        assert torch.equal(changed.observation["image"][i], truth if sign > 0 else truth.flip(-1))
    assert torch.equal(changed.action[..., 1:], batch.action[..., 1:])
    assert torch.equal(changed.observation["speed"], batch.observation["speed"])


def test_each_sequence_is_changed_as_a_whole() -> None:
    torch.manual_seed(1)
    still = batch_of()
    still.observation["image"] = still.observation["image"][:, :1].expand(-1, 3, -1, -1, -1)
    images = augment(still, 2, True, 0.3).observation["image"]
    assert torch.equal(images[:, 0], images[:, 1])
    assert torch.equal(images[:, 0], images[:, 2])
    assert not torch.equal(images, still.observation["image"])


def test_vectors_have_no_mirror_image(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    folder.mkdir()
    for number in range(2):
        drive = episode(20, number)
        seen = drive.observations | {"speed": np.zeros((20, 1), np.float32)}
        write_episode(folder / f"drive_{number}.npz", replace(drive, observations=seen))
    with pytest.raises(DreamdriveError, match="augment_mirror: vectors have no mirror image"):
        WorldModelTrainer(config(folder, augment_mirror=True, val_fraction=0.5))
