"""The classifier of instructions: probabilities, and that a policy's learning leaves it as it is."""

import pytest
import torch
from torch import Tensor

from agent.behaviour.vla.instruction_classifier import InstructionClassifier
from agent.behaviour.vla.model import VLAConfig


def sentences() -> tuple[Tensor, Tensor]:
    """(24, 16) embeddings that say one of 3 and one of 4 things, with some noise, and what they say."""
    generator = torch.Generator().manual_seed(0)
    said = torch.cartesian_prod(torch.arange(3), torch.arange(4)).repeat(2, 1)
    clean = torch.cat(
        [torch.nn.functional.one_hot(said[:, 0], 8), torch.nn.functional.one_hot(said[:, 1], 8)], 1
    )
    noisy = clean + 0.1 * torch.randn(24, 16, generator=generator)
    return torch.nn.functional.normalize(noisy, dim=1), said


def test_it_gives_probabilities_of_each_kind() -> None:
    torch.manual_seed(0)
    read = InstructionClassifier(16, (3, 4))(sentences()[0])
    assert read.shape == (24, 7) and (read > 0).all()
    torch.testing.assert_close(read[:, :3].sum(1), torch.ones(24))
    torch.testing.assert_close(read[:, 3:].sum(1), torch.ones(24))


def test_a_policy_hears_what_was_read_and_does_not_change_the_reader() -> None:
    torch.manual_seed(0)
    config = VLAConfig(image_size=16, state_size=4, action_size=2, text_size=16, reading=(3, 4))
    assert config.instruction_size == 7 and VLAConfig(text_size=16).instruction_size == 16
    model = config.build()
    assert model.reader is not None
    text = sentences()[0][:2]
    context = model.context(torch.rand(2, 3, 16, 16), torch.zeros(2, 4), text)
    context.instruction.sum().backward()
    assert all(p.grad is None for p in model.reader.parameters())
    assert model.expert.text.weight.grad is not None
    # Another way to say the same, as the reader has it, is the same to the policy.
    model.reader.forward = lambda text: torch.ones(len(text), 7)  # type: ignore[method-assign]
    one = model.context(torch.zeros(2, 3, 16, 16), torch.zeros(2, 4), text)
    two = model.context(torch.zeros(2, 3, 16, 16), torch.zeros(2, 4), -text)
    assert torch.equal(one.instruction, two.instruction)


def test_one_class_is_no_choice() -> None:
    with pytest.raises(ValueError, match="reading"):
        VLAConfig(reading=(1, 4))
