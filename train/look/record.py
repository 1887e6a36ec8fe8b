"""Drive one episode that training has not seen and keep what was seen: for dreams and for videos."""

from contextlib import closing
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from envs.car_racing.env import CarRacingConfig
from envs.car_racing.observation import CarRacingObservation, native_action
from envs.car_racing.simulators import OfficialSimulator
from train.data.episodes import Episode
from train.drive.agents import Trained

Observation = dict[str, NDArray[Any]]
Film = list[NDArray[np.uint8]]


class Drive(Protocol):
    """One episode as an agent drives it."""

    def reset(self, seed: int) -> Observation:
        """Begin: observations by name, without a batch's dimension."""
        ...

    def step(self, action: NDArray[np.float32]) -> tuple[Observation, float, bool, bool]:
        """One decision (A,): observation, reward, whether it terminated, whether it is over."""
        ...

    def close(self) -> None:
        """Give everything back."""
        ...


class Track:
    """An official CarRacing-v3 track; `film`, if given, gets its own rendering of each decision."""

    def __init__(self, config: CarRacingConfig, film: Film | None) -> None:
        self._view = CarRacingObservation(config.image_size, config.crop_hud, config.instruments)
        self._repeat, self._film = config.action_repeat, film
        self._simulator = OfficialSimulator(config.max_frames, "rgb_array" if film is not None else None)

    def reset(self, seed: int) -> Observation:
        """See `Drive`."""
        return self._seen(self._simulator.reset(seed))

    def step(self, action: NDArray[np.float32]) -> tuple[Observation, float, bool, bool]:
        """See `Drive`."""
        reward, terminated, over = 0.0, False, False
        for _ in range(self._repeat):
            gained, terminated, truncated = self._simulator.step(native_action(action[None])[0])
            reward += gained
            over = terminated or truncated
            if over:
                break
        if self._film is not None:
            self._film.append(self._simulator.env.render())  # type: ignore[arg-type]
        return self._seen(self._simulator.picture()), reward, terminated, over

    def _seen(self, picture: NDArray[np.uint8]) -> Observation:
        return {name: value[0] for name, value in self._view(picture[None]).items()}

    def close(self) -> None:
        """See `Drive`."""
        self._simulator.close()


def open_drive(trained: Trained, film: Film | None) -> Drive:
    """An episode of the environment that the agent learnt in."""
    env = trained.config.env
    if isinstance(env, CarRacingConfig):
        return Track(env, film)
    # Here, for it needs processes and ports.
    from train.look.carla_drive import TownDrive

    return TownDrive(env)


@torch.no_grad()
def record_episode(
    trained: Trained, seed: int, decisions: int | None = None, film: Film | None = None
) -> Episode:
    """Drive the track or route of `seed` with the policy's mode, to its end or for `decisions` decisions.

    Args:
        trained: who drives.
        seed: of the track or route, 1,000,000 or more.
        decisions: how many at most; None: to the end.
        film: if given, gets CarRacing's own rendering of each decision, (400, 600, 3) uint8.
    """
    agent, device = trained.agent, trained.device
    size = agent.world_model.action_size
    with closing(open_drive(trained, film)) as drive:
        seen = drive.reset(seed)
        state = agent.world_model.initial(1)
        action = torch.zeros(1, size, device=device)
        observations, actions = [seen], [np.zeros(size, np.float32)]
        rewards, terminal = [0.0], [False]
        over = False
        while not over and (decisions is None or len(actions) <= decisions):
            # (1, ...)
            batch = {name: torch.from_numpy(value[None]).to(device) for name, value in seen.items()}
            first = torch.tensor([len(actions) == 1], device=device)
            action, state = agent.act(batch, state, action, first, explore=False)
            chosen = action[0].cpu().numpy()
            seen, reward, terminated, over = drive.step(chosen)
            observations.append(seen)
            actions.append(chosen)
            rewards.append(reward)
            terminal.append(terminated)
    is_first = np.zeros(len(rewards), bool)
    is_first[0] = True
    return Episode(
        {name: np.stack([seen[name] for seen in observations]) for name in seen},
        np.stack(actions).astype(np.float32),
        np.array(rewards, np.float32),
        is_first,
        np.array(terminal),
    )
