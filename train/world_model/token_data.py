"""Episodes as tokens for a world model that reads those: made by a run's tokenizer, once, into the cache."""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from agent.tokenizer.choices import AnyTokenizer
from agent.world_model.lstm import LSTMConfig
from agent.world_model.transformer import TransformerConfig
from train.data.episodes import Episode
from train.drive.descriptions import describe_tokenizer
from train.run.device import usable_cores
from train.run.errors import DreamdriveError
from train.run.folder import Run
from train.world_model.config import WorldModelTrainConfig

_ROWS = 256  # pictures that are tokenised at once
_SMALL = 256  # width up to which two threads wait for each other longer than they help


@dataclass(frozen=True)
class TokenColumns:
    """Makes columns of an episode: `observation.token` (R, G) int32.

    Attributes:
        tokenizer: of its pictures.
    """

    tokenizer: AnyTokenizer

    @property
    def identity(self) -> str:
        """Text that differs for another tokenizer."""
        return json.dumps(["tokens", tokenizer_fingerprint(self.tokenizer)])

    def __call__(self, where: str, episode: Episode) -> dict[str, NDArray[Any]]:
        """Columns of an episode that messages name by `where`.

        Raises:
            DreamdriveError: it has no pictures of the tokenizer's size.
        """
        found = {name: values.shape[1:] for name, values in episode.observations.items()}
        if found.get("image") != self.tokenizer.image_shape:
            raise DreamdriveError(
                f"{where}: observations {found}: expected image {self.tokenizer.image_shape}, by tokenizer"
            )
        device = next(self.tokenizer.parameters()).device
        images = torch.from_numpy(episode.observations["image"])
        tokens = [self.tokenizer.tokenize(part.to(device)).cpu() for part in images.split(_ROWS)]
        return {"observation.token": torch.cat(tokens).numpy().astype(np.int32)}


def tokenizer_fingerprint(tokenizer: AnyTokenizer) -> str:
    """SHA-256 of a tokenizer's config and weights: equal for those that make the same tokens."""
    digest = hashlib.sha256(tokenizer.config.model_dump_json().encode())
    for name, value in sorted(tokenizer.state_dict().items()):
        digest.update(name.encode())
        digest.update(value.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def with_tokenizer(config: WorldModelTrainConfig) -> WorldModelTrainConfig:
    """The config with the sizes of the tokenizer that its tokens are made by; one without tokens as it is.

    Raises:
        DreamdriveError: none is named, or what is named has none.
    """
    if config.model is None:
        return config
    if not config.tokenizer:
        raise DreamdriveError(
            "tokenizer: missing, expected a run of `dreamdrive train tokenizer`: the `model` reads tokens"
        )
    sizes = describe_tokenizer(Run.open(Path(config.tokenizer)))
    return config.model_copy(update={"model": config.model.model_copy(update={"tokenizer": sizes})})


def threads_for(model: LSTMConfig | TransformerConfig) -> int:
    """CPU threads that a world model over tokens learns fastest with."""
    width = model.hidden_size if isinstance(model, LSTMConfig) else model.blocks.width
    return 1 if width <= _SMALL else usable_cores()
