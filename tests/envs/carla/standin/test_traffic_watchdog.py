"""A signal of the Traffic Manager that is made to be lost, and how CARLA's real client gets out of it."""

# ruff: noqa: F821, F841 - names of the scripts come from conftest's prelude, RESULT goes back through it
# mypy: ignore-errors

import importlib.util
import shutil
import subprocess
from pathlib import Path

import pytest

_spec = importlib.util.spec_from_file_location("standin_conftest", Path(__file__).with_name("conftest.py"))
support = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(support)

pytest.importorskip("carla")


@pytest.fixture(scope="module")
def losing(tmp_path_factory):
    """A library that loses a signal between the client's threads."""
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("no C compiler")
    library = tmp_path_factory.mktemp("library") / "lost_signal.so"
    source = Path(__file__).with_name("lost_signal.c")
    subprocess.run([compiler, "-shared", "-fPIC", "-o", library, source, "-ldl"], check=True, timeout=60)
    return str(library)


@pytest.mark.slow
def test_a_tick_that_lost_its_signal_ends_and_the_next_ones_are_as_ever(town, losing):
    def script():
        import ctypes
        import logging

        logging.basicConfig(level=logging.ERROR)
        lose_after = ctypes.CDLL(os.environ["LD_PRELOAD"]).lose_after
        world = client.load_world("town")
        synchronous(world)
        manager, watchdog = traffic_manager()
        car = spawn(world, "vehicle.audi.a2", world.get_map().get_spawn_points()[0])
        watchdog.tick(world, 20.0)
        car.set_autopilot(True, manager.get_port())
        frames = [watchdog.tick(world, 20.0) for _ in range(20)]
        recoveries, took = [], []
        # The signal to the Traffic Manager that a tick begins, then its signal that it has ended.
        for signals in (0, 1):
            time.sleep(0.3)  # until its thread waits for the signal
            lose_after(signals)
            began = time.monotonic()
            frames.append(watchdog.tick(world, 20.0))
            took.append(time.monotonic() - began)
            recoveries.append(watchdog.recoveries)
            before = car.get_location()
            frames += [watchdog.tick(world, 20.0) for _ in range(20)]
            assert car.get_location().distance(before) > 5.0
        recoveries.append(watchdog.recoveries)
        watchdog.stop()
        manager.shut_down()
        RESULT = {"frames": frames, "recoveries": recoveries, "took": took}

    result = support.run_client(script, town, LD_PRELOAD=losing)
    first = result["frames"][0]
    assert result["frames"] == list(range(first, first + 62))
    assert result["recoveries"] == [1, 2, 2]
    # No signal to one that may still continue.
    assert min(result["took"]) > 2.0
