"""Linear layers with eight-bit weights: the product of the rounded weights, near that of the whole ones."""

import pytest
import torch
from torch import nn

from agent.int8 import Int8Linear, with_int8_weights
from agent.world_model.attention import BlockConfig
from agent.world_model.token_stream import TokenStreamConfig


@pytest.mark.parametrize("bias", [True, False])
def test_it_is_the_product_of_the_rounded_weights(bias: bool) -> None:
    source = nn.Linear(64, 32, bias=bias)
    layer = Int8Linear(source)
    x = torch.randn(2, 3, 64).bfloat16()
    weight = layer.weight.float() * layer.scale.float().unsqueeze(1)
    expected = x.float() @ weight.T + (source.bias if bias else 0.0)
    found = layer(x)
    assert found.dtype == torch.bfloat16 and found.shape == (2, 3, 32)
    torch.testing.assert_close(found.float(), expected, rtol=0.02, atol=0.05)


def test_weights_change_by_half_a_step_at_most() -> None:
    source = nn.Linear(64, 32)
    layer = Int8Linear(source)
    step = source.weight.abs().amax(1, keepdim=True) / 127
    assert layer.weight.abs().max() == 127
    assert ((layer.weight.float() * step - source.weight).abs() <= 0.5001 * step).all()


def test_a_row_of_zeros_stays_one() -> None:
    source = nn.Linear(64, 32, bias=False)
    nn.init.zeros_(source.weight)
    assert torch.equal(Int8Linear(source)(torch.randn(1, 64).bfloat16()), torch.zeros(1, 32).bfloat16())


@torch.no_grad()
def test_a_stream_with_eight_bits_says_much_the_same() -> None:
    torch.manual_seed(0)
    config = TokenStreamConfig(blocks=BlockConfig(width=64, layers=2), vocabulary=40, context=24)
    model = config.build().eval()
    tokens = torch.randint(40, (2, 24))
    whole = model(tokens).softmax(-1)
    small = with_int8_weights(model)
    assert sum(isinstance(m, Int8Linear) for m in small.modules()) == 9
    logits, cache = model.start(tokens[:, :4])
    for place in range(4, 24):
        logits = model.step(tokens[:, place], cache)
    assert (logits.float().softmax(-1) - whole[:, -1]).abs().max() < 0.02
