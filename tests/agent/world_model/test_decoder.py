"""The decoder's shapes and its losses, against ones computed from the decoded observation."""

import pytest
import torch

from agent.distributions import symlog
from agent.nets import PixelError
from agent.world_model.decoder import Decoder, DecoderConfig


def decoder(shapes: dict[str, tuple[int, ...]], patch: int = 4) -> Decoder:
    config = DecoderConfig(patch=patch, depth=2, multipliers=[1, 3], vector_layers=1, vector_units=8)
    return Decoder(config, 6, shapes, "rms")


@pytest.mark.parametrize(("size", "patch"), [(4, 1), (8, 2), (16, 4), (16, 2), (32, 4), (64, 8), (64, 4)])
@pytest.mark.parametrize("channels", [1, 3])
def test_pictures_have_their_size_and_lie_in_zero_to_one(size: int, patch: int, channels: int) -> None:
    out = decoder({"image": (channels, size, size)}, patch)(torch.randn(2, 6) * 50)["image"]
    assert out.shape == (2, channels, size, size)
    assert out.min() >= 0 and out.max() <= 1


@pytest.mark.parametrize(
    "shapes",
    [
        {"image": (3, 16, 16)},
        {"b": (2,), "a": (3,)},
        {"image": (3, 16, 16), "map": (1, 32, 32), "b": (2,), "a": (1,)},
    ],
)
def test_losses_are_the_squared_errors_of_what_is_decoded(shapes: dict[str, tuple[int, ...]]) -> None:
    net, features = decoder(shapes), torch.randn(3, 6)
    observation = {
        name: torch.randint(256, (3, *shape), dtype=torch.uint8)
        if len(shape) == 3
        else torch.randn(3, *shape)
        for name, shape in shapes.items()
    }
    for image in net.images.values():
        image.paint.weight.data.mul_(0.05)  # within the range of pictures, where decoding cuts nothing off
    decoded, losses = net(features), net.losses(net.predict(features), observation)
    assert decoded.keys() == losses.keys() == shapes.keys()
    for name, shape in shapes.items():
        assert decoded[name].shape == (3, *shape)
        if len(shape) == 3:
            error = decoded[name] - observation[name].float() / 255
        else:
            error = symlog(decoded[name]) - symlog(observation[name])
        torch.testing.assert_close(losses[name], error.square().flatten(1).sum(-1), rtol=1e-4, atol=1e-5)


def test_gradients_reach_every_layer() -> None:
    net = decoder({"image": (3, 32, 32), "speed": (2,)})
    observation = {"image": torch.randint(256, (3, 3, 32, 32), dtype=torch.uint8), "speed": torch.randn(3, 2)}
    sum(loss.sum() for loss in net.losses(net.predict(torch.randn(3, 6)), observation).values()).backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in net.parameters())


def test_pixel_error_is_that_of_plain_functions() -> None:
    torch.manual_seed(0)
    target = torch.randint(0, 256, (3, 4, 4, 12), dtype=torch.uint8)
    ours = torch.randn(3, 4, 4, 12, requires_grad=True)
    plain = ours.detach().clone().requires_grad_()
    weights = torch.tensor([1.0, -2.0, 0.5])
    error = PixelError.apply(ours, target)
    expected = (plain + 0.5 - target / 255.0).square().sum((1, 2, 3))
    torch.testing.assert_close(error, expected)
    (error * weights).sum().backward()
    (expected * weights).sum().backward()
    torch.testing.assert_close(ours.grad, plain.grad)
