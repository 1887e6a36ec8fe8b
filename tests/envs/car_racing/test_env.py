import multiprocessing
import threading
from typing import Any

import numpy as np
import pytest
from gymnasium.vector import AutoresetMode
from pydantic import ValidationError

from envs import TRAINING_SEEDS
from envs.car_racing.env import CarRacing, CarRacingConfig, make_car_racing
from envs.car_racing.frame_skip import InProcess
from envs.car_racing.simulators import OfficialSimulator, envpool_available
from tests.envs.car_racing.fakes import FakeSimulators, follow_the_road

BACKENDS = [
    "gymnasium",
    pytest.param("envpool", marks=pytest.mark.skipif(not envpool_available(), reason="Linux")),
]


def fake(
    lengths: list[list[int]],
    seed: int = 0,
    fakes: dict[str, Any] | None = None,
    autoreset: bool = True,
    **config: Any,
) -> Any:
    simulators = FakeSimulators(lengths, **(fakes or {}))
    settings = {"action_repeat": 4, "image_size": 96, **config}
    config = CarRacingConfig(num_envs=len(lengths), **settings)  # type: ignore[assignment]
    return CarRacing(config, InProcess(simulators, config.action_repeat), seed, autoreset), simulators  # type: ignore[arg-type, attr-defined]


def rest(env: CarRacing) -> np.ndarray:
    return np.zeros((env.num_envs, env.config.action_size), np.float32)


def shown(observation: dict[str, np.ndarray]) -> list[tuple[int, int]]:
    """(episode, frame) in each picture."""
    image = observation["image"]
    assert (image[:, :2] == image[:, :2, :1, :1]).all(), "a picture that must not be used"
    return [(int(a), int(b)) for a, b in image[:, :2, 0, 0]]


def test_next_step_autoreset_and_ends_within_a_decision() -> None:
    """Simulator 0 ends after 6 frames, in the middle of its second decision; simulator 1 goes on."""
    env, _ = fake([[6, 100], [100]])
    assert env.metadata["autoreset_mode"] is AutoresetMode.NEXT_STEP
    assert shown(env.reset()[0]) == [(0, 0), (0, 0)]
    observation, reward, terminated, truncated, info = env.step(rest(env))
    assert shown(observation) == [(0, 4), (0, 4)]
    assert reward.tolist() == [10, 10] and reward.dtype == np.float32  # 1 + 2 + 3 + 4
    assert not terminated.any() and not truncated.any() and "episode" not in info
    assert info["frames"].tolist() == [4, 4]

    observation, reward, terminated, truncated, info = env.step(rest(env))
    assert shown(observation) == [(0, 6), (0, 8)]  # its own last picture, not the next episode's
    assert reward.tolist() == [5 + 6, 5 + 6 + 7 + 8]
    assert terminated.tolist() == [True, False] and not truncated.any()
    assert info["frames"].tolist() == [2, 4] and info["_episode"].tolist() == [True, False]
    assert info["episode"]["r"][0] == 21 and info["episode"]["l"][0] == 6

    observation, reward, terminated, truncated, info = env.step(rest(env))
    assert shown(observation) == [(1, 0), (0, 12)]  # only reset, its action ignored
    assert reward.tolist() == [0, 9 + 10 + 11 + 12]
    assert not terminated.any() and not truncated.any() and info["frames"].tolist() == [0, 4]

    observation, reward, *_ = env.step(rest(env))
    assert shown(observation) == [(1, 4), (0, 16)] and reward[0] == 10


def test_without_autoreset_an_ended_episode_stays_until_reset() -> None:
    env, _ = fake([[6, 8], [90]], autoreset=False)
    assert env.metadata["autoreset_mode"] is AutoresetMode.DISABLED
    env.reset()
    env.step(rest(env))
    observation, _, terminated, _, info = env.step(rest(env))
    assert terminated.tolist() == [True, False] and info["_episode"].tolist() == [True, False]
    ended = shown(observation)[0]
    for _ in range(3):
        observation, reward, terminated, truncated, info = env.step(rest(env))
        assert shown(observation)[0] == ended and reward[0] == 0 and info["frames"].tolist() == [0, 4]
        assert not (terminated | truncated).any() and "_episode" not in info
    env.reset(options={"reset_mask": np.array([True, False])})
    observation, reward, *_, info = env.step(rest(env))
    assert shown(observation) == [(1, 4), (0, 24)] and reward[0] == 10 and info["frames"].tolist() == [4, 4]


