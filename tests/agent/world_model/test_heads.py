"""Heads: what they predict untrained, and their losses."""

import math

import pytest
import torch

from agent.world_model.heads import ContinueHead, TwoHotHead


def test_an_untrained_two_hot_head_predicts_exactly_zero() -> None:
    head = TwoHotHead(4, 8, 2, "rms")
    assert torch.equal(head.mean(head(torch.randn(3, 5, 4) * 100)), torch.zeros(3, 5))


def test_two_hot_targets_get_no_gradient() -> None:
    head, target = TwoHotHead(4, 8, 1, "layer"), torch.randn(3, requires_grad=True)
    loss = head.loss(head(torch.randn(3, 4)), target)
    # a flat distribution over 255 bins
    torch.testing.assert_close(loss, torch.full((3,), math.log(255)))
    loss.sum().backward()
    assert target.grad is None


def test_continue_loss_by_hand() -> None:
    head = ContinueHead(4, 8, 1, "rms")
    logits = torch.tensor([2.0, -1.0])
    p, q = 1 / (1 + math.exp(-2)), 1 / (1 + math.exp(1))
    assert head.mean(logits).tolist() == pytest.approx([p, q])
    assert head.loss(logits, torch.tensor([1.0, 0.0])).tolist() == pytest.approx(
        [-math.log(p), -math.log(1 - q)]
    )
    assert head(torch.randn(2, 3, 4)).shape == (2, 3)
