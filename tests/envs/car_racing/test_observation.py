import numpy as np
import pytest
import torch
import torch.nn.functional as F

from envs.car_racing.observation import PictureResizer, grass_share, native_action, resize_matrix


def frames(count: int = 2) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (count, 96, 96, 3), dtype=np.uint8)


@pytest.mark.parametrize("size", [32, 64, 84, 96, 128])
@pytest.mark.parametrize("crop", [True, False])
def test_picture_is_torchs_antialiased_resize(size: int, crop: bool) -> None:
    raw = frames()
    ours = PictureResizer(size, crop)(raw)
    kept = torch.from_numpy(raw[:, : 84 if crop else 96]).permute(0, 3, 1, 2).float()
    theirs = F.interpolate(kept, (size, size), mode="bilinear", antialias=True, align_corners=False)
    assert ours.dtype == np.uint8 and ours.shape == (2, 3, size, size)
    assert np.abs(ours.astype(float) - theirs.numpy()).max() <= 1.0
    assert np.abs(ours.astype(float) - theirs.numpy()).mean() < 0.3  # rounding alone is 0.25


def test_same_size_without_cropping_changes_nothing() -> None:
    raw = frames()
    assert (PictureResizer(96, False)(raw) == raw.transpose(0, 3, 1, 2)).all()


def test_dashboard_is_cut_off() -> None:
    raw = frames()
    painted = raw.copy()
    painted[:, 84:] = 255
    assert (PictureResizer(64, True)(raw) == PictureResizer(64, True)(painted)).all()
    assert (PictureResizer(64, False)(raw) != PictureResizer(64, False)(painted)).any()


@pytest.mark.parametrize("value", [0, 1, 127, 254, 255])
def test_plain_pictures_stay_plain(value: int) -> None:
    assert (PictureResizer(64, True)(np.full((1, 96, 96, 3), value, np.uint8)) == value).all()


def test_mirroring_commutes_with_the_resize() -> None:
    raw = frames()
    view = PictureResizer(64, True)
    difference = view(raw[:, :, ::-1].copy()).astype(int) - view(raw)[..., ::-1]
    assert np.abs(difference).max() <= 1 and (difference != 0).mean() < 1e-3  # only the order of sums differs


def test_resize_weights_are_averages() -> None:
    weights = resize_matrix(96, 64)
    assert weights.shape == (64, 96) and (weights >= 0).all()
    torch.testing.assert_close(weights.sum(1), torch.ones(64))
    torch.testing.assert_close(weights, weights.flip(0, 1))


def test_the_frames_are_not_changed() -> None:
    raw = frames()
    before = raw.copy()
    PictureResizer(64, True)(raw)
    assert (raw == before).all()


def test_native_action_of_two_numbers() -> None:
    action = np.array([[-1, 1], [0.5, -0.25], [0, 0], [-3, 7]], np.float32)
    expected = [[-1, 1, 0], [0.5, 0, 0.25], [0, 0, 0], [-1, 1, 0]]
    native = native_action(action)
    assert native.dtype == np.float32
    np.testing.assert_array_equal(native, expected)


def test_native_action_of_three_numbers() -> None:
    action = np.array([[-1, -1, 1], [0.5, 0, -0.5], [2, 3, -4]], np.float32)
    np.testing.assert_array_equal(native_action(action), [[-1, 0, 1], [0.5, 0.5, 0.25], [1, 1, 0]])


@pytest.mark.parametrize("grass_columns, share", [(0, 0.0), (48, 0.5), (96, 1.0)])
def test_grass_share_counts_the_ground_around_the_car_only(grass_columns: int, share: float) -> None:
    picture = np.zeros((1, 96, 96, 3), np.uint8)
    picture[:] = 105  # road
    picture[:, :, :grass_columns] = [102, 204, 102]
    picture[:, 67:77, 46:50] = [204, 0, 0]
    picture[:, 68:70, 46] = picture[:, 68:70, 49] = 0  # wheels
    assert grass_share(picture)[0] == pytest.approx(share)
