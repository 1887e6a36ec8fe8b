"""Checks of a policy's batches, and of whether a policy fits an environment; one clear error each."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from agent.behaviour.vla.interface import ACTION, FEATURES, IMAGE, IMAGES, PAD, STATE, TASK, VLABatch
from agent.behaviour.vla.model import VLAConfig
from envs.car_racing.track import STATE_SIZE
from envs.carla.config import CarlaConfig
from train.drive.environments import EnvConfig
from train.run.errors import DreamdriveError

_ROUNDING = 1e-3
"""How far a number may be outside its range: pictures are scaled in half precision, too."""


class PolicyInputs(NamedTuple):
    """A checked observation: picture (B, 3, H, W) or features (B, F), state (B, S), and B instructions."""

    vision: Tensor
    state: Tensor
    tasks: list[str]


def check_observation(config: VLAConfig, batch: VLABatch, device: torch.device) -> PolicyInputs:
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
    return PolicyInputs(vision, state, _tasks(batch, len(vision)))


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
        found = f"{pad.dtype} {tuple(pad.shape)}" if isinstance(pad, Tensor) else type(pad).__name__
        raise DreamdriveError(f"batch: {PAD}: {found}: expected bool ({rows}, {config.chunk})")
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


def check_env(policy: object, env: EnvConfig, where: str) -> None:
    """Raise `DreamdriveError` where a policy does not fit the environment as it is configured.

    Of a policy of another class nothing is known, and nothing is checked.

    Args:
        policy: with a `config` of ours, or any other.
        env: what it is to drive.
        where: what the policy is called.
    """
    config = getattr(policy, "config", None)
    if not isinstance(config, VLAConfig):
        return
    if isinstance(env, CarlaConfig):
        if not env.state:
            raise DreamdriveError(f"--env.state false: expected true, {where} reads the vehicle's state")
        if config.vision == "patches" and not env.image:
            raise DreamdriveError(f"--env.image false: expected true, {where} sees by the front camera")
        if env.state_size != config.state_size:
            raise DreamdriveError(
                f"--env.route.ahead {env.route.ahead}: a state of {env.state_size} numbers, expected "
                f"{config.state_size}, as {where} learnt"
            )
    elif config.state_size != STATE_SIZE:
        raise DreamdriveError(
            f"{where}: learnt with a state of {config.state_size} numbers, expected {STATE_SIZE}, CarRacing's"
        )
    if config.vision == "patches" and env.image_size != config.image_size:
        raise DreamdriveError(
            f"--env.image_size {env.image_size}: expected {config.image_size}, as {where} learnt"
        )
    if env.action_size != config.action_size:
        raise DreamdriveError(
            f"--env.action {env.action}: actions of {env.action_size} numbers, expected "
            f"{config.action_size}, as {where} learnt"
        )
