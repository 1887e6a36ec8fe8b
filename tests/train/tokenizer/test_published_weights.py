"""Files of weights from others: three formats, none of which can run anything, and broken ones."""

import pickle
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch

from train.run.errors import DreamdriveError
from train.tokenizer.published_weights import read_published

WEIGHTS = {"a.weight": torch.arange(6.0).reshape(2, 3), "b": torch.tensor([1.5, -2.0]).half()}


def field(number: int, data: bytes | int) -> bytes:
    """A field of a protocol buffer: a number, or bytes with their length before them."""
    if isinstance(data, int):
        return varint(number << 3) + varint(data)
    return varint(number << 3 | 2) + varint(len(data)) + data


def varint(value: int) -> bytes:
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    return bytes([*out, value])


def onnx_file(*tensors: bytes) -> bytes:
    """An ONNX model with fields that are passed over, too: a version, a producer, and a node."""
    graph = field(1, field(4, b"Conv")) + field(2, b"graph") + b"".join(field(5, t) for t in tensors)
    return field(1, 8) + field(2, b"somebody") + field(7, graph)


def initializer(name: str, values: np.ndarray, kind: int, raw: bool = True) -> bytes:
    out = b"".join(field(1, n) for n in values.shape) + field(2, kind) + field(8, name.encode())
    # Packed numbers have the wire format of bytes.
    return out + field(9 if raw else 4, values.tobytes())


def test_three_formats_give_the_same(tmp_path: Path) -> None:
    torch.save(WEIGHTS, tmp_path / "a.bin")
    torch.save({"state_dict": WEIGHTS, "step": 3}, tmp_path / "b.pt")
    safetensors.torch.save_file(WEIGHTS, tmp_path / "c.safetensors")
    one, other = (value.numpy() for value in WEIGHTS.values())
    for raw, name in ((True, "d.onnx"), (False, "e.onnx")):
        parts = initializer("a.weight", one, 1, raw), initializer("b", other, 10)
        (tmp_path / name).write_bytes(onnx_file(*parts))
    for path in sorted(tmp_path.iterdir()):
        found = read_published(path)
        assert found.keys() == WEIGHTS.keys(), path
        for key, value in WEIGHTS.items():
            assert found[key].dtype == value.dtype and torch.equal(found[key], value), path


class Runs:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return (print, ("it ran",))


@pytest.mark.parametrize(
    ("name", "data", "said"),
    [
        ("a.bin", pickle.dumps(Runs()), "broken, expected a file of weights"),
        ("a.bin", b"nothing", "broken, expected a file of weights"),
        ("a.safetensors", b"nothing", "broken, expected a file of weights"),
        ("a.onnx", b"\xff" * 20, "broken, expected an ONNX file"),
        ("a.onnx", b"", "no weights in it"),
        ("a.onnx", onnx_file(), "no weights in it"),
        (
            "a.onnx",
            onnx_file(field(1, 4) + field(2, 1) + field(8, b"w") + field(9, bytes(12))),
            r"w: 3 numbers, expected the shape \[4\]",
        ),
        (
            "a.onnx",
            onnx_file(field(1, 4) + field(2, 1) + field(8, b"w") + field(14, 1)),
            "w: its numbers are in another file",
        ),
    ],
)
def test_broken_files_are_named(
    name: str, data: bytes, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / name).write_bytes(data)
    with pytest.raises(DreamdriveError, match=said) as caught:
        read_published(tmp_path / name)
    assert name in str(caught.value) and "\n" not in str(caught.value)
    assert "it ran" not in capsys.readouterr().out


def test_what_is_no_state_dict_is_named(tmp_path: Path) -> None:
    torch.save([1, 2], tmp_path / "a.pt")
    with pytest.raises(DreamdriveError, match="a.pt: expected a state_dict"):
        read_published(tmp_path / "a.pt")
    with pytest.raises(DreamdriveError, match="b.pt: missing"):
        read_published(tmp_path / "b.pt")
