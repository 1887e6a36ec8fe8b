"""Imagined training data: variations of recorded episodes, cut where the world model is unsure.

From states of demonstrations the world model imagines other actions: those of the policy with another
instruction, or the demonstration's with autocorrelated noise. A dream ends where the ensemble disagrees,
where the car leaves the road, and where the episode is not expected to go on. The rest is labelled in
hindsight like any episode (`train.language.hindsight`), from the speeds and places that the probes read.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import BaseModel, Field
from torch import Tensor

from agent.behaviour.vla.interface import FEATURES, IMAGE, STATE, TASK, ChunkPolicy
from agent.world_model.interface import State, Trajectory, WorldModel
from train.data.episodes import Episode
from train.language.hindsight import PLACES, SPEEDS, SpeedScale, label_rows
from train.language.instructions import sample_sentence
from train.vla.chunk_scoring import sample_labels
from train.vla.features import FEATURES_OF, IMAGINED_FEATURES, weights_fingerprint
from train.vla.filtered_episodes import FilteredEpisode, filter_episode
from train.vla.probes import DreamProbes, DreamProbesConfig, ProbeReadings


class ImaginedConfig(BaseModel, extra="forbid", validate_assignment=True, use_attribute_docstrings=True):
    """How recorded episodes are varied in imagination."""

    horizon: int = Field(20, ge=2)
    """Longest dream [decisions]."""
    starts: int = Field(4, ge=1)
    """Rows of each episode that dreams begin in."""
    variations: int = Field(4, ge=1)
    """Dreams that begin in each of them."""
    policy_share: float = Field(0.5, ge=0, le=1)
    """Share of the dreams whose actions are a policy's, with a random instruction; none without a policy."""
    noise: float = Field(0.3, ge=0)
    """Standard deviation of what is added to the demonstration's actions; their range is 2."""
    correlation: float = Field(0.9, ge=0, lt=1)
    """Correlation of that noise from one decision to the next."""
    alive: float = Field(0.8, ge=0, lt=1)
    """A dream ends where the probability that the episode has continued so far falls below this."""
    least: int = Field(8, ge=1)
    """Shorter dreams are thrown away [decisions]."""
    skip: int = Field(4, ge=0)
    """Rows at the beginning of an episode that no dream begins in [decisions]."""
    window: int = Field(8, ge=1)
    """For the report: rows are labelled from this many decisions that follow them."""
    fit: DreamProbesConfig = DreamProbesConfig()
    """How probes are fitted, where none are given."""


@dataclass
class ImaginedReport:
    """What was imagined, and what was kept of it.

    Attributes:
        dreams, kept: dreams begun, and long enough to be kept.
        steps, kept_steps: decisions imagined, and kept.
        unsure, off_road, over: dreams that ended early because the world model was unsure, the car was off
            the road, or the episode not expected to go on; the first reason counts.
        labelled: kept rows that have a label.
        speeds, places: rows that were given each word.
        probe: R2 of each quantity that the probe reads, on episodes that it was not fitted on.
    """

    dreams: int = 0
    kept: int = 0
    steps: int = 0
    kept_steps: int = 0
    unsure: int = 0
    off_road: int = 0
    over: int = 0
    labelled: int = 0
    speeds: dict[str, int] = field(default_factory=dict)
    places: dict[str, int] = field(default_factory=dict)
    probe: dict[str, float] = field(default_factory=dict)

    @property
    def kept_share(self) -> float:
        """Share of the imagined steps that was kept."""
        return self.kept_steps / max(1, self.steps)

    def __add__(self, other: "ImaginedReport") -> "ImaginedReport":
        """Both together, with the probe of the first."""
        sums: dict[str, Any] = {}
        for name, mine in vars(self).items():
            theirs = getattr(other, name)
            if isinstance(mine, dict):
                sums[name] = {word: mine.get(word, 0) + theirs.get(word, 0) for word in mine | theirs}
            else:
                sums[name] = mine + theirs
        return ImaginedReport(**sums | {"probe": self.probe})

    def summary(self) -> str:
        """In a line."""
        return (
            f"{self.kept:,} of {self.dreams:,} dreams and {self.kept_share:.0%} of their steps kept; ended "
            f"early: {self.unsure:,} unsure, {self.off_road:,} off the road, {self.over:,} over; "
            f"{self.labelled:,} of {self.kept_steps:,} rows obey an instruction; R2 of speed "
            f"{self.probe.get('speed', 0.0):.2f}, offset {self.probe.get('offset', 0.0):.2f}"
        )


