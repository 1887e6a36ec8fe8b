"""Validation of a world model on held-out episodes: its losses, and its open-loop dreams beside the truth."""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from agent.image_quality import psnr, sharpness, ssim
from agent.world_model.interface import Batch, WorldModel
from agent.world_model.losses import picture_names
from agent.world_model.rssm import RSSM
from train.data.loader import shares
from train.data.sequences import SequenceDataset
from train.data.windows import sequence_batch
from train.drive.open_loop import psnr_curves, to_pixels
from train.run.device import autocast
from train.world_model.config import WorldModelTrainConfig
from train.world_model.distributed import Team
from train.world_model.learner import recorded_loss

_STEPS = (1, 2, 3, 5, 10, 15, 20, 25, 30, 40, 50)  # horizons that are tracked, and the last one


@dataclass
class OpenLoopFilm:
    """One held-out sequence beside the model's dream of it, (T, C, H, W) uint8 each.

    Attributes:
        truth: what happened.
        model: reconstructions of what it saw, then its dream.
        context: rows that it saw.
    """

    truth: NDArray[np.uint8]
    model: NDArray[np.uint8]
    context: int


@torch.no_grad()
def validate_world_model(
    model: WorldModel,
    dataset: SequenceDataset,
    config: WorldModelTrainConfig,
    mean_picture: Tensor,
    team: Team,
) -> tuple[dict[str, float], OpenLoopFilm | None]:
    """Validate on sequences spread evenly over the held-out episodes, with the same random numbers each time.

    Args:
        model: in evaluation mode.
        dataset: of the split val.
        config: of the run.
        mean_picture: (C, S, S) in [0, 1], the mean of the training pictures, a baseline.
        team: each process does a part; all get the same means.

    Returns:
        Metrics: the means of the objective's, with the KL at its full weight; `reward_mse` [squared reward]
        and `reward_mse_of_mean`, that of always predicting the mean; and of open-loop dreams after
        `imagination_context` rows, for steps k: `psnr/k` [dB], `ssim/k`, `kl/k` (of the posterior, given
        the pictures, from the dream's prior) [nats], and `psnr_repeat/k`, `psnr_mean/k`, of repeating the
        last picture seen and of the mean picture, and `psnr_decoded/k`, of pictures decoded from the states
        alone, where the model paints them from the last one seen. Without `/k` they are the means over all
        steps, and `sharpness` compares reconstructions with the truth (1 is as sharp).
        And the film of one sequence, on the first process, where there are pictures.
    """
    torch.manual_seed(config.seed)
    starts = dataset.fixed_starts()
    size = min(config.batch_size, max(1, len(starts) // team.world))
    most = config.val_batches * size * team.world
    spread = starts[np.unique(np.linspace(0, len(starts) - 1, min(most, len(starts))).astype(int))]
    sums: dict[str, float] = {}
    counted = 0
    rewards: list[float] = [0.0] * 4
    for part in shares(spread, 0, size, team.rank, team.world):
        batch = sequence_batch(dataset.columns(part.starts), team.device)
        with autocast(team.device, config.precision):
            done = config.kl_anneal_steps
            start = model.initial(len(part.starts))
            _, metrics, states = recorded_loss(model, batch, start, config.objective, done)
            predicted = model.reward(states).float()
        for name, value in metrics.items():
            sums[name] = sums.get(name, 0.0) + float(value) * len(part.starts)
        counted += len(part.starts)
        valid = ~batch.is_first
        error = ((predicted - batch.reward).square() * valid).sum()
        known = batch.reward * valid
        found = [float(error), float(known.square().sum()), float(known.sum()), float(valid.sum())]
        rewards = [a + b for a, b in zip(rewards, found, strict=True)]
    names = sorted(sums)
    *values, count, error_sum, squares, total, valid_rows = team.sum(
        [*(sums[name] for name in names), float(counted), *rewards]
    )
    result = {name: value / count for name, value in zip(names, values, strict=True)}
    result["reward_mse"] = error_sum / valid_rows
    result["reward_mse_of_mean"] = squares / valid_rows - (total / valid_rows) ** 2

    chosen = np.unique(np.linspace(0, len(starts) - 1, config.num_imagination_samples).astype(int))
    batch = sequence_batch(dataset.columns(starts[chosen]), team.device)
    # Few sequences: every process imagines all of them, from the same random numbers.
    torch.manual_seed(config.seed)
    with autocast(team.device, config.precision):
        dreamt, film = open_loop_metrics(model, batch, config, mean_picture)
    return result | dreamt, film if team.leads else None


@torch.no_grad()
def open_loop_metrics(
    model: WorldModel, batch: Batch, config: WorldModelTrainConfig, mean_picture: Tensor
) -> tuple[dict[str, float], OpenLoopFilm | None]:
    """Imagine on from the first rows of sequences (B, T), along the recorded actions: metrics and film."""
    b, t = batch.reward.shape
    context = min(config.imagination_context, t - 1)
    horizon = min(config.imagination_horizon, t - context)
    rows = batch.observation, batch.action, batch.is_first, model.initial(b)
    curves: dict[str, Tensor] = {}
    actions = batch.action[:, context : context + horizon]
    if isinstance(model, RSSM):
        states, posterior = model.filter(*rows)
        imagined = model.imagine_along(states[:, context - 1], actions).states[:, 1:]
        # (B, H)
        kl = model.dynamics.latent.kl(posterior[:, context : context + horizon], model.prior(imagined))
        curves["kl"] = kl.float().mean(0)
    else:
        states, _ = model.observe(*rows)
        imagined = model.imagine_along(states[:, context - 1], actions).states[:, 1:]
    seen_then = batch.observation
    if "token" in seen_then:
        # What the tokens stand for: a world model over tokens can dream of nothing else.
        seen_then = {"image": (model.decode(states)["image"] * 255.0).round().byte()}
    pictures = picture_names(seen_then)
    film = None
    result: dict[str, float] = {}
    if pictures:
        name = "image" if "image" in pictures else sorted(pictures)[0]
        # (B, T, C, S, S)
        truth = seen_then[name].float() / 255.0
        future = truth[:, context : context + horizon]
        last = truth[:, context - 1]
        painted = model.paint(imagined, {name: last})[name].float()
        mean = mean_picture if mean_picture.shape == future.shape[2:] else None
        compared = psnr_curves(painted, future, last, mean) | {"ssim": ssim(painted, future)}
        curves |= {key: curve.mean(0) for key, curve in compared.items()}
        if isinstance(model, RSSM) and model.advection is not None and name in model.advection.names:
            curves["psnr_decoded"] = psnr(model.decode(imagined)[name].float(), future).mean(0)
        seen = model.decode(states[:, :context])[name].float()
        result["sharpness"] = float(
            sharpness(seen).mean() / sharpness(truth[:, :context]).mean().clamp(min=1e-6)
        )
        if truth.shape[2] in (1, 3):
            shown = torch.cat([seen[0], painted[0]])
            film = OpenLoopFilm(to_pixels(truth[0, : context + horizon]), to_pixels(shown), context)
    for name, curve in curves.items():
        tracked = [k for k in _STEPS if k < horizon] + [horizon]
        result |= {f"{name}/{k:02d}": float(curve[k - 1]) for k in tracked}
        result[f"{name}"] = float(curve.mean())
    return result, film


def mean_picture(dataset: SequenceDataset, name: str = "image", most: int = 2000) -> Tensor:
    """The mean of up to `most` training pictures spread over all, (C, S, S) in [0, 1]; empty without any."""
    column = dataset.cache.columns.get(f"observation.{name}")
    if column is None or column.ndim != 4:
        return torch.zeros(0)
    lengths = dataset.segments.end - dataset.segments.start
    rows = np.concatenate(
        [np.arange(s, e) for s, e in zip(dataset.segments.start, dataset.segments.end, strict=True)]
    )
    picked = rows[np.unique(np.linspace(0, lengths.sum() - 1, min(most, int(lengths.sum()))).astype(int))]
    total = np.zeros(column.shape[1:], np.float64)
    for row in picked.tolist():
        total += column[row]
    return torch.from_numpy(total / len(picked) / 255.0).float()
