"""From the command line to a dream, with CARLA's own client and the stand-in."""

import json
import os
import shutil
import signal
import subprocess
import sys
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path

import numpy as np
import pytest

from agent.dreamer import DreamerConfig
from tests.agent.tiny import CONFIG
from tests.envs.carla.fake_client import children, eventually
from train.cli import main
from train.data.episodes import read_episode
from train.online.config import OnlineConfig
from train.run.checkpoint import save_weights
from train.run.folder import Run

pytestmark = pytest.mark.slow

pytest.importorskip("carla")
ROOT = Path(__file__).parents[3]
SMALL = ["--env.max_frames", "25", "--env.image_size", "32", "--env.timeout_seconds", "20"]
# Own servers, whatever may run at the usual port.
OWN = ["--env.servers.map", "village", "--env.town", "village"]
QUIET = os.environ | {"OMP_NUM_THREADS": "1"}


def collect(folder: Path, episodes: int, *more: str) -> list[str]:
    words = ["collect", "carla", "--servers", "2", "--episodes", str(episodes), "--output", str(folder)]
    return [*words, *SMALL, *more]


def family(parent: int) -> list[int]:
    """A process's descendants."""
    found = children(parent)
    return found + [one for child in found for one in family(child)]


def alive(process: int) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@pytest.fixture(scope="module")
def collected(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Collected, with a kill in the middle."""
    folder = tmp_path_factory.mktemp("carla") / "data"
    weathers = ["--env.weather", "[ClearNoon, HardRainSunset]"]
    command = [sys.executable, "-m", "train.cli", *collect(folder, 40, *weathers)]
    with subprocess.Popen(command, cwd=ROOT, env=QUIET, stdout=subprocess.DEVNULL) as killed:
        assert eventually(lambda: len(list(folder.glob("*.npz"))) >= 2, 120)
        started = family(killed.pid)
        killed.send_signal(signal.SIGKILL)
        killed.wait()
    assert len(started) >= 6 and eventually(lambda: not any(map(alive, started)), 30)
    there = {path: path.read_bytes() for path in folder.glob("*.npz")}
    # Here, for a process of its own takes seconds to start.
    with redirect_stdout(StringIO()) as said:
        assert main(collect(folder, len(there) + 3, *weathers)) == 0
    assert "starting the stand-in" in said.getvalue() and "3 episodes written now" in said.getvalue()
    assert all(path.read_bytes() == data for path, data in there.items())
    assert len(list(folder.glob("*.npz"))) == len(there) + 3
    return folder


def test_the_files_are_whole(collected: Path) -> None:
    numbers = [int(path.stem.removeprefix("episode_")) for path in sorted(collected.glob("*.npz"))]
    # A number that was under way when the collector was killed is driven again.
    assert numbers == list(range(len(numbers)))
    for path in collected.glob("*.npz"):
        episode = read_episode(path)
        assert 1 <= len(episode) <= 25 and episode.observations["image"].shape[1:] == (3, 32, 32)
        extras = episode.extras
        assert extras["positions"].shape == (len(episode), 3) and str(extras["town"]) == "town"
        steps = np.linalg.norm(np.diff(extras["positions"][:, :2], axis=0), axis=1)
        np.testing.assert_allclose(steps, extras["speeds"][1:] * 0.1, atol=0.15)
        terms = np.sum([v for name, v in extras.items() if name.startswith("terms.")], 0)
        np.testing.assert_allclose(terms, episode.rewards[1:], atol=1e-4)
        wrong = extras["perturbed"]
        assert (extras["expert_actions"][~wrong] == episode.actions[1:][~wrong]).all()


def test_report_and_sheet(collected: Path) -> None:
    report = json.loads((collected / "report.json").read_text())
    assert report["episodes"] == len(list(collected.glob("*.npz"))) and not report["unreadable"]
    assert set(report["weathers"]) <= {"ClearNoon", "HardRainSunset"}
    assert (collected / "contact_sheet.png").stat().st_size > 1000
    assert not list(collected.glob(".*.partial"))


def test_a_world_model_learns_from_it_and_dreams(collected: Path, tmp_path: Path) -> None:
    run = str(tmp_path / "run")
    sizes = "--state-dim 16 --hidden-dim 16 --latent-dim 4 --num-categories 4 --image-size 16 --depth 2"
    jobs = "--batch-size 4 --sequence-length 8 --imagination-horizon 3 --num-epochs 1 --workers 0 --fps 10"
    words = ["train", "world-model", "--data-path", str(collected), "--run", run, "--action-dim", "2"]
    assert main([*words, *sizes.split(), *jobs.split(), "--cache-dir", str(tmp_path / "cache")]) == 0
    episode = str(min(collected.glob("*.npz")))
    dream = ["imagine", run, "--episode", episode, "--context", "3", "--horizon", "5"]
    assert main([*dream, "--output", str(tmp_path / "dream")]) == 0
    assert (tmp_path / "dream" / "filmstrip.png").exists()


def test_the_demo_that_users_know(tmp_path: Path) -> None:
    words = ["--mode", "collect", "--episodes", "1", "--episode-length", "6", "--output-dir", str(tmp_path)]
    script = [sys.executable, str(ROOT / "scripts" / "carla_demo.py"), *words, *OWN, "--env.image_size", "32"]
    done = subprocess.run(script, cwd=tmp_path, env=QUIET, capture_output=True, text=True, timeout=150)
    assert done.returncode == 0, done.stderr
    episode = read_episode(tmp_path / "episode_000000.npz")
    # Steering, throttle and brake; six frames.
    assert episode.actions[1:].shape == (6, 3) and str(episode.extras["town"]) == "village"


def test_an_agent_may_drive(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Whatever it learnt to drive, if it sees and does the same."""
    config = OnlineConfig(agent=DreamerConfig(world_model=CONFIG))
    agent = config.agent.build({"image": (3, 64, 64)}, 2)
    run = Run.create(tmp_path / "run", "train-agent", config)
    save_weights(run.path, agent.state_dict(), {"observations": {"image": [3, 64, 64]}, "action_size": 2})
    words = ["collect", "carla", "--policy", str(run.path), "--episodes", "1"]
    words += ["--output", str(tmp_path / "data")]
    assert main([*words, *OWN, "--env.max_frames", "3"]) == 0
    assert read_episode(tmp_path / "data" / "episode_000000.npz").observations["image"].shape[-1] == 64
    shutil.rmtree(tmp_path / "data")
    assert main([*words, *OWN, "--env.image_size", "32"]) == 1
    assert "expected (3, 64, 64) as in" in capsys.readouterr().err
