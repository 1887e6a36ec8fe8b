import pytest
import torch
from torch import Tensor

from agent.behaviour.vla.model import VLAConfig, VLAModel, time_embedding


def tiny(**fields: object) -> VLAConfig:
    sizes = {"width": 16, "layers": 1, "heads": 2, "expert_width": 16, "expert_layers": 2, "expert_heads": 2}
    small = {"image_size": 16, "state_size": 2, "action_size": 3, "text_size": 6, "chunk": 4, "execute": 2}
    return VLAConfig.model_validate({**sizes, **small, **fields})


def stirred(config: VLAConfig) -> VLAModel:
    """A model none of whose parts is the identity, as each is at the beginning."""
    torch.manual_seed(0)
    model = config.build()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    return model.eval()


def inputs(b: int, k: int) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    g = torch.Generator().manual_seed(1)
    shapes = ((b, 3, 16, 16), (b, 2), (b, 6), (b, k, 4, 3), (b, k))
    vision, state, text, noisy, times = (torch.rand(shape, generator=g) for shape in shapes)
    return vision, state, text, noisy, times


def test_the_default_is_small() -> None:
    count = sum(p.numel() for p in VLAConfig().build().parameters())
    assert 1_000_000 < count < 4_000_000


def test_shapes_and_gradients_reach_every_weight() -> None:
    model = stirred(tiny())
    vision, state, text, noisy, times = inputs(2, 3)
    velocity = model.velocity(noisy, times, model.context(vision, state, text))
    assert velocity.shape == (2, 3, 4, 3)
    velocity.square().sum().backward()
    still = [name for name, p in model.named_parameters() if p.grad is None or not p.grad.any()]
    assert still == []


def test_features_take_the_place_of_the_picture() -> None:
    model = stirred(tiny(vision="features", feature_size=5))
    _, state, text, noisy, times = inputs(2, 3)
    assert model.velocity(noisy, times, model.context(torch.rand(2, 5), state, text)).shape == (2, 3, 4, 3)


def test_a_patch_is_a_square_of_the_picture() -> None:
    model = stirred(tiny())
    picture = torch.full((1, 3, 16, 16), 0.5)
    picture[..., :8, 8:] += 0.25  # the upper right one of four
    tokens: list[Tensor] = []
    model.vision.register_forward_hook(lambda module, given, out: tokens.append(out - module.bias))
    model.context(picture, torch.zeros(1, 2), torch.zeros(1, 6))
    assert tokens[0].shape[:2] == (1, 4) and model.vision.in_features == 192
    assert tokens[0].abs().sum(-1).gt(0).tolist() == [[False, True, False, False]]


@pytest.mark.parametrize("part", ["vision", "state", "text", "times", "noisy"])
def test_everything_given_matters(part: str) -> None:
    model = stirred(tiny())
    given = dict(zip(("vision", "state", "text", "noisy", "times"), inputs(1, 1), strict=True))

    def velocity() -> Tensor:
        context = model.context(given["vision"], given["state"], given["text"])
        return model.velocity(given["noisy"], given["times"], context)

    before = velocity()
    given[part] = given[part] + 0.3
    assert not torch.allclose(before, velocity(), atol=1e-5)


def test_rows_and_chunks_do_not_see_each_other() -> None:
    model = stirred(tiny())
    vision, state, text, noisy, times = inputs(3, 4)
    whole = model.velocity(noisy, times, model.context(vision, state, text))
    alone = model.velocity(
        noisy[1:2, 2:3], times[1:2, 2:3], model.context(vision[1:2], state[1:2], text[1:2])
    )
    torch.testing.assert_close(whole[1:2, 2:3], alone, atol=1e-5, rtol=1e-4)


def test_times_are_told_apart() -> None:
    embedded = time_embedding(torch.linspace(0, 1, 11), 8)
    assert embedded.shape == (11, 8)
    assert float(torch.cdist(embedded, embedded).fill_diagonal_(9.0).min()) > 0.05
