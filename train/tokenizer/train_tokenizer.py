"""Stage 2: the FSQ-VAE learns to reconstruct the recorded pictures."""

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor

from agent.image_quality import psnr_of_error
from agent.tokenizer.fsq_vae import FSQVAE
from agent.tokenizer.vae import VAE, VAEConfig
from train.data.episode_store import EpisodeStore
from train.data.split import split_rollouts
from train.run.device import pick_device
from train.run.epochs import StageCheckpoint, TrainingTask, fit
from train.run.monitor import JobMonitor
from train.tokenizer.picture_stream import some_pictures, stream_pictures
from train.world_models.config import WorldModelAgentConfig


class VAETrainer:
    """Trains an FSQ-VAE on the pictures of recorded rollouts, streamed with bounded memory.

    Args:
        vae: what is trained, in place.
        config: of the run; `training` says how.
    """

    def __init__(self, vae: FSQVAE, config: WorldModelAgentConfig) -> None:
        self.vae, self.config = vae, config
        self.device = pick_device(config.training.device)

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
        if self.config.training.compare_plain_vae:
            monitor.say("training a plain VAE on the same pictures, to compare")
            metrics |= self._fit_plain(rollouts, checkpoint, monitor)
        return metrics

    def _fit_plain(
        self, rollouts: EpisodeStore, checkpoint: StageCheckpoint, monitor: JobMonitor
    ) -> dict[str, float]:
        c = self.config
        torch.manual_seed(c.seed)
        sizes = VAEConfig(
            image_size=c.fsq_vae.image_size,
            channels=c.fsq_vae.channels,
            latent_dim=c.fsq_vae.latent_dim,
        )
        plain = VAE(sizes).to(self.device)
        own = replace(checkpoint)
        if checkpoint.path is not None:
            own.path = checkpoint.path.with_name(f"plain_{checkpoint.path.name}")
        # Its curves would be mixed with those of the tokenizer: only the result is tracked.
        quiet = JobMonitor(monitor.progress, None, monitor.stop)
        found = self._fit(plain, plain.reconstruct, rollouts, own, quiet)
        result = {"validation/plain_vae_psnr": found["validation/psnr"]}
        monitor.log(result, c.training.vae_epochs)
        return result

    def _fit(
        self,
        vae: FSQVAE | VAE,
        reconstruct: Callable[[Tensor], Tensor],
        rollouts: EpisodeStore,
        checkpoint: StageCheckpoint,
        monitor: JobMonitor,
    ) -> dict[str, float]:
        t, device = self.config.training, self.device
        training, held_out = split_rollouts(len(rollouts), t.validation_share, self.config.seed)

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
                [self.config.seed, 20, epoch],
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


def codebook_metrics(uses: Tensor) -> dict[str, float]:
    """Of how often each code was used (K): the share of codes used at all, and the perplexity of the use."""
    share = uses / uses.sum()
    return {
        "codebook_use": float((uses > 0).float().mean()),
        "codebook_perplexity": float(torch.special.entr(share).sum().exp()),
    }
