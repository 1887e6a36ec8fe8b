"""PyTorch data set of labelled rows of episodes in memory, and a plain training loop.

For data that were just imagined, and for `ConcatDataset([real, imagined])`. A run on folders of episodes,
with checkpoints, is the job's (`dreamdrive train vla`).
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from agent.behaviour.vla.interface import ACTION, IMAGE, PAD, STATE, TASK, require_policy
from train.data.episodes import Episode
from train.language.hindsight import Labels, SpeedScale, label_rows
from train.language.instructions import sample_sentence
from train.run.errors import DreamdriveError, explain_value_errors
from train.run.loop import diverged
from train.vla.dataset import chunks_ahead, row_columns

DatasetRow = dict[str, Any]
"""One row in LeRobot's keys, without a batch dimension."""


class InstructionDataset(Dataset[DatasetRow]):
    """Labelled rows of episodes, each with a sentence that asks for its labels.

    Args:
        episodes: with pictures `image`, the vector `state` and the extras that `label_rows` reads.
        scale: the classes of speed.
        chunk: T, actions of a row's target.
        window: decisions that a row is labelled from.
        seed: of the sentences; a row has the same one each time it is asked for.

    Attributes:
        labels: of each row of the data set.

    Raises:
        DreamdriveError: an episode lacks something.
    """

    def __init__(
        self, episodes: Sequence[Episode], scale: SpeedScale, chunk: int = 8, window: int = 8, seed: int = 0
    ) -> None:
        self._chunk, self._seed = chunk, seed
        self._columns: list[dict[str, Tensor]] = []
        self._at: list[tuple[int, int]] = []
        self.labels: list[Labels] = []
        for number, episode in enumerate(episodes):
            try:
                self._columns.append(row_columns(episode))
            except DreamdriveError as error:
                raise DreamdriveError(f"episode {number}: {error}") from error
            for row, labels in enumerate(label_rows(episode, scale, window)):
                if labels:
                    self._at.append((number, row))
                    self.labels.append(labels)

    def __len__(self) -> int:
        """How many rows have a label."""
        return len(self._at)

    def __getitem__(self, index: int) -> DatasetRow:
        """IMAGE (3, H, W) in [0, 1], STATE (S,), TASK a text, ACTION (T, A), PAD (T,)."""
        number, row = self._at[index]
        columns = self._columns[number]
        end = np.array([len(columns[ACTION])])
        action, pad = chunks_ahead(columns[ACTION], np.array([row]), end, self._chunk)
        return {
            IMAGE: columns[IMAGE][row].float() / 255,
            STATE: columns[STATE][row].float(),
            TASK: sample_sentence(self.labels[index], np.random.default_rng([self._seed, index])),
            ACTION: action[0],
            PAD: pad[0],
        }


def collate_rows(rows: Sequence[DatasetRow]) -> dict[str, Any]:
    """Rows as one batch: tensors (B, ...), texts as a list."""
    return {
        name: torch.stack([row[name] for row in rows])
        if isinstance(rows[0][name], Tensor)
        else [row[name] for row in rows]
        for name in rows[0]
    }


def train_on_rows(
    policy: object,
    dataset: Dataset[DatasetRow],
    updates: int,
    batch_size: int,
    learning_rate: float,
    seed: int,
) -> list[float]:
    """Train a policy with LeRobot's methods on the rows of a data set, by AdamW.

    Args:
        policy: an nn.Module whose `forward(batch)` gives (loss, numbers to log).
        dataset: of rows.
        updates: steps of the optimiser.
        batch_size: rows of each, fewer where there are not so many.
        learning_rate: of AdamW.
        seed: of the rows' order.

    Returns:
        The loss of each update.

    Raises:
        DreamdriveError: such a policy it is not, there are no rows, or the loss is no number.
    """
    with explain_value_errors():
        require_policy(policy, "forward", "parameters")
    if not isinstance(policy, nn.Module):
        raise DreamdriveError(f"policy: a {type(policy).__name__}: expected a torch module to teach")
    count = len(dataset)  # type: ignore[arg-type]
    if not count:
        raise DreamdriveError("no row to learn from: nothing in the episodes obeys an instruction")
    loader = DataLoader(
        dataset,
        min(batch_size, count),
        shuffle=True,
        drop_last=True,
        collate_fn=collate_rows,
        generator=torch.Generator().manual_seed(seed),
    )
    optimizer = torch.optim.AdamW([p for p in policy.parameters() if p.requires_grad], learning_rate)
    losses: list[float] = []
    before = policy.training
    policy.train()
    while len(losses) < updates:
        for batch in loader:
            loss, _ = policy.forward(batch)
            if not bool(torch.isfinite(loss)):
                raise diverged("the loss", len(losses))
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            losses.append(float(loss.detach()))
            if len(losses) == updates:
                break
    policy.train(before)
    return losses
