import warnings
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium.utils.env_checker import check_env
from gymnasium.vector import AutoresetMode
from tensordict import TensorDict
from torch import Tensor

from agent.world_model.interface import State, WorldModel
from envs.dream import DreamConfig, DreamEnv, DreamVectorEnv, states_after
from tests.agent.line_world import learnt_model
from tests.agent.tiny import PICTURES, LinearWorld, batch, tiny_lstm, tiny_rssm

STARTS = TensorDict({"x": torch.tensor([[1.0, -1.0], [0.5, 2.0], [-3.0, 0.0]])}, [3])


class Ending(LinearWorld):
    """The episode surely ends where x[0] > 10, and surely goes on elsewhere."""

    def cont(self, state: State) -> Tensor:
        return (state["x"][..., 0] <= 10).float()

    def imagine_step(self, state: State, action: Tensor) -> State:
        return TensorDict({"x": state["x"] + action}, batch_size=state.batch_size)


def recorded(model: WorldModel, episodes: int = 4, context: int = 3) -> State:
    """Starts after some random pictures."""
    rows = batch(episodes, context, model.action_size, PICTURES)
    return states_after(model, rows.observation, rows.action)


def worlds() -> list[WorldModel]:
    torch.manual_seed(0)
    return [tiny_lstm().eval(), learnt_model().eval(), LinearWorld()]


def starts_of(model: WorldModel) -> State:
    if isinstance(model, LinearWorld):
        return STARTS
    if model.feature_parts["observed"].stop == 1:  # the line
        return states_after(model, {"token": torch.tensor([[[0]], [[4]]])}, torch.zeros(2, 1, 1))
    return recorded(model)


@pytest.mark.parametrize("model", worlds(), ids=["lstm", "line", "linear"])
def test_gymnasiums_checker_finds_nothing(model: WorldModel) -> None:
    env = DreamEnv(model, starts_of(model))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.filterwarnings("ignore", message=".*(infinity|spec is None|not.*registered).*")
        check_env(env, skip_render_check=True)


def test_gymnasiums_checker_finds_nothing_with_pictures() -> None:
    torch.manual_seed(0)
    model = tiny_lstm().eval()
    env = DreamEnv(model, recorded(model), DreamConfig(observation="image"), "rgb_array")
    check_env(env)
    env.reset(seed=0)
    frame = env.render()
    assert frame is not None and frame.shape == (16, 16, 3) and frame.dtype == np.uint8
    assert env.step(env.action_space.sample())[0]["image"].shape == (3, 16, 16)


def test_it_starts_after_the_recorded_rows_and_steps_as_the_model_does() -> None:
    model = Ending()
    env = DreamVectorEnv(model, STARTS, 5, DreamConfig(max_steps=100))
    seen, _ = env.reset(seed=3)
    known = STARTS["x"].numpy()
    assert all(any(np.array_equal(row, start) for start in known) for row in seen)
    assert len({tuple(row) for row in seen}) > 1, "all dreams begin alike"
    action = np.linspace(-1, 1, 10, dtype=np.float32).reshape(5, 2)
    after, reward, terminated, truncated, info = env.step(action)
    np.testing.assert_allclose(after, seen + action, rtol=1e-6)  # type: ignore[arg-type]
    np.testing.assert_allclose(reward, -0.1 * (after**2).sum(1), rtol=1e-5)  # type: ignore[arg-type]
    assert not terminated.any() and not truncated.any() and info == {}


def test_starts_are_the_filtered_states() -> None:
    torch.manual_seed(0)
    model = tiny_lstm().eval()
    rows = batch(4, 3, 2, PICTURES)
    want = model.initial(4)
    for t in range(3):
        seen = {name: value[:, t] for name, value in rows.observation.items()}
        want = model.encode(seen, want, rows.action[:, t], rows.is_first[:, t])
    found = states_after(model, rows.observation, rows.action)
    assert torch.equal(found["token"], want["token"])
    torch.testing.assert_close(found["hidden"], want["hidden"])


