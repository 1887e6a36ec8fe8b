"""The DreamerV3 recipe's optimiser (adaptive gradient clipping, then LaProp); the running mean of weights."""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer


def clip_adaptively(params: list[Tensor], grads: list[Tensor], clip: float, minimum: float = 1e-3) -> Tensor:
    """Shrink each gradient in place to at most `clip` times the norm of its parameter (Brock et al. 2021).

    Args:
        params, grads: tensors of equal shapes, pair by pair.
        clip: largest allowed ratio of norms; norms are taken over whole tensors.
        minimum: parameter norms below this count as this, so that zeros can be left.

    Returns:
        The global gradient norm before clipping, a scalar.
    """
    norms = torch._foreach_norm(grads)
    limits = torch._foreach_norm(params)
    torch._foreach_clamp_min_(limits, minimum)
    torch._foreach_mul_(limits, clip)
    torch._foreach_div_(limits, torch._foreach_add(norms, 1e-12))
    torch._foreach_clamp_max_(limits, 1.0)
    torch._foreach_mul_(grads, limits)
    return torch.linalg.vector_norm(torch.stack(norms))


class LaProp(Optimizer):
    """LaProp (Ziyin et al. 2020): gradients are normalised first, and momentum is taken of the result.

    Adam divides the averaged gradient by the averaged size; here each gradient is divided by the size of its
    own time, so a sudden large one cannot dominate the momentum.

    Args:
        params: parameters or groups of them; a group may have its own `lr`.
        lr: learning rate.
        betas: decay of the momentum and of the squared size.
        eps: added to the size.
        clip: adaptive clipping of each tensor's gradient; 0 turns it off.
    """

    def __init__(
        self,
        params: Iterable[Tensor] | Iterable[dict[str, Any]],
        lr: float = 4e-5,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-20,
        clip: float = 0.3,
    ) -> None:
        super().__init__(params, {"lr": lr, "betas": betas, "eps": eps, "clip": clip, "step": 0})
        self.grad_norm = torch.zeros(())

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """Clip and apply the gradients, which are used up; parameters without one are left alone.

        `closure` is not supported.

        Raises:
            ValueError: a closure is given.
        """
        if closure is not None:
            raise ValueError("LaProp.step: got a closure: expected none")
        norms = []
        for group in self.param_groups:
            params = [p for p in group["params"] if p.grad is not None]
            if not params:
                continue
            grads = [p.grad for p in params]
            if group["clip"]:
                norms.append(clip_adaptively(params, grads, group["clip"]))
            else:
                norms.append(torch.linalg.vector_norm(torch.stack(torch._foreach_norm(grads))))
            for p in params:
                if not self.state[p]:
                    self.state[p]["size"] = torch.zeros_like(p)
                    self.state[p]["momentum"] = torch.zeros_like(p)
            sizes = [self.state[p]["size"] for p in params]
            momenta = [self.state[p]["momentum"] for p in params]
            group["step"] += 1
            beta1, beta2 = group["betas"]
            correct1, correct2 = 1 - beta1 ** group["step"], 1 - beta2 ** group["step"]
            torch._foreach_mul_(sizes, beta2)
            torch._foreach_addcmul_(sizes, grads, grads, 1 - beta2)
            # g / (sqrt(v / correction) + eps)
            scale = torch._foreach_div(sizes, correct2)
            torch._foreach_sqrt_(scale)
            torch._foreach_add_(scale, group["eps"])
            torch._foreach_div_(grads, scale)
            torch._foreach_lerp_(momenta, grads, 1 - beta1)
            torch._foreach_add_(params, momenta, alpha=-group["lr"] / correct1)
        if norms:
            self.grad_norm = torch.linalg.vector_norm(torch.stack(norms))


@torch.no_grad()
def follow(averaged: nn.Module, network: nn.Module, decay: float, step: int) -> None:
    """Take the weights of `network` after an update into their running mean (Polyak & Juditsky 1992).

    Args:
        averaged: a copy of the network, changed in place; what is no parameter becomes the network's.
        network: what learns.
        decay: share of the mean that stays, in [0, 1).
        step: updates done before this one. A young mean forgets faster, or it would remember how the weights
            began: its decay is at most (2 + step) / (11 + step).
    """
    decay = min(decay, (2 + step) / (11 + step))
    means: list[Tensor] = list(averaged.parameters())
    torch._foreach_lerp_(means, list(network.parameters()), 1 - decay)
    for mean, now in zip(averaged.buffers(), network.buffers(), strict=True):
        mean.copy_(now)
