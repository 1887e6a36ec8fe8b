"""EfficientNet-Lite0 against an implementation of its own, with normalisation and padding as published."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from agent.tokenizer.efficientnet import STAGES, EfficientNetLite0

# Table 1 of the paper, a row a block: kernel, stride, expansion, channels in and out; and ends of stages.
BLOCKS = [
    (3, 1, 1, 32, 16),
    (3, 2, 6, 16, 24),
    (3, 1, 6, 24, 24),
    (5, 2, 6, 24, 40),
    (5, 1, 6, 40, 40),
    (3, 2, 6, 40, 80),
    (3, 1, 6, 80, 80),
    (3, 1, 6, 80, 80),
    (5, 1, 6, 80, 112),
    (5, 1, 6, 112, 112),
    (5, 1, 6, 112, 112),
    (5, 2, 6, 112, 192),
    (5, 1, 6, 192, 192),
    (5, 1, 6, 192, 192),
    (5, 1, 6, 192, 192),
    (3, 1, 6, 192, 320),
]
ENDS = [0, 2, 4, 7, 10, 14, 15]


def published(seed: int = 0) -> dict[str, Tensor]:
    """Random weights by the names and shapes of the published file."""
    generator = torch.Generator().manual_seed(seed)
    weights: dict[str, Tensor] = {}

    def add(conv: str, norm: str, *shape: int) -> None:
        fan_in = shape[1] * shape[2] * shape[3]
        weights[f"{conv}.weight"] = torch.randn(shape, generator=generator) * (2 / fan_in) ** 0.5
        for name, low in (("weight", 0.5), ("bias", -0.5), ("running_mean", -0.5), ("running_var", 0.5)):
            weights[f"{norm}.{name}"] = torch.rand(shape[0], generator=generator) + low

    add("_conv_stem", "_bn0", 32, 3, 3, 3)
    for number, (kernel, _, expansion, before, after) in enumerate(BLOCKS):
        block, wide = f"_blocks.{number}.", before * expansion
        if expansion > 1:
            add(f"{block}_expand_conv", f"{block}_bn0", wide, before, 1, 1)
        add(f"{block}_depthwise_conv", f"{block}_bn1", wide, 1, kernel, kernel)
        add(f"{block}_project_conv", f"{block}_bn2", after, wide, 1, 1)
    return weights


def reference(weights: dict[str, Tensor], pictures: Tensor) -> list[Tensor]:
    """Features after each stage; nothing folded, padding as TensorFlow's SAME."""

    def conv(x: Tensor, name: str, stride: int = 1, groups: int = 1) -> Tensor:
        kernel = weights[f"{name}.weight"]
        pads = []
        for side in (x.shape[3], x.shape[2]):
            outputs = (side + stride - 1) // stride
            total = max(0, (outputs - 1) * stride + kernel.shape[2] - side)
            pads += [total // 2, total - total // 2]
        return F.conv2d(F.pad(x, pads), kernel, stride=stride, groups=groups)

    def norm(x: Tensor, name: str) -> Tensor:
        mean, var = weights[f"{name}.running_mean"], weights[f"{name}.running_var"]
        return F.batch_norm(x, mean, var, weights[f"{name}.weight"], weights[f"{name}.bias"], eps=1e-3)

    x = norm(conv((pictures * 255 - 127) / 128, "_conv_stem", 2), "_bn0").clamp(0, 6)
    features = []
    for number, (_, stride, expansion, before, after) in enumerate(BLOCKS):
        block, wide = f"_blocks.{number}.", x
        if expansion > 1:
            wide = norm(conv(x, f"{block}_expand_conv"), f"{block}_bn0").clamp(0, 6)
        wide = norm(conv(wide, f"{block}_depthwise_conv", stride, wide.shape[1]), f"{block}_bn1").clamp(0, 6)
        out = norm(conv(wide, f"{block}_project_conv"), f"{block}_bn2")
        x = x + out if stride == 1 and before == after else out
        if number in ENDS:
            features.append(x)
    return features


def loaded() -> EfficientNetLite0:
    network = EfficientNetLite0()
    network.load_published(published())
    return network


@pytest.mark.parametrize("size", [(64, 96), (37, 50)])
def test_features_are_those_of_the_reference(size: tuple[int, int]) -> None:
    pictures = torch.rand(2, 3, *size, generator=torch.Generator().manual_seed(1))
    found, expected = loaded()(pictures), reference(published(), pictures)
    assert len(found) == len(expected) == len(STAGES)
    for one, other in zip(found, expected, strict=True):
        assert one.shape == other.shape
        assert (one - other).abs().max() < 1e-4 * other.abs().max()


def test_sides_and_widths_of_the_stages() -> None:
    features = EfficientNetLite0()(torch.rand(1, 3, 64, 128))
    sides = [2, 4, 8, 16, 16, 32, 32]
    channels = [16, 24, 40, 80, 112, 192, 320]
    assert [tuple(f.shape) for f in features] == [
        (1, c, 64 // s, 128 // s) for c, s in zip(channels, sides, strict=True)
    ]


def test_fewer_stages_are_the_first_of_all() -> None:
    network, pictures = loaded(), torch.rand(1, 3, 32, 32)
    for one, other in zip(network(pictures, 3), network(pictures)[:3], strict=True):
        assert torch.equal(one, other)


def test_gradients_reach_the_pictures_and_no_weight() -> None:
    network, pictures = loaded(), torch.rand(1, 3, 32, 32, requires_grad=True)
    network(pictures)[-1].sum().backward()
    assert pictures.grad is not None and pictures.grad.abs().sum() > 0
    assert all(p.grad is None and not p.requires_grad for p in network.parameters())


def test_bfloat16_is_near() -> None:
    network, pictures = loaded(), torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(2))
    exact = network(pictures)
    rough = network.to(torch.bfloat16)(pictures)
    for one, other in zip(rough, exact, strict=True):
        assert one.dtype == torch.bfloat16
        assert F.cosine_similarity(one.float().flatten(), other.flatten(), dim=0) > 0.99


def test_weights_that_do_not_fit_are_named() -> None:
    network, weights = EfficientNetLite0(), published()
    missing = {name: tensor for name, tensor in weights.items() if name != "_blocks.3._bn1.bias"}
    with pytest.raises(ValueError, match=r"'_blocks.3._bn1.bias': missing"):
        network.load_published(missing)
    with pytest.raises(ValueError, match=r"'_conv_stem.weight' of shape \(32, 3, 5, 5\): expected"):
        network.load_published({**weights, "_conv_stem.weight": torch.zeros(32, 3, 5, 5)})
    with pytest.raises(ValueError, match=r"'_bn0.bias'.*finite"):
        network.load_published({**weights, "_bn0.bias": torch.full((32,), torch.nan)})


@pytest.mark.parametrize(
    "pictures", [torch.zeros(1, 3, 8, 8, dtype=torch.uint8), torch.zeros(1, 1, 8, 8), torch.zeros(3, 8, 8)]
)
def test_pictures_that_do_not_fit_are_refused(pictures: Tensor) -> None:
    with pytest.raises(ValueError, match=r"expected \(N, 3, H, W\)"):
        EfficientNetLite0()(pictures)


@pytest.mark.parametrize("stages", [0, 8])
def test_stages_that_there_are_not(stages: int) -> None:
    with pytest.raises(ValueError, match="expected 1 to 7"):
        EfficientNetLite0()(torch.zeros(1, 3, 32, 32), stages)
