"""Recorded pictures tokenised once, into columns that a world model of tokens learns from."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from agent.tokenizer.fsq_vae import FSQVAE
from train.data.columns import EpisodeColumns, open_columns
from train.data.episode_store import EpisodeStore
from train.data.episodes import Episode
from train.run.monitor import JobMonitor, Stopped

_SHOWN = 50  # episodes after which it is shown how far the work is


def tokenize_rollouts(
    rollouts: EpisodeStore, vae: FSQVAE, folder: Path, fingerprint: str, monitor: JobMonitor | None = None
) -> EpisodeColumns:
    """The columns of all rollouts, `observation.token` (R, G) int32 among them; made or finished first.

    Args:
        rollouts: what is tokenised.
        vae: the trained tokenizer.
        folder: of these columns alone.
        fingerprint: of rollouts and tokenizer; columns of others are made anew.
        monitor: shows how far it is, and may stop it.

    Raises:
        DreamdriveError: bad rollouts, or a full disk.
        Stopped: a signal came; what was done is kept.
    """
    monitor = monitor or JobMonitor()
    device = next(vae.parameters()).device

    def tokens(where: str, episode: Episode) -> dict[str, NDArray[Any]]:
        images = torch.from_numpy(episode.observations["image"]).to(device)
        return {"observation.token": vae.tokenize(images).cpu().numpy().astype(np.int32)}

    def report(done: int, rows: int) -> None:
        if done < len(rollouts) and monitor.stopping:
            raise Stopped
        if done and done % _SHOWN == 0:
            monitor.show(0, {"tokenised": f"{done:,} of {len(rollouts):,} rollouts"})

    return open_columns(folder, rollouts, tokens, fingerprint, report)
