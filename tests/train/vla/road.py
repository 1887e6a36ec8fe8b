"""A straight road, and a world model that knows it: features are offset and speed, pictures show both."""

from collections.abc import Mapping, Sequence
from types import SimpleNamespace

import numpy as np
import torch
from tensordict import TensorDict
from torch import Tensor, nn

from agent.behaviour.vla.interface import STATE, TASK, VLABatch
from agent.world_model.heads import TwoHotHead
from agent.world_model.interface import Batch, Metrics, Observation, State, WorldModel
from train.data.episodes import Episode

HALF, MOST = 4.0, 80.0
"""Half width of the road [m], and top speed [m/s]."""
SIZE = 8
"""Side of the pictures."""


def step(offset: Tensor, speed: Tensor, action: Tensor) -> tuple[Tensor, Tensor]:
    """One decision: steering moves the car across the road, the pedal changes its speed."""
    return offset + 0.8 * action[..., 0], (speed + 8.0 * action[..., 1]).clamp(0.0, MOST)


def picture(offset: Tensor, speed: Tensor) -> Tensor:
    """(..., 3, 8, 8) in [0, 1]: the first channel shows the offset, the second the speed."""
    shown = torch.stack([(offset / 16 + 0.5).clamp(0, 1), speed / MOST, torch.zeros_like(speed)], -1)
    return shown[..., None, None].expand(*shown.shape, SIZE, SIZE)


class Road(WorldModel):
    """Knows the road exactly, but for a gust of wind in every imagined step.

    Args:
        wind: deviation of the gusts [m].
    """

    def __init__(self, wind: float = 0.0) -> None:
        super().__init__()
        self.feature_size, self.action_size = 2, 2
        self.feature_parts = {"observed": slice(0, 2), "memory": slice(2, 2)}
        self.wind = wind
        self.device = nn.Parameter(torch.zeros(()))
        self.value_head = TwoHotHead(2, 8, 1, "rms")

    def compile_steps(self) -> None:
        raise NotImplementedError

    def _state(self, offset: Tensor, speed: Tensor) -> State:
        # Features near 1, as a network's are.
        return TensorDict(
            {"x": torch.stack([offset / HALF, speed / MOST], -1)}, batch_size=list(offset.shape)
        )

    def initial(self, batch_size: int) -> State:
        return self._state(torch.zeros(batch_size), torch.zeros(batch_size))

    def observe(
        self, observations: Observation, actions: Tensor, is_first: Tensor, state: State
    ) -> tuple[State, State]:
        pixel = observations["image"][..., 0, 0].float() / 255
        states = self._state((pixel[..., 0] - 0.5) * 16, pixel[..., 1] * MOST)
        return states, states

    def noise(self, batch_size: int) -> Tensor:
        return torch.randn(batch_size, 1)

    def imagine_step(self, state: State, action: Tensor, noise: Tensor | None = None) -> State:
        noise = self.noise(state.shape[0]) if noise is None else noise
        offset, speed = step(state["x"][:, 0] * HALF, state["x"][:, 1] * MOST, action)
        return self._state(offset + self.wind * noise[:, 0], speed)

    def decode(self, state: State) -> dict[str, Tensor]:
        return {"image": picture(state["x"][..., 0] * HALF, state["x"][..., 1] * MOST)}

    def features(self, state: State) -> Tensor:
        return state["x"]

    def reward(self, state: State) -> Tensor:
        return state["x"][..., 1]

    def value(self, state: State) -> Tensor:
        return 10.0 * state["x"][..., 1]

    def cont(self, state: State) -> Tensor:
        return (state["x"][..., 0].abs() < 1.5).float()

    def loss_and_states(self, batch: Batch, state: State) -> tuple[Tensor, Metrics, State]:
        raise NotImplementedError

    def compress(self, state: State) -> dict[str, Tensor]:
        return {"x": state["x"]}

    def expand(self, stored: Mapping[str, Tensor]) -> State:
        return TensorDict({"x": stored["x"]}, batch_size=list(stored["x"].shape[:-1]))


