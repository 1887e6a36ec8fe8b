"""Files of weights that others publish, read without running anything in them: PyTorch, safetensors, ONNX.

ONNX files are read as what they are, protocol buffers, by the few fields that hold weights. So neither the
package `onnx` nor a runtime is needed; `protobuf` is there with MLflow. What a file of weights should hold is
for the networks to say that load it: an exporter to ONNX may have renamed or folded some.
"""

from pathlib import Path
from typing import Any

import numpy as np
import safetensors
import safetensors.torch
import torch
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.message import DecodeError
from torch import Tensor

from train.run.errors import DreamdriveError, explain_os_errors, one_line

_FIELD = descriptor_pb2.FieldDescriptorProto
# Of onnx.proto, each field's name, number, type, and whether there may be several.
_MESSAGES: dict[str, list[tuple[str, int, Any, bool]]] = {
    "ModelProto": [("graph", 7, "GraphProto", False)],
    "GraphProto": [("initializer", 5, "TensorProto", True)],
    "TensorProto": [
        ("dims", 1, _FIELD.TYPE_INT64, True),
        ("data_type", 2, _FIELD.TYPE_INT32, False),
        ("float_data", 4, _FIELD.TYPE_FLOAT, True),
        ("int64_data", 7, _FIELD.TYPE_INT64, True),
        ("name", 8, _FIELD.TYPE_STRING, False),
        ("raw_data", 9, _FIELD.TYPE_BYTES, False),
        ("data_location", 14, _FIELD.TYPE_INT32, False),
    ],
}
# TensorProto.DataType
_TYPES = {1: "<f4", 7: "<i8", 10: "<f2", 11: "<f8"}


def read_published(path: Path) -> dict[str, Tensor]:
    """The tensors of a file by name: `.onnx`, `.safetensors`, or else a PyTorch state_dict.

    Raises:
        DreamdriveError: it is missing or broken, or holds anything but tensors.
    """
    if not path.is_file():
        raise DreamdriveError(f"{path}: missing, expected a file of weights")
    try:
        with explain_os_errors("cannot read", path):
            if path.suffix == ".onnx":
                return _initializers(path)
            if path.suffix == ".safetensors":
                return safetensors.torch.load_file(path)
            state = torch.load(path, map_location="cpu", weights_only=True)
    except DreamdriveError:
        raise
    except Exception as error:  # a broken file can fail in any way; torch names no common base
        reason = one_line(error).split(". ")[0][:160] or type(error).__name__
        raise DreamdriveError(f"{path}: broken, expected a file of weights ({reason})") from error
    if isinstance(state, dict) and isinstance(state.get("state_dict"), dict):
        state = state["state_dict"]
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
        raise DreamdriveError(f"{path}: expected a state_dict, names of tensors and nothing else")
    return {str(name): value for name, value in state.items()}


def _model_class() -> Any:
    """The class of ONNX models with the fields above; others are passed over."""
    file = descriptor_pb2.FileDescriptorProto(name="weights.proto", package="onnx", syntax="proto2")
    for message, fields in _MESSAGES.items():
        described = file.message_type.add(name=message)
        for name, number, kind, several in fields:
            field = described.field.add(name=name, number=number)
            field.label = _FIELD.LABEL_REPEATED if several else _FIELD.LABEL_OPTIONAL
            if isinstance(kind, str):
                field.type, field.type_name = _FIELD.TYPE_MESSAGE, f".onnx.{kind}"
            else:
                field.type = kind
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("onnx.ModelProto"))


def _initializers(path: Path) -> dict[str, Tensor]:
    model = _model_class()()
    try:
        model.ParseFromString(path.read_bytes())
    except DecodeError as error:
        raise DreamdriveError(f"{path}: broken, expected an ONNX file ({one_line(error)[:160]})") from error
    found = {}
    for tensor in model.graph.initializer:
        where = f"{path}: {tensor.name}"
        if tensor.data_location:
            raise DreamdriveError(f"{where}: its numbers are in another file, expected them in this one")
        if tensor.data_type not in _TYPES:
            continue
        kind, shape = _TYPES[tensor.data_type], tuple(tensor.dims)
        listed = tensor.float_data or tensor.int64_data
        values = np.array(listed, kind) if len(listed) else np.frombuffer(tensor.raw_data, kind)
        if values.size != np.prod(shape, dtype=np.int64) or min(shape, default=0) < 0:
            raise DreamdriveError(f"{where}: {values.size} numbers, expected the shape {list(shape)}")
        found[str(tensor.name)] = torch.from_numpy(values.reshape(shape).copy())
    if not found:
        raise DreamdriveError(f"{path}: no weights in it, expected an ONNX file with initializers")
    return found
