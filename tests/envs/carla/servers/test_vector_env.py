"""The vector environment over fakes: gymnasium's contract, and what a fault looks like from inside."""

import os
import signal
import time
from collections.abc import Callable, Iterator

import numpy as np
import pytest
from gymnasium.error import AlreadyPendingCallError, NoAsyncCallError

from envs.carla.config import CarlaConfig, ServerConfig
from envs.carla.ends import SIMULATOR_LOST
from envs.carla.errors import CarlaSetupError, SimulatorLost
from envs.carla.ports import Address
from envs.carla.servers.server import ServerProcess
from envs.carla.servers.vector_env import CarlaVectorEnv, make_carla
from tests.envs.carla.fake_client import (
    children,
    config,
    eventually,
    freeze,
    group,
    open_fake,
    processes,
    servers,
)

pytestmark = pytest.mark.usefixtures("nothing_left_behind")

FORWARD = np.zeros((2, 2), np.float32)


@pytest.fixture
def env() -> Iterator[CarlaVectorEnv]:
    made = make_carla(config(num_envs=2), 5, servers(), open_fake)
    yield made
    made.close()


def test_it_is_known_before_anything_is_started() -> None:
    before = children()
    made = make_carla(CarlaConfig(num_envs=3, birdseye=True, action="discrete"), 0, ServerConfig(), open_fake)
    shapes = {name: space.shape for name, space in made.single_observation_space.spaces.items()}  # type: ignore[attr-defined]
    assert shapes == {"image": (3, 64, 64), "birdseye": (3, 64, 64), "state": (22,)}
    assert made.action_space.shape == (3,) and made.single_action_space.n == 21  # type: ignore[attr-defined]
    assert children() == before
    made.close()


def test_episodes_follow_each_other(env: CarlaVectorEnv) -> None:
    observation, info = env.reset()
    assert env.observation_space.contains(observation)
    seeds = observation["state"][:, 0].tolist()
    assert seeds[0] != seeds[1] and observation["state"][:, 1].tolist() == [0, 0]
    assert info["frames"].tolist() == [0, 0]
    for frame in range(1, 5):
        observation, reward, terminated, truncated, info = env.step(FORWARD)
        assert reward.tolist() == [frame, frame] and not (terminated | truncated).any()
        assert info["frames"].tolist() == [2, 2] and info["terms"]["progress"].tolist() == [frame, frame]
        assert info["position"][1].tolist() == [1, 2, 3, 4] and "episode" not in info
    _, _, terminated, truncated, info = env.step(FORWARD)
    assert terminated.all() and not truncated.any()
    assert info["episode"]["r"].tolist() == [15, 15] and info["episode"]["l"].tolist() == [10, 10]
    assert info["_episode"].all() and info["reason"].tolist() == ["goal", "goal"]
    assert info["infractions"][0] == {"collision": 1}
    assert info["logged"]["terms/progress"].tolist() == [15, 15]
    assert info["logged"]["ended/goal"].tolist() == [1, 1] and info["logged"]["ended/collision"].sum() == 0
    observation, reward, terminated, truncated, info = env.step(FORWARD)
    assert reward.tolist() == [0, 0] and not terminated.any() and info["frames"].tolist() == [0, 0]
    assert observation["state"][:, 1].tolist() == [0, 0] and observation["state"][0, 0] != seeds[0]
    assert env.restarts.tolist() == [0, 0]


def test_the_same_seed_gives_the_same_episodes(env: CarlaVectorEnv) -> None:
    again = make_carla(config(num_envs=1), 5, servers(), open_fake)
    try:
        assert np.array_equal(env.reset()[0]["state"][:1], again.reset()[0]["state"])
        one, _ = env.reset(options={"reset_mask": np.array([False, True])})
        assert one["state"][0, 1] == 0 and one["state"][1, 0] != env.reset()[0]["state"][1, 0]
    finally:
        again.close()


@pytest.mark.slow
@pytest.mark.parametrize("fault", [signal.SIGKILL, signal.SIGSTOP])
def test_a_lost_simulator_truncates_only_its_own_episode(env: CarlaVectorEnv, fault: signal.Signals) -> None:
    first, _ = env.reset()
    env.step(FORWARD)
    broken = group(env.simulators[0])
    os.killpg(broken, fault) if fault == signal.SIGKILL else freeze(broken)
    observation, reward, terminated, truncated, info = env.step(FORWARD)
    assert truncated.tolist() == [True, False] and not terminated.any()
    assert observation["state"][:, 1].tolist() == [1, 2] and reward.tolist() == [0, 2]
    assert info["reason"].tolist() == [SIMULATOR_LOST, ""] and info["frames"].tolist() == [0, 2]
    assert info["episode"]["r"][0] == 1 and info["episode"]["l"][0] == 2
    assert info["logged"][f"ended/{SIMULATOR_LOST}"][0] == 1 and info["logged"]["terms/progress"][0] == 1
    observation, reward, terminated, truncated, info = env.step(FORWARD)
    assert not (terminated | truncated).any() and reward.tolist() == [0, 3]
    assert (
        observation["state"][:, 1].tolist() == [0, 3] and observation["state"][0, 0] != first["state"][0, 0]
    )
    assert env.step(FORWARD)[1].tolist() == [1, 4]
    assert env.restarts.tolist() == [1, 0] and processes(group=broken) == []