def drive(seed: int, rows: int = 40) -> Episode:
    """An episode of `rows` actions on the road, by a driver who aims at one speed and place after another."""
    rng = np.random.default_rng(seed)
    offset, speed = torch.tensor(float(rng.uniform(-3, 3))), torch.tensor(float(rng.uniform(0, 70)))
    offsets, speeds, actions = [offset], [speed], []
    for row in range(rows):
        if row % 15 == 0:
            aim = float(rng.choice([-2.0, 0.0, 2.0])), float(rng.choice([0.0, 8.0, 22.0, 40.0, 65.0]))
        wanted = [(aim[0] - float(offset)) / 1.6, (aim[1] - float(speed)) / 16.0]
        actions.append(np.clip(rng.normal(wanted, 0.1), -1, 1).astype(np.float32))
        offset, speed = step(offset, speed, torch.from_numpy(actions[-1]))
        offsets.append(offset)
        speeds.append(speed)
    at, fast = torch.stack(offsets), torch.stack(speeds)
    image = (picture(at, fast) * 255).round().byte().numpy()
    state = np.zeros((rows + 1, 4), np.float32)
    state[:, 0] = fast.numpy() / 100
    # (T+1, A): each led to its row
    led = np.concatenate([np.zeros((1, 2), np.float32), np.stack(actions)])
    rewards = np.append(0, fast[1:].numpy() / MOST).astype(np.float32)
    return Episode(
        {"image": image, "state": state},
        led,
        rewards,
        np.arange(rows + 1) == 0,
        np.zeros(rows + 1, bool),
        {
            "speeds": fast[:-1].numpy().astype(np.float32),
            "offsets": at[:-1].numpy().astype(np.float32),
            "half_widths": np.full(rows, HALF, np.float32),
            "expert_actions": led[1:],
            "perturbed": np.zeros(rows, bool),
        },
    )


class Random:
    """A policy that proposes whatever comes: has LeRobot's methods, and several chunks at once."""

    def __init__(self, actions: int = 2, chunk: int = 6, execute: int = 3) -> None:
        self.config = SimpleNamespace(action_size=actions, chunk=chunk, execute=execute, vision="patches")
        self.generator = torch.Generator().manual_seed(0)
        self.asked: list[VLABatch] = []
        self.reset()

    def reset(self) -> None:
        self._waiting: list[Tensor] = []

    def predict_action_chunks(
        self, batch: VLABatch, samples: int, generator: torch.Generator | None = None
    ) -> Tensor:
        self.asked.append(batch)
        shape = (len(batch[STATE]), samples, self.config.chunk, self.config.action_size)
        # Most chunks go one way throughout: jitter gets nowhere.
        whole = torch.rand(*shape[:2], 1, shape[3], generator=self.generator) * 2 - 1
        return (whole + 0.2 * torch.randn(shape, generator=self.generator)).clamp(-1, 1)

    def predict_action_chunk(self, batch: VLABatch) -> Tensor:
        return self.predict_action_chunks(batch, 1)[:, 0]

    def select_action(self, batch: VLABatch) -> Tensor:
        if not self._waiting:
            chunk = self.predict_action_chunk(batch)
            self._waiting = list(chunk[:, : self.config.execute].unbind(1))
        return self._waiting.pop(0)


def batch(offset: float, speed: float, task: str | Sequence[str] = "go") -> dict[str, object]:
    """A LeRobot batch of one car, or one for each text."""
    tasks = [task] if isinstance(task, str) else list(task)
    shape = (len(tasks),)
    state = torch.zeros(len(tasks), 4)
    state[:, 0] = speed / 100
    pictures = picture(torch.full(shape, offset), torch.full(shape, speed))
    return {"observation.images.front": pictures, STATE: state, TASK: tasks}
