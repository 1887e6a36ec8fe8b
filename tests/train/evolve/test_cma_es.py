import json

import numpy as np
import pytest
import torch

from train.evolve.cma_es import Array, Evolution
from train.run.checkpoint import load_checkpoint, save_checkpoint


def fitness(x: Array) -> Array:
    """Best, 0, at 0, 1, 2, ...; some directions count a hundred times as much as others."""
    n = x.shape[1]
    return -(np.square(x - np.arange(n)) * np.logspace(0, 2, n)).sum(1)


def evolution(n: int = 5, parents: int = 0) -> Evolution:
    return Evolution(np.zeros(n), 0.5, 8, parents, seed=3)


def generations(one: Evolution, count: int) -> list[Array]:
    seen = []
    for _ in range(count):
        seen.append(one.ask())
        one.tell(fitness(seen[-1]))
    return seen


def test_it_finds_the_best_genome() -> None:
    one = evolution()
    generations(one, 150)
    assert np.abs(one.mean - np.arange(5)).max() < 0.01 and one.sigma < 0.1


# With 80 numbers the covariance is not decomposed in each generation.
@pytest.mark.parametrize("n", [5, 80])
@pytest.mark.parametrize("stop", [0, 1, 2, 9])
def test_a_resumed_evolution_is_one_never_stopped(n: int, stop: int, tmp_path_factory) -> None:  # type: ignore[no-untyped-def]
    whole = evolution(n)
    expected = generations(whole, 15)

    first = evolution(n)
    generations(first, stop)
    path = tmp_path_factory.mktemp("cma") / "checkpoint.pt"
    save_checkpoint(path, first.state_dict())
    second = evolution(n)
    second.load_state_dict(load_checkpoint(path))
    rest = generations(second, 15 - stop)

    assert second.generation == 15
    for seen, wanted in zip(rest, expected[stop:], strict=True):
        np.testing.assert_array_equal(seen, wanted)
    np.testing.assert_array_equal(second.mean, whole.mean)
    assert second.sigma == whole.sigma


def test_the_state_is_plain() -> None:
    one = evolution()
    generations(one, 3)
    state = one.state_dict()
    json.dumps({name: v.tolist() if isinstance(v, torch.Tensor) else v for name, v in state.items()})


def test_other_chance_does_not_matter() -> None:
    np.random.seed(0)  # noqa: NPY002 (the global state that `cma` would use)
    first = generations(evolution(), 3)
    np.random.seed(1)  # noqa: NPY002
    for a, b in zip(first, generations(evolution(), 3), strict=True):
        np.testing.assert_array_equal(a, b)


def test_the_number_of_parents() -> None:
    """With one parent the mean moves to the best candidate."""
    one = evolution(parents=1)
    candidates = one.ask()
    one.tell(fitness(candidates))
    np.testing.assert_allclose(one.mean, candidates[fitness(candidates).argmax()])
