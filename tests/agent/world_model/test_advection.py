"""Pictures painted from the last one seen: flow, trust and paint against shifts of pixels; what learns."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from agent.world_model.advection import Advection
from agent.world_model.decoder import DecoderConfig
from agent.world_model.losses import ObjectiveConfig, advection_loss
from agent.world_model.rssm import RSSM
from tests.agent.tiny import CONFIG, SHAPES, batch, tiny_rssm

SIZE, FEATURES = 16, 6
DECODER = DecoderConfig(patch=2, depth=4, multipliers=[1, 2])


def advection(channels: int = 3) -> Advection:
    torch.manual_seed(0)
    shapes = {"image": (channels, SIZE, SIZE), "speed": (2,)}
    return Advection(DECODER, FEATURES, shapes, "layer")


def fixed(across: float, down: float, trust: float, paint: float = 0.0) -> Callable[..., object]:
    """`parts` with one flow [px], trust and paint everywhere."""

    def parts(_: str, features: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        each = torch.ones(len(features), 1, SIZE, SIZE)
        flow = torch.cat([each * across, each * down], 1) * (2.0 / SIZE)
        return flow, each * trust, (each * paint).expand(-1, 3, -1, -1)

    return parts


def one_step(head: Advection, features: Tensor, picture: Tensor) -> Tensor:
    return head.unroll(features[:, None], {"image": picture})["image"][:, 0]


def shifted(picture: Tensor, across: int, down: int) -> Tensor:
    """Each pixel is the one so far to its right and below it; beyond the edge, the edge's."""
    rows = (torch.arange(SIZE) + down).clamp(0, SIZE - 1)
    columns = (torch.arange(SIZE) + across).clamp(0, SIZE - 1)
    return picture[:, :, rows][..., columns]


@pytest.mark.parametrize(("across", "down"), [(0, 0), (3, 0), (0, -2), (-1, 4)])
def test_a_flow_of_whole_pixels_shifts_the_picture(
    monkeypatch: pytest.MonkeyPatch, across: int, down: int
) -> None:
    head = advection()
    monkeypatch.setattr(head, "parts", fixed(across, down, trust=1.0))
    picture = torch.randint(256, (2, 3, SIZE, SIZE), dtype=torch.uint8)
    out = head.unroll(torch.zeros(2, 3, FEATURES), {"image": picture})["image"]
    expected = picture.float() / 255
    for step in range(3):
        expected = shifted(expected, across, down)
        assert torch.allclose(out[:, step], expected, atol=1e-4)


def test_half_a_pixel_is_the_mean_of_two(monkeypatch: pytest.MonkeyPatch) -> None:
    head = advection()
    monkeypatch.setattr(head, "parts", fixed(0.5, 0.0, trust=1.0))
    picture = torch.rand(1, 3, SIZE, SIZE)
    out = one_step(head, torch.zeros(1, FEATURES), picture)
    assert torch.allclose(out[..., :-1], (picture[..., :-1] + picture[..., 1:]) / 2, atol=1e-5)


def test_what_is_not_trusted_is_painted(monkeypatch: pytest.MonkeyPatch) -> None:
    head, picture = advection(), torch.rand(1, 3, SIZE, SIZE)
    monkeypatch.setattr(head, "parts", fixed(0.0, 0.0, trust=0.25, paint=0.8))
    out = one_step(head, torch.zeros(1, FEATURES), picture)
    assert torch.allclose(out, 0.25 * picture + 0.6, atol=1e-5)


def test_at_first_a_picture_stays_nearly_as_it_is() -> None:
    picture = torch.rand(4, 3, SIZE, SIZE)
    out = one_step(advection(), torch.randn(4, FEATURES), picture)
    assert (out - picture).abs().mean() < 0.1  # two pictures of noise are a third apart


def test_it_learns_a_motion_that_depends_on_the_features() -> None:
    """Random textures that move right or left as the features say: nothing to know by heart."""
    head = advection()
    optimizer = torch.optim.Adam(head.parameters(), lr=3e-3)
    errors = []
    for _ in range(150):
        # smooth enough for a flow to have a slope
        coarse = torch.rand(16, 3, 6, 6)
        picture = torch.nn.functional.interpolate(coarse, size=SIZE, mode="bilinear")
        way = torch.randint(0, 2, (16,))
        features = torch.zeros(16, FEATURES)
        features[torch.arange(16), way] = 1.0
        moved = torch.stack(
            [shifted(one[None], 1 if w else -1, 0)[0] for one, w in zip(picture, way.tolist(), strict=True)]
        )
        error = (one_step(head, features, picture) - moved).square().mean()
        optimizer.zero_grad()
        error.backward()
        optimizer.step()
        errors.append((float(error.detach()), float((picture - moved).square().mean())))
    learnt, stayed = (sum(column) for column in zip(*errors[-20:], strict=True))
    assert learnt < 0.1 * stayed


