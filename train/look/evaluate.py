"""Score a trained agent on the official environment, on tracks it never trained on."""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, Protocol, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from agent.world_model.interface import State, WorldModel
from envs.car_racing.env import TRAINING_SEEDS, CarRacingConfig
from envs.car_racing.official_tracks import OfficialTracks
from train.drive.agents import BASELINE_JOB, Trained, load_agent
from train.drive.environments import require_car_racing
from train.run.checkpoint import write_text_aside
from train.run.errors import DreamdriveError
from train.run.folder import Run
from train.run.progress import Progress

SOLVED = 900.0
Episode = TypeVar("Episode", covariant=True)


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


class Chooser(Protocol):
    """Chooses the actions of several simulators, and keeps what it must remember of each."""

    def start(self, count: int) -> None:
        """Forget everything; `count` simulators follow."""

    def act(
        self, observation: Mapping[str, NDArray[Any]], is_first: NDArray[np.bool_]
    ) -> NDArray[np.float32]:
        """Actions (N, A) for observations name -> (N, ...); `is_first` (N,) marks the first of an episode."""


class Course(Protocol[Episode]):
    """Several episodes to be driven, some of them at the same time."""

    num_envs: int
    active: NDArray[np.bool_]
    """(N,): where there is something to drive."""

    def reset(self) -> Mapping[str, NDArray[Any]]:
        """Start: observations (N, ...)."""
        ...

    def step(
        self, action: NDArray[np.float32]
    ) -> tuple[Mapping[str, NDArray[Any]], NDArray[np.bool_], Sequence[Episode]]:
        """Observations (N, ...); which are the first of an episode (N,); and the episodes that ended."""
        ...


class Filtering:
    """What an agent's choosers share: the state that the world model filters.

    Args:
        world_model: filters what is seen.
        choose: states (N) and `is_first` (N) -> actions (N, A).
        device: of the networks.
    """

    def __init__(
        self, world_model: WorldModel, choose: Callable[[State, Tensor], Tensor], device: torch.device
    ) -> None:
        self._world_model, self._choose, self._device = world_model, choose, device
        self.start(1)

    def start(self, count: int) -> None:
        """See `Chooser`."""
        self._state = self._world_model.initial(count)
        self._action = torch.zeros(count, self._world_model.action_size, device=self._device)

    @torch.no_grad()
    def act(
        self, observation: Mapping[str, NDArray[Any]], is_first: NDArray[np.bool_]
    ) -> NDArray[np.float32]:
        """See `Chooser`."""
        seen = {name: torch.from_numpy(value).to(self._device) for name, value in observation.items()}
        first = torch.from_numpy(is_first).to(self._device)
        self._state = self._world_model.encode(seen, self._state, self._action, first)
        self._action = self._choose(self._state, first)
        chosen: NDArray[np.float32] = self._action.cpu().numpy()
        return chosen


def follow_policy(trained: Trained) -> Filtering:
    """Chooses the mode of the agent's policy."""
    model, behaviour = trained.agent.world_model, trained.agent.behaviour

    def mode(state: State, _: Tensor) -> Tensor:
        return behaviour.policy(model.features(state)).mode().clamp(-1.0, 1.0)

    return Filtering(model, mode, trained.device)


def finished(course: Course[Episode], chooser: Chooser) -> Iterator[Episode]:
    """Drive all episodes of a course as `chooser` says; each as it ends."""
    observation = course.reset()
    chooser.start(course.num_envs)
    is_first = np.ones(course.num_envs, bool)
    while course.active.any():
        observation, is_first, ended = course.step(chooser.act(observation, is_first))
        yield from ended


def drive(
    env: CarRacingConfig, chooser: Chooser, seeds: list[int], progress: Progress | None = None
) -> tuple[list[float], list[int]]:
    """Drive one official track for each seed as `chooser` says: scores and lengths [frames], by seed."""
    results: dict[int, tuple[float, int]] = {}
    with OfficialTracks(env, seeds) as tracks:
        for episode in finished(tracks, chooser):
            results[episode.seed] = (episode.score, episode.frames)
            if progress is not None:
                done = [score for score, _ in results.values()]
                progress.update(len(results), {"mean": float(np.mean(done)), "min": float(np.min(done))})
    return [results[seed][0] for seed in seeds], [results[seed][1] for seed in seeds]


def held_out(episodes: int, first_seed: int) -> list[int]:
    """The seeds from `first_seed` on. Raises `DreamdriveError` for those that training may have used."""
    if episodes < 1:
        raise DreamdriveError(f"--episodes {episodes}: expected at least 1")
    if first_seed < TRAINING_SEEDS:
        raise DreamdriveError(
            f"--first-seed {first_seed}: expected {TRAINING_SEEDS} or more, training uses those below"
        )
    return list(range(first_seed, first_seed + episodes))


def _load(path: Path) -> tuple[CarRacingConfig, Chooser, int]:
    """The environment, the driver, and the frames it learnt from, of a run of any job that makes a driver."""
    if Run.open(path).record.job == BASELINE_JOB:
        from train.baselines.job import load_baseline

        return load_baseline(path)
    trained = load_agent(path)
    return require_car_racing(trained.config.env, str(path)), follow_policy(trained), trained.frames


def evaluate(run: Path, episodes: int, first_seed: int, json_path: Path | None = None) -> Scores:
    """Evaluate a run and print its scores; write them to `json_path`, too, if given.

    Raises `DreamdriveError` for seeds that training may have used, or a run without weights.
    """
    seeds = held_out(episodes, first_seed)
    env, chooser, trained_frames = _load(run)
    # The filter samples its latent states: the same run on the same tracks shall get the same scores.
    torch.manual_seed(first_seed)
    with Progress(f"evaluating {run} on CarRacing-v3", episodes, "episodes") as progress:
        scores, frames = drive(env, chooser, seeds, progress)
    result = summarise(str(run), trained_frames, first_seed, scores, frames)
    if json_path is not None:
        write_text_aside(json_path, json.dumps(asdict(result), indent=1) + "\n")
    print(result.line())
    return result
