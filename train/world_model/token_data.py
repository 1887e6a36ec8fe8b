"""The tokenizer and the tokens that a world model over tokens learns from."""

from pathlib import Path

from agent.tokenizer.choices import AnyTokenizer
from agent.world_model.lstm import LSTMConfig
from agent.world_model.transformer import TransformerConfig
from train.drive.descriptions import describe_tokenizer
from train.drive.tokenizers import load_saved_tokenizer, load_tokenizer
from train.run.device import usable_cores
from train.run.errors import DreamdriveError
from train.run.folder import Run
from train.tokenizer.token_folder import TokenFolder, TokenNotes, is_token_folder
from train.world_model.config import WorldModelTrainConfig

_SMALL = 256  # width up to which two threads wait for each other longer than they help


def with_tokenizer(config: WorldModelTrainConfig) -> WorldModelTrainConfig:
    """The config with the sizes of the tokenizer that its tokens are made by; one without tokens as it is.

    Raises:
        DreamdriveError: none is named, or what is named has none.
    """
    if config.model is None:
        return config
    if config.tokenizer:
        sizes = describe_tokenizer(Run.open(Path(config.tokenizer)))
    elif is_token_folder(Path(config.data_path)):
        TokenNotes.read(Path(config.data_path)).require_tokenizer(f"data_path {config.data_path}")
        sizes = load_saved_tokenizer(Path(config.data_path), "cpu").config
    else:
        raise DreamdriveError(
            "tokenizer: missing, expected a run of `dreamdrive train tokenizer`, or a folder of tokens as "
            "data_path: the `model` reads tokens"
        )
    return config.model_copy(update={"model": config.model.model_copy(update={"tokenizer": sizes})})


def tokenizer_of_data(config: WorldModelTrainConfig, device: str) -> AnyTokenizer:
    """The tokenizer of a world model over tokens: that of the run named, or of the folder of tokens.

    Raises:
        DreamdriveError: see `with_tokenizer`; or the folder's tokens are of another one than the run's.
    """
    data = Path(config.data_path)
    if not config.tokenizer:
        return TokenFolder(data).tokenizer(device)
    tokenizer = load_tokenizer(Path(config.tokenizer), device).tokenizer
    if is_token_folder(data):
        TokenNotes.read(data).check_tokenizer(f"data_path {data}", tokenizer, config.tokenizer)
    return tokenizer


def threads_for(model: LSTMConfig | TransformerConfig) -> int:
    """CPU threads that a world model over tokens learns fastest with."""
    width = model.hidden_size if isinstance(model, LSTMConfig) else model.blocks.width
    return 1 if width <= _SMALL else usable_cores()