@pytest.mark.slow
def test_the_others_go_on_without_one_that_stays_away(
    env: CarlaVectorEnv, monkeypatch: pytest.MonkeyPatch
) -> None:
    env._pool.limits = ServerConfig(start_seconds=0.1)
    env.reset()
    env.step(FORWARD)
    with monkeypatch.context() as broken:
        broken.setattr(ServerProcess, "start", no_more)
        os.killpg(group(env.simulators[0]), signal.SIGKILL)
        _, _, _, truncated, info = env.step(FORWARD)
        assert truncated.tolist() == [True, False] and info["away"].tolist() == ["", ""]
        for frame in (3, 4, 5):
            observation, reward, terminated, truncated, info = env.step(FORWARD)
            assert reward.tolist() == [0, frame] and observation["state"][:, 1].tolist() == [1, frame]
            assert truncated.tolist() == [True, False] and terminated.tolist() == [False, frame == 5]
            assert info["away"].tolist() == ["no more servers", ""] and info["frames"].tolist() == [0, 2]
        assert info["_episode"].tolist() == [False, True] and info["reason"].tolist() == ["", "goal"]
    for _ in range(200):
        observation, _, _, truncated, info = env.step(FORWARD)
        if not info["away"][0]:
            break
        time.sleep(0.1)
    # Back, at the beginning of an episode, and driven from there.
    assert not truncated[0] and observation["state"][0, 1] == 0 and info["frames"][0] == 0
    assert env.step(FORWARD)[1][0] == 1


def test_a_decision_goes_on_while_its_giver_does_something_else(env: CarlaVectorEnv) -> None:
    env.reset()
    env.step_async(FORWARD)
    time.sleep(0.5)
    began = time.monotonic()
    observation, reward, *_, info = env.step_wait()
    assert time.monotonic() - began < 0.4 and env.restarts.tolist() == [0, 0]
    assert reward.tolist() == [1, 1] and observation["state"][:, 1].tolist() == [1, 1]
    assert info["frames"].tolist() == [2, 2]
    assert env.step(FORWARD)[1].tolist() == [2, 2]


@pytest.mark.slow
def test_a_simulator_lost_meanwhile_is_replaced_by_a_poll(env: CarlaVectorEnv) -> None:
    env.reset()
    stalled = group(env.simulators[0])
    freeze(stalled)
    env.step_async(FORWARD)

    def looks(true: Callable[[], bool]) -> bool:
        env.poll()
        return true()

    # The replacement starts before the decision is waited for, and then gets its request.
    assert eventually(lambda: looks(lambda: env.restarts[0] == 1)) and processes(group=stalled) == []
    _, reward, _, truncated, info = env.step_wait()
    assert truncated.tolist() == [True, False] and reward.tolist() == [0, 1]
    assert info["reason"].tolist() == [SIMULATOR_LOST, ""] and info["away"].tolist() == ["", ""]
    env.step_async(FORWARD)
    assert eventually(lambda: looks(lambda: not env._pool._resetting))
    began = time.monotonic()
    observation, reward, _, truncated, _ = env.step_wait()
    assert time.monotonic() - began < 1.0
    assert not truncated.any() and reward.tolist() == [0, 2] and observation["state"][0, 1] == 0


@pytest.mark.slow
def test_a_simulator_lost_between_polls_is_noticed_by_step_wait(env: CarlaVectorEnv) -> None:
    env.reset()
    os.killpg(group(env.simulators[0]), signal.SIGKILL)
    env.step_async(FORWARD)
    time.sleep(1.0)
    truncated = env.step_wait()[3]
    assert truncated.tolist() == [True, False] and env.restarts.tolist() == [1, 0]
    assert env.step(FORWARD)[1].tolist() == [0, 2]


def test_decisions_are_begun_and_waited_for_by_turns(env: CarlaVectorEnv) -> None:
    env.reset()
    with pytest.raises(NoAsyncCallError, match="^step_wait: no decision has begun"):
        env.step_wait()
    env.step_async(FORWARD)
    for call in (lambda: env.step_async(FORWARD), lambda: env.step(FORWARD), env.reset):
        with pytest.raises(AlreadyPendingCallError, match="expected step_wait first"):
            call()
    assert env.step_wait()[1].tolist() == [1, 1]
    with pytest.raises(NoAsyncCallError):
        env.step_wait()
    env.step_async(FORWARD)
    # Closed while a decision is under way: nothing is left behind.


def no_more(self: ServerProcess) -> Address:
    raise OSError("no more servers")


@pytest.mark.slow
def test_what_cannot_start_is_an_error_that_says_why() -> None:
    env = make_carla(config(num_envs=2), 0, servers("--fail", "no display"), open_fake)
    try:
        with pytest.raises(SimulatorLost, match=r"simulator \d: its server exited with status 1: no display"):
            env.reset()
    finally:
        env.close()


def test_the_configs_servers_are_driven() -> None:
    there = CarlaConfig(num_envs=2, servers=ServerConfig(addresses=["localhost:2000"]))
    with pytest.raises(CarlaSetupError, match="1 simulators, expected 2 or more"):
        make_carla(there, 0)


def test_a_wrong_call_is_refused(env: CarlaVectorEnv) -> None:
    with pytest.raises(ValueError, match="make_carla takes the seed"):
        env.reset(seed=3)
    for actions in (np.zeros((1, 2)), np.full((2, 2), np.nan)):
        with pytest.raises(ValueError, match="all finite"):
            env.step(actions)
