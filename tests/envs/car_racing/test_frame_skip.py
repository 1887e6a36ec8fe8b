import multiprocessing
import os
import signal
from collections.abc import Iterator
from functools import partial

import numpy as np
import pytest
from gymnasium.error import AlreadyPendingCallError, NoAsyncCallError

from envs.car_racing.env import CarRacingConfig, make_car_racing
from envs.car_racing.frame_skip import Decision, InProcess, Subprocess
from envs.car_racing.simulators import envpool_available
from envs.workers import WorkerDied
from tests.envs.car_racing.fakes import FakeSimulators

LENGTHS = [[5, 9], [3], [100], [1], [8, 2, 4]]
BACKENDS = ["gymnasium", *(["envpool"] if envpool_available() else [])]


@pytest.fixture(autouse=True)
def _no_process_stays() -> Iterator[None]:
    yield
    assert not multiprocessing.active_children()


def drive(simulators: InProcess | Subprocess, decisions: int) -> list[Decision]:
    """Decisions in which whatever has ended begins anew."""
    n = len(LENGTHS)
    made, live = [], np.ones(n, bool)
    simulators.reset(live)
    for k in range(decisions):
        simulators.send(np.full((n, 3), k / 10, np.float32), live, ~live)
        made.append(simulators.receive())
        live = ~(made[-1].terminated | made[-1].truncated)
    simulators.close()
    return made


def test_a_decision_is_what_its_frames_add_up_to() -> None:
    made = drive(InProcess(FakeSimulators(LENGTHS), 4), 3)
    # The fake's frame f brings f: four frames 10; what ends earlier moves no more.
    assert made[0].reward.tolist() == [10, 6, 10, 1, 10] and made[0].frames.tolist() == [4, 3, 4, 1, 4]
    assert made[0].terminated.tolist() == [False, True, False, True, False] and not made[0].truncated.any()
    # What had ended only began; the others went on.
    assert made[1].frames.tolist() == [1, 0, 4, 0, 4] and made[1].reward.tolist() == [5, 0, 26, 0, 26]
    # Red is the episode, green the frame that the picture shows.
    assert made[1].picture[:, 0, 0, 0].tolist() == [0, 1, 0, 1, 0]
    assert made[1].picture[:, 0, 0, 1].tolist() == [5, 0, 8, 0, 8]
    assert made[0].tile.all() and made[1].tile.tolist() == [True, False, True, False, True]


@pytest.mark.parametrize("sizes", [(5,), (2, 3), (1, 1, 1, 2)])
def test_processes_of_their_own_bring_the_same(sizes: tuple[int, ...]) -> None:
    starts = np.cumsum([0, *sizes])
    groups = [
        (size, partial(FakeSimulators, LENGTHS[start : start + size]))
        for start, size in zip(starts, sizes, strict=False)
    ]
    here, apart = (
        drive(InProcess(FakeSimulators(LENGTHS), 4), 12),
        drive(Subprocess(groups, 4, FakeSimulators), 12),
    )
    for one, other in zip(here, apart, strict=True):
        for name in ("picture", "reward", "frames", "terminated", "truncated", "tile", "off_road", "on_road"):
            assert np.array_equal(getattr(one, name), getattr(other, name)), name


@pytest.mark.slow
@pytest.mark.parametrize("backend", BACKENDS)
def test_car_racing_is_the_same_in_any_number_of_processes(backend: str) -> None:
    def episode(processes: int) -> list[np.ndarray]:
        config = CarRacingConfig(
            backend=backend, num_envs=3, image_size=16, max_frames=22, mirror=True, processes=processes
        )
        env = make_car_racing(config, seed=3)
        draw = np.random.default_rng(0)
        seen = [env.reset()[0]["image"]]
        for _ in range(9):
            env.step_async(draw.uniform(-1, 1, (3, 2)).astype(np.float32))
            observation, reward, terminated, truncated, info = env.step_wait()
            seen += [observation["image"], reward, terminated, truncated, info["frames"]]
        env.close()
        return seen

    plain = episode(0)
    assert any(row.any() for row in plain[4::5]), "no episode ended"
    for processes in (1, 2, 8):
        assert all(np.array_equal(a, b) for a, b in zip(plain, episode(processes), strict=True))


def test_a_dead_process_is_an_error() -> None:
    simulators = Subprocess([(1, partial(FakeSimulators, [[9]]))], 4, FakeSimulators)
    simulators.reset(np.ones(1, bool))
    (child,) = multiprocessing.active_children()
    assert child.pid
    os.kill(child.pid, signal.SIGKILL)
    child.join()
    with pytest.raises(WorkerDied, match="process died"):
        simulators.send(np.zeros((1, 3), np.float32), np.ones(1, bool), np.zeros(1, bool))
        simulators.receive()
    simulators.close()


def test_steps_out_of_order_are_refused() -> None:
    env = make_car_racing(CarRacingConfig(backend="gymnasium", num_envs=1), seed=3)
    env.reset()
    with pytest.raises(NoAsyncCallError, match="expected step_async before"):
        env.step_wait()
    env.step_async(np.zeros((1, 2), np.float32))
    with pytest.raises(AlreadyPendingCallError, match="expected step_wait first"):
        env.step_async(np.zeros((1, 2), np.float32))
    env.close()
