"""Batches from outside, checked before they are used: one clear error that names what is wrong."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from agent.behaviour.vla.interface import ACTION, FEATURES, IMAGE, IMAGES, PAD, STATE, TASK, VLABatch
from agent.behaviour.vla.model import VLAConfig
from train.run.errors import DreamdriveError

_ROUNDING = 1e-3
"""How far a number may be outside its range: pictures are scaled in half precision, too."""


class Seen(NamedTuple):
    """A checked observation: what it is seen by, (B, 3, H, W) or (B, F), its state (B, S), and B texts."""

    vision: Tensor
    state: Tensor
    tasks: list[str]


def check_observation(config: VLAConfig, batch: VLABatch, device: torch.device) -> Seen:
    """The observation in `batch`, as float32 on `device`.

    Raises:
        DreamdriveError: a key is missing, a tensor has the wrong shape or type, is out of range or not
            finite, or there is not one text for each row.
    """
    if config.vision == "patches":
        vision = _picture(config, batch, device)
    else:
        vision = _tensor(batch, FEATURES, (None, config.feature_size), device)
        _finite(vision, FEATURES)
    state = _tensor(batch, STATE, (len(vision), config.state_size), device)
    _finite(state, STATE)
    return Seen(vision, state, _tasks(batch, len(vision)))


def check_actions(
    config: VLAConfig, batch: VLABatch, rows: int, device: torch.device
) -> tuple[Tensor, Tensor | None]:
    """The chunks (B, T, A) to learn in `batch`, and (B, T) bool, which of their rows do not count, if any.

    Raises:
        DreamdriveError: as `check_observation`.
    """
    actions = _tensor(batch, ACTION, (rows, config.chunk, config.action_size), device)
    _within(actions, ACTION, -1.0, 1.0)
    pad = batch.get(PAD)
    if pad is None:
        return actions, None
    if not isinstance(pad, Tensor) or pad.dtype != torch.bool or pad.shape != (rows, config.chunk):
        told = f"{pad.dtype} {tuple(pad.shape)}" if isinstance(pad, Tensor) else type(pad).__name__
        raise DreamdriveError(f"batch: {PAD}: {told}: expected bool ({rows}, {config.chunk})")
    return actions, pad.to(device)


def _picture(config: VLAConfig, batch: VLABatch, device: torch.device) -> Tensor:
    if IMAGE not in batch:
        others = sorted(str(key) for key in batch if str(key).startswith(IMAGES))
        raise DreamdriveError(f"batch: no camera {IMAGE}: it has {', '.join(others) or 'no camera at all'}")
    side = config.image_size
    picture = _tensor(batch, IMAGE, (None, 3, side, side), device)
    _within(picture, IMAGE, 0.0, 1.0)
    return picture


def _tensor(batch: VLABatch, key: str, shape: tuple[int | None, ...], device: torch.device) -> Tensor:
    """The float tensor under `key`, if it has this shape; None stands for any number but 0."""
    expected = ", ".join("B" if n is None else str(n) for n in shape)
    value = batch.get(key)
    if value is None:
        raise DreamdriveError(f"batch: {key} is missing: expected float32 ({expected})")
    if not isinstance(value, Tensor):
        raise DreamdriveError(f"batch: {key}: a {type(value).__name__}, expected a tensor ({expected})")
    if not value.is_floating_point():
        raise DreamdriveError(f"batch: {key}: {value.dtype}, expected float32 (pictures in [0, 1])")
    fits = value.ndim == len(shape) and len(value) > 0
    if not fits or any(n is not None and n != m for n, m in zip(shape, value.shape, strict=True)):
        raise DreamdriveError(f"batch: {key}: shape {tuple(value.shape)}, expected ({expected})")
    return value.to(device, torch.float32)


def _finite(value: Tensor, key: str) -> None:
    if not bool(value.isfinite().all()):
        raise DreamdriveError(f"batch: {key}: holds NaN or infinity, expected finite numbers")


def _within(value: Tensor, key: str, low: float, high: float) -> None:
    smallest, largest = (float(x) for x in value.aminmax())
    # Written so that NaN fails.
    if not (smallest >= low - _ROUNDING and largest <= high + _ROUNDING):
        raise DreamdriveError(
            f"batch: {key}: from {smallest:g} to {largest:g}, expected numbers in [{low:g}, {high:g}]"
        )


def _tasks(batch: VLABatch, rows: int) -> list[str]:
    tasks = batch.get(TASK)
    if isinstance(tasks, str):
        tasks = [tasks]
    if tasks is None:
        raise DreamdriveError(f"batch: {TASK} is missing: expected {rows} instructions")
    if not isinstance(tasks, Sequence) or any(not isinstance(text, str) for text in tasks):
        raise DreamdriveError(f"batch: {TASK}: expected a list of texts")
    if len(tasks) != rows:
        raise DreamdriveError(f"batch: {TASK}: {len(tasks)} instructions, expected {rows}, one a row")
    return list(tasks)
