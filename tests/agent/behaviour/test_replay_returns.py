"""Returns of replayed rows against a slow loop over episodes."""

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from agent.returns import replay_returns
from agent.world_model.interface import Batch


def rows(reward: Tensor, is_first: Tensor, is_terminal: Tensor) -> Batch:
    return Batch({}, torch.zeros(*reward.shape, 1), reward, is_first, is_terminal)


def of_batch(batch: Batch, values: Tensor, discount: float, lambda_: float) -> tuple[Tensor, Tensor]:
    return replay_returns(batch.reward, batch.is_first, batch.is_terminal, values, discount, lambda_)


def slow_returns(
    batch: Batch, values: Tensor, discount: float, lambda_: float
) -> dict[tuple[int, int], float]:
    """(sequence, row) -> return, for every row that has a successor in its episode."""
    found = {}
    for b in range(values.shape[0]):
        starts = [t for t in range(values.shape[1]) if t == 0 or batch.is_first[b, t]]
        for begin, end in zip(starts, [*starts[1:], values.shape[1]], strict=True):
            # a cut or truncated end is worth what its value says
            ahead = values[b, end - 1].item()
            for t in range(end - 2, begin - 1, -1):
                value, reward = values[b, t + 1].item(), batch.reward[b, t + 1].item()
                goes_on = 0.0 if batch.is_terminal[b, t + 1] else 1.0
                ahead = reward + discount * goes_on * ((1 - lambda_) * value + lambda_ * ahead)
                found[b, t] = ahead
    return found


@st.composite
def cases(draw: st.DrawFn) -> tuple[Batch, Tensor]:
    b, t = draw(st.integers(1, 3)), draw(st.integers(2, 9))
    flags = st.lists(st.lists(st.booleans(), min_size=t, max_size=t), min_size=b, max_size=b)
    is_first = torch.tensor(draw(flags))
    # terminal rows are the last of their episode, or of the sequence
    ends = torch.cat([is_first[:, 1:], torch.ones(b, 1, dtype=torch.bool)], 1)
    is_terminal = torch.tensor(draw(flags)) & ends
    generator = torch.Generator().manual_seed(draw(st.integers(0, 10_000)))
    reward = torch.randn(b, t, generator=generator) * ~is_first
    return rows(reward, is_first, is_terminal), torch.randn(b, t, generator=generator) * 3


@given(cases(), st.sampled_from([0.0, 0.5, 0.95, 1.0]))
@settings(max_examples=200, deadline=None)
def test_agrees_with_the_loop_over_episodes(case: tuple[Batch, Tensor], lambda_: float) -> None:
    batch, values = case
    returns, valid = of_batch(batch, values, 0.9, lambda_)
    expected = slow_returns(batch, values, 0.9, lambda_)
    assert returns.shape == valid.shape == (values.shape[0], values.shape[1] - 1)
    assert {(b, t) for b, t in valid.nonzero().tolist()} == set(expected)
    for (b, t), value in expected.items():
        torch.testing.assert_close(returns[b, t].item(), value, rtol=1e-4, atol=1e-4)


def two_episodes(terminal: bool) -> Batch:
    # rows 0 1 2 | 3 4 5
    is_first = torch.tensor([[True, False, False, True, False, False]])
    is_terminal = torch.zeros(1, 6, dtype=torch.bool)
    is_terminal[0, 2] = terminal
    return rows(torch.tensor([[0.0, 1.0, 2.0, 0.0, 4.0, 5.0]]), is_first, is_terminal)


def test_nothing_leaks_across_a_reset() -> None:
    values = torch.randn(1, 6)
    for terminal in (False, True):
        before, _ = of_batch(two_episodes(terminal), values, 0.9, 0.95)
        changed, moved = two_episodes(terminal), values.clone()
        changed.reward[0, 3:] += 1e6
        moved[0, 3:] -= 1e6
        after, valid = of_batch(changed, moved, 0.9, 0.95)
        assert valid.tolist() == [[True, True, False, True, True]]
        assert torch.equal(before[0, :2], after[0, :2])
        assert not torch.equal(before[0, 3:], after[0, 3:])


def test_truncated_ends_bootstrap_and_terminal_ends_do_not() -> None:
    values = torch.tensor([[0.0, 0.0, 10.0, 0.0, 0.0, 0.0]])
    truncated, _ = of_batch(two_episodes(False), values, 0.5, 1.0)
    assert truncated[0, :2].tolist() == [1 + 0.5 * (2 + 0.5 * 10), 2 + 0.5 * 10]
    terminal, _ = of_batch(two_episodes(True), values, 0.5, 1.0)
    assert terminal[0, :2].tolist() == [1 + 0.5 * 2, 2]


def test_sequences_of_two_rows_and_one_stream() -> None:
    batch = rows(torch.tensor([[0.0, 3.0]]), torch.tensor([[True, False]]), torch.tensor([[False, False]]))
    returns, valid = of_batch(batch, torch.tensor([[7.0, 4.0]]), 0.5, 0.95)
    assert returns.tolist() == [[5.0]]
    assert valid.all()
