"""How a tokenizer uses its codes: share and perplexity of all codes, and of the levels of each number."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from agent.fsq import FSQ


def perplexity(uses: Tensor) -> float:
    """Of how often each of K things was used (K): how many, used evenly, would be as varied, 1 to K."""
    share = uses.double() / uses.sum()
    return float(torch.special.entr(share).sum().exp())


def codebook_metrics(uses: Tensor) -> dict[str, float]:
    """Of how often each code was used (K): the share of codes used at all, and the perplexity of the use."""
    return {
        "codebook_use": float((uses > 0).double().mean()),
        "codebook_perplexity": perplexity(uses),
    }


def level_metrics(uses: Tensor, levels: Sequence[int]) -> dict[str, float]:
    """How the levels of each number of an FSQ code are used.

    A picture set with few tokens cannot show all of a large codebook, but it shows all levels: where one of
    them is hardly used, the codebook is smaller than it says, whatever the number of tokens.

    Args:
        uses: how often each code was used, (K), K the product of `levels`.
        levels: of each number.

    Returns:
        `level_use`, the smallest share of levels used at all, over the numbers; `level_perplexity`, the
        product of the perplexities of all numbers, as a share of K: how large the codebook would look if the
        numbers were independent; and `level_perplexity_0`, ..., of each number, from 1 to its levels.

    Raises:
        ValueError: another number of codes than the levels have.
    """
    if uses.shape != (math.prod(levels),):
        raise ValueError(f"uses of shape {tuple(uses.shape)}: expected ({math.prod(levels)},), one a code")
    # (K, D)
    digits = FSQ(levels).to(uses.device).digits(torch.arange(len(uses), device=uses.device))
    counts = [
        torch.zeros(count, dtype=torch.float64, device=uses.device).index_add_(0, digits[:, d], uses.double())
        for d, count in enumerate(levels)
    ]
    each = [perplexity(count) for count in counts]
    return {
        "level_use": min(float((count > 0).double().mean()) for count in counts),
        "level_perplexity": math.prod(each) / math.prod(levels),
        **{f"level_perplexity_{d}": value for d, value in enumerate(each)},
    }


def expected_use(codes: int, tokens: int) -> float:
    """Share of `codes` that a number of tokens shows on average where all codes are used alike.

    The most that `codebook_use` can be expected to be: 25,600 tokens show 81% of 15,360 codes.
    """
    return 1.0 - (1.0 - 1.0 / codes) ** tokens
