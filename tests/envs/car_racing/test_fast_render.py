import gymnasium
import numpy as np
import pytest

from envs.car_racing.observation import INSTRUMENTS, CarRacingObservation, read_instruments
from envs.car_racing.simulators import OfficialSimulator
from tests.envs.car_racing.fakes import follow_the_road


@pytest.mark.parametrize("seed", [4, 1_000_005])
def test_what_is_near_makes_the_whole_picture(seed: int) -> None:
    """Every picture is Gymnasium's, to the last bit: while the camera zooms in, and on the move."""
    official = gymnasium.make("CarRacing-v3", disable_env_checker=True)
    ours = OfficialSimulator(1000)
    assert (ours.reset(seed) == official.reset(seed=seed)[0]).all()
    for frame in range(120):
        action = follow_the_road(official.unwrapped)
        picture = official.step(action)[0]
        ours.step(action)
        if frame % 8 == 0:
            assert (ours.picture() == picture).all()
    # A new track, in the same simulator.
    assert (ours.reset(seed + 1) == official.reset(seed=seed + 1)[0]).all()
    official.close()
    ours.close()


def test_the_instruments_say_what_the_car_does() -> None:
    """Speed, wheels, steering and yaw rate of Box2D's car, read off Gymnasium's picture."""
    simulator = OfficialSimulator(1000)
    simulator.reset(2)
    read, true = [], []
    for frame in range(300):
        steer = 0.5 * np.sin(frame / 15)
        gas, brake = (0.5, 0.0) if frame < 220 else (0.0, 0.3)
        simulator.step(np.array([steer, gas, brake], np.float32))
        if frame % 5 == 0:
            car = simulator._base.car
            speed = np.hypot(*car.hull.linearVelocity)
            wheels = [wheel.omega for wheel in car.wheels]
            true.append([speed, *wheels, car.wheels[0].joint.angle, car.hull.angularVelocity])
            read.append(read_instruments(simulator.picture()[None])[0])
    simulator.close()
    error = np.sqrt(((np.array(read) - np.array(true)) ** 2).mean(0))
    assert np.array(read).dtype == np.float32 and np.array(read).shape[1] == INSTRUMENTS
    # [m/s], [rad/s] four times, [rad], [rad/s]; as good as half a pixel of brightness
    assert (error < [1.5, 5.0, 4.0, 4.0, 4.0, 0.02, 0.2]).all(), error
    # The car moved enough for that to mean something.
    assert (np.array(true).std(0) > [10.0, 20.0, 20.0, 20.0, 20.0, 0.1, 0.4]).all()


def test_a_black_dashboard_reads_as_standing_still() -> None:
    assert (read_instruments(np.zeros((3, 96, 96, 3), np.uint8)) == 0.0).all()


@pytest.mark.parametrize("instruments", [False, True])
def test_a_view_is_of_its_spaces(instruments: bool) -> None:
    view = CarRacingObservation(64, True, instruments)
    frames = np.random.default_rng(0).integers(0, 256, (2, 96, 96, 3), dtype=np.uint8)
    seen = view(frames)
    assert list(seen) == list(view.spaces) == ["image", "instruments"][: 1 + instruments]
    for name, space in view.spaces.items():
        assert all(space.contains(value) for value in seen[name])
