"""Two probes of a world model's imagination: an ensemble's disagreement, and the car's speed and position.

Both are small networks on the frozen features of a world model of pictures, fitted on recorded episodes
(`agent.world_model.ensemble`, `agent.world_model.probe`).
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from pydantic import BaseModel, Field, ValidationError
from torch import Tensor

from agent.world_model.ensemble import Disagreement, DisagreementConfig
from agent.world_model.interface import WorldModel
from agent.world_model.probe import Probe, ProbeConfig, r_squared
from train.data.episodes import read_episode
from train.run.checkpoint import load_weights, save_weights
from train.run.errors import DreamdriveError, one_line
from train.vla.filtered_episodes import (
    FilteredEpisode,
    filter_episode,
    probe_names,
    probe_targets,
    vehicle_state_size,
)
from train.vla.fit_probes import fit_disagreement, fit_probe

NAME = "gauges"
"""Stem of the files: gauges.safetensors and gauges.json."""


class DreamProbesConfig(BaseModel, extra="forbid", validate_assignment=True, use_attribute_docstrings=True):
    """Sizes of the probes, and how they are fitted."""

    ensemble: DisagreementConfig = DisagreementConfig()
    """Heads whose disagreement is the world model's uncertainty."""
    probe: ProbeConfig = ProbeConfig()
    """Features to state, speed and place on the road."""
    ensemble_updates: int = Field(1000, ge=1)
    """Updates that fit the heads."""
    probe_updates: int = Field(2000, ge=1)
    """Updates that fit the probe."""
    quantile: float = Field(0.99, gt=0, lt=1)
    """The limit of the disagreement is this quantile of it in recorded, held-out rows."""
    held_out: float = Field(0.15, gt=0, lt=1)
    """Share of the episodes that nothing is fitted on; the quantile and the R2 are taken on them."""
    skip: int = Field(4, ge=0)
    """Rows left out after an episode's begin: its speed shows in no picture yet [decisions]."""


@dataclass
class ProbeReadings:
    """Quantities that the probe reads off features of states (...).

    Attributes:
        state: (..., S), the vehicle's state vector.
        speeds: (...) m/s, not negative.
        offsets: (...) m from the middle of road or lane, left positive.
        half_widths: (...) m.
    """

    state: Tensor
    speeds: Tensor
    offsets: Tensor
    half_widths: Tensor


@dataclass
class DreamProbes:
    """The probes of one world model.

    Attributes:
        ensemble: its disagreement is the uncertainty.
        probe: reads state, speed, offset and half width.
        limit: disagreement above which a step counts as uncertain.
        scores: R2 of each quantity of the probe on held-out episodes.
    """

    ensemble: Disagreement
    probe: Probe
    limit: float
    scores: dict[str, float]

    @property
    def state_size(self) -> int:
        """S."""
        return len(self.probe.names) - 3

    @torch.no_grad()
    def read(self, features: Tensor) -> ProbeReadings:
        """The quantities that the probe reads off features (..., F)."""
        values = self.probe(features)
        speeds, offsets, half_widths = values[..., -3:].unbind(-1)
        return ProbeReadings(values[..., :-3], speeds.clamp(min=0.0), offsets, half_widths.clamp(min=1e-3))

    @torch.no_grad()
    def relative_disagreement(self, features: Tensor, action: Tensor) -> Tensor:
        """Disagreement (...) about what follows action (..., A) in features (..., F), over the limit."""
        return self.ensemble.disagreement(features, action) / self.limit

    def to(self, device: torch.device) -> "DreamProbes":
        """These probes, moved."""
        self.ensemble.to(device)
        self.probe.to(device)
        return self

    def save(self, folder: Path) -> None:
        """Write gauges.safetensors and gauges.json into `folder`. Raises `DreamdriveError` on a full disk."""
        tensors = {f"ensemble.{name}": t for name, t in self.ensemble.state_dict().items()}
        tensors |= {f"probe.{name}": t for name, t in self.probe.state_dict().items()}
        meta: dict[str, Any] = {
            "ensemble": self.ensemble.config.model_dump(),
            "part": [self.ensemble.part.start, self.ensemble.part.stop],
            "probe": self.probe.config.model_dump(),
            "names": self.probe.names,
            "feature_size": self.probe.feature_size,
            "action_size": self.ensemble.action_size,
            "limit": self.limit,
            "scores": self.scores,
        }
        save_weights(folder, tensors, meta, NAME)


