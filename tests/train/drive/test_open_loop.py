"""Open-loop dreams: what the model is shown, what it is not, and what is refused."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.agent.tiny import PICTURES, tiny_lstm
from tests.train.world_model.small import episode
from train.drive.open_loop import draw_dream, fit_pictures, open_loop, psnr_curves
from train.run.errors import DreamdriveError


def test_the_dream_sees_the_context_and_then_only_the_actions() -> None:
    torch.manual_seed(0)
    model, whole = tiny_lstm(actions=3), episode(12)
    torch.manual_seed(0)
    truth, dream = open_loop(model, whole, 4, 6)
    assert truth.shape == dream.shape == (10, 3, 16, 16)
    assert (truth == whole.observations["image"][:10]).all()

    def dreamt(changed: object) -> np.ndarray:
        torch.manual_seed(0)
        return open_loop(model, changed, 4, 6)[1]  # type: ignore[arg-type]

    image = whole.observations["image"].copy()
    image[4:] = 255 - image[4:]
    assert (dreamt(replace(whole, observations={"image": image})) == dream).all()
    image = whole.observations["image"].copy()
    image[:4] = 255 - image[:4]
    assert (dreamt(replace(whole, observations={"image": image})) != dream).any()
    actions = whole.actions.copy()
    actions[4:] = -actions[4:]
    assert (dreamt(replace(whole, actions=actions)) != dream).any()


@pytest.mark.parametrize(
    ("rows", "context", "horizon", "actions", "said"),
    [
        (12, 0, 6, 3, "--context 0 --horizon 6: expected 1 or more each"),
        (12, 4, 0, 3, "--context 4 --horizon 0: expected 1 or more each"),
        (9, 4, 6, 3, "the episode has 9 observations: expected 10, context and horizon"),
        (12, 4, 6, 2, "actions have 2 numbers: expected 3"),
    ],
)
def test_episodes_that_do_not_fit_are_refused(
    rows: int, context: int, horizon: int, actions: int, said: str
) -> None:
    with pytest.raises(DreamdriveError, match=said):
        open_loop(tiny_lstm(actions=3), episode(rows, actions=actions), context, horizon)


def test_pictures_of_another_size_are_refused_until_they_are_scaled() -> None:
    model, large = tiny_lstm(actions=3), episode(8, size=32)
    with pytest.raises(DreamdriveError, match="do not fit the model"):
        open_loop(model, large, 2, 3)
    assert open_loop(model, fit_pictures(large, PICTURES), 2, 3)[1].shape == (5, 3, 16, 16)


def test_curves_compare_with_the_last_picture_and_the_mean() -> None:
    # (B, H, C, S, S)
    future = torch.full((2, 3, 1, 4, 4), 0.5)
    last, mean = torch.full((2, 1, 4, 4), 0.4), torch.full((1, 4, 4), 0.49)
    curves = psnr_curves(future, future, last, mean)
    assert {name: curve.shape for name, curve in curves.items()} == dict.fromkeys(curves, (2, 3))
    found = {name: float(curve.mean()) for name, curve in curves.items()}
    assert found == pytest.approx({"psnr": 100.0, "psnr_repeat": 20.0, "psnr_mean": 40.0}, abs=1e-3)
    assert "psnr_mean" not in psnr_curves(future, future, last)


def test_a_dream_is_drawn_as_filmstrip_and_animation(tmp_path: Path) -> None:
    truth, dream = open_loop(tiny_lstm(actions=3), episode(12), 4, 6)
    paths = draw_dream(tmp_path, truth, dream, 4, 12.5)
    assert [path.name for path in paths] == ["filmstrip.png", "dream.gif"]
    assert all(path.stat().st_size > 0 for path in paths)