def test_time_limit_truncates_and_counts_start_again() -> None:
    env, _ = fake([[8], [8]], fakes={"terminated": False})
    env.reset()
    for _ in range(3):
        env.step(rest(env))
        _, _, terminated, truncated, info = env.step(rest(env))
        assert truncated.all() and not terminated.any() and not info["hopeless"].any()
        assert info["episode"]["l"].tolist() == [8, 8] and info["episode"]["r"].tolist() == [36, 36]
        env.step(rest(env))


def test_reset_in_the_middle_starts_anew() -> None:
    env, _ = fake([[6, 8]])
    env.reset()
    env.step(rest(env))
    env.step(rest(env))  # has ended, would be reset by the next step
    env.reset()
    _, reward, *_ = env.step(rest(env))
    assert reward[0] == 10
    info = env.step(rest(env))[4]
    assert info["episode"]["l"][0] == 8


def test_hopeless_episodes_are_cut() -> None:
    """Without a tile for three decisions: truncated. Simulator 1 finds one in every tenth frame."""
    env, _ = fake(
        [[1000], [1000]],
        fakes={"reward": lambda i, f: 3.0 if i == 1 and f % 10 == 0 else -0.1},
        hopeless_after=3,
    )
    env.reset()
    for _ in range(2):
        for k in range(3):
            _, _, terminated, truncated, info = env.step(rest(env))
            assert truncated.tolist() == [k == 2, False] and not terminated.any()
        assert info["hopeless"].tolist() == [True, False] and info["episode"]["l"][0] == 12
        assert env.step(rest(env))[4]["frames"].tolist() == [0, 4]