def load_dream_probes(folder: Path, world_model: WorldModel) -> DreamProbes:
    """The probes that `DreamProbes.save` wrote.

    Raises:
        DreamdriveError: there are none, they are broken, or they belong to a world model of other sizes.
    """
    tensors, meta = load_weights(folder, name=NAME)
    where = folder / f"{NAME}.json"
    try:
        sizes = {"feature_size": int(meta["feature_size"]), "action_size": int(meta["action_size"])}
        ensemble = Disagreement(
            DisagreementConfig.model_validate(meta["ensemble"]),
            sizes["feature_size"],
            sizes["action_size"],
            slice(*(int(end) for end in meta["part"])),
        )
        probe = Probe(ProbeConfig.model_validate(meta["probe"]), sizes["feature_size"], list(meta["names"]))
        for name, module in (("ensemble", ensemble), ("probe", probe)):
            own = {
                key.removeprefix(f"{name}."): t for key, t in tensors.items() if key.startswith(f"{name}.")
            }
            module.load_state_dict(own)
        limit = float(meta["limit"])
        scores = {str(name): float(score) for name, score in meta["scores"].items()}
    except (KeyError, TypeError, ValueError, RuntimeError, AttributeError, ValidationError) as error:
        raise DreamdriveError(
            f"{where}: broken, or not gauges of a dream ({one_line(error)[:200]})"
        ) from error
    for name, size in sizes.items():
        if size != getattr(world_model, name):
            raise DreamdriveError(
                f"{where}: {name} {size}: expected {getattr(world_model, name)}, as the world model's"
            )
    device = next(world_model.parameters()).device
    return DreamProbes(ensemble.eval(), probe.eval(), limit, scores).to(device)


def fit_dream_probes(
    world_model: WorldModel,
    episodes: Sequence[FilteredEpisode],
    config: DreamProbesConfig | None = None,
    seed: int = 0,
) -> DreamProbes:
    """Fit both on recorded episodes; the world model stays as it is.

    Args:
        world_model: that filtered the episodes.
        episodes: at least two.
        config: sizes and updates.
        seed: of first weights, of held-out episodes and of the rows' order.

    Raises:
        DreamdriveError: too few episodes, or one without state, speeds, offsets or half widths.
    """
    config = config or DreamProbesConfig()
    if len(episodes) < 2:
        raise DreamdriveError(f"{len(episodes)} episodes to fit gauges on: expected at least 2")
    generator = torch.Generator().manual_seed(seed)
    order = torch.randperm(len(episodes), generator=generator).tolist()
    held = max(1, round(config.held_out * len(episodes)))
    learnt, tested = ([episodes[i] for i in part] for part in (order[held:], order[:held]))
    device = next(world_model.parameters()).device
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        ensemble = config.ensemble.build(world_model).to(device)
        names = probe_names(vehicle_state_size(episodes[0].episode))
        probe = Probe(config.probe, world_model.feature_size, names).to(device)
        before, action, after, true = _rows(world_model, learnt, config.skip)
        fit_disagreement(ensemble, before, action, after, config.ensemble_updates, generator=generator)
        known = true.isfinite().all(1)
        if not bool(known.any()):
            raise DreamdriveError("no row of the episodes has state, speed, offset and half width")
        fit_probe(probe, before[known], true[known], config.probe_updates, generator=generator)
    before, action, _, true = _rows(world_model, tested, config.skip)
    with torch.no_grad():
        limit = float(ensemble.disagreement(before, action).quantile(config.quantile))
    known = true.isfinite().all(1)
    scores = r_squared(probe, before[known], true[known])
    return DreamProbes(ensemble.eval(), probe, max(limit, 1e-12), scores)


def fit_dream_probes_on(
    world_model: WorldModel, names: Iterable[str], paths: Sequence[Path], config: DreamProbesConfig, seed: int
) -> DreamProbes:
    """Fit both on episode files, filtered by the world model, which observes `names`.

    Raises:
        DreamdriveError: as `fit_dream_probes`; a file is bad or does not fit the world model.
    """
    names = list(names)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        episodes = [filter_episode(world_model, names, read_episode(path), str(path)) for path in paths]
    return fit_dream_probes(world_model, episodes, config, seed)


@torch.no_grad()
def _rows(
    model: WorldModel, episodes: Sequence[FilteredEpisode], skip: int
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Features before (N, F), action (N, A), features after (N, F), targets (N, Q) of all episodes."""
    parts: list[tuple[Tensor, ...]] = []
    for filtered in episodes:
        # (T+1, F)
        features = model.features(filtered.states)
        action = torch.from_numpy(filtered.episode.actions[1:]).to(features)
        true = probe_targets(filtered.episode).to(features)
        # An episode shorter than what is skipped gives no rows.
        parts.append((features[skip:-1], action[skip:], features[skip + 1 :], true[skip:]))
    before, action, after, true = (torch.cat(part) for part in zip(*parts, strict=True))
    return before, action, after, true
