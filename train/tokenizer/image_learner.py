"""Updates of an image tokenizer and of the discriminator beside it; a `Learner` of the training loop."""

import copy
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from agent.nets import colours
from agent.optim import follow
from agent.schedules import cosine_decay, linear_warm_up
from agent.tokenizer.adversarial import discriminator_loss, generator_loss, joint_gradient
from agent.tokenizer.codebook_use import codebook_metrics, level_metrics
from agent.tokenizer.divergence import DivergenceGuard
from agent.tokenizer.efficientnet import EfficientNetLite0
from agent.tokenizer.perceptual import FeatureDistillation, perceptual_distance
from agent.tokenizer.reconstruction_metrics import ReconstructionMetrics
from train.data.split import split_rollouts
from train.run.checkpoint import load_checkpoint
from train.run.device import autocast
from train.run.errors import DreamdriveError, one_line
from train.run.loop import LearnerReport, diverged
from train.tokenizer.image_config import ImageTokenizerTrainConfig
from train.tokenizer.pictures import PictureSet

_FINAL_RATE = 0.05  # of the learning rate is left at the end
_ORDER, _UPDATE = 30, 31  # streams of random numbers
_ROWS = 32  # pictures of a validation at once
_SHOWN = 6  # pictures that are shown beside their reconstructions


