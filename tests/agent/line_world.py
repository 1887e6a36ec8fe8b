"""A world of five places on a line, as tokens, and an LSTM world model that has learnt it."""

import copy
from functools import cache
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from agent.tokenizer.fsq_vae import FSQVAEConfig
from agent.world_model.interface import Batch
from agent.world_model.lstm import LSTMConfig, LSTMWorldModel

PLACES, GOAL = 5, 3


def line_batch(b: int, t: int, ends: bool = True, discrete: bool = False) -> Batch:
    """Random drives. An action above 1/3 moves one place right, below -1/3 left; walls stop. The reward is 1
    at the goal. Episodes end by chance, and begin anywhere. Discrete actions are left, nothing, right."""
    action = torch.rand(b, t, 1) * 2 - 1
    if discrete:
        # (B, T, 3) one-hot
        action = F.one_hot(torch.randint(3, (b, t)), 3).float()
    is_first = torch.rand(b, t) < (0.1 if ends else 0.0)
    is_first[:, 0] = True
    places = []
    for row in range(t):
        start = torch.randint(PLACES, (b,))
        if row == 0:
            places.append(start)
            continue
        moved = (places[-1] + push(action[:, row])).clamp(0, PLACES - 1)
        places.append(torch.where(is_first[:, row], start, moved))
    # (B, T)
    place = torch.stack(places, 1)
    keep = (~is_first).float()
    reward = (place == GOAL).float() * keep
    token = place.unsqueeze(-1)
    return Batch({"token": token}, action * keep.unsqueeze(-1), reward, is_first, torch.zeros_like(is_first))


def push(action: Tensor) -> Tensor:
    """Places (B) that actions (B, 1), or one-hot ones (B, 3), move to the right."""
    if action.shape[-1] == 3:
        return action.argmax(-1) - 1
    return (action[:, 0] > 1 / 3).long() - (action[:, 0] < -1 / 3).long()


def new_model(discrete: bool = False, reads: Literal["table", "codes"] = "table") -> LSTMWorldModel:
    """An untrained model of the line; its codes are the places from -1 to 1."""
    tokenizer = FSQVAEConfig(image_size=8, channels=[2], latent_dim=2, fsq_levels=[PLACES])
    config = LSTMConfig(
        tokenizer=tokenizer, embedding=16, reads=reads, hidden_size=32, units=32, value_layers=1
    )
    return config.build({"token": (1,)}, 3 if discrete else 1)


@cache
def _learnt(discrete: bool, reads: Literal["table", "codes"]) -> LSTMWorldModel:
    torch.manual_seed(0)
    model = new_model(discrete, reads)
    optimizer = torch.optim.Adam([p for p in model.parameters() if p.requires_grad], 1e-2)
    for _ in range(200):
        loss, _ = model.loss(line_batch(32, 12, discrete=discrete))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return model


def learnt_model(discrete: bool = False, reads: Literal["table", "codes"] = "table") -> LSTMWorldModel:
    """A copy of a model that has learnt the line."""
    return copy.deepcopy(_learnt(discrete, reads))