def painting(gaussian: bool = False) -> RSSM:
    config = CONFIG.model_copy(update={"advection": True})
    torch.manual_seed(2)
    return config.build(SHAPES, 2)


def test_the_loss_is_the_squared_error_of_the_pictures_ahead(monkeypatch: pytest.MonkeyPatch) -> None:
    head = advection()
    monkeypatch.setattr(head, "parts", fixed(0.0, 0.0, trust=1.0))
    seen = torch.randint(256, (2, 7, 3, SIZE, SIZE), dtype=torch.uint8)
    features = torch.randn(2, 4, FEATURES, requires_grad=True)
    loss = advection_loss(head, features, {"image": seen, "speed": torch.zeros(2, 7, 2)}, seen=2)
    repeated = seen[:, 2:3].double().expand(-1, 4, -1, -1, -1)
    by_hand = ((repeated - seen[:, 3:7].double()) / 255).square().sum((2, 3, 4))
    assert torch.allclose(loss.double(), by_hand, rtol=1e-3)


def test_it_changes_nothing_else_of_what_is_learnt() -> None:
    """All other weights get the gradients that they get without it, and the head gets some."""
    model, data = painting(), batch(2, 6)
    found = {}
    for weight in (0.0, 3.0):
        model.zero_grad()
        torch.manual_seed(1)
        loss, metrics, _ = model.objective(
            data, model.initial(2), ObjectiveConfig(advection_weight=weight), 0
        )
        loss.backward()
        found[weight] = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
        assert metrics["loss/advection"] > 0
    own = [name for name in found[3.0] if name.startswith("advection.")]
    assert own and all(found[3.0][name].abs().sum() > 0 for name in own)
    others = [name for name in found[3.0] if not name.startswith("advection.")]
    assert len(others) > 20 and all(torch.equal(found[0.0][n], found[3.0][n]) for n in others)


def test_what_belongs_to_another_episode_does_not_count() -> None:
    model, data = painting(), batch(2, 6)
    data.is_first[:, 1:] = True
    _, metrics, _ = model.objective(data, model.initial(2), ObjectiveConfig(advection_steps=5), 0)
    assert metrics["loss/advection"] == 0.0


def test_dreams_are_painted_from_the_last_picture_where_there_is_one() -> None:
    model = painting()
    states = model.imagine(model.initial(2), lambda s: torch.zeros(2, 2), 3).states[:, 1:]
    last = torch.randint(256, (2, 1, SIZE, SIZE), dtype=torch.uint8)
    painted, decoded = model.paint(states, {"image": last}), model.decode(states)
    assert model.advection is not None
    ahead = model.advection.unroll(model.features(states), {"image": last})["image"]
    assert torch.equal(painted["image"], ahead.clamp(0, 1)) and painted["image"].shape == (
        2,
        3,
        1,
        SIZE,
        SIZE,
    )
    assert torch.equal(painted["speed"], decoded["speed"])
    assert torch.equal(model.paint(states, {})["image"], decoded["image"])
    plain = tiny_rssm()
    assert torch.equal(plain.paint(states, {"image": last})["image"], plain.decode(states)["image"])


@pytest.mark.parametrize(("paint", "bound"), [(3.0, 1.0), (-2.0, 0.0)])
def test_colours_of_a_painted_dream_stay_within_their_range(
    monkeypatch: pytest.MonkeyPatch, paint: float, bound: float
) -> None:
    model = painting()
    assert model.advection is not None
    monkeypatch.setattr(model.advection, "parts", fixed(0.0, 0.0, trust=0.0, paint=paint))
    states = model.imagine(model.initial(2), lambda s: torch.zeros(2, 2), 3).states[:, 1:]
    painted = model.paint(states, {"image": torch.zeros(2, 1, SIZE, SIZE)})["image"]
    assert (painted == bound).all()
