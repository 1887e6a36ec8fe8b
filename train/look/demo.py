"""The main job on a small budget: collect, learn, score before and after, dream, and show it all."""

import time
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from envs.car_racing.observation import CarRacingObservation
from train.drive.agents import Trained, load_agent
from train.drive.descriptions import AgentDescription
from train.drive.drivers import agent_driver
from train.drive.environments import require_car_racing
from train.drive.open_loop import draw_dream, open_loop
from train.drive.rollout import drive_tracks
from train.look.evaluate import Scores, score_statistics
from train.look.record import record_episode
from train.online.config import OnlineConfig
from train.online.trainer import train_agent
from train.pictures.curves import Episodes, Evaluations, learning_curve
from train.pictures.video import write_mp4
from train.run.checkpoint import write_json_aside
from train.run.device import pick_device
from train.run.errors import explain_os_errors
from train.run.folder import Run
from train.run.options import build
from train.run.progress import Progress
from train.run.tracking import Tracker, read_metrics

_FIRST_SEED = 1_000_000
_EPISODES = 5
_CONTEXT, _HORIZON = 5, 45


def score(trained: Trained, when: str, episodes: int = _EPISODES) -> Scores:
    """The mode's scores on the first held-out tracks of the official environment."""
    seeds = list(range(_FIRST_SEED, _FIRST_SEED + episodes))
    with Progress(f"score {when} learning, official CarRacing-v3", episodes, "episodes") as progress:
        env = require_car_racing(trained.config.env, "the demo")
        scores, frames = drive_tracks(env, agent_driver(trained), seeds, progress)
    return score_statistics(str(trained.run.path), trained.frames, _FIRST_SEED, scores, frames)


def untrained(config: OnlineConfig, run: Run) -> Trained:
    """An agent as it is before the first update."""
    torch.manual_seed(config.seed)
    device = pick_device(config.trainer.device)
    env = require_car_racing(config.env, "the demo")
    spaces = CarRacingObservation(env.image_size, env.crop_hud, env.instruments).spaces
    shapes = {name: tuple(space.shape or ()) for name, space in spaces.items()}
    agent = config.agent.build(shapes, env.action_size).to(device).eval()
    description = AgentDescription(seed=config.seed, env=env, agent=config.agent)
    return Trained(run, description, agent, device, 0)


def draw_curve(run: Run, evaluations: list[tuple[float, float, Scores]], path: Path) -> None:
    """The learning curve of a run as a PNG, with evaluations at (frames, seconds)."""
    rows = read_metrics(run.metrics_path)
    times = [(row["step"], row["time/seconds"]) for row in rows if "time/seconds" in row]
    ended = [(row["step"], row["score/episode"]) for row in rows if "score/episode" in row]
    frames = np.array([step for step, _ in ended], float)
    steps, seconds = (
        (np.array(column, float) for column in zip(*times, strict=True)) if times else ([0.0], [0.0])
    )
    learning_curve(
        path,
        Episodes(frames, np.interp(frames, steps, seconds), np.array([value for _, value in ended], float)),
        Evaluations(
            np.array([at for at, _, _ in evaluations], float),
            np.array([at for _, at, _ in evaluations], float),
            np.array([scores.mean for _, _, scores in evaluations], float),
            np.array([scores.std for _, _, scores in evaluations], float),
        ),
        f"{run.name}: CarRacing-v3",
    )


def show_dream(trained: Trained, folder: Path) -> list[Path]:
    """A film of the agent's driving on the first held-out track, and the model's dream of its start."""
    film: list[NDArray[np.uint8]] = []
    episode = record_episode(trained, _FIRST_SEED, film=film)
    fps = 50 / trained.config.env.action_repeat
    video = folder / "driving.mp4"
    # (T, 3, 400, 600)
    write_mp4(video, np.ascontiguousarray(np.stack(film).transpose(0, 3, 1, 2)), fps)
    context = min(_CONTEXT, len(episode.rewards) - 2)
    horizon = min(_HORIZON, len(episode.rewards) - context - 1)
    truth, model = open_loop(trained.agent.world_model, episode, context, horizon)
    return [video, *draw_dream(folder, truth, model, context, fps)]


def demo(path: Path = Path("runs/demo"), config_path: Path = Path("configs/demo.yaml")) -> dict[str, Any]:
    """Do it all, write `summary.json` and the pictures into the run's folder, and say what to type next.

    An older demo in `path` is kept: its folder gets the present time as a suffix.
    """
    began = time.monotonic()
    config = build(OnlineConfig, config_path)
    if (path / "run.json").exists():
        kept = path.with_name(f"{path.name}-until-{datetime.now():%y%m%d-%H%M%S}")
        with explain_os_errors("cannot rename", path):
            path.rename(kept)
        print(f"the older demo is kept in {kept}")
    torch.set_num_threads(config.trainer.threads or torch.get_num_threads())
    run = train_agent(config, path)
    before = score(untrained(config, run), "before")
    trained = load_agent(path)
    after = score(trained, "after")

    curve = path / "learning_curve.png"
    rows = read_metrics(run.metrics_path)
    learnt = max((row["time/seconds"] for row in rows if "time/seconds" in row), default=0.0)
    draw_curve(run, [(0.0, 0.0, before), (float(trained.frames), learnt, after)], curve)
    pictures = [curve, *show_dream(trained, path)]
    summary = {
        "before": asdict(before),
        "after": asdict(after),
        "train_frames": trained.frames,
        "train_seconds": learnt,
        "total_seconds": time.monotonic() - began,
        "files": {picture.stem: str(picture) for picture in pictures},
    }
    write_json_aside(path / "summary.json", summary)
    with Tracker(path) as tracker:
        tracker.start("train-agent", run.name, {}, Run.open(path).record.mlflow_run_id)
        tracker.log(
            {"eval/mean": after.mean, "eval/median": after.median, "eval/min": after.min}, trained.frames
        )
        for file in [*pictures, path / "summary.json"]:
            tracker.artifact(file)
    _tell(path, summary, before, after)
    return summary


def _tell(path: Path, summary: dict[str, Any], before: Scores, after: Scores) -> None:
    print(
        f"\nbefore: mean {before.mean:.0f}   after: mean {after.mean:.0f}   "
        f"({after.episodes} held-out tracks)"
    )
    for name, file in summary["files"].items():
        print(f"  {name:15} {file}")
    print(f"  {'summary':15} {path / 'summary.json'}")
    print("\nnext:")
    print(f"  dreamdrive eval {path} --episodes 20          score it on more tracks")
    print(f"  dreamdrive imagine {path} --horizon 50        dream from another start")
    print("  dreamdrive train agent --config configs/car_racing.yaml    the full hour")
    print("  dreamdrive runs                                compare what you have")
