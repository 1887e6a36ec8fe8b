import numpy as np

from train.data.balance import acceptance, accepted, bin_numbers


def test_bins_are_equal_and_what_is_unknown_has_its_own() -> None:
    values = np.concatenate([np.linspace(0, 10, 1001), [np.nan, 1e9, -1e9]])
    numbers = bin_numbers(values, 5)
    assert set(numbers.tolist()) == {0, 1, 2, 3, 4, 5}
    assert numbers[1001:].tolist() == [5, 4, 0]
    assert abs(np.bincount(numbers[:1001]) - 200).max() < 12
    assert bin_numbers(np.full(3, 2.0), 5).tolist() == [0, 0, 0]
    assert bin_numbers(np.full(3, np.nan), 5).tolist() == [5, 5, 5]


def test_the_power_decides_how_even_it_gets() -> None:
    # 900 sequences straight on, 100 in a bend.
    speed = np.full(1000, 10.0)
    steering = np.repeat([0.0, 1.0], [900, 100])
    for power, ratio in ((0.0, 9.0), (0.5, 3.0), (1.0, 1.0)):
        probability = acceptance(speed, steering, 10, power)
        assert probability.max() == 1.0
        assert np.isclose(900 * probability[0] / (100 * probability[-1]), ratio)
        drawn = accepted(probability, 20_000, np.random.default_rng(0))
        straight = (drawn < 900).mean()
        assert abs(straight / (1 - straight) - ratio) < 0.15 * ratio


def test_the_draw_is_the_same_for_the_same_chance() -> None:
    probability = np.linspace(0.1, 1, 50)
    one, two = (accepted(probability, 10, np.random.default_rng(4)) for _ in range(2))
    assert np.array_equal(one, two) and len(one) == 10
