"""The sizes of the table make models of about the parameters that their names say."""

import pytest
import torch

from agent.sizes import SIZES, size_options, sized


@pytest.mark.parametrize("size", SIZES)
def test_a_size_has_about_the_parameters_of_its_name(size: str) -> None:
    with torch.device("meta"):
        agent = sized(size).build({"image": (3, 64, 64)}, 2)
    millions = sum(p.numel() for p in agent.parameters() if p.requires_grad) / 1e6
    assert 0.75 < millions / float(size.removesuffix("m")) < 1.1


def test_an_unknown_size_is_refused() -> None:
    with pytest.raises(ValueError, match="size '2m': expected one of 1m, 12m"):
        size_options("2m")
