"""Score a trained agent on the official environment, on tracks it never trained on."""

import json
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch

from envs.evaluation import OfficialTracks
from train.agents import Trained, load_agent
from train.checkpoint import write_text_aside
from train.errors import DreamdriveError
from train.progress import Progress

SOLVED = 900.0


@dataclass
class Scores:
    """The result of an evaluation; scores are undiscounted returns of whole episodes."""

    run: str
    environment: str
    episodes: int
    mean: float
    std: float
    min: float
    median: float
    max: float
    share_at_900: float
    frames: int
    trained_frames: int
    first_seed: int
    last_seed: int
    versions: dict[str, str]
    scores: list[float]
    episode_frames: list[int]

    def line(self) -> str:
        """Everything but the single scores, in one line."""
        return (
            f"mean {self.mean:.1f} std {self.std:.1f} min {self.min:.1f} median {self.median:.1f} "
            f"max {self.max:.1f} at-900-or-more {self.share_at_900:.0%} episodes {self.episodes} "
            f"frames {self.frames} seeds {self.first_seed}-{self.last_seed} "
            + " ".join(f"{name} {number}" for name, number in self.versions.items())
        )


def summarise(
    name: str, trained_frames: int, first_seed: int, scores: list[float], frames: list[int]
) -> Scores:
    """The statistics of scores and lengths [frames], one each for the seeds from `first_seed` on."""
    values = np.array(scores)
    return Scores(
        run=name,
        environment="CarRacing-v3",
        episodes=len(scores),
        mean=float(values.mean()),
        std=float(values.std()),
        min=float(values.min()),
        median=float(np.median(values)),
        max=float(values.max()),
        share_at_900=float((values >= SOLVED).mean()),
        frames=int(sum(frames)),
        trained_frames=trained_frames,
        first_seed=first_seed,
        last_seed=first_seed + len(scores) - 1,
        versions={"gymnasium": version("gymnasium"), "Box2D": version("box2d")},
        scores=scores,
        episode_frames=frames,
    )


@torch.no_grad()
def drive(
    trained: Trained, seeds: list[int], progress: Progress | None = None
) -> tuple[list[float], list[int]]:
    """Drive one official track for each seed with the policy's mode: scores and lengths [frames], by seed."""
    agent, device = trained.agent, trained.device
    results: dict[int, tuple[float, int]] = {}
    with OfficialTracks(trained.config.env, seeds) as tracks:
        observation = tracks.reset()
        count = tracks.num_envs
        state = agent.world_model.initial(count)
        action = torch.zeros(count, agent.world_model.action_size, device=device)
        is_first = torch.ones(count, dtype=torch.bool, device=device)
        while tracks.active.any():
            image = {name: torch.from_numpy(value).to(device) for name, value in observation.items()}
            action, state = agent.act(image, state, action, is_first, explore=False)
            observation, first, finished = tracks.step(action.cpu().numpy())
            is_first = torch.from_numpy(first).to(device)
            for episode in finished:
                results[episode.seed] = (episode.score, episode.frames)
            if progress is not None and finished:
                done = [score for score, _ in results.values()]
                progress.update(len(results), {"mean": float(np.mean(done)), "min": float(np.min(done))})
    return [results[seed][0] for seed in seeds], [results[seed][1] for seed in seeds]


def evaluate(run: Path, episodes: int, first_seed: int, json_path: Path | None = None) -> Scores:
    """Evaluate a run and print its scores; write them to `json_path`, too, if given.

    Raises `DreamdriveError` for seeds that training may have used, or a run without weights.
    """
    if episodes < 1:
        raise DreamdriveError(f"--episodes {episodes}: expected at least 1")
    if first_seed < 1_000_000:
        raise DreamdriveError(
            f"--first-seed {first_seed}: expected 1000000 or more, training uses those below"
        )
    trained = load_agent(run)
    # The filter samples its latent states: the same run on the same tracks shall get the same scores.
    torch.manual_seed(first_seed)
    seeds = list(range(first_seed, first_seed + episodes))
    with Progress(f"evaluating {run} on CarRacing-v3", episodes, "episodes") as progress:
        scores, frames = drive(trained, seeds, progress)
    result = summarise(str(run), trained.frames, first_seed, scores, frames)
    if json_path is not None:
        write_text_aside(json_path, json.dumps(asdict(result), indent=1) + "\n")
    print(result.line())
    return result