def test_an_end_resets_in_the_next_step_alone_as_in_car_racing() -> None:
    starts = TensorDict({"x": torch.tensor([[9.5, 0.0]])}, [1])
    env = DreamVectorEnv(Ending(), starts, 2, DreamConfig(max_steps=3))
    assert env.metadata["autoreset_mode"] is AutoresetMode.NEXT_STEP
    env.reset(seed=0)
    push = np.array([[1, 0], [0, 0]], np.float32)
    seen, reward, terminated, truncated, info = env.step(push)
    assert terminated.tolist() == [True, False] and not truncated.any()
    assert seen[0, 0] == 10.5 and info["_episode"].tolist() == [True, False]
    assert info["episode"]["r"][0] == pytest.approx(reward[0]) and info["episode"]["l"][0] == 1
    seen, reward, terminated, truncated, _ = env.step(push)
    # The action of this step is ignored, its reward 0, and the other dream goes on.
    assert seen[0, 0] == 9.5 and reward[0] == 0 and reward[1] != 0 and not terminated.any()
    seen, reward, terminated, truncated, _ = env.step(push)
    assert terminated.tolist() == [True, False] and truncated.tolist() == [False, True]
    seen, reward, terminated, truncated, _ = env.step(push)
    assert (seen[:, 0] == 9.5).all() and not reward.any() and not (terminated | truncated).any()


def test_a_mask_resets_only_what_it_says() -> None:
    env = DreamVectorEnv(Ending(), STARTS[:1], 3)
    env.reset(seed=0)
    moved, *_ = env.step(np.ones((3, 2), np.float32))
    seen, _ = env.reset(options={"reset_mask": np.array([False, True, False])})
    assert np.array_equal(seen[[0, 2]], moved[[0, 2]]) and seen[1].tolist() == [1, -1]
    with pytest.raises(ValueError, match="expected reset_mask"):
        env.reset(options={"other": 1})


def roll(env: DreamVectorEnv, seed: Any) -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    rows = [env.reset(seed=seed)[0]]
    for _ in range(12):
        seen, reward, terminated, truncated, _ = env.step(rng.uniform(-1, 1, (3, 2)).astype(np.float32))
        rows += [seen, reward, terminated, truncated]
    return rows  # type: ignore[return-value]


@pytest.mark.parametrize("seed", [7, [7, 8, None]])
def test_the_same_seed_gives_the_same_dream_and_leaves_torch_alone(seed: Any) -> None:
    torch.manual_seed(0)
    model = tiny_rssm().eval()
    observed = batch(4, 3)
    starts = states_after(model, observed.observation, observed.action)
    env = DreamVectorEnv(model, starts, 3, DreamConfig(max_steps=5))
    before = torch.get_rng_state()
    first = roll(env, seed)
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(123)
    again = roll(env, seed)
    other = roll(env, 8)
    assert all(np.array_equal(a, b) for a, b in zip(first, again, strict=True))
    assert not all(np.array_equal(a, b) for a, b in zip(first, other, strict=True))


def test_the_continue_head_ends_by_chance_or_below_the_threshold() -> None:
    """In the linear world the probability to go on is 0.9 everywhere."""
    n = 4000
    for config, share in (
        (DreamConfig(), 0.1),
        (DreamConfig(ends="threshold", threshold=0.95), 1.0),
        (DreamConfig(ends="threshold", threshold=0.85), 0.0),
    ):
        env = DreamVectorEnv(LinearWorld(), STARTS, n, config)
        env.reset(seed=0)
        _, _, terminated, truncated, _ = env.step(np.zeros((n, 2), np.float32))
        assert terminated.mean() == pytest.approx(share, abs=0.02) and not truncated.any()


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(ValueError, match="expected observation 'features'"):
        DreamVectorEnv(LinearWorld(), STARTS, 2, DreamConfig(observation="image"))
    with pytest.raises(ValueError, match="at least one"):
        DreamVectorEnv(LinearWorld(), STARTS[:0], 2)
    env = DreamVectorEnv(LinearWorld(), STARTS, 2)
    with pytest.raises(ValueError, match="before the first reset"):
        env.step(np.zeros((2, 2), np.float32))
    env.reset(seed=0)
    for bad in (np.zeros((2, 3), np.float32), np.full((2, 2), np.nan, np.float32)):
        with pytest.raises(ValueError, match="expected \\(2, 2\\), all finite"):
            env.step(bad)
    assert isinstance(env.single_observation_space, gymnasium.spaces.Box)
