"""The vision-language-action policy: sampling of action chunks, loss, saving and loading.

It has the methods of LeRobot's policies, by their names, and needs nothing of LeRobot.
"""

from __future__ import annotations

import copy
import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import torch
from torch import Tensor, nn

from agent.behaviour.vla.chunking import ChunkQueue
from agent.behaviour.vla.flow_matching import Prefix, flow_loss, sample
from agent.behaviour.vla.interface import VLABatch
from agent.behaviour.vla.model import Context, VLAConfig
from train.language.instructions import TextEncoder
from train.language.sentence_encoder import SentenceEncoder
from train.run.checkpoint import fit_weights, load_weights, save_weights, write_json_aside
from train.run.errors import DreamdriveError, explain_os_errors, one_line
from train.run.folder import Run
from train.run.options import validate
from train.vla.checks import PolicyInputs, check_actions, check_observation

POLICY_FOLDER = "policy"
"""Where a run keeps the policy that it trained."""
_KIND = "dreamdrive-vla"
_MOST_DEVIATIONS = 10.0
_SMALLEST_STD = 1e-6


class VLAPolicy(nn.Module):
    """Chunks of actions for pictures (or features), vehicle states and instructions.

    Batches are those of `agent.behaviour.vla.interface`; a bad one raises `DreamdriveError`.

    Args:
        config: sizes, and how chunks are driven.
        encoder: texts to embeddings of `config.text_size` numbers; frozen, not saved with the policy.

    Attributes:
        config: as given.
        model: the network.
        generator: of the noise that chunks are drawn from; None is torch's own.
    """

    state_mean: Tensor
    state_std: Tensor

    def __init__(self, config: VLAConfig, encoder: TextEncoder) -> None:
        super().__init__()
        self.config = config
        self.encoder = encoder
        self.model = config.build()
        self.generator: torch.Generator | None = None
        self.register_buffer("state_mean", torch.zeros(config.state_size))
        self.register_buffer("state_std", torch.ones(config.state_size))
        self._queue = ChunkQueue(config.chunk, config.execute, config.delay, config.guidance)

    @property
    def device(self) -> torch.device:
        """Where the policy computes; batches are brought there."""
        return self.state_mean.device

    def normalise_states(self, mean: Tensor, std: Tensor) -> None:
        """Set what states are normalised by: mean and deviation (S,) of those in the data.

        Raises:
            DreamdriveError: the wrong size, or numbers that are not finite; a deviation below 0.
        """
        for name, value in (("mean", mean), ("deviation", std)):
            if value.shape != (self.config.state_size,) or not bool(value.isfinite().all()):
                raise DreamdriveError(
                    f"policy: {name} of the states: {value.tolist()}: expected {self.config.state_size} "
                    "finite numbers"
                )
        if bool((std < 0).any()):
            raise DreamdriveError(f"policy: deviation of the states: {std.tolist()}: expected none below 0")
        self.state_mean.copy_(mean)
        # A number that never changed in the data says nothing: it is only centred.
        self.state_std.copy_(torch.where(std < _SMALLEST_STD, torch.ones_like(std), std))

    def reset(self) -> None:
        """Forget the chunks of the episode, of all rows together."""
        self._queue.reset()

    def drive_by(self, execute: int | None = None, temperature: float | None = None) -> None:
        """Drive `execute` decisions of each chunk from now on, drawn at `temperature`; forgets the episode.

        Args:
            execute, temperature: see `VLAConfig`; None keeps what it is.

        Raises:
            DreamdriveError: a chunk is shorter than that, or than that and the delay; a temperature below 0.
        """
        given = {"execute": execute, "temperature": temperature}
        changed = {name: value for name, value in given.items() if value is not None}
        c = self.config = validate(VLAConfig, {**self.config.model_dump(), **changed}, "policy")
        self._queue = ChunkQueue(c.chunk, c.execute, c.delay, c.guidance)

    def fork(self, seed: int) -> VLAPolicy:
        """This policy for another car: the same weights and encoder, chunks and noise of its own.

        Args:
            seed: of the noise.
        """
        # A shallow copy: modules and buffers are shared.
        other = copy.copy(self)
        c = self.config
        other._queue = ChunkQueue(c.chunk, c.execute, c.delay, c.guidance)
        other.generator = torch.Generator(self.device).manual_seed(seed)
        return other

    # Guidance needs gradients through the network, which a caller's inference mode would forbid.
    @torch.inference_mode(False)
    @torch.no_grad()
    def select_action(self, batch: VLABatch) -> Tensor:
        """The next action (B, A) of each row, in [-1, 1].

        Every `execute` decisions a new chunk is begun from what is seen now. With a `delay` it comes into
        force that many decisions later, whether it is computed here or in the background: the actions are
        the same. The noise is scaled by `temperature`.
        """
        seen = check_observation(self.config, batch, self.device)
        if self._queue.due():
            noise = self.config.temperature * self._noise(len(seen.state), 1, self.generator)
            prefix = self._queue.prefix()
            if prefix is not None and len(prefix.actions) != len(seen.state):
                raise DreamdriveError(
                    f"batch: {len(seen.state)} rows, expected {len(prefix.actions)} as before; reset() first"
                )
            if self.config.background and self._queue.waits:
                # One thread for one chunk: the policy holds none, and can be copied.
                pool = ThreadPoolExecutor(1, thread_name_prefix="next-chunk")
                self._queue.put(pool.submit(self._one, seen, noise, prefix).result)
                pool.shutdown(wait=False)
            else:
                chunk = self._one(seen, noise, prefix)
                self._queue.put(lambda: chunk)
        action = self._queue.pop()
        if len(action) != len(seen.state):
            raise DreamdriveError(
                f"batch: {len(seen.state)} rows, expected {len(action)} as before; reset() first"
            )
        return action

    def predict_action_chunk(self, batch: VLABatch) -> Tensor:
        """A chunk (B, T, A) in [-1, 1] from here, drawn freely; what `select_action` keeps is not touched."""
        return self.predict_action_chunks(batch, 1, self.generator)[:, 0]

    @torch.no_grad()
    def predict_action_chunks(
        self, batch: VLABatch, samples: int, generator: torch.Generator | None = None
    ) -> Tensor:
        """K chunks (B, K, T, A) in [-1, 1] for each row, from K noises; the observation is read once."""
        if samples < 1:
            raise DreamdriveError(f"policy: {samples} chunks asked for, expected at least 1")
        seen = check_observation(self.config, batch, self.device)
        return self._draw(seen, self._noise(len(seen.state), samples, generator), None)

    def forward(self, batch: VLABatch) -> tuple[Tensor, dict[str, float]]:
        """The flow-matching loss of the chunks in `batch`, a scalar, and metrics."""
        seen = check_observation(self.config, batch, self.device)
        actions, pad = check_actions(self.config, batch, len(seen.state), self.device)
        context = self._read(seen)
        draws = self.config.flow_draws
        # (B, K, T, A) and (B, K, T)
        repeated = actions.unsqueeze(1).expand(-1, draws, -1, -1)
        out = None if pad is None else pad.unsqueeze(1).expand(-1, draws, -1)
        loss = flow_loss(
            lambda noisy, times: self.model.velocity(noisy, times, context),
            repeated,
            out,
            time=self.config.flow_time,
        )
        return loss, {"flow_loss": float(loss.detach())}

    def context(self, batch: VLABatch) -> Context:
        """What `model.velocity` needs of the observations in `batch`; gradients pass."""
        return self._read(check_observation(self.config, batch, self.device))

    def save_pretrained(self, folder: str | Path) -> None:
        """Write `config.json`, `model.safetensors` and its description `model.json` into `folder`."""
        folder = Path(folder)
        with explain_os_errors("cannot make the folder", folder):
            folder.mkdir(parents=True, exist_ok=True)
        values = {"type": _KIND, **self.config.model_dump()}
        write_json_aside(folder / "config.json", values)
        save_weights(folder, self.state_dict(), {"type": _KIND}, name="model")

    @classmethod
    def from_pretrained(cls, folder: str | Path, encoder: TextEncoder | None = None) -> VLAPolicy:
        """The policy that `save_pretrained` wrote, on the CPU.

        Args:
            folder: that folder.
            encoder: of the instructions; None is the `SentenceEncoder` of the extra `vla`.

        Raises:
            DreamdriveError: a file is missing or broken, or weights and config do not belong together.
        """
        folder = Path(folder)
        config = read_policy_config(folder)
        tensors, _ = load_weights(folder, name="model")
        policy = cls(config, encoder or SentenceEncoder(most_pieces=config.text_max))
        fit_weights(policy, tensors, str(folder / "model.safetensors"), "config.json")
        return policy.eval()

    def _noise(self, rows: int, samples: int, generator: torch.Generator | None) -> Tensor:
        """(B, K, T, A)"""
        shape = (rows, samples, self.config.chunk, self.config.action_size)
        where = self.device if generator is None else generator.device
        return torch.randn(shape, generator=generator, device=where).to(self.device)

    def _read(self, seen: PolicyInputs) -> Context:
        text = self.encoder(seen.tasks).to(self.device)
        if text.shape != (len(seen.tasks), self.config.text_size):
            raise DreamdriveError(
                f"sentence encoder: embeddings of shape {tuple(text.shape)}, expected "
                f"({len(seen.tasks)}, {self.config.text_size}) by the policy's text_size"
            )
        state = ((seen.state - self.state_mean) / self.state_std).clamp(-_MOST_DEVIATIONS, _MOST_DEVIATIONS)
        return self.model.context(seen.vision, state, text)

    @torch.no_grad()
    def _draw(self, seen: PolicyInputs, noise: Tensor, prefix: Prefix | None) -> Tensor:
        """Chunks (B, K, T, A) out of noise of that shape."""
        context = self._read(seen)
        velocity = lambda noisy, times: self.model.velocity(noisy, times, context)  # noqa: E731
        return sample(velocity, noise, self.config.flow_steps, prefix).clamp(-1.0, 1.0)

    def _one(self, seen: PolicyInputs, noise: Tensor, prefix: Prefix | None) -> Tensor:
        """One chunk a row, (B, T, A), that continues `prefix`."""
        if prefix is not None:
            # (B, 1, T, A)
            prefix = Prefix(prefix.actions.unsqueeze(1), prefix.weights, prefix.frozen, prefix.limit)
        return self._draw(seen, noise, prefix)[:, 0]


