"""The encoder's shapes, its codes, and what it refuses."""

import pytest
import torch

from agent.world_model.encoder import Encoder, EncoderConfig, channel_plan


def config(**changes: object) -> EncoderConfig:
    return EncoderConfig.model_validate(
        {"depth": 2, "multipliers": [1, 3], "vector_layers": 1, "vector_units": 8, **changes}
    )


@pytest.mark.parametrize(
    ("shapes", "size"),
    [
        ({"image": (3, 16, 16)}, 16 * 2),
        ({"image": (3, 32, 32)}, 16 * 6),
        ({"image": (1, 64, 64)}, 16 * 6),
        ({"speed": (3,)}, 8),
        ({"speed": (3,), "goal": (2,)}, 8),
        ({"image": (3, 16, 16), "depth": (1, 32, 32), "speed": (1,)}, 16 * 2 + 16 * 6 + 8),
    ],
)
@pytest.mark.parametrize("norm", ["rms", "layer"])
def test_shapes(shapes: dict[str, tuple[int, ...]], size: int, norm: str) -> None:
    encoder = Encoder(config(), shapes, norm)  # type: ignore[arg-type]
    observation = {
        name: torch.randint(256, (2, *shape), dtype=torch.uint8)
        if len(shape) == 3
        else torch.randn(2, *shape)
        for name, shape in shapes.items()
    }
    assert encoder.out_size == size
    out = encoder(observation)
    assert out.shape == (2, size)
    # every observation has an influence
    for name, value in observation.items():
        changed = observation | {name: 255 - value if value.dtype == torch.uint8 else value + 1}
        assert not torch.allclose(encoder(changed), out)


@pytest.mark.parametrize(
    ("size", "patch", "count"), [(4, 1, 1), (8, 1, 2), (16, 4, 1), (64, 8, 2), (64, 4, 3), (64, 2, 4)]
)
def test_channel_plan_ends_at_four_by_four(size: int, patch: int, count: int) -> None:
    plan = channel_plan(size, patch, 10, [1, 2])
    assert plan == [10, 20, 20, 20][:count]
    encoder = Encoder(config(patch=patch, multipliers=[1]), {"image": (1, size, size)}, "rms")
    assert encoder({"image": torch.zeros(1, 1, size, size, dtype=torch.uint8)}).shape == (1, 32)


@pytest.mark.parametrize(("size", "patch"), [(96, 4), (8, 4), (65, 4), (64, 3), (64, 64)])
def test_other_sizes_are_refused(size: int, patch: int) -> None:
    with pytest.raises(ValueError, match="patches a side"):
        channel_plan(size, patch, 10, [1])


@pytest.mark.parametrize("shape", [(3, 16, 32), (4, 4), ()])
def test_neither_square_nor_vector_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="'odd'"):
        Encoder(config(), {"odd": shape}, "rms")


def test_fsq_codes_are_on_the_grid_and_pass_gradients() -> None:
    encoder = Encoder(config(quantizer="fsq", fsq_levels=[8, 5]), {"image": (1, 32, 32)}, "rms")
    assert encoder.out_size == 32
    out = encoder({"image": torch.randint(256, (6, 1, 32, 32), dtype=torch.uint8)}).unflatten(1, (16, 2))
    # 8 levels: -4..3 quarters; 5 levels: -2..2 halves
    eight, five = out[..., 0] * 4, out[..., 1] * 2
    torch.testing.assert_close(eight, eight.round())
    torch.testing.assert_close(five, five.round())
    assert eight.min() >= -4 and eight.max() <= 3
    assert five.abs().max() <= 2
    out.square().sum().backward()
    for name, p in encoder.named_parameters():
        if not name.endswith("bias"):
            assert p.grad is not None and p.grad.abs().sum() > 0, name


def test_vectors_of_any_size_stay_finite() -> None:
    encoder = Encoder(config(), {"speed": (3,)}, "rms")
    assert encoder({"speed": torch.tensor([[0.0, 0, 0], [1e30, -1e6, 1e-30]])}).isfinite().all()
