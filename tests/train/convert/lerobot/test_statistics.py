"""Statistics of columns against numpy's, of parts together against those of the whole."""

import json

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from train.convert.lerobot.statistics import QUANTILES, merged, number_statistics, picture_statistics, plain


@given(
    sizes=st.lists(st.integers(1, 9), min_size=1, max_size=4),
    width=st.integers(1, 3),
    seed=st.integers(0, 2**32 - 1),
)
@settings(max_examples=40, deadline=None)
def test_parts_together_are_the_whole(sizes: list[int], width: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    parts = [rng.normal(rng.normal(), 2, (size, width)).astype(np.float32) for size in sizes]
    total = None
    for part in parts:
        found = number_statistics(part)
        assert found is not None
        total = merged(total, found)
    whole = np.concatenate(parts).astype(np.float64)
    assert total is not None and total["count"] == [len(whole)]
    for name, expected in (("min", whole.min(0)), ("max", whole.max(0)), ("mean", whole.mean(0))):
        np.testing.assert_allclose(total[name], expected, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(total["std"], whole.std(0), rtol=1e-6, atol=1e-9)
    assert (total["min"] <= total["q01"]).all() and (total["q99"] <= total["max"]).all()
    assert (total["q10"] <= total["q90"]).all()


def test_one_value_a_row_has_one_entry_and_truths_are_numbers() -> None:
    found = number_statistics(np.array([True, False, False, True]))
    assert found is not None and found["mean"].tolist() == [0.5] and found["max"].tolist() == [1.0]
    assert all(value.shape == (1,) for value in found.values())


def test_what_is_not_finite_does_not_count() -> None:
    found = number_statistics(np.array([1.0, np.nan, 3.0, np.inf], np.float32))
    assert found is not None and found["mean"] == [2.0] and found["max"] == [3.0] and found["count"] == [4]
    assert number_statistics(np.full(3, np.nan)) is None
    assert number_statistics(np.array([[1.0, np.nan], [2.0, np.nan]])) is None


def test_pictures_are_told_in_fractions() -> None:
    pictures = np.random.default_rng(0).integers(0, 256, (5, 3, 4, 6), dtype=np.uint8)
    found = picture_statistics(pictures)
    assert found["count"].tolist() == [5]
    assert {name for name, value in found.items() if value.shape == (3, 1, 1)} == set(found) - {"count"}
    part = pictures.transpose(1, 0, 2, 3).reshape(3, -1) / 255
    for name, expected in (("min", part.min(1)), ("mean", part.mean(1)), ("std", part.std(1))):
        np.testing.assert_allclose(found[name].ravel(), expected, rtol=1e-12)
    for name, share in QUANTILES.items():
        exact = np.quantile(part, share, axis=1, method="inverted_cdf")
        np.testing.assert_allclose(found[name].ravel(), exact)


def test_json_takes_them() -> None:
    found = {
        "a": number_statistics(np.arange(4.0)),
        "p": picture_statistics(np.zeros((2, 3, 2, 2), np.uint8)),
    }
    known = {name: value for name, value in found.items() if value is not None}
    told = json.loads(json.dumps(plain(known, leave_out=QUANTILES)))
    assert told["a"] == {"min": [0], "max": [3], "mean": [1.5], "std": [np.sqrt(1.25)], "count": [4]}
    assert told["p"]["mean"] == [[[0.0]], [[0.0]], [[0.0]]]
