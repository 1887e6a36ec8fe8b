"""Properties that the reward of recorded driving must have."""

from dataclasses import replace

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from train.convert.recorded.motion import Motion
from train.convert.recorded.rewards import RewardConfig, driving_reward

CONFIG = RewardConfig()


@st.composite
def motions(draw: st.DrawFn) -> Motion:
    rows = draw(st.integers(2, 6))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    return Motion(
        np.cumsum(rng.uniform(0.05, 0.5, rows)),
        rng.uniform(-5, 50, rows),
        rng.normal(size=rows),
        rng.normal(0, 3, rows),
        gaps=rng.uniform(-1, 100, rows) if draw(st.booleans()) else None,
    )


@given(motion=motions())
@settings(max_examples=60, deadline=None)
def test_terms_have_their_signs_and_their_sum(motion: Motion) -> None:
    terms = driving_reward(motion, CONFIG)
    assert set(terms) == {"progress", "comfort", "safety", "reward"}
    assert all(value.shape == (len(motion) - 1,) and np.isfinite(value).all() for value in terms.values())
    assert (terms["comfort"] <= 0).all() and (terms["safety"] <= 0).all()
    np.testing.assert_allclose(terms["reward"], terms["progress"] + terms["comfort"] + terms["safety"])


@given(motion=motions())
@settings(max_examples=60, deadline=None)
def test_the_mirror_image_of_a_drive_earns_the_same(motion: Motion) -> None:
    mirrored = driving_reward(replace(motion, yaw_rates=-motion.yaw_rates), CONFIG)
    for name, value in driving_reward(motion, CONFIG).items():
        np.testing.assert_array_equal(mirrored[name], value)


@given(motion=motions(), factor=st.floats(1, 5))
@settings(max_examples=60, deadline=None)
def test_less_room_is_never_safer_and_rougher_never_more_comfortable(motion: Motion, factor: float) -> None:
    motion = replace(motion, gaps=np.full(len(motion), 20.0))
    safety = driving_reward(motion, CONFIG)["safety"]
    closer = driving_reward(replace(motion, gaps=np.full(len(motion), 20.0 / factor)), CONFIG)["safety"]
    contact = driving_reward(replace(motion, gaps=np.zeros(len(motion))), CONFIG)["safety"]
    free = driving_reward(replace(motion, gaps=np.full(len(motion), np.inf)), CONFIG)["safety"]
    assert (contact <= closer).all() and (closer <= safety).all() and (safety <= free).all()
    np.testing.assert_array_equal(driving_reward(replace(motion, gaps=None), CONFIG)["safety"], free)
    comfort = driving_reward(motion, CONFIG)["comfort"]
    rougher = driving_reward(replace(motion, accelerations=factor * motion.accelerations), CONFIG)["comfort"]
    assert (rougher <= comfort + 1e-12).all()


@given(motion=motions(), scale=st.floats(0, 3))
@settings(max_examples=30, deadline=None)
def test_each_weight_scales_its_own_term(motion: Motion, scale: float) -> None:
    terms = driving_reward(motion, CONFIG)
    for name in ("progress", "comfort", "safety"):
        other = driving_reward(motion, CONFIG.model_copy(update={name: getattr(CONFIG, name) * scale}))
        for term in ("progress", "comfort", "safety"):
            np.testing.assert_allclose(other[term], terms[term] * (scale if term == name else 1), atol=1e-12)


def steady(rows: int, dt: float, speed: float) -> Motion:
    still = np.zeros(rows)
    return Motion(np.arange(rows) * dt, np.full(rows, speed), still, still)  # type: ignore[arg-type]


def test_progress_counts_metres_whatever_the_rate() -> None:
    for rows, dt in ((11, 0.1), (21, 0.05), (3, 0.5)):
        terms = driving_reward(steady(rows, dt, 12.0), CONFIG)
        np.testing.assert_allclose(terms["progress"].sum(), 0.1 * 12.0)
        assert terms["comfort"].sum() == terms["safety"].sum() == 0


def test_a_limit_costs_its_weight_a_second() -> None:
    motion = steady(11, 0.1, 10.0)
    braking = replace(motion, accelerations=np.full(11, -2.0))
    np.testing.assert_allclose(driving_reward(braking, CONFIG)["comfort"].sum(), -0.1)
    bend = replace(motion, yaw_rates=np.full(11, 0.2))
    np.testing.assert_allclose(driving_reward(bend, CONFIG)["comfort"].sum(), -0.1)
    half = replace(motion, gaps=np.full(11, 10.0))
    np.testing.assert_allclose(driving_reward(half, CONFIG)["safety"].sum(), -0.5)
    np.testing.assert_allclose(driving_reward(steady(11, 0.1, 72.0), CONFIG)["safety"].sum(), -1.0)
    assert driving_reward(replace(steady(2, 0.1, 0.0), gaps=np.full(2, 0.1)), CONFIG)["safety"][0] == 0
