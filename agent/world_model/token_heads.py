"""Heads that predict the next picture's tokens: one softmax a token, or one for each digit of its code.

A code of finite scalar quantisation is a number with D digits, digit d one of `levels[d]`. So the softmax
over all codes can be split by the chain rule, p(token) = p(digit_1) p(digit_2 | digit_1) ..., which is as
exact and needs the sum of the levels instead of their product: 23 logits a token, not 1,000, for
[8, 5, 5, 5].

Tokens of one picture are independent of each other given the hidden state, with either head.
"""

from typing import Literal

import torch
import torch.nn.functional as F
from pydantic import BaseModel, Field
from torch import Tensor, nn

from agent.distributions import sample_index
from agent.fsq import FSQ
from agent.nets import initialised, linear
from agent.world_model.token_sampling import Sampling


class JointHeadConfig(BaseModel, extra="forbid", validate_assignment=True, use_attribute_docstrings=True):
    """One softmax over all codes of a token."""

    kind: Literal["joint"] = "joint"
    """Which head."""

    def build(self, hidden_size: int, tokens: int, levels: list[int]) -> "JointHead":
        """The head for G tokens of codes with these FSQ levels."""
        return JointHead(hidden_size, tokens, levels)


class DigitHeadConfig(BaseModel, extra="forbid", validate_assignment=True, use_attribute_docstrings=True):
    """A softmax over each FSQ digit of a token, given the digits before it: little work for many tokens."""

    kind: Literal["digits"] = "digits"
    """Which head."""
    units: int = Field(64, ge=1)
    """Width of its hidden layer, for each token."""

    def build(self, hidden_size: int, tokens: int, levels: list[int]) -> "DigitHead":
        """The head for G tokens of codes with these FSQ levels."""
        return DigitHead(hidden_size, tokens, levels, self.units)


class JointHead(nn.Linear):
    """A linear map to K logits for each of G tokens.

    Attributes:
        noise_size: uniform random numbers that one draw of G tokens takes.
    """

    def __init__(self, hidden_size: int, tokens: int, levels: list[int]) -> None:
        self.tokens, self.noise_size = tokens, tokens
        super().__init__(hidden_size, tokens * FSQ(levels).codes)
        initialised(self, hidden_size)

    def logits(self, hidden: Tensor) -> Tensor:
        """Hidden states (..., R) -> logits (..., G, K)."""
        return self(hidden).float().unflatten(-1, (self.tokens, -1))

    def score(self, hidden: Tensor, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """Cross-entropy of the tokens (..., G) that came [nats], and whether they were guessed, as the most
        likely code, from hidden states (..., R): (..., G) each."""
        logits = self.logits(hidden)
        return _cross_entropy(logits, tokens), logits.argmax(-1) == tokens

    def log_probabilities(self, hidden: Tensor) -> Tensor:
        """Of all codes [nats], from hidden states (..., R): (..., G, K)."""
        return self.logits(hidden).log_softmax(-1)

    def draw(self, hidden: Tensor, sampling: Sampling, noise: Tensor) -> Tensor:
        """Tokens (..., G) for hidden states (..., R), drawn with uniform numbers (..., noise_size)."""
        return sample_index(sampling.probabilities(self.logits(hidden)), noise)


class DigitHead(nn.Module):
    """A small network that predicts the digits of each token one after the other.

    x_1 = W h, x_{d+1} = x_d + E_d[digit_d], digit_d ~ softmax(V_d silu(x_d) / temperature): the running sum
    of NADE (Larochelle & Murray 2011, equations 1 to 4). W has rows for each place in the grid; E and V are
    the same at all places, since a code means the same there.

    Temperature, top-k and top-p are applied to each digit, which is not quite to apply them to whole codes.
    """

    def __init__(self, hidden_size: int, tokens: int, levels: list[int], units: int) -> None:
        super().__init__()
        self.code = FSQ(levels)
        self.tokens, self.noise_size = tokens, tokens * len(levels)
        self.read = linear(hidden_size, tokens * units)
        # At first what was said of one digit says nothing of the next.
        self.told = nn.ParameterList([nn.Parameter(torch.zeros(level, units)) for level in levels[:-1]])
        self.write = nn.ModuleList([linear(units, level) for level in levels])

    def _logits(self, number: int, x: Tensor) -> Tensor:
        """The logits (..., G, levels) of digit `number`."""
        logits: Tensor = self.write[number](F.silu(x)).float()
        return logits

    def _tell(self, number: int, x: Tensor, digit: Tensor) -> Tensor:
        """x (..., G, units) after digit `number` (..., G) is known."""
        return x + F.embedding(digit, self.told[number]) if number < len(self.told) else x

    def score(self, hidden: Tensor, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """See `JointHead.score`; the guess takes the most likely digit each time."""
        # (..., G, units)
        x = self.read(hidden).unflatten(-1, (self.tokens, -1))
        nats = torch.zeros(tokens.shape, device=x.device)
        right = torch.ones(tokens.shape, dtype=torch.bool, device=x.device)
        for number, digit in enumerate(self.code.digits(tokens).unbind(-1)):
            logits = self._logits(number, x)
            nats = nats + _cross_entropy(logits, digit)
            # As long as all were right, the digits that the guess goes on from are those that came.
            right &= logits.argmax(-1) == digit
            x = self._tell(number, x, digit)
        return nats, right

    def log_probabilities(self, hidden: Tensor) -> Tensor:
        """See `JointHead.log_probabilities`; each code is scored, which is slow for many."""
        codes = torch.arange(self.code.codes, device=hidden.device)
        # (K, ..., G)
        every = codes.view(-1, *[1] * hidden.ndim).expand(-1, *hidden.shape[:-1], self.tokens)
        nats, _ = self.score(hidden.expand(len(codes), *hidden.shape), every)
        return -nats.movedim(0, -1)

    def draw(self, hidden: Tensor, sampling: Sampling, noise: Tensor) -> Tensor:
        """See `JointHead.draw`."""
        # (..., G, units)
        x = self.read(hidden).unflatten(-1, (self.tokens, -1))
        digits = []
        # D times (..., G)
        for number, uniform in enumerate(noise.unflatten(-1, (self.tokens, -1)).unbind(-1)):
            digits.append(sample_index(sampling.probabilities(self._logits(number, x)), uniform))
            x = self._tell(number, x, digits[-1])
        return self.code.from_digits(torch.stack(digits, -1))


TokenHead = JointHead | DigitHead
"""What predicts the tokens of the next picture."""


def _cross_entropy(logits: Tensor, target: Tensor) -> Tensor:
    """-log p of `target` (...) by logits (..., K): (...)."""
    return F.cross_entropy(logits.flatten(0, -2), target.flatten(), reduction="none").view_as(target)
