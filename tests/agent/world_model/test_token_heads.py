"""The heads that predict tokens: exact probabilities, draws that follow them, and what digits can learn."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from agent.world_model.token_heads import DigitHead, DigitHeadConfig, JointHead, JointHeadConfig
from agent.world_model.token_sampling import Sampling

HIDDEN = 6


Head = JointHead | DigitHead


def shaken(config: JointHeadConfig | DigitHeadConfig, tokens: int, levels: list[int]) -> Head:
    """A head whose every weight says something."""
    head = config.build(HIDDEN, tokens, levels)
    for parameter in head.parameters():
        nn.init.normal_(parameter)
    return head


def all_nats(head: Head, hidden: torch.Tensor, codes: int) -> torch.Tensor:
    """-log p of each code at every place, (K, G), for one hidden state (H)."""
    every = torch.arange(codes).unsqueeze(-1).expand(codes, head.tokens)
    return head.score(hidden.expand(codes, -1), every)[0].detach()


@given(
    levels=st.lists(st.integers(2, 6), min_size=1, max_size=4),
    tokens=st.integers(1, 3),
    digits=st.booleans(),
    seed=st.integers(0, 2**31),
)
@settings(max_examples=30, deadline=None)
def test_the_probabilities_of_all_codes_sum_to_one(
    levels: list[int], tokens: int, digits: bool, seed: int
) -> None:
    torch.manual_seed(seed)
    head = shaken(DigitHeadConfig(units=5) if digits else JointHeadConfig(), tokens, levels)
    nats = all_nats(head, torch.randn(HIDDEN), math.prod(levels))
    torch.testing.assert_close((-nats).exp().sum(0), torch.ones(tokens), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("config", [JointHeadConfig(), DigitHeadConfig(units=5)])
def test_draws_have_these_probabilities(config: JointHeadConfig | DigitHeadConfig) -> None:
    torch.manual_seed(0)
    head = shaken(config, 2, [3, 2, 2])
    hidden = 0.5 * torch.randn(HIDDEN)
    count = 40_000
    noise = torch.rand(count, head.noise_size)
    drawn = head.draw(hidden.expand(count, -1), Sampling(), noise)
    assert drawn.shape == (count, 2) and torch.equal(
        drawn, head.draw(hidden.expand(count, -1), Sampling(), noise)
    )
    expected = (-all_nats(head, hidden, 12)).exp()
    for place in range(2):
        share = drawn[:, place].bincount(minlength=12) / count
        torch.testing.assert_close(share, expected[:, place], atol=0.012, rtol=0)


def test_digits_are_guessed_one_after_the_other() -> None:
    torch.manual_seed(1)
    head = shaken(DigitHeadConfig(units=5), 1, [4, 3])
    hidden = torch.randn(1, HIDDEN)
    # Nothing is left to chance when it is very cold.
    coldest = head.draw(hidden, Sampling(1e-6), torch.rand(1, head.noise_size))
    guessed = [code for code in range(12) if head.score(hidden, torch.tensor([[code]]))[1].item()]
    assert guessed == coldest[0].tolist()


def test_heat_evens_the_digits_out() -> None:
    torch.manual_seed(2)
    head = shaken(DigitHeadConfig(units=5), 1, [4, 3])
    hidden = torch.randn(HIDDEN).expand(20_000, -1)
    noise = torch.rand(20_000, head.noise_size)
    spread = []
    for temperature in (0.3, 1.0, 1.3, 100.0):
        share = head.draw(hidden, Sampling(temperature), noise)[:, 0].bincount(minlength=12) / 20_000
        spread.append(torch.special.entr(share).sum().item())
    assert spread == sorted(spread) and spread[0] < spread[1] < spread[2]
    assert spread[3] == pytest.approx(math.log(12), abs=0.01)


def test_a_digit_depends_on_those_before_it() -> None:
    """Two digits that are always equal, by a fair coin: independent ones would cost log 4, not log 2."""
    torch.manual_seed(0)
    head = DigitHeadConfig(units=8).build(HIDDEN, 1, [2, 2])
    optimizer = torch.optim.Adam(head.parameters(), 3e-2)
    hidden = torch.zeros(64, HIDDEN)
    for _ in range(150):
        tokens = 3 * torch.randint(2, (64, 1))
        nats, _ = head.score(hidden, tokens)
        optimizer.zero_grad()
        nats.mean().backward()
        optimizer.step()
    assert nats.mean().item() == pytest.approx(math.log(2), abs=0.05)


def test_a_grid_needs_few_numbers() -> None:
    count = [
        sum(p.numel() for p in config.build(256, 16, [8, 5, 5, 5]).parameters())
        for config in (JointHeadConfig(), DigitHeadConfig())
    ]
    assert count[0] == 257 * 16_000 and count[1] < count[0] / 14


def test_any_number_of_dimensions_leads() -> None:
    head = shaken(DigitHeadConfig(units=5), 3, [4, 3])
    hidden, tokens = torch.randn(2, 5, HIDDEN), torch.randint(12, (2, 5, 3))
    nats, right = head.score(hidden, tokens)
    assert nats.shape == right.shape == tokens.shape
    torch.testing.assert_close(nats[1, 2], head.score(hidden[1, 2], tokens[1, 2])[0])
    assert head.draw(hidden, Sampling(), torch.rand(2, 5, head.noise_size)).shape == tokens.shape


@pytest.mark.parametrize("config", [JointHeadConfig(), DigitHeadConfig(units=5)], ids=["joint", "digits"])
def test_log_probabilities_are_those_of_scores(config: JointHeadConfig | DigitHeadConfig) -> None:
    head = shaken(config, 2, [4, 3])
    hidden = torch.randn(3, HIDDEN)
    found = head.log_probabilities(hidden)
    expected = torch.stack([-all_nats(head, one, 12).T for one in hidden])
    torch.testing.assert_close(found, expected)