def load_policy(path: str | Path, encoder: TextEncoder | None = None) -> VLAPolicy:
    """The policy of a run, or of a folder that `save_pretrained` wrote.

    Args:
        path: the folder.
        encoder: as in `VLAPolicy.from_pretrained`.

    Raises:
        DreamdriveError: there is none, or it is broken.
    """
    path = Path(path)
    for folder in (path / POLICY_FOLDER, path):
        if (folder / "config.json").is_file():
            return VLAPolicy.from_pretrained(folder, encoder)
    if (path / "run.json").is_file():
        job = Run.open(path).record.job
        raise DreamdriveError(f"{path}: a run of the job '{job}' without a policy, expected train-vla")
    raise DreamdriveError(
        f"{path}: no policy: expected a run of train-vla, or config.json and model.safetensors"
    )


def read_policy_config(folder: Path) -> VLAConfig:
    """The sizes of the policy saved in `folder`.

    Raises:
        DreamdriveError: its `config.json` is missing, broken or of something else.
    """
    file = folder / "config.json"
    if not file.is_file():
        raise DreamdriveError(f"no policy in {file.parent}: {file} is missing")
    try:
        with explain_os_errors("cannot read", file):
            values = json.loads(file.read_bytes())
    except ValueError as error:
        raise DreamdriveError(f"{file}: broken, expected JSON ({one_line(error)})") from error
    if not isinstance(values, dict) or values.pop("type", None) != _KIND:
        raise DreamdriveError(f"{file}: not a policy of dreamdrive, expected the type {_KIND}")
    return validate(VLAConfig, values, str(file))