@dataclass
class _Start:
    """Where a dream begins: a row of an episode."""

    filtered: FilteredEpisode
    row: int


@torch.no_grad()
def imagine_data(
    model: WorldModel,
    probes: DreamProbes,
    episodes: Sequence[Episode],
    scale: SpeedScale,
    config: ImaginedConfig,
    policy: ChunkPolicy | None = None,
    observations: Sequence[str] = ("image",),
    seed: int = 0,
) -> tuple[list[Episode], ImaginedReport]:
    """Imagined variations of recorded episodes, as episodes with an extra `imagined`, all true.

    Args:
        model: world model of pictures.
        probes: its probes.
        episodes: demonstrations.
        scale: the classes of speed.
        config: how many, how long, how noisy.
        policy: acts in a share of the dreams, with random instructions; it reads pictures or the features.
        observations: those of the world model.
        seed: of everything random.

    Returns:
        The episodes that were kept, and a report.

    Raises:
        DreamdriveError: an episode does not fit the world model, or is not a demonstration.
    """
    rng = np.random.default_rng(seed)
    made: list[Episode] = []
    report = ImaginedReport(probe=dict(probes.scores))
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        for number, episode in enumerate(episodes):
            filtered = filter_episode(model, observations, episode, f"episode {number}")
            starts = _starts(filtered, config, rng)
            trajectory = _dream(model, probes, starts, config, policy, rng) if starts else None
            if trajectory is not None:
                made += _kept(model, probes, starts, trajectory, config, report)
    labels = [row for episode in made for row in label_rows(episode, scale, config.window)]
    report.labelled = sum(bool(row) for row in labels)
    report.speeds = {word: sum(row.speed == word for row in labels) for word in SPEEDS}
    report.places = {word: sum(row.place == word for row in labels) for word in PLACES}
    return made, report


def _starts(filtered: FilteredEpisode, config: ImaginedConfig, rng: np.random.Generator) -> list[_Start]:
    """Rows to begin in, each as often as there are variations."""
    rows = np.arange(config.skip, len(filtered.episode) - 1)
    if not len(rows):
        return []
    chosen = rng.choice(rows, min(config.starts, len(rows)), replace=False)
    return [_Start(filtered, int(row)) for row in np.repeat(np.sort(chosen), config.variations)]


def _dream(
    model: WorldModel,
    probes: DreamProbes,
    starts: Sequence[_Start],
    config: ImaginedConfig,
    policy: ChunkPolicy | None,
    rng: np.random.Generator,
) -> Trajectory:
    """N dreams at once; in a share of them the policy acts."""
    filtered = starts[0].filtered
    states: State = filtered.states[torch.tensor([start.row for start in starts])]
    count_by_policy = round(config.policy_share * len(starts)) if policy is not None else 0
    # By turns, so that each start has some of both.
    by_policy = torch.from_numpy(rng.permutation(len(starts)) < count_by_policy).to(states.device)
    noisy = iter(torch.from_numpy(_varied(starts, config, rng)).to(states.device).unbind(1))
    driver = None
    if policy is not None and count_by_policy:
        texts = [sample_sentence(sample_labels(rng), rng) for _ in range(count_by_policy)]
        driver = ChunkDriver(policy, model, probes, texts)

    def act(state: State) -> Tensor:
        action = next(noisy)
        if driver is not None:
            action = action.clone()
            action[by_policy] = driver(state[by_policy]).to(action)
        return action

    return model.imagine(states, act, config.horizon)


def _varied(
    starts: Sequence[_Start], config: ImaginedConfig, rng: np.random.Generator
) -> NDArray[np.float32]:
    """The demonstration's actions with noise, (N, H, A); beyond its end the last action is repeated."""
    episode = starts[0].filtered.episode
    wanted = np.asarray(episode.extras.get("expert_actions", episode.actions[1:]), np.float32)
    ahead = np.array([start.row for start in starts])[:, None] + np.arange(config.horizon)
    # (N, H, A)
    base = wanted[ahead.clip(max=len(episode) - 1)]
    noise = rng.standard_normal(base.shape).astype(np.float32)
    for step in range(1, config.horizon):
        fresh = (1.0 - config.correlation**2) ** 0.5
        noise[:, step] = config.correlation * noise[:, step - 1] + fresh * noise[:, step]
    return (base + config.noise * noise).clip(-1.0, 1.0)


