"""A trained run's transformer as one more expert: it has learnt before and does not learn while it codes."""

import hashlib
from pathlib import Path

import numpy as np
import torch

from agent.world_model.interface import State
from agent.world_model.transformer import TransformerWorldModel
from train.drive.agents import load_world_model, weights_file
from train.run.errors import DreamdriveError, explain_os_errors, explain_value_errors
from train.run.folder import Run
from train.tokenizer.compression.fixed_point import Ints


def weights_sha256(run: Path) -> str:
    """SHA-256 of the weights of a run. Raises `DreamdriveError` where there are none."""
    path = weights_file(Run.open(run))
    with explain_os_errors("cannot read", path):
        return hashlib.sha256(path.read_bytes()).hexdigest()


def load_transformer(run: Path) -> TransformerWorldModel:
    """The transformer world model of a run.

    Raises:
        DreamdriveError: no such run, or one of another world model.
    """
    model = load_world_model(run, "cpu").world_model
    if not isinstance(model, TransformerWorldModel):
        raise DreamdriveError(
            f"{run}: its world model is no transformer over tokens, which compressing needs"
        )
    return model


class RunExpert:
    """Predicts the next frame's tokens from those before; it is told no actions.

    Args:
        run: folder of the run.
        places, codes: G and K of the tokens.

    Raises:
        DreamdriveError: a run of another world model, or of other tokens.
    """

    def __init__(self, run: Path, places: int, codes: int) -> None:
        self._model = load_transformer(run)
        tokenizer = self._model.tokenizer
        if (tokenizer.tokens, tokenizer.codebook_size) != (places, codes):
            raise DreamdriveError(
                f"{run}: predicts frames of {tokenizer.tokens} tokens of {tokenizer.codebook_size:,} codes; "
                f"these are frames of {places} tokens of {codes:,} codes"
            )
        self._action = torch.zeros(1, self._model.action_size)
        self._where = f"{run}: "
        self._predict(self._model.initial(1))

    def _predict(self, state: State) -> None:
        with explain_value_errors(self._where):
            logs, self._then = self._model.predict_tokens(state, self._action)
        self._probability: Ints = (logs[0].exp().numpy() * 2.0**18).astype(np.int64)

    def probability(self) -> Ints:
        """See `FrameExpert.probability`."""
        return self._probability

    def learn(self, tokens: Ints) -> None:
        """The next frame's tokens (G) are known."""
        self._predict(self._then(torch.from_numpy(tokens)[None]))
