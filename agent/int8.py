"""Weights in eight bits for inference: a quarter of fp32's bytes to read for each token."""

import torch
from torch import Tensor, nn


class Int8Linear(nn.Module):
    """A linear layer whose weights are whole numbers from -127 to 127 times a scale for each output.

    Activations are bf16. Rounding changes a weight by at most half of its row's largest / 127.

    Args:
        source: the layer; it is not changed.
    """

    weight: Tensor
    scale: Tensor
    bias: Tensor | None

    def __init__(self, source: nn.Linear) -> None:
        super().__init__()
        full = source.weight.detach().float()
        # (O)
        scale = (full.abs().amax(1) / 127.0).clamp(min=1e-12)
        self.register_buffer("weight", (full / scale.unsqueeze(1)).round().to(torch.int8))
        self.register_buffer("scale", scale.bfloat16())
        bias: Tensor | None = source.bias
        self.register_buffer("bias", None if bias is None else bias.detach().bfloat16())

    def forward(self, x: Tensor) -> Tensor:
        """(..., I) bf16 -> (..., O) bf16."""
        flat = x.bfloat16().reshape(-1, x.shape[-1])
        y = torch._weight_int8pack_mm(flat, self.weight, self.scale)
        if self.bias is not None:
            y = y + self.bias
        return y.view(*x.shape[:-1], -1)


def with_int8_weights(module: nn.Module) -> nn.Module:
    """The module, changed in place: bf16, its linear layers with eight-bit weights. For inference only.

    Returns:
        The module itself.
    """
    module.bfloat16()
    for parent in list(module.modules()):
        for name, child in parent.named_children():
            if isinstance(child, nn.Linear):
                setattr(parent, name, Int8Linear(child))
    return module
