"""Which arithmetic a precision means where."""

import pytest
import torch

from train.run import device as devices
from train.run.device import autocast, resolved

CPU, GPU = torch.device("cpu"), torch.device("cuda")


@pytest.mark.parametrize("fast", [True, False])
def test_auto_is_bf16_only_on_a_gpu_that_multiplies_it(fast: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(devices, "fast_bf16", lambda device: fast)
    assert resolved("auto", CPU) == "fp32"
    assert resolved("auto", GPU) == ("bf16" if fast else "fp32")
    assert [resolved(asked, place) for asked in ("bf16", "fp32") for place in (CPU, GPU)] == [
        *("bf16", "bf16"),
        *("fp32", "fp32"),
    ]


def test_products_are_in_the_precision_asked_for() -> None:
    a = torch.randn(4, 4)
    for asked, dtype in (("auto", torch.float32), ("fp32", torch.float32), ("bf16", torch.bfloat16)):
        with autocast(CPU, asked):
            assert (a @ a).dtype == dtype
