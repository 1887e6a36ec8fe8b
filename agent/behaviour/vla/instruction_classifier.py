"""What an instruction says, read off its embedding before a policy learns to drive by it.

A policy that learns to read from actions alone knows a sentence by what was driven to it, and takes words it
has not met for the wrong ones. Which words mean the same is known beforehand, and learnt first.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

_UNITS = 256
_LEARNING_RATE, _WEIGHT_DECAY = 1e-3, 0.1


class InstructionReader(nn.Module):
    """Embeddings to what they say of each kind of thing, such as speed and place.

    It learns in `fit` alone: no gradient of what is computed with it comes back.

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

    @torch.enable_grad()
    def fit(self, text: Tensor, said: Tensor, updates: int, batch_size: int, seed: int) -> None:
        """Learn from N sentences, by AdamW and cross-entropy.

        Args:
            text: (N, E) embeddings.
            said: (N, kinds) int64, the class of each kind.
            updates: steps of the optimiser.
            batch_size: sentences in each, drawn with replacement.
            seed: of the draws; the weights are as they are.
        """
        optimizer = torch.optim.AdamW(self.parameters(), lr=_LEARNING_RATE, weight_decay=_WEIGHT_DECAY)
        generator = torch.Generator().manual_seed(seed)
        for _ in range(updates):
            rows = torch.randint(len(text), (batch_size,), generator=generator).to(text.device)
            logits = self._logits(text[rows])
            losses = [functional.cross_entropy(kind, said[rows, i]) for i, kind in enumerate(logits)]
            optimizer.zero_grad(set_to_none=True)
            torch.stack(losses).sum().backward()
            optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    def _logits(self, text: Tensor) -> tuple[Tensor, ...]:
        """(B, classes) for each kind; embeddings have length 1, and numbers near 1 are read sooner."""
        return self.layers(text * text.shape[-1] ** 0.5).split(self.classes, -1)
