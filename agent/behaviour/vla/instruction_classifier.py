"""Classifier of instructions: embedding -> what is said of speed, place and manoeuvre.

A policy that learns the meaning of sentences from actions alone memorises them, and misreads words that it
has not met. Which words mean the same is known beforehand, so this small network learns it first
(`train.language.fit_classifier`), and the policy is conditioned on its probabilities.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

_UNITS = 256


class InstructionClassifier(nn.Module):
    """Embeddings to what they say of each kind of thing, such as speed and place.

    It learns by `loss` alone: what `forward` gives passes no gradient back.

    Args:
        text_size: E, numbers in an embedding.
        classes: of each kind, with one for "says nothing of it".
    """

    def __init__(self, text_size: int, classes: tuple[int, ...]) -> None:
        super().__init__()
        self.classes = classes
        self.layers = nn.Sequential(nn.Linear(text_size, _UNITS), nn.GELU(), nn.Linear(_UNITS, sum(classes)))

    @torch.no_grad()
    def forward(self, text: Tensor) -> Tensor:
        """Embeddings (B, E) -> probabilities (B, sum of `classes`), those of a kind summing to 1."""
        return torch.cat([kind.softmax(-1) for kind in self._logits(text)], -1)

    @torch.no_grad()
    def read(self, text: Tensor) -> Tensor:
        """Embeddings (B, E) -> the likeliest class of each kind (B, kinds)."""
        return torch.stack([kind.argmax(-1) for kind in self._logits(text)], -1)

    def loss(self, text: Tensor, said: Tensor) -> Tensor:
        """Cross-entropy of embeddings (B, E) with classes (B, kinds), summed over the kinds: a scalar."""
        logits = self._logits(text)
        losses = [functional.cross_entropy(kind, said[:, i]) for i, kind in enumerate(logits)]
        return torch.stack(losses).sum()

    def _logits(self, text: Tensor) -> tuple[Tensor, ...]:
        """(B, classes) for each kind; embeddings have length 1, and numbers near 1 are read sooner."""
        return self.layers(text * text.shape[-1] ** 0.5).split(self.classes, -1)
