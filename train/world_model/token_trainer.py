"""Stage 3: the LSTM world model learns to predict the tokens of the recorded rollouts."""

from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import BaseModel, Field

from agent.tokenizer.codebook_use import codebook_metrics
from agent.tokenizer.fsq_vae import FSQVAE
from agent.world_model.lstm import LSTMWorldModel
from train.data.columns import EpisodeColumns
from train.data.split import split_rollouts
from train.data.windows import cut, sequence_batch, windows_end_to_end
from train.drive.agents import learnt_by
from train.run.checkpoint import fit_weights
from train.run.device import pick_device
from train.run.epochs import StageCheckpoint, TrainingTask, fit
from train.run.errors import DreamdriveError
from train.run.folder import Run
from train.run.monitor import JobMonitor

_LANES = 16  # held-out episodes are laid end to end in this many rows of a batch


class TokenModelTrainConfig(
    BaseModel, extra="forbid", validate_assignment=True, use_attribute_docstrings=True
):
    """How a world model is trained on the tokens of recorded pictures."""

    batch_size: int = Field(32, ge=1)
    """Sequences in a batch."""
    sequence_length: int = Field(50, ge=2)
    """Rows of a sequence [decisions]."""
    world_model_epochs: int = Field(50, ge=0)
    """Epochs of the world model; 0 takes the one that it begins with as it is."""
    world_model_epoch_rows: int = Field(0, ge=0)
    """Most rows of one epoch [decisions]; 0 takes all."""
    world_model_learning_rate: float = Field(1e-3, gt=0)
    """Learning rate of the world model; it falls along a half cosine to a twentieth."""
    clip: float = Field(1.0, gt=0)
    """Largest norm of the whole gradient."""
    validation_share: float = Field(0.05, gt=0, lt=1)
    """Share of the episodes that are held out, at least one."""
    checkpoint_minutes: Annotated[float, "may change on resume"] = Field(5.0, gt=0)
    """Time between checkpoints of a stage [minutes]; each epoch ends with one, too."""
    device: Annotated[str, "may change on resume"] = "auto"
    """`cpu`, `cuda`, `cuda:1`, ...; `auto` is the first GPU if there is one."""


class TokenModelTrainer:
    """Trains an LSTM world model on tokenised rollouts.

    Args:
        world_model: what is trained, in place.
        vae: the trained tokenizer, which is copied into the world model.
        config: batches, length, learning rate.
        seed: of the split and the order.
    """

    def __init__(
        self, world_model: LSTMWorldModel, vae: FSQVAE, config: TokenModelTrainConfig, seed: int
    ) -> None:
        self.world_model, self.config, self.seed = world_model, config, seed
        self.device = pick_device(config.device)
        world_model.tokenizer.load_state_dict(vae.state_dict())

    def train(
        self,
        tokens: EpisodeColumns,
        checkpoint: StageCheckpoint | None = None,
        monitor: JobMonitor | None = None,
    ) -> dict[str, float]:
        """Train to the end, or go on from what was saved.

        Returns:
            Metrics on the held-out episodes, see `held_out_metrics` and `baselines`, and the use of the
            codebook in all rollouts.

        Raises:
            DreamdriveError: the loss is no number any more.
            Stopped: a signal came; all is saved.
        """
        monitor = monitor or JobMonitor()
        t, seed = self.config, self.seed
        model = self.world_model.to(self.device)
        training, held_out = split_rollouts(len(tokens), t.validation_share, seed)
        fixed = baselines(tokens, training, held_out, model.tokenizer.codebook_size)
        uses = np.bincount(tokens["observation.token"].ravel(), minlength=model.tokenizer.codebook_size)
        fixed |= {f"rollouts/{n}": v for n, v in codebook_metrics(torch.from_numpy(uses).float()).items()}
        monitor.log(fixed, 0)
        task = TrainingTask(
            module=model,
            loss=lambda batch: model.loss(batch),
            batches=lambda epoch: windows_end_to_end(
                tokens,
                training,
                t.batch_size,
                t.sequence_length,
                t.world_model_epoch_rows,
                [seed, 21, epoch],
                self.device,
            ),
            validate=lambda: held_out_metrics(model, tokens, held_out, t.sequence_length, self.device),
            epochs=t.world_model_epochs,
            learning_rate=t.world_model_learning_rate,
            clip=t.clip,
            checkpoint_minutes=t.checkpoint_minutes,
            title="the world model",
        )
        return fit(task, checkpoint or StageCheckpoint(), monitor) | fixed


