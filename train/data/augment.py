"""Data augmentation: sequences shifted, mirrored, brightened or darkened, each as a whole."""

from dataclasses import replace

import torch
import torch.nn.functional as functional
from torch import Tensor

from agent.world_model.interface import Batch


def shifted(images: Tensor, down: Tensor, right: Tensor) -> Tensor:
    """Move the pictures of each sequence by whole pixels; the edge is repeated (Kostrikov et al. 2020, DrQ).

    Args:
        images: (B, T, C, H, W).
        down, right: (B,) whole numbers [px], negative ones move up and left.
    """
    height, width = images.shape[-2:]
    rows = (torch.arange(height, device=images.device) - down[:, None]).clamp(0, height - 1)
    columns = (torch.arange(width, device=images.device) - right[:, None]).clamp(0, width - 1)
    each = torch.arange(len(images), device=images.device)
    # Indexed dimensions come first: (B, H, W, T, C)
    moved = images[each[:, None, None], :, :, rows[:, :, None], columns[:, None, :]]
    return moved.permute(0, 3, 4, 1, 2)


def relit(images: Tensor, gain: Tensor) -> Tensor:
    """Pictures (B, T, C, H, W) uint8, brighter or darker by a factor a sequence, (B,)."""
    return (images.float() * gain[:, None, None, None, None]).round().clamp(0, 255).to(images.dtype)


def augment(batch: Batch, shift: int, mirror: bool, light: float) -> Batch:
    """A batch whose sequences are changed at random, each as a whole; the random numbers are torch's.

    Without any change asked for, it is the batch itself, and no random number is drawn.

    Args:
        batch: pictures (B, T, C, H, W) uint8; the first number of an action is the steering.
        shift: farthest that the pictures move, up, down, left and right [px].
        mirror: mirror every second sequence left-right, and its steering with it. Vectors stay as they are:
            only for observations of pictures.
        light: largest relative change of brightness.
    """
    if not (shift or mirror or light):
        return batch
    b, device = len(batch.reward), batch.reward.device
    down, right = torch.randint(-shift, shift + 1, (2, b), device=device).unbind()
    mirrored = (torch.rand(b, device=device) < 0.5) & mirror
    gain = 1 + light * (2 * torch.rand(b, device=device) - 1)
    observation = dict(batch.observation)
    for name, images in observation.items():
        if images.ndim != 5:
            continue
        if shift:
            images = shifted(images, down, right)
        if mirror:
            images = torch.where(mirrored[:, None, None, None, None], images.flip(-1), images)
        observation[name] = relit(images, gain) if light else images
    signs = functional.one_hot(torch.zeros_like(down), batch.action.shape[-1]).to(batch.action.dtype)
    # (B, 1, A): -1 for the steering of what is mirrored
    signs = (1 - 2 * signs * mirrored[:, None])[:, None]
    return replace(batch, observation=observation, action=batch.action * signs)