def test_leaving_the_road_costs_once_and_not_in_the_score() -> None:
    """The scripted pictures are green, grass to the eye, from frame 41 on; the camera is near from 50 on."""
    env, _ = fake([[60, 70]], fakes={"reward": lambda i, f: 1.0}, off_road_cost=9.0)
    env.reset()
    for episode, length in enumerate((60, 70)):
        rewards = []
        for _ in range(-(-length // 4)):
            _, reward, _, _, info = env.step(rest(env))
            rewards.append(float(reward[0]))
            assert info["cost"].tolist() == [9.0 if len(rewards) == 13 else 0.0]
        assert rewards[:14] == [4.0] * 12 + [4.0 - 9.0, 4.0], f"episode {episode}"
        assert info["episode"]["r"][0] == length
        assert float(env.step(rest(env))[1][0]) == 0  # a reset costs nothing


def test_leaving_the_road_costs_once_if_the_simulator_reports_it() -> None:
    """Off the road in frames 6 to 13, 18 and 19; back in between, and never off in what only begins."""
    off = lambda i, f: 6 <= f <= 13 or f in (18, 19)  # noqa: E731
    env, _ = fake([[30]], fakes={"reward": lambda i, f: 1.0, "off_road": off}, off_road_cost=9.0)
    for _ in range(2):
        env.reset()
        rewards = [float(env.step(rest(env))[1][0]) for _ in range(8)]
        #       frames 1-4   5-8   9-12  13-16  17-20  21-24  25-28  29-30
        assert rewards == [4.0, -5.0, 4.0, 4.0, -5.0, 4.0, 4.0, 2.0]
        assert float(env.step(rest(env))[1][0]) == 0


def test_gymnasium_reports_wheels_off_the_road() -> None:
    """Beside the geometry: the wheels' distance from the middle of the road, whose half width is 6.67 m."""
    one = OfficialSimulator(1000)
    one.reset(7)
    base: Any = one.env.unwrapped
    track = np.array([(x, y) for _, _, x, y in base.track])
    near, far = 0, 0
    for k in range(240):
        one.step(follow_the_road(base) if k < 120 else np.float32([0.4, 0.6, 0.0]))  # type: ignore[arg-type]
        wheels = np.array([tuple(wheel.position) for wheel in base.car.wheels])
        # (4,) to the nearest point of the middle line, points of which are 3.5 m apart
        distance = np.linalg.norm(wheels[:, None] - track[None], axis=2).min(1)
        if distance.min() < 5.0:
            assert not one.off_road(), k
            near += 1
        elif distance.min() > 9.0:
            assert one.off_road(), k
            far += 1
    one.close()
    assert near > 100 and far > 20


@pytest.mark.slow
@pytest.mark.parametrize("backend", BACKENDS)
def test_leaving_the_road_is_seen_in_the_simulators_own_pictures(backend: str) -> None:
    """The car stands on the road, then leaves it for good: steering hard at half throttle."""
    plain, costly = (
        make_car_racing(CarRacingConfig(backend=backend, num_envs=2, off_road_cost=c), 3) for c in (0.0, 7.0)
    )
    costs = []
    for env in (plain, costly):
        env.reset()
    for k in range(50):
        action = np.tile(np.float32([0.0, 0.0] if k < 20 else [0.5, 0.5]), (2, 1))  # type: ignore[arg-type]
        costs.append(plain.step(action)[1] - costly.step(action)[1])
    for env in (plain, costly):
        env.close()
    cost = np.stack(costs)
    assert (cost[:20] == 0).all(), "standing on the road"
    assert cost.sum(0) == pytest.approx([7.0, 7.0], abs=1e-4)


def test_an_end_is_not_called_hopeless() -> None:
    env, _ = fake([[12]], fakes={"reward": lambda i, f: -0.1}, hopeless_after=3)
    env.reset()
    *_, terminated, truncated, info = [env.step(rest(env)) for _ in range(3)][-1]
    assert terminated[0] and not truncated[0] and not info["hopeless"][0]


def test_mirror_flips_the_picture_and_the_steering() -> None:
    env, simulators = fake([[2]] * 20, action_repeat=2, mirror=True)
    columns = np.arange(96)
    action = np.tile(np.array([0.25, 0.5], np.float32), (20, 1))
    image = env.reset()[0]["image"]
    seen = []
    for _ in range(10):
        mirrored = image[:, 2, 0, 0] == 95
        seen.append(mirrored)
        expected = np.where(mirrored[:, None], columns[::-1], columns)
        assert (image[:, 2] == expected[:, None]).all()
        image = env.step(action)[0]["image"]
        assert (image[:, 2] == expected[:, None]).all()  # the last picture of the episode, too
        native = simulators.actions[-1]
        assert (native[:, 0] == np.where(mirrored, -0.25, 0.25)).all()
        assert (native[:, 1] == 0.5).all() and (native[:, 2] == 0).all()
        image = env.step(action)[0]["image"]
    assert 0.35 < np.mean(seen) < 0.65
    assert all(0 < column.sum() < 10 for column in np.transpose(seen))  # every simulator drives both


def test_nothing_is_mirrored_by_default() -> None:
    env, _ = fake([[2]] * 20)
    assert (env.reset()[0]["image"][:, 2, 0, 0] == 0).all()
    with pytest.raises(ValidationError, match="crop_hud"):
        CarRacingConfig(mirror=True, crop_hud=False)
    with pytest.raises(ValidationError, match="no instruments"):
        CarRacingConfig(mirror=True, instruments=True)


def test_instruments_are_read_also_after_a_partial_reset() -> None:
    env, _ = fake([[2], [100]], instruments=True)
    first = env.reset()[0]
    assert env.single_observation_space.contains({name: seen[0] for name, seen in first.items()})
    step = env.step(np.zeros((2, 2), np.float32))[0]
    assert step["instruments"].shape == (2, 7)
    # The fake's blue is the column's number: 12 rows of columns 17 and 18 are the first wheel's bar.
    assert step["instruments"][:, 1] == pytest.approx((12 * 17.5 / 255 - 0.12) / (2.4 * 0.01), rel=1e-5)
    some = env.reset(options={"reset_mask": np.array([False, True])})[0]
    for name in ("image", "instruments"):
        assert (some[name][0] == step[name][0]).all()


def test_three_numbers_as_an_action() -> None:
    env, simulators = fake([[100]], action="3d")
    env.reset()
    env.step(np.array([[-0.5, 0.0, 1.0]], np.float32))
    assert len(simulators.actions) == 4
    for native in simulators.actions:
        np.testing.assert_array_equal(native, [[-0.5, 0.5, 1.0]])


@pytest.mark.parametrize("bad", [np.zeros((2, 2)), np.zeros((1, 3)), np.zeros(2), np.full((1, 2), np.nan)])
def test_bad_actions_are_refused(bad: np.ndarray) -> None:
    env, simulators = fake([[100]])
    env.reset()
    with pytest.raises(ValueError, match=r"expected \(1, 2\), all finite"):
        env.step(bad.astype(np.float32))
    assert not simulators.actions


def test_bad_seeds_are_refused() -> None:
    config = CarRacingConfig(num_envs=4, backend="gymnasium")
    for seed in (-1, TRAINING_SEEDS):
        with pytest.raises(ValueError, match="training seed"):
            make_car_racing(config, seed)
    env, _ = fake([[100]])
    for arguments in ({"seed": 1}, {"options": {}}):  # type: ignore[var-annotated]
        with pytest.raises(ValueError, match="make_car_racing takes the seed"):
            env.reset(**arguments)


@pytest.mark.parametrize("backend", ["gymnasium", "envpool"])
def test_a_mask_resets_only_what_it_says(backend: str) -> None:
    if backend == "envpool":
        pytest.importorskip("envpool")
    config = CarRacingConfig(num_envs=3, backend=backend, max_frames=8, image_size=16, threads=1)
    env = make_car_racing(config, 0)
    env.reset()
    still = np.zeros((3, 2), np.float32)
    env.step(still)
    before, *_ = env.step(still)
    which = np.array([True, False, True])
    after, _ = env.reset(options={"reset_mask": which})
    assert np.array_equal(after["image"][1], before["image"][1])
    assert not np.array_equal(after["image"][0], before["image"][0])
    # The two that were reset move in the next step; the other only then begins its next episode.
    _, _, _, _, info = env.step(still)
    assert info["frames"].tolist() == [4, 0, 4]
    _, _, _, truncated, info = env.step(still)
    assert truncated.tolist() == [True, False, True] and info["episode"]["l"].tolist()[0] == 8
    env.close()


def test_closing_closes_the_simulators() -> None:
    env, simulators = fake([[100]])
    env.close()
    assert simulators.closed


def drive(backend: str, seed: int) -> tuple[list[Any], set[int]]:
    """Twenty decisions with ends in them; what came out, and the lengths of the episodes."""
    config = CarRacingConfig(
        backend=backend, num_envs=2, max_frames=30, image_size=64, mirror=True, threads=2
    )
    env = make_car_racing(config, seed)
    random = np.random.default_rng(0)
    observation, _ = env.reset()
    assert env.observation_space.contains(observation) and env.action_space.contains(rest(env))
    outcomes, lengths = [observation["image"]], set()
    for _ in range(20):
        action = random.uniform(-0.5, 0.8, (2, 2)).astype(np.float32)
        observation, reward, terminated, truncated, info = env.step(action)
        assert env.observation_space.contains(observation)
        assert not terminated.any()
        outcomes += [observation["image"], reward, truncated, info["frames"]]
        if truncated.any():
            lengths |= set(info["episode"]["l"][truncated].tolist())
    env.close()
    return outcomes, lengths


@pytest.mark.parametrize("backend", BACKENDS)
def test_the_same_seed_and_actions_give_the_same_bits(backend: str) -> None:
    threads = threading.active_count()
    first, lengths = drive(backend, 3)
    again, _ = drive(backend, 3)
    other, _ = drive(backend, 40)
    assert lengths == {30}  # 30 is no multiple of the action repeat
    assert all((a == b).all() for a, b in zip(first, again, strict=True))
    assert (first[0] != other[0]).any()
    assert not multiprocessing.active_children() and threading.active_count() == threads


@pytest.mark.parametrize("backend", BACKENDS)
def test_leaving_the_playfield_ends_an_episode(backend: str) -> None:
    env = make_car_racing(CarRacingConfig(backend=backend, num_envs=1, max_frames=1000, threads=1), 1)
    env.reset()
    for _ in range(100):
        _, reward, terminated, truncated, info = env.step(np.array([[0.0, 0.5]], np.float32))
        if terminated[0] or truncated[0]:
            break
    assert terminated[0] and not truncated[0]
    assert -100.5 < reward[0] <= -100 and 200 < info["episode"]["l"][0] < 400
    observation, reward, terminated, _, info = env.step(np.array([[0.0, 0.5]], np.float32))
    assert reward[0] == 0 and not terminated[0] and info["frames"][0] == 0
    assert observation["image"].std() > 5
    env.close()


@pytest.mark.skipif(not envpool_available(), reason="EnvPool is not installed here")
def test_neighbouring_seeds_share_no_tracks() -> None:
    config = CarRacingConfig(num_envs=4, backend="envpool")
    firsts = []
    for seed in (0, 1):
        env = make_car_racing(config, seed)
        firsts.append(env.reset()[0]["image"])
        env.close()
    assert not any(np.array_equal(a, b) for a in firsts[0] for b in firsts[1])


@pytest.mark.parametrize("backend", BACKENDS)
def test_simulators_may_share_tracks(backend: str) -> None:
    config = CarRacingConfig(backend=backend, num_envs=4, image_size=96)
    env = make_car_racing(config, 3, tracks=2)
    env.reset()
    for _ in range(13):
        observation, *_ = env.step(np.zeros((4, 2), np.float32))
    env.close()
    image = observation["image"]
    assert (image[:2] == image[2:]).all() and (image[0] != image[1]).any()
