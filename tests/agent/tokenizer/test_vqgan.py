"""VQGAN with published weights: names and shapes of the file, against a plain functional implementation."""

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from agent.tokenizer.vqgan import VQGANConfig, VQGANDecoder, VQGANEncoder
from tests.agent.tokenizer.published_vqgan import Weights, published_decoder, published_encoder

TINY = VQGANConfig(
    rows=2, columns=4, channels=4, multipliers=[1, 2], blocks=2, code_size=6, codebook_size=7, groups=2
)


class Plain:
    """The networks, one function of torch after the other, from the file's own names."""

    def __init__(self, weights: Weights) -> None:
        self.weights = weights

    def conv(self, name: str, x: Tensor, stride: int = 1, padding: int = 0) -> Tensor:
        return F.conv2d(x, self.weights[f"{name}.weight"], self.weights[f"{name}.bias"], stride, padding)

    def swish(self, name: str, x: Tensor, also: bool = True) -> Tensor:
        x = F.group_norm(x, 2, self.weights[f"{name}.weight"], self.weights[f"{name}.bias"], 1e-6)
        return x * torch.sigmoid(x) if also else x

    def block(self, name: str, x: Tensor) -> Tensor:
        y = self.conv(f"{name}.conv1", self.swish(f"{name}.norm1", x), 1, 1)
        y = self.conv(f"{name}.conv2", self.swish(f"{name}.norm2", y), 1, 1)
        if f"{name}.nin_shortcut.weight" in self.weights:
            x = self.conv(f"{name}.nin_shortcut", x)
        return x + y

    def attention(self, name: str, x: Tensor) -> Tensor:
        y = self.swish(f"{name}.norm", x, also=False)
        q, k, v = (self.conv(f"{name}.{part}", y).flatten(2) for part in "qkv")
        chances = torch.einsum("ncq,nck->nqk", q, k).mul(x.shape[1] ** -0.5).softmax(-1)
        gathered = torch.einsum("nqk,nck->ncq", chances, v).reshape(x.shape)
        return x + self.conv(f"{name}.proj_out", gathered)

    def middle(self, x: Tensor) -> Tensor:
        return self.block("mid.block_2", self.attention("mid.attn_1", self.block("mid.block_1", x)))

    def encode(self, x: Tensor) -> Tensor:
        x = self.conv("conv_in", x, 1, 1)
        for number in range(2):
            x = self.block(f"down.0.block.{number}", x)
        x = self.conv("down.0.downsample.conv", F.pad(x, (0, 1, 0, 1)), 2)
        for number in range(2):
            x = self.attention(f"down.1.attn.{number}", self.block(f"down.1.block.{number}", x))
        x = self.conv("conv_out", self.swish("norm_out", self.middle(x)), 1, 1)
        vectors = self.conv("quant_conv", x).flatten(2).transpose(1, 2)
        distances = (vectors.unsqueeze(2) - self.weights["quantize._embedding.weight"]).square().sum(-1)
        return distances.argmin(-1)

    def decode(self, tokens: Tensor) -> Tensor:
        z = self.weights["quantize._embedding.weight"][tokens].transpose(1, 2).reshape(len(tokens), 6, 2, 4)
        x = self.middle(self.conv("conv_in", self.conv("post_quant_conv", z), 1, 1))
        for number in range(3):
            x = self.attention(f"up.1.attn.{number}", self.block(f"up.1.block.{number}", x))
        x = self.conv("up.1.upsample.conv", x.repeat_interleave(2, 2).repeat_interleave(2, 3), 1, 1)
        for number in range(3):
            x = self.block(f"up.0.block.{number}", x)
        return (self.conv("conv_out", self.swish("norm_out", x), 1, 1) + 1) / 2


@pytest.mark.parametrize("prefix", ["", "module."])
def test_the_encoder_is_that_of_the_file(prefix: str) -> None:
    weights = published_encoder()
    encoder = VQGANEncoder(TINY).eval()
    encoder.load_published({prefix + name: value for name, value in weights.items()})
    images = torch.randint(256, (9, 3, 4, 8), dtype=torch.uint8)
    tokens = encoder.tokenize(images)
    assert tokens.shape == (9, 8) and len(tokens.unique()) > 1
    assert torch.equal(tokens, Plain(weights).encode(images.float()))


def test_the_decoder_is_that_of_the_file() -> None:
    weights = published_decoder()
    decoder = VQGANDecoder(TINY).eval()
    decoder.load_published(weights)
    tokens = torch.randint(7, (9, 8))
    found = decoder.decode(tokens)
    assert found.shape == (9, 3, 4, 8)
    torch.testing.assert_close(found, Plain(weights).decode(tokens).clamp(0, 1), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda w: w.pop("mid.attn_1.k.weight"), "mid.1.qkv.weight is missing"),
        (lambda w: w.pop("quantize._embedding.weight"), "codebook.weight is missing"),
        (lambda w: w.update({"temb.weight": torch.zeros(2)}), r"temb.weight is \[2\]: expected nothing"),
        (lambda w: w.update({"conv_out.bias": torch.zeros(5)}), r"conv_out.bias is \[5\]: expected \[6\]"),
    ],
)
def test_weights_that_do_not_fit_are_named(change: Callable[[Weights], object], said: str) -> None:
    weights = published_encoder()
    change(weights)
    with pytest.raises(ValueError, match=said):
        VQGANEncoder(TINY).load_published(weights)


def test_commavqs_sizes() -> None:
    """Channels, vectors and codebook as its code has them, from which the published shapes follow."""
    config = VQGANConfig()
    assert config.image_shape == (3, 128, 256)
    with torch.device("meta"):
        encoder, decoder = VQGANEncoder(config), VQGANDecoder(config)
    shapes = {name: list(value.shape) for name, value in encoder.state_dict().items()}
    assert shapes["conv_in.weight"] == [128, 3, 3, 3] and shapes["codebook.weight"] == [1024, 256]
    assert shapes["down.4.block.0.skip.weight"] == [512, 256, 1, 1]
    assert shapes["down.4.attn.1.qkv.weight"] == [1536, 512, 1, 1]
    assert shapes["quant_conv.weight"] == [256, 256, 1, 1] and len(encoder.down) == 5
    shapes = {name: list(value.shape) for name, value in decoder.state_dict().items()}
    assert shapes["conv_in.weight"] == [512, 256, 3, 3] and shapes["conv_out.weight"] == [3, 128, 3, 3]
    assert shapes["up.4.attn.2.qkv.weight"] == [1536, 512, 1, 1]
    assert shapes["up.0.block.2.first.weight"] == [128, 128, 3, 3]
    assert "up.0.block.3.first.weight" not in shapes


def test_what_does_not_fit_is_named() -> None:
    with pytest.raises(ValueError, match=r"expected \(N, 3, 4, 8\), uint8"):
        VQGANEncoder(TINY).tokenize(torch.zeros(1, 3, 4, 8))
    with pytest.raises(ValueError, match=r"tokens \(1, 7\): expected \(N, 8\)"):
        VQGANDecoder(TINY).decode(torch.zeros(1, 7, dtype=torch.long))
    with pytest.raises(ValueError, match="from 7 to 7: expected 0 to 6"):
        VQGANDecoder(TINY).decode(torch.full((1, 8), 7))
