"""The FSQ-VAE: codes and tokens, gradients, the grid's order, and what it learns; and the plain VAE."""

import math

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from agent.tokenizer.fsq_vae import FSQVAE, FSQVAEConfig
from agent.tokenizer.vae import VAE, VAEConfig
from tests.agent.tiny import TOKENIZER


def tiny(grid: int = 1) -> FSQVAE:
    return TOKENIZER.model_copy(update={"grid": grid}).build()


def noise(count: int, size: int = 16) -> Tensor:
    return torch.randint(256, (count, 3, size, size), dtype=torch.uint8)


def blots(count: int) -> Tensor:
    """Pictures of a bright square somewhere on a ground of some colour, (N, 3, 16, 16)."""
    pictures = torch.randint(128, (count, 3, 1, 1), dtype=torch.uint8).repeat(1, 1, 16, 16)
    for picture, (x, y) in zip(pictures, torch.randint(10, (count, 2)).tolist(), strict=True):
        picture[:, y : y + 6, x : x + 6] = 230
    return pictures


class Given(nn.Module):
    """An encoder that gives what it was told to."""

    def __init__(self, vectors: Tensor) -> None:
        super().__init__()
        self.vectors = vectors

    def forward(self, images: Tensor) -> Tensor:
        return self.vectors


def test_every_one_of_the_thousand_codes_is_reached() -> None:
    model = FSQVAEConfig(image_size=8, channels=[2], latent_dim=4).build()
    model.encoder = Given(torch.randn(60_000, 1, 4))  # type: ignore[assignment]
    model.to_code = nn.Identity()  # type: ignore[assignment]
    codes = model.encode(torch.zeros(60_000, 3, 8, 8, dtype=torch.uint8))
    assert len(model.tokens_of(codes).unique()) == 1000 == model.codebook_size
    for d, levels in enumerate([8, 5, 5, 5]):
        assert len(codes[..., d].unique()) == levels


@pytest.mark.parametrize("grid", [1, 4])
def test_tokens_and_codes_are_each_others_inverse(grid: int) -> None:
    model = tiny(grid)
    images = noise(7)
    codes = model.encode(images)
    tokens = model.tokenize(images)
    assert codes.shape == (7, grid**2, 2) and tokens.shape == (7, grid**2) and tokens.dtype == torch.long
    assert torch.equal(model.tokens_of(codes), tokens)
    torch.testing.assert_close(model.codes(tokens), codes.detach())
    every = torch.arange(12).view(3, 4, 1).expand(3, 4, grid**2)
    assert torch.equal(model.tokens_of(model.codes(every)), every)
    assert len(model.codes(torch.arange(12).unsqueeze(-1)).unique(dim=0)) == 12
    assert model.codes(every).abs().max() == 1
    decoded = model.decode(model.codes(every))
    assert decoded.shape == (3, 4, 3, 16, 16)
    torch.testing.assert_close(decoded[2, 3], model.decode(model.codes(every[2:, 3]))[0])


def test_many_pictures_are_tokenised_as_few(monkeypatch: pytest.MonkeyPatch) -> None:
    model, images = tiny(4), noise(10)
    whole = model.tokenize(images)
    monkeypatch.setattr("agent.tokenizer.fsq_vae._CHUNK", 3)
    assert torch.equal(model.tokenize(images), whole)


@pytest.mark.parametrize("grid", [1, 4])
def test_gradients_pass_the_rounding_as_if_it_were_not_there(grid: int) -> None:
    model = tiny(grid)
    images = noise(4)
    weight = torch.randn(4, grid**2, 2)
    (model.encode(images) * weight).sum().backward()
    straight = [p.grad.clone() for p in model.encoder.parameters() if p.grad is not None]
    model.zero_grad()
    bounded = model.quantizer.bound(model.to_code(model.encoder(images))) / (model.quantizer.levels // 2)
    (bounded * weight).sum().backward()
    smooth = [p.grad for p in model.encoder.parameters()]
    assert len(straight) == len(smooth)
    for one, other in zip(straight, smooth, strict=True):
        assert other is not None and one.abs().sum() > 0
        torch.testing.assert_close(one, other)


def test_the_loss_reaches_every_parameter() -> None:
    for grid in (1, 4):
        model = tiny(grid)
        loss, metrics = model.loss(noise(8))
        loss.backward()
        assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in model.parameters())
        assert all(value.isfinite() and not value.requires_grad for value in metrics.values())


def test_the_metrics_are_those_of_the_pictures_that_are_decoded() -> None:
    model, images = tiny(4), blots(6)
    tokens = model.tokenize(images)
    # decoding clamps the colours, which the loss does not: paint none beyond the bounds
    with torch.no_grad():
        model.decoder.body[-1].weight.mul_(0.05)
    _, metrics = model.loss(images)
    decoded = model.decode(model.codes(tokens)).detach().numpy()
    assert 0 < decoded.min() < decoded.max() < 1
    truth = images.numpy().astype(np.float64) / 255
    errors = ((decoded - truth) ** 2).reshape(6, -1)
    assert metrics["loss/reconstruction"].item() == pytest.approx(errors.sum(1).mean(), rel=1e-5)
    assert metrics["psnr"].item() == pytest.approx((10 * np.log10(1 / errors.mean(1))).mean(), rel=1e-5)
    share = np.bincount(tokens.flatten().numpy(), minlength=12) / tokens.numel()
    assert metrics["codebook_use"].item() == pytest.approx((share > 0).mean())
    entropy = -sum(p * math.log(p) for p in share if p > 0)
    assert metrics["codebook_perplexity"].item() == pytest.approx(math.exp(entropy), rel=1e-5)


