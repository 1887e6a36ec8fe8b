"""Layers against plain loops and torch's own."""

import pytest
import torch

from agent.nets import BlockLinear, ChannelNorm, from_patches, init_fan_in, linear, norm, to_patches


@pytest.mark.parametrize(("size", "patch"), [(8, 1), (8, 2), (8, 4), (8, 8), (16, 4), (64, 8), (96, 4)])
@pytest.mark.parametrize("channels", [1, 3])
def test_patches_hold_the_pixels_of_their_square(size: int, patch: int, channels: int) -> None:
    image = torch.randint(256, (2, channels, size, size), dtype=torch.uint8)
    patches = to_patches(image, patch)
    assert patches.shape == (2, size // patch, size // patch, channels * patch**2)
    assert patches.dtype == torch.uint8
    row, column = size // patch - 1, 0
    square = image[1, :, row * patch : (row + 1) * patch, column * patch : (column + 1) * patch]
    assert torch.equal(patches[1, row, column], square.reshape(-1))
    assert torch.equal(from_patches(patches, patch), image)


def test_patches_of_an_oblong_picture() -> None:
    image = torch.arange(2 * 3 * 4 * 8).reshape(2, 3, 4, 8)
    assert torch.equal(from_patches(to_patches(image, 2), 2), image)


def test_block_linear_is_a_linear_layer_for_each_block() -> None:
    layer = BlockLinear(6, 9, 3)
    torch.nn.init.normal_(layer.bias)
    x = torch.randn(3, 5, 2)
    out = layer(x)
    assert out.shape == (3, 5, 3)
    for g in range(3):
        expected = torch.nn.functional.linear(x[g], layer.weight[g].T, layer.bias[g, 0])
        torch.testing.assert_close(out[g], expected)


def test_block_linear_refuses_sizes_that_do_not_divide() -> None:
    with pytest.raises(ValueError, match="multiples of 3"):
        BlockLinear(6, 8, 3)


def test_initial_weights_have_the_variance_of_their_fan_in() -> None:
    weight = torch.empty(400, 400)
    init_fan_in(weight, 400)
    assert weight.std().item() == pytest.approx(400**-0.5, rel=0.02)
    assert weight.abs().max() <= 2 * 400**-0.5 / 0.8796
    assert linear(4, 4, scale=0.0).weight.abs().max() == 0


def test_rms_norm_by_hand() -> None:
    x = torch.tensor([[3.0, 4.0]])
    # sqrt((9 + 16) / 2 + 1e-4)
    torch.testing.assert_close(norm(2, "rms")(x), x / (12.5 + 1e-4) ** 0.5)


@pytest.mark.parametrize("name", ["rms", "layer"])
def test_channel_norm_treats_each_place_on_its_own(name: str) -> None:
    layer = ChannelNorm(4, name)  # type: ignore[arg-type]
    x = torch.randn(2, 4, 3, 5)
    out = layer(x)
    torch.testing.assert_close(out[1, :, 2, 3], layer.norm(x[1, :, 2, 3]))