class ChunkDriver:
    """A policy that acts in dreams: it gets decoded pictures and the states that the probe reads.

    Args:
        policy: proposes chunks.
        model: the world model.
        probes: its probes.
        texts: the instruction of each of the N dreams.
    """

    def __init__(
        self, policy: ChunkPolicy, model: WorldModel, probes: DreamProbes, texts: Sequence[str]
    ) -> None:
        self._policy, self._model, self._probes, self._texts = policy, model, probes, list(texts)
        config = getattr(policy, "config", None)
        self._execute = getattr(config, "execute", None) or getattr(config, "n_action_steps", None)
        self._waiting: list[Tensor] = []

    @torch.no_grad()
    def __call__(self, state: State) -> Tensor:
        """Actions (N, A) in states (N)."""
        if not self._waiting:
            features = self._model.features(state)
            batch = {
                IMAGE: self._model.decode(state)["image"].clamp(0.0, 1.0).float(),
                STATE: self._probes.read(features).state,
                FEATURES: features.float(),
                TASK: self._texts,
            }
            chunk = self._policy.predict_action_chunk(batch).clamp(-1.0, 1.0)
            self._waiting = list(chunk[:, : self._execute].unbind(1))
        return self._waiting.pop(0)


def _kept(
    model: WorldModel,
    probes: DreamProbes,
    starts: Sequence[_Start],
    trajectory: Trajectory,
    config: ImaginedConfig,
    report: ImaginedReport,
) -> list[Episode]:
    """The dreams as episodes, each up to the first step that is not kept; the report counts them."""
    # (N, H + 1, F)
    features = model.features(trajectory.states)
    read = probes.read(features)
    # (N, H): step k leads to a row that is not kept
    reasons = {
        "unsure": probes.relative_disagreement(features[:, :-1], trajectory.actions) > 1.0,
        "off_road": (read.offsets.abs() > read.half_widths)[:, 1:],
        "over": trajectory.continues.cumprod(1) < config.alive,
    }
    # (3, N); argmin takes the first of several reasons
    ends = torch.stack([_first(flags) for flags in reasons.values()])
    lengths, why = ends.amin(0), ends.argmin(0)
    for index, name in enumerate(reasons):
        early = (why == index) & (lengths < config.horizon)
        setattr(report, name, getattr(report, name) + int(early.sum()))
    report.dreams += len(starts)
    report.steps += len(starts) * config.horizon
    mark = np.array(weights_fingerprint(model))
    episodes = []
    for number, length in enumerate(lengths.tolist()):
        if length < config.least:
            continue
        report.kept += 1
        report.kept_steps += length
        pictures = model.decode(trajectory.states[number, : length + 1])["image"]
        made = _episode(starts[number], trajectory, read, pictures, number, length)
        made.extras[IMAGINED_FEATURES] = features[number, :length].half().cpu().numpy()
        made.extras[FEATURES_OF] = mark
        episodes.append(made)
    return episodes


def _first(flags: Tensor) -> Tensor:
    """The first true step of (N, H), or H, (N)."""
    last = torch.ones_like(flags[:, :1])
    return torch.cat([flags, last], 1).long().argmax(1)


def _episode(
    start: _Start, trajectory: Trajectory, read: ProbeReadings, pictures: Tensor, number: int, length: int
) -> Episode:
    """Dream `number` as an episode of `length` actions; what is real of its first row stays."""
    real, row = start.filtered.episode, start.row
    image = (pictures.clamp(0.0, 1.0) * 255).round().byte().cpu().numpy()
    state = read.state[number, : length + 1].float().cpu().numpy()
    image[0], state[0] = real.observations["image"][row], real.observations["state"][row]
    extras: dict[str, NDArray[np.generic]] = {}
    for name in ("speeds", "offsets", "half_widths"):
        # (L,): a file's rows are those in which an action was taken
        values = getattr(read, name)[number, :length].float().cpu().numpy()
        values[0] = real.extras[name][row]
        extras[name] = values
    actions = trajectory.actions[number, :length].clamp(-1.0, 1.0).float().cpu().numpy()
    extras |= {
        "expert_actions": actions,
        "perturbed": np.zeros(length, bool),
        "imagined": np.ones(length, bool),
    }
    if "manoeuvres" in real.extras:
        extras["manoeuvres"] = np.full(length, "")
    rewards = trajectory.rewards[number, :length].float().cpu().numpy()
    return Episode(
        {"image": image, "state": state},
        np.concatenate([np.zeros_like(actions[:1]), actions]),
        np.concatenate([np.zeros_like(rewards[:1]), rewards]),
        np.arange(length + 1) == 0,
        np.zeros(length + 1, bool),
        extras,
    )
