"""Updates of an encoder and a decoder of given tokens; a `Learner` of the training loop."""

import copy
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from agent.image_quality import psnr, ssim
from agent.nets import colours
from agent.optim import follow
from agent.schedules import cosine_decay, linear_warm_up
from agent.tokenizer.token_codec import TokenCodec, decoder_loss, encoder_loss
from train.run.checkpoint import load_checkpoint
from train.run.device import autocast
from train.run.errors import DreamdriveError, one_line
from train.run.loop import LearnerReport, diverged
from train.tokenizer.pictures import PictureSet
from train.tokenizer.token_codec_config import TokenCodecTrainConfig

_FINAL_RATE = 0.05  # of the learning rate is left at the end
_ORDER, _UPDATE = 40, 41  # streams of random numbers
_ROWS = 32  # pictures of a validation at once
_SHOWN = 6  # pictures that are shown beside those painted
_PARTS = ("encoder", "decoder")


class PairedFrames(NamedTuple):
    """Pictures and the tokens of each."""

    pictures: PictureSet
    tokens: NDArray[np.int16]
    """(T, G)."""

    def read(self, numbers: NDArray[np.int64]) -> tuple[Tensor, Tensor]:
        """Pictures (N, 3, H, W) uint8 and tokens (N, G) int64 of these numbers."""
        images = torch.from_numpy(self.pictures.read(numbers))
        return images, torch.from_numpy(self.tokens[numbers].astype(np.int64))