def test_the_grid_is_read_row_by_row() -> None:
    model = tiny(4)
    images = noise(1)
    before = model.to_code(model.encoder(images))
    # the upper right corner: no cell outside the two upper rows and the two right columns sees it
    images[:, :, :4, 12:] = 255 - images[:, :, :4, 12:]
    changed = (model.to_code(model.encoder(images)) != before).any(-1)[0].nonzero().flatten().tolist()
    assert 3 in changed
    assert set(changed) <= {2, 3, 6, 7}
    painted = model.decode(model.codes(torch.zeros(1, 16, dtype=torch.long)))
    token = torch.zeros(1, 16, dtype=torch.long)
    token[0, 3] = 7
    touched = (model.decode(model.codes(token)) != painted).any(1)[0].nonzero()
    assert touched[:, 0].max() < 8 <= touched[:, 1].min()


@pytest.mark.parametrize("grid", [1, 4])
def test_pictures_are_learnt_with_most_of_the_codebook(grid: int) -> None:
    torch.manual_seed(1)
    model = tiny(grid)
    optimizer = torch.optim.Adam(model.parameters(), 5e-3)
    _, first = model.loss(blots(64))
    for _ in range(150):
        loss, _ = model.loss(blots(64))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    _, last = model.loss(blots(256))
    assert last["psnr"] > first["psnr"] + 4
    assert last["codebook_use"] >= 0.9


def test_the_entropy_bonus_is_part_of_the_loss_and_of_nothing_else() -> None:
    model, images = tiny(4), noise(5)
    plain, metrics = model.loss(images)
    model.config = model.config.model_copy(update={"entropy_weight": 3.0})
    loss, told = model.loss(images)
    spread = model.quantizer.spread(model.to_code(model.encoder(images)))
    torch.testing.assert_close(loss, plain - 3.0 * spread)
    assert metrics == told and metrics["loss/reconstruction"] == plain.detach()
    loss.backward()
    assert all(p.grad is not None for p in model.parameters())


def test_the_sizes_are_those_of_the_agent_described() -> None:
    model, plain = FSQVAEConfig().build(), VAEConfig().build()
    assert (model.tokens, model.codebook_size, model.code_size) == (1, 1000, 4)
    assert model.image_shape == (3, 64, 64)
    count = [sum(p.numel() for p in each.parameters()) for each in (model, plain)]
    assert count[0] == pytest.approx(1.4e6, rel=0.05)
    assert count[1] == pytest.approx(count[0], rel=0.01)
    assert FSQVAEConfig(grid=4).build().tokens == 16


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"image_size": 32}, "pictures of 32 px with 2 halvings: expected 16 px"),
        ({"channels": [4]}, "pictures of 16 px with 1 halvings: expected 8 px"),
        ({"grid": 2}, "a grid of 2 tokens a side: expected 1 or 4"),
        ({"fsq_levels": [8, 1]}, "expected at least one level count, each 2 or more"),
    ],
)
def test_sizes_that_do_not_fit_are_refused(changes: dict[str, object], complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        TOKENIZER.model_copy(update=changes).build()


@pytest.mark.parametrize("images", [torch.zeros(2, 3, 32, 32, dtype=torch.uint8), torch.zeros(2, 3, 16, 16)])
def test_pictures_of_another_size_or_type_are_refused(images: Tensor) -> None:
    with pytest.raises(ValueError, match=r"expected \(N, 3, 16, 16\), uint8"):
        tiny().tokenize(images)


def plain_vae() -> VAE:
    return VAEConfig(image_size=16, channels=[4, 8], latent_dim=8, free_nats=0.0, beta=0.5).build()


def test_the_plain_vaes_loss_is_squared_error_and_torchs_kl() -> None:
    model, images = plain_vae(), noise(5)
    torch.manual_seed(2)
    loss, metrics = model.loss(images)
    mean, log_variance = model.encode(images)
    normal = torch.distributions.Normal(mean, (0.5 * log_variance).exp())
    kl = torch.distributions.kl_divergence(normal, torch.distributions.Normal(0.0, 1.0)).sum((-2, -1)).mean()
    torch.testing.assert_close(metrics["loss/kl"], kl.detach())
    torch.testing.assert_close(loss.detach(), metrics["loss/reconstruction"] + 0.5 * kl.detach())
    assert not any(metric.requires_grad for metric in metrics.values())
    loss.backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in model.parameters())
    model.config.free_nats = 1e3
    assert torch.equal(model.reconstruct(images), model.reconstruct(images))
    assert model.loss(images)[0] > 0.5 * 8e3


def test_the_plain_vae_learns() -> None:
    torch.manual_seed(1)
    model = plain_vae()
    model.config.beta = 0.01
    optimizer = torch.optim.Adam(model.parameters(), 5e-3)

    def error(images: Tensor) -> float:
        return (model.reconstruct(images) - images.float() / 255).square().mean().item()

    before = error(blots(64))
    for _ in range(150):
        loss, _ = model.loss(blots(64))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert error(blots(64)) < 0.5 * before
