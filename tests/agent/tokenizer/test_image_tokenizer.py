"""The image tokenizer: grids of rectangular pictures, rounding and the latent before it, what it learns."""

from itertools import product

import pytest
import torch
from torch import Tensor

from agent.tokenizer.choices import TokenizerConfig
from agent.tokenizer.fsq_vae import FSQVAEConfig
from agent.tokenizer.image_nets import FastNetConfig, NetConfig, VQGANNetConfig
from agent.tokenizer.image_tokenizer import ImageTokenizer, ImageTokenizerConfig
from agent.world_model.lstm import LSTMConfig

FAST = FastNetConfig(channels=[8, 16, 16], blocks=1)
VQGAN = VQGANNetConfig(channels=8, multipliers=[1, 1, 2, 2, 2], blocks=1, groups=4)
NETS: dict[str, NetConfig] = {"fast": FAST, "vqgan": VQGAN}


def tiny(net: NetConfig = FAST, **options: object) -> ImageTokenizer:
    values = {"kind": "image", "height": 32, "width": 48, "fsq_levels": [8, 5, 5], "net": net, **options}
    return ImageTokenizerConfig.model_validate(values).build()


def pictures(n: int = 4, height: int = 32, width: int = 48) -> Tensor:
    """Smooth coloured pictures (N, 3, H, W) uint8."""
    small = torch.rand(n, 3, 2, 3)
    large = torch.nn.functional.interpolate(small, (height, width), mode="bilinear", align_corners=True)
    return (large * 255).round().byte()


@pytest.mark.parametrize("net", sorted(NETS))
def test_rectangular_pictures_become_a_grid_and_come_back(net: str) -> None:
    model = tiny(NETS[net]).eval()
    assert (model.tokens, model.grid_shape, model.codebook_size, model.code_size) == (6, (2, 3), 200, 3)
    images = pictures()
    codes = model.encode(images)
    assert codes.shape == (4, 6, 3) and codes.abs().max() <= 1
    tokens = model.tokenize(images)
    assert tokens.dtype == torch.int64 and tokens.min() >= 0 and tokens.max() < 200
    assert torch.equal(model.tokens_of(codes), tokens)
    torch.testing.assert_close(model.codes(tokens), codes)
    shown = model.decode(model.codes(tokens.view(2, 2, 6)))
    assert shown.shape == (2, 2, 3, 32, 48) and 0 <= shown.min() <= shown.max() <= 1


@pytest.mark.parametrize(
    ("height", "width", "compression", "grid"),
    [(288, 512, 16, (18, 32)), (128, 256, 16, (8, 16)), (64, 64, 16, (4, 4)), (64, 64, 8, (8, 8))],
)
def test_the_sizes_that_are_named_fit(
    height: int, width: int, compression: int, grid: tuple[int, int]
) -> None:
    model = tiny(height=height, width=width, compression=compression)
    assert model.grid_shape == grid and model.tokens == grid[0] * grid[1]
    with torch.no_grad():
        shown = model.decode(model.encode(pictures(1, height, width)))
    assert shown.shape == (1, 3, height, width)


def test_a_token_knows_the_picture_from_left_to_right_and_top_to_bottom() -> None:
    model = tiny(FastNetConfig(channels=[8, 8, 8], blocks=0)).eval()
    plain = torch.full((1, 3, 32, 48), 128, dtype=torch.uint8)
    for row, column in product(range(2), range(3)):
        changed = plain.clone()
        changed[:, :, 16 * row + 6 : 16 * row + 10, 16 * column + 6 : 16 * column + 10] = 255
        moved = (model.latent(changed) - model.latent(plain)).abs().sum(-1)[0]
        assert moved.argmax() == 3 * row + column


def test_the_latent_is_what_is_rounded() -> None:
    model = tiny().eval()
    images = pictures()
    bounded, half = model.bounded(images), model.quantizer.levels // 2
    torch.testing.assert_close(model.latent(images), bounded / half)
    torch.testing.assert_close(model.encode(images), bounded.round() / half)


def test_pictures_that_skip_rounding_are_painted_from_the_latent() -> None:
    model = tiny().eval()
    images, skip = pictures(), torch.tensor([True, False, True, False])
    painting, _ = model.reconstruct(images, skip)
    torch.testing.assert_close(painting[skip], model.paint(model.latent(images))[skip])
    torch.testing.assert_close(painting[~skip], model.paint(model.encode(images))[~skip])


def test_the_scale_of_the_latent_is_followed_in_training_alone() -> None:
    model = tiny()
    model.latent_scale.fill_(7.0)
    model.eval().reconstruct(pictures())
    assert (model.latent_scale == 7.0).all()
    model.train()
    for _ in range(400):
        model.reconstruct(pictures(2))
    torch.testing.assert_close(
        model.latent_scale, model.latent(pictures(64)).flatten(0, 1).std(0), rtol=0.5, atol=0.1
    )


def test_saving_memory_changes_no_gradient() -> None:
    model = tiny()
    images = pictures()
    model.loss(images)[0].backward()
    expected = [p.grad.clone() for p in model.parameters() if p.grad is not None]
    model.zero_grad()
    model.encoder.save_memory = model.decoder.save_memory = True  # type: ignore[assignment]
    model.loss(images)[0].backward()
    found = [p.grad for p in model.parameters() if p.grad is not None]
    assert len(found) == len(expected) > 0
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other)


@pytest.mark.parametrize("net", sorted(NETS))
def test_it_learns(net: str) -> None:
    torch.manual_seed(0)
    model = tiny(NETS[net])
    optimizer = torch.optim.Adam(model.parameters(), 2e-3)
    found = []
    for _ in range(60):
        loss, metrics = model.loss(pictures(8))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        found.append(float(metrics["psnr"]))
    assert found[-1] > found[0] + 3


def test_without_rounding_it_is_a_plain_autoencoder() -> None:
    model = tiny(rounds=False).eval()
    images = pictures()
    torch.testing.assert_close(model.encode(images), model.latent(images))


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (
            {"height": 40},
            "pictures of 40x48 px, compression 16: expected height and width that are multiples of 16",
        ),
        ({"net": FastNetConfig(channels=[8, 8])}, "compression 16 from patches of 4 px and 2 resolutions"),
        ({"net": VQGANNetConfig(multipliers=[1, 2])}, "compression 16 with 2 resolutions: expected 2"),
        ({"fsq_levels": [8, 1]}, r"FSQ levels: got \[8, 1\]"),
    ],
)
def test_sizes_that_do_not_fit_are_named(options: dict[str, object], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        tiny(**options)  # type: ignore[arg-type]


def test_pictures_of_another_size_or_type_are_named() -> None:
    with pytest.raises(ValueError, match=r"\(2, 3, 48, 32\), torch.uint8: expected \(N, 3, 32, 48\), uint8"):
        tiny().encode(torch.zeros(2, 3, 48, 32, dtype=torch.uint8))
    with pytest.raises(ValueError, match=r"torch.float32: expected"):
        tiny().encode(torch.zeros(2, 3, 32, 48))


def test_a_config_without_a_kind_is_the_fsq_vae() -> None:
    assert isinstance(LSTMConfig.model_validate({"tokenizer": {"grid": 4}}).tokenizer, FSQVAEConfig)
    config: TokenizerConfig = tiny().config
    found = LSTMConfig.model_validate({"tokenizer": config.model_dump()}).tokenizer
    assert found == config