class TokenCodecLearner:
    """An encoder and a decoder, which learn side by side from the same pictures, each for itself.

    The batch and the random numbers of an update come from the seed and the update's number. Each network is
    kept from the validation where it was best: the encoder by its cross-entropy, the decoder by PSNR.

    Args:
        config: of the run.
        frames: to learn from, to choose by and to judge on, in the order of time.
        split: numbers of the first frame to choose by, and of the first one to judge on.
        device: of the networks.

    Attributes:
        codec: what learns.
        averaged: the running mean of its weights, which is validated.
        best: the weights of each network where it was best; empty before the first validation.
        step: updates done.
        resumable: see `Learner`.
    """

    def __init__(
        self,
        config: TokenCodecTrainConfig,
        frames: PairedFrames,
        split: tuple[int, int],
        device: torch.device,
    ) -> None:
        self.config, self.frames, self.split, self.device = config, frames, split, device
        torch.manual_seed(config.seed)
        self.codec: TokenCodec = config.codec.build().to(device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.averaged = copy.deepcopy(self.codec).eval()
        self.optimizer = torch.optim.AdamW(
            self.codec.parameters(), config.learning_rate, betas=(0.9, 0.99), weight_decay=config.weight_decay
        )
        self.step = 0
        self.resumable = True
        self.best: dict[str, dict[str, Tensor]] = {}
        self._score: dict[str, float] = dict.fromkeys(_PARTS, -float("inf"))
        self._order: tuple[int, NDArray[np.int64]] = (-1, np.empty(0, np.int64))

    def _batch(self) -> tuple[Tensor, Tensor]:
        """Pictures and tokens of the next update: each epoch has all in an order of its own."""
        size, count = self.config.batch_size, self.split[0]
        numbers = []
        for place in range(self.step * size, (self.step + 1) * size):
            epoch, row = divmod(place, count)
            if epoch != self._order[0]:
                rng = np.random.default_rng([self.config.seed, _ORDER, epoch])
                self._order = epoch, rng.permutation(count)
            numbers.append(self._order[1][row])
        images, tokens = self.frames.read(np.array(numbers, np.int64))
        return images.to(self.device), tokens.to(self.device)

    @property
    def learning_rate(self) -> float:
        """Of the next update: a linear warm-up, then half a cosine down to a twentieth."""
        c = self.config
        falling = cosine_decay(self.step - c.warmup, max(1, c.updates - c.warmup), _FINAL_RATE)
        return c.learning_rate * linear_warm_up(self.step, c.warmup) * falling

    def update(self) -> dict[str, Tensor | float]:
        """One step of both networks; the metrics, scalars.

        Raises:
            DreamdriveError: a loss or gradient is no number, no weight is changed.
        """
        c, step = self.config, self.step
        images, tokens = self._batch()
        seed = np.random.SeedSequence([c.seed, _UPDATE, step]).generate_state(1)[0]
        torch.manual_seed(int(seed))
        self.codec.train()
        for group in self.optimizer.param_groups:
            group["lr"] = self.learning_rate
        with autocast(self.device, c.precision):
            logits, painting = self.codec.logits(images), self.codec.paint(tokens)
        telling, told = encoder_loss(logits, tokens, c.label_smoothing)
        painted, shown = decoder_loss(painting, images, c.l1_weight)
        self.optimizer.zero_grad(set_to_none=True)
        # They share no weight: the sum's gradient is that of each.
        loss = telling + painted
        loss.backward()
        norms = [
            nn.utils.clip_grad_norm_(part.parameters(), c.max_grad_norm)
            for part in (self.codec.encoder, self.codec.decoder)
        ]
        if not (torch.isfinite(loss) and all(torch.isfinite(norm) for norm in norms)):
            raise diverged("the loss or its gradient", step, "the token codec")
        self.optimizer.step()
        follow(self.averaged, self.codec, c.average, step)
        self.step += 1
        return {**told, **shown, **{f"grad_norm/{n}": v for n, v in zip(_PARTS, norms, strict=True)}}

    @torch.no_grad()
    def measure(self, codec: TokenCodec, first: int, last: int) -> dict[str, float]:
        """Metrics on the frames from `first` to before `last`, means over pictures or tokens.

        `psnr` [dB] and `ssim` of pictures painted from the tokens given; `loss/token` [nats] and
        `token_accuracy` of the encoder; `token_accuracy_top5`, how often the token is among its five
        likeliest; `psnr_both`, of pictures painted from the encoder's tokens.
        """
        codec.eval()
        sums: dict[str, float] = {}
        for at in range(first, last, _ROWS):
            images, tokens = self.frames.read(np.arange(at, min(at + _ROWS, last)))
            images, tokens = images.to(self.device), tokens.to(self.device)
            seen, painted, logits = colours(images), codec.decode(tokens), codec.logits(images)
            _, told = encoder_loss(logits, tokens, 0.0)
            five = (logits.topk(5).indices == tokens.unsqueeze(-1)).any(-1).float().mean()
            again = codec.decode(logits.argmax(-1))
            values = {
                "psnr": psnr(painted, seen).mean(),
                "ssim": ssim(painted, seen).mean(),
                "psnr_both": psnr(again, seen).mean(),
                "token_accuracy_top5": five,
                **told,
            }
            for name, value in values.items():
                sums[name] = sums.get(name, 0.0) + float(value) * len(images)
        return {name: value / (last - first) for name, value in sums.items()}

    def chosen(self) -> TokenCodec:
        """Networks with the best weights of each, in evaluation."""
        codec = copy.deepcopy(self.averaged)
        for name, weights in self.best.items():
            codec.get_submodule(name).load_state_dict(weights)
        return codec.eval()

    @torch.no_grad()
    def shown(self) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        """A few pictures to choose by, and those painted from their tokens, (K, 3, H, W) uint8 each."""
        first, last = self.split
        numbers = np.linspace(first, last - 1, min(_SHOWN, last - first)).astype(np.int64)
        images, tokens = self.frames.read(numbers)
        painted = self.chosen().decode(tokens.to(self.device))
        return images.numpy(), (painted * 255).round().byte().cpu().numpy()

    def state(self) -> dict[str, Any]:
        """What a checkpoint holds; a resumed run goes on from it exactly."""
        return {
            "codec": self.codec.state_dict(),
            "averaged": self.averaged.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "best": self.best,
            "score": self._score,
            "step": self.step,
        }

    def load(self, path: Path) -> None:
        """Go on from a checkpoint. Raises `DreamdriveError` when it is broken or does not fit."""
        state = load_checkpoint(path, self.device)
        try:
            self.codec.load_state_dict(state["codec"])
            self.averaged.load_state_dict(state["averaged"])
            self.optimizer.load_state_dict(state["optimizer"])
            self.best, self._score, self.step = state["best"], state["score"], int(state["step"])
            self.chosen()
        except (KeyError, TypeError, ValueError, RuntimeError) as error:
            raise DreamdriveError(f"{path}: does not fit this codec ({one_line(error)[:200]})") from error
        # This option may change on resume; the optimiser's own copies are those of the checkpoint.
        for group in self.optimizer.param_groups:
            group["weight_decay"] = self.config.weight_decay

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
        tracked["time/samples_per_second"] = updates * self.config.batch_size / max(seconds, 1e-9)
        shown = {"squared": means["loss/squared"], "right": means["token_accuracy"]}
        return LearnerReport(tracked, shown)

    def validate(self) -> LearnerReport:
        """See `Learner`; keeps the weights of what has become better."""
        found = self.measure(self.averaged, *self.split)
        scores = {"encoder": -found["loss/token"], "decoder": found["psnr"]}
        for name, score in scores.items():
            if score > self._score[name]:
                self._score[name] = score
                weights = self.averaged.get_submodule(name).state_dict()
                self.best[name] = {key: value.clone() for key, value in weights.items()}
        self.resumable = True
        shown = {"held out": found["psnr"], "right there": found["token_accuracy"]}
        return LearnerReport({f"validation/{name}": value for name, value in found.items()}, shown)