class ImageTokenizerLearner:
    """An image tokenizer, its discriminator, and their updates.

    The batch and the random numbers of an update come from the seed and the update's number, so that a run
    that goes on from a checkpoint learns exactly what it would have learnt.

    Args:
        config: of the run.
        pictures: to learn from.
        held_out: to validate on; None holds out a share of `pictures`.
        features: frozen network for perceptual losses and metrics; None where there is none.
        device: of all networks.
        say: told when adversarial training has diverged.

    Attributes:
        tokenizer: what learns.
        averaged: the running mean of its weights, which is validated and saved.
        step: updates done.
        resumable: see `Learner`.

    Raises:
        DreamdriveError: too few pictures to hold any out.
    """

    def __init__(
        self,
        config: ImageTokenizerTrainConfig,
        pictures: PictureSet,
        held_out: PictureSet | None,
        features: EfficientNetLite0 | None,
        device: torch.device,
        say: Callable[[str], object] = lambda line: None,
    ) -> None:
        self.config, self.pictures, self.device, self.say = config, pictures, device, say
        self.features = features
        self._training, self._validation = _split(config, pictures, held_out)
        torch.manual_seed(config.seed)
        tokenizer = config.tokenizer.build()
        self.tokenizer = tokenizer.to(device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.averaged = copy.deepcopy(self.tokenizer).eval()
        self.distillation: FeatureDistillation | None = None
        learnt = list(self.tokenizer.parameters())
        if config.loss.distillation_weight:
            self.distillation = FeatureDistillation(tokenizer.code_size).to(device)
            learnt += self.distillation.parameters()
        self.optimizer = torch.optim.AdamW(
            learnt, config.learning_rate, betas=(0.9, 0.99), weight_decay=config.weight_decay
        )
        self.discriminator = config.adversarial.build().to(device)
        self.discriminator_optimizer = torch.optim.AdamW(
            self.discriminator.parameters(), config.adversarial.learning_rate, betas=(0.5, 0.9)
        )
        a = config.adversarial
        start = round(a.start * config.updates) if a.weight else config.updates + a.warm_up + 1
        self.guard = DivergenceGuard(config.divergence, self.discriminator, start, a.warm_up, a.ramp)
        self.step = 0
        self.resumable = True
        self._order: tuple[int, np.ndarray[Any, Any]] = (-1, np.empty(0, np.int64))

    def _batch(self) -> Tensor:
        """The pictures of the next update, (B, 3, H, W) uint8: each epoch has all in an order of its own."""
        size, count = self.config.batch_size, len(self._training)
        numbers = []
        for place in range(self.step * size, (self.step + 1) * size):
            epoch, row = divmod(place, count)
            if epoch != self._order[0]:
                rng = np.random.default_rng([self.config.seed, _ORDER, epoch])
                self._order = epoch, rng.permutation(self._training)
            numbers.append(self._order[1][row])
        return torch.from_numpy(self.pictures.read(np.array(numbers, np.int64))).to(self.device)

    @property
    def learning_rate(self) -> float:
        """Of the next update: a linear warm-up, then half a cosine down to a twentieth."""
        c = self.config
        falling = cosine_decay(self.step - c.warmup, max(1, c.updates - c.warmup), _FINAL_RATE)
        return c.learning_rate * linear_warm_up(self.step, c.warmup) * falling

    def update(self) -> dict[str, Tensor | float]:
        """One step of the tokenizer and, where it is time, one of the discriminator; the metrics, scalars.

        Raises:
            DreamdriveError: the loss or its gradient is no number, no weight is changed; or a picture cannot
                be read.
        """
        c, step = self.config, self.step
        images = self._batch()
        seed = np.random.SeedSequence([c.seed, _UPDATE, step]).generate_state(1)[0]
        torch.manual_seed(int(seed))
        self.tokenizer.train()
        for group in self.optimizer.param_groups:
            group["lr"] = self.learning_rate
        late = step >= c.unrounded_from * c.updates and step % 2 == 1
        unrounded = torch.full((len(images),), late, device=self.device)
        seen = colours(images).contiguous(memory_format=torch.channels_last)
        with autocast(self.device, c.precision):
            painting, bounded = self.tokenizer.reconstruct(images, unrounded)
            painted = painting.float() + 0.5
            loss, metrics = self._reconstruction_loss(painted, seen)
            others = self._latent_loss(bounded, seen, metrics)
            pull = self.guard.pull(step)
            asked = generator_loss(self.discriminator, painted) if pull else None
        self.optimizer.zero_grad(set_to_none=True)
        self._backward(painted, loss, others, asked, pull, metrics)
        norm = nn.utils.clip_grad_norm_(self.optimizer.param_groups[0]["params"], c.max_grad_norm)
        if not (torch.isfinite(loss) and torch.isfinite(norm)):
            raise diverged("the loss or its gradient", step, "the tokenizer")
        self.optimizer.step()
        follow(self.averaged, self.tokenizer, c.average, step)
        self._teach_discriminator(painted.detach(), seen, metrics)
        self.step += 1
        return {**metrics, "grad_norm": norm.detach()}

    def _reconstruction_loss(self, painted: Tensor, seen: Tensor) -> tuple[Tensor, dict[str, Tensor | float]]:
        """The losses of painted pictures, summed up with their weights, and each alone."""
        weights, difference = self.config.loss, painted - seen
        l1, squared = difference.abs().mean(), difference.square().mean()
        loss = weights.l1_weight * l1 + weights.squared_weight * squared
        metrics: dict[str, Tensor | float] = {
            "loss/l1": l1.detach(),
            "loss/squared": squared.detach(),
            "psnr": -10.0 * squared.detach().log10(),
        }
        if weights.perceptual_weight and self.features is not None:
            perceptual = perceptual_distance(self.features, painted, seen).mean()
            loss = loss + weights.perceptual_weight * perceptual
            metrics["loss/perceptual"] = perceptual.detach()
        return loss, metrics

    def _latent_loss(
        self, bounded: Tensor, seen: Tensor, metrics: dict[str, Tensor | float]
    ) -> Tensor | None:
        """The losses of the latents, with their weights; None where there is none in this update."""
        weights, total = self.config.loss, None
        due = self.step % weights.distillation_every == 0
        if due and self.distillation is not None and self.features is not None:
            # (B, D, H/f, W/f)
            latents = bounded.transpose(1, 2).unflatten(2, self.tokenizer.grid_shape)
            distance = self.distillation(self.features, latents, seen).mean()
            metrics["loss/distillation"] = distance.detach()
            total = weights.distillation_weight * distance
        if weights.entropy_weight:
            entropy = self.tokenizer.quantizer.spread_of(bounded)
            metrics["code_entropy"] = entropy.detach()
            less = -weights.entropy_weight * entropy
            total = less if total is None else total + less
        return total

    def _backward(
        self,
        painted: Tensor,
        loss: Tensor,
        others: Tensor | None,
        asked: Tensor | None,
        pull: float,
        metrics: dict[str, Tensor | float],
    ) -> None:
        """Gradients of the tokenizer alone."""
        a = self.config.adversarial
        if asked is None:
            (loss if others is None else loss + others).backward()
            return
        metrics["loss/adversarial"] = asked.detach()
        gradient, weight = joint_gradient(
            painted, loss, asked, self.tokenizer.last_layer, pull * a.weight, a.most_weight
        )
        metrics["adversarial_weight"] = weight.detach()
        roots, gradients = [painted], [gradient]
        if others is not None:
            roots, gradients = [painted, others], [gradient, torch.ones_like(others)]
        torch.autograd.backward(roots, gradients)

    def _teach_discriminator(self, painted: Tensor, seen: Tensor, metrics: dict[str, Tensor | float]) -> None:
        """One step of the discriminator, if it learns now; it starts again from before it diverged."""
        error = float(metrics["loss/l1"])
        if not self.guard.learns(self.step):
            self.guard.watch(self.step, error)
            return
        with autocast(self.device, self.config.precision):
            loss, found = discriminator_loss(
                self.discriminator, painted, seen, self.config.adversarial.lecam_weight
            )
        metrics.update(found)
        reason = self.guard.watch(self.step, error, float(found["loss/discriminator"]))
        if reason is not None:
            self.guard.restart(self.step, self.discriminator_optimizer)
            after = "it is given up" if self.guard.given_up else "restarted from its last good state"
            self.say(
                f"update {self.step}: adversarial training diverged: {reason}; the discriminator: {after}"
            )
            return
        self.discriminator_optimizer.zero_grad(set_to_none=True)
        loss.backward()
        self.discriminator_optimizer.step()

    @torch.no_grad()
    def measure(self) -> dict[str, float]:
        """Metrics of `averaged` on what is held out; see `ReconstructionMetrics`, `level_metrics`.

        `psnr_unrounded` is that of pictures painted from the continuous latent.
        """
        model, (source, numbers) = self.averaged.eval(), self._validation
        metrics = ReconstructionMetrics(self.features)
        unrounded = ReconstructionMetrics()
        uses = torch.zeros(model.codebook_size)
        for at in range(0, len(numbers), _ROWS):
            images = torch.from_numpy(source.read(numbers[at : at + _ROWS])).to(self.device)
            seen, latent = colours(images), model.latent(images)
            codes = model.encode(images)
            metrics.add(model.decode(codes), seen)
            unrounded.add(model.decode(latent), seen)
            uses += model.tokens_of(codes).flatten().bincount(minlength=len(uses)).cpu()
        found = metrics.result()
        if self.config.tokenizer.rounds:
            found["psnr_unrounded"] = unrounded.result()["psnr"]
            found |= codebook_metrics(uses) | level_metrics(uses, self.config.tokenizer.fsq_levels)
        return found

    @torch.no_grad()
    def shown(self) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
        """A few held-out pictures and their reconstructions, (K, 3, H, W) uint8 each."""
        source, numbers = self._validation
        chosen = numbers[np.linspace(0, len(numbers) - 1, min(_SHOWN, len(numbers))).astype(int)]
        images = torch.from_numpy(source.read(chosen)).to(self.device)
        painted = self.averaged.eval().decode(self.averaged.encode(images))
        return images.cpu().numpy(), (painted * 255).round().byte().cpu().numpy()

    def state(self) -> dict[str, Any]:
        """What a checkpoint holds; a resumed run goes on from it exactly."""
        return {
            **{name: module.state_dict() for name, module in self._modules().items()},
            "optimizer": self.optimizer.state_dict(),
            "discriminator_optimizer": self.discriminator_optimizer.state_dict(),
            "guard": self.guard.state_dict(),
            "step": self.step,
        }

    def load(self, path: Path) -> None:
        """Go on from a checkpoint. Raises `DreamdriveError` when it is broken or does not fit."""
        state = load_checkpoint(path, self.device)
        try:
            for name, module in self._modules().items():
                module.load_state_dict(state[name])
            self.optimizer.load_state_dict(state["optimizer"])
            self.discriminator_optimizer.load_state_dict(state["discriminator_optimizer"])
            self.guard.load_state_dict(state["guard"])
            self.step = int(state["step"])
        except (KeyError, TypeError, ValueError, RuntimeError) as error:
            raise DreamdriveError(f"{path}: does not fit this tokenizer ({one_line(error)[:200]})") from error
        # This option may change on resume; the optimiser's own copies are those of the checkpoint.
        for group in self.optimizer.param_groups:
            group["weight_decay"] = self.config.weight_decay

    def _modules(self) -> dict[str, nn.Module]:
        named = {"tokenizer": self.tokenizer, "averaged": self.averaged, "discriminator": self.discriminator}
        return named if self.distillation is None else {**named, "distillation": self.distillation}

    @property
    def done(self) -> int:
        """Updates done."""
        return self.step

    @property
    def finished(self) -> bool:
        """See `Learner`."""
        return self.step >= self.config.updates

    def round(self) -> Iterator[Mapping[str, Tensor | float]]:
        """See `Learner`."""
        while self.resumable:
            metrics = self.update()
            due = self.step % self.config.validation_updates == 0
            self.resumable = not (due or self.finished)
            yield metrics

    def report(self, means: dict[str, float], updates: int, seconds: float) -> LearnerReport:
        """See `Learner`."""
        tracked = {f"train/{name}": value for name, value in means.items()}
        tracked["train/learning_rate"] = self.learning_rate
        tracked["train/damaged_files"] = float(len(self.pictures.damaged))
        tracked["time/samples_per_second"] = updates * self.config.batch_size / max(seconds, 1e-9)
        return LearnerReport(tracked, {"l1": means["loss/l1"], "psnr": means["psnr"]})

    def validate(self) -> LearnerReport:
        """See `Learner`."""
        found = {f"validation/{name}": value for name, value in self.measure().items()}
        self.resumable = True
        return LearnerReport(found, {"held out": found["validation/psnr"]})


def _split(
    config: ImageTokenizerTrainConfig, pictures: PictureSet, held_out: PictureSet | None
) -> tuple[np.ndarray[Any, Any], tuple[PictureSet, np.ndarray[Any, Any]]]:
    """The numbers of the pictures to learn from, and where and which those to validate on are."""
    if held_out is None:
        if len(pictures.groups) < 2:
            raise DreamdriveError(
                f"images {config.images}: {len(pictures)} pictures: expected at least two, one to hold out"
            )
        training, validation = split_rollouts(len(pictures.groups), config.validation_share, config.seed)
        source = pictures
        numbers = np.concatenate([np.arange(*pictures.groups[n]) for n in sorted(validation)])
        learnt = np.concatenate([np.arange(*pictures.groups[n]) for n in sorted(training)])
    else:
        source, numbers, learnt = held_out, np.arange(len(held_out)), np.arange(len(pictures))
    most = min(config.validation_pictures, len(numbers))
    return learnt, (source, numbers[np.linspace(0, len(numbers) - 1, most).astype(int)])
