"""Use of codes and of levels, counted by hand; and how many codes a number of tokens can show."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from agent.fsq import FSQ
from agent.tokenizer.codebook_use import codebook_metrics, expected_use, level_metrics, perplexity


def test_the_use_of_a_codebook() -> None:
    found = codebook_metrics(torch.tensor([5.0, 5.0, 0.0, 0.0]))
    assert found["codebook_use"] == 0.5 and found["codebook_perplexity"] == pytest.approx(2.0)


@given(st.lists(st.integers(0, 50), min_size=2, max_size=30).filter(lambda uses: sum(uses) > 0))
def test_perplexity_lies_between_one_and_the_codes_in_use(uses: list[int]) -> None:
    found = perplexity(torch.tensor(uses))
    assert 1 - 1e-9 <= found <= sum(use > 0 for use in uses) + 1e-9


def test_all_codes_alike_use_all_levels_alike() -> None:
    found = level_metrics(torch.full((24,), 3), [2, 3, 4])
    assert found["level_use"] == 1.0 and found["level_perplexity"] == pytest.approx(1.0)
    assert [found[f"level_perplexity_{d}"] for d in range(3)] == pytest.approx([2.0, 3.0, 4.0])


def test_a_level_that_is_never_used_is_seen() -> None:
    levels = [4, 3]
    uses = torch.ones(12, dtype=torch.long)
    uses[FSQ(levels).digits(torch.arange(12))[:, 0] == 2] = 0
    found = level_metrics(uses, levels)
    assert found["level_use"] == 0.75 and found["level_perplexity"] == pytest.approx(0.75)
    assert found["level_perplexity_0"] == pytest.approx(3.0)


def test_two_numbers_that_always_agree_use_all_levels_and_few_codes() -> None:
    levels = [3, 3]
    digits = FSQ(levels).digits(torch.arange(9))
    uses = (digits[:, 0] == digits[:, 1]).long()
    assert level_metrics(uses, levels)["level_perplexity"] == pytest.approx(1.0)
    assert codebook_metrics(uses)["codebook_perplexity"] == pytest.approx(3.0)


def test_uses_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match=r"expected \(12,\)"):
        level_metrics(torch.ones(11), [4, 3])


def test_what_a_number_of_tokens_can_show() -> None:
    assert expected_use(15_360, 25_600) == pytest.approx(0.811, abs=1e-3)
    drawn = torch.randint(500, (200, 800), generator=torch.Generator().manual_seed(0))
    shown = torch.tensor([len(row.unique()) / 500 for row in drawn]).mean()
    assert float(shown) == pytest.approx(expected_use(500, 800), abs=0.01)
