"""Stage 2: the FSQ-VAE learns to reconstruct the recorded pictures."""

from collections.abc import Callable
from dataclasses import replace
from typing import Annotated

import torch
from pydantic import BaseModel, Field
from torch import Tensor

from agent.image_quality import psnr_of_error
from agent.tokenizer.codebook_use import codebook_metrics
from agent.tokenizer.fsq_vae import FSQVAE
from agent.tokenizer.vae import VAE, VAEConfig
from train.data.episode_store import EpisodeStore
from train.data.split import split_rollouts
from train.run.device import pick_device
from train.run.epochs import StageCheckpoint, TrainingTask, fit
from train.run.monitor import JobMonitor
from train.tokenizer.picture_stream import some_pictures, stream_pictures


class TokenizerTrainConfig(
    BaseModel, extra="forbid", validate_assignment=True, use_attribute_docstrings=True
):
    """How a tokenizer is trained on recorded pictures."""

    batch_size: int = Field(32, ge=1)
    """Pictures in a batch."""
    vae_epochs: int = Field(50, ge=1)
    """Epochs of the VAE."""
    vae_epoch_frames: int = Field(100_000, ge=0)
    """Most pictures of one epoch, from episodes drawn anew for each; 0 takes all."""
    vae_learning_rate: float = Field(1e-3, gt=0)
    """Learning rate of the VAE; it falls along a half cosine to a twentieth."""
    shuffle_frames: int = Field(10_000, ge=1)
    """Pictures among which a batch of the VAE is drawn: what is held in memory, 12 KiB each at 64 px."""
    compare_plain_vae: bool = False
    """Train a plain VAE of the same size on the same pictures, too, and report its PSNR."""
    clip: float = Field(1.0, gt=0)
    """Largest norm of the whole gradient."""
    validation_share: float = Field(0.05, gt=0, lt=1)
    """Share of the episodes that are held out, at least one."""
    validation_frames: int = Field(5_000, ge=1)
    """Most pictures of the held-out episodes that the VAE is validated on."""
    checkpoint_minutes: Annotated[float, "may change on resume"] = Field(5.0, gt=0)
    """Time between checkpoints of a stage [minutes]; each epoch ends with one, too."""
    device: Annotated[str, "may change on resume"] = "auto"
    """`cpu`, `cuda`, `cuda:1`, ...; `auto` is the first GPU if there is one."""


class TokenizerTrainer:
    """Trains an FSQ-VAE on the pictures of recorded rollouts, streamed with bounded memory.

    Args:
        vae: what is trained, in place.
        config: batches, length, learning rate.
        seed: of everything random: split, order, the plain VAE's weights.
    """

    def __init__(self, vae: FSQVAE, config: TokenizerTrainConfig, seed: int) -> None:
        self.vae, self.config, self.seed = vae, config, seed
        self.device = pick_device(config.device)

    def train(
        self,
        rollouts: EpisodeStore,
        checkpoint: StageCheckpoint | None = None,
        monitor: JobMonitor | None = None,
    ) -> dict[str, float]:
        """Train to the end, or go on from what was saved.

        Returns:
            Metrics on the held-out episodes: `psnr` [dB, mean over pictures], `codebook_use`, the share of
            the codes that they use, `codebook_perplexity`; and `plain_vae_psnr`, if that is asked for.

        Raises:
            DreamdriveError: bad rollouts, or the loss is no number any more.
            Stopped: a signal came; all is saved.
        """
        checkpoint, monitor = checkpoint or StageCheckpoint(), monitor or JobMonitor()
        vae = self.vae.to(self.device)
        metrics = self._fit(vae, lambda images: vae.decode(vae.encode(images)), rollouts, checkpoint, monitor)
        if self.config.compare_plain_vae:
            monitor.say("training a plain VAE on the same pictures, to compare")
            metrics |= self._fit_plain(rollouts, checkpoint, monitor)
        return metrics

    def _fit_plain(
        self, rollouts: EpisodeStore, checkpoint: StageCheckpoint, monitor: JobMonitor
    ) -> dict[str, float]:
        torch.manual_seed(self.seed)
        c = self.vae.config
        sizes = VAEConfig(image_size=c.image_size, channels=c.channels, latent_dim=c.latent_dim)
        plain = VAE(sizes).to(self.device)
        own = replace(checkpoint)
        if checkpoint.path is not None:
            own.path = checkpoint.path.with_name(f"plain_{checkpoint.path.name}")
        # Its curves would be mixed with those of the tokenizer: only the result is tracked.
        quiet = JobMonitor(monitor.progress, None, monitor.stop)
        found = self._fit(plain, plain.reconstruct, rollouts, own, quiet)
        result = {"validation/plain_vae_psnr": found["validation/psnr"]}
        monitor.log(result, self.config.vae_epochs)
        return result

    def _fit(
        self,
        vae: FSQVAE | VAE,
        reconstruct: Callable[[Tensor], Tensor],
        rollouts: EpisodeStore,
        checkpoint: StageCheckpoint,
        monitor: JobMonitor,
    ) -> dict[str, float]:
        t, device = self.config, self.device
        training, held_out = split_rollouts(len(rollouts), t.validation_share, self.seed)

        def validate() -> dict[str, float]:
            return validation(vae, reconstruct, rollouts, held_out, t.validation_frames, device)

        task = TrainingTask(
            module=vae,
            loss=lambda images: vae.loss(images.to(device)),
            batches=lambda epoch: stream_pictures(
                rollouts,
                training,
                t.batch_size,
                t.shuffle_frames,
                t.vae_epoch_frames,
                [self.seed, 20, epoch],
            ),
            validate=validate,
            epochs=t.vae_epochs,
            learning_rate=t.vae_learning_rate,
            clip=t.clip,
            checkpoint_minutes=t.checkpoint_minutes,
            title="the VAE",
        )
        return fit(task, checkpoint, monitor)


def validation(
    vae: FSQVAE | VAE,
    reconstruct: Callable[[Tensor], Tensor],
    rollouts: EpisodeStore,
    episodes: list[int],
    most: int,
    device: torch.device,
) -> dict[str, float]:
    """PSNR [dB], mean over at most `most` pictures of `episodes`, and for an FSQ-VAE the codebook's use."""
    decibels, count = 0.0, 0
    uses = torch.zeros(vae.codebook_size if isinstance(vae, FSQVAE) else 0)
    for part in some_pictures(rollouts, episodes, 256, most):
        images = part.to(device)
        error = (reconstruct(images) - images / 255).square().flatten(1).mean(1)
        decibels += float(psnr_of_error(error).sum())
        count += len(images)
        if isinstance(vae, FSQVAE):
            uses += vae.tokenize(images).flatten().bincount(minlength=vae.codebook_size).cpu()
    metrics = {"psnr": decibels / count}
    if isinstance(vae, FSQVAE):
        metrics |= codebook_metrics(uses)
    return metrics