def begin_at_run(model: LSTMWorldModel, path: Path, tokenizer: FSQVAE) -> None:
    """Load the world model of the run in `path`, which shall see by the same tokenizer.

    Raises:
        DreamdriveError: there is no such run, or its world model or tokenizer is another one.
    """
    tensors, prefix = learnt_by(Run.open(path)), "world_model."
    own = {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}
    where = f"training.world_model_start {path}"
    fit_weights(model, own, where, "the config")
    for name, tensor in tokenizer.state_dict().items():
        if not torch.equal(own[f"tokenizer.{name}"], tensor.cpu()):
            raise DreamdriveError(f"{where}: its tokenizer is another one, expected that of the stage vae")


@torch.no_grad()
def held_out_metrics(
    model: LSTMWorldModel, tokens: EpisodeColumns, episodes: list[int], length: int, device: torch.device
) -> dict[str, float]:
    """Means over `episodes`, filtered from beginning to end, `length` rows at a time.

    Returns:
        `token_nll` [nats a token], its exponential `token_perplexity`, `token_accuracy`, and `reward_mse`
        [squared reward], all over the rows that have a predecessor; `continue_loss` [nats] over all.
    """
    rows = tokens.rows(episodes)
    lanes = max(1, min(_LANES, len(rows) // length))
    rows = rows[: len(rows) // lanes * lanes].reshape(lanes, -1)
    state = model.initial(lanes)
    sums = dict.fromkeys(("token_nll", "token_accuracy", "reward_mse", "continue_loss"), 0.0)
    counted, seen = 0, 0
    for at in range(0, rows.shape[1], length):
        batch = sequence_batch(cut(tokens, rows[:, at : at + length], afresh=at == 0), device)
        _, metrics, states = model.loss_and_states(batch, state)
        valid = ~batch.is_first
        here = int(valid.sum())
        error = (model.reward(states) - batch.reward).square()
        sums["token_nll"] += float(metrics["loss/token"]) * here
        sums["token_accuracy"] += float(metrics["token_accuracy"]) * here
        sums["reward_mse"] += float((error * valid).sum())
        sums["continue_loss"] += float(metrics["loss/continue"]) * valid.numel()
        counted, seen = counted + here, seen + valid.numel()
        state = states[:, -1]
    means = {n: v / (seen if n == "continue_loss" else max(counted, 1)) for n, v in sums.items()}
    return means | {"token_perplexity": float(np.exp(means["token_nll"]))}


def baselines(
    tokens: EpisodeColumns, training: list[int], held_out: list[int], codebook_size: int
) -> dict[str, float]:
    """What a world model must beat on the held-out episodes, from counts of the others.

    Returns:
        `baseline/marginal_...`: each place's tokens by how often each code stood there (one added to every
        count). `baseline/same_...`: the token of the row before, with the probability that it stayed, the
        rest by the marginal. Each with `nll` [nats a token], `perplexity` and `accuracy`; and
        `baseline/reward_mse` of always predicting the mean reward.
    """
    before, after = _pairs(tokens, training)
    grid = before.shape[1]
    counts = np.ones((grid, codebook_size))
    for place in range(grid):
        counts[place] += np.bincount(after[:, place], minlength=codebook_size)
    marginal = counts / counts.sum(1, keepdims=True)
    stays = ((before == after).sum(0) + 1) / (len(after) + 2)
    mean_reward = float(tokens["reward"][tokens.rows(training)].mean())

    before, after = _pairs(tokens, held_out)
    places = np.arange(grid)
    chance = marginal[places, after]
    same = before == after
    nll = {
        "marginal": float(-np.log(chance).mean()),
        "same": float(-np.log(stays * same + (1 - stays) * chance).mean()),
    }
    accuracy = {
        "marginal": float((marginal.argmax(1) == after).mean()),
        "same": float(same.mean()),
    }
    rewards = tokens["reward"][tokens.rows(held_out)]
    result = {"baseline/reward_mse": float(np.square(rewards - mean_reward).mean())}
    for name, value in nll.items():
        result |= {
            f"baseline/{name}_nll": value,
            f"baseline/{name}_perplexity": float(np.exp(value)),
            f"baseline/{name}_accuracy": accuracy[name],
        }
    return result


def _pairs(tokens: EpisodeColumns, episodes: list[int]) -> tuple[NDArray[Any], NDArray[Any]]:
    """Tokens (R, G) of rows that have a predecessor: the predecessor's and their own."""
    rows = tokens.rows(episodes)
    rows = rows[~tokens["is_first"][rows]]
    token = tokens["observation.token"]
    return token[rows - 1], token[rows]
