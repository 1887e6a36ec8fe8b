"""Drive one official track and keep what was seen: for dreams and for videos."""

import numpy as np
import torch
from numpy.typing import NDArray

from envs.preprocess import Picture, native_action
from envs.simulators import OfficialSimulator
from train.agents import Trained
from train.data.episodes import Episode


@torch.no_grad()
def record_episode(
    trained: Trained, seed: int, decisions: int | None = None, film: list[NDArray[np.uint8]] | None = None
) -> Episode:
    """Drive the official track of `seed` with the policy's mode, to its end or for `decisions` decisions.

    Args:
        film: if given, gets the simulator's own rendering of each decision, (400, 600, 3) uint8.
    """
    env = trained.config.env
    agent, device = trained.agent, trained.device
    view = Picture(env.image_size, env.crop_hud)
    simulator = OfficialSimulator(env.max_frames, "rgb_array" if film is not None else None)
    image = view(simulator.reset(seed)[None])
    state = agent.world_model.initial(1)
    action = torch.zeros(1, agent.world_model.action_size, device=device)
    images, actions, rewards, terminal = [image[0]], [np.zeros(env.action_size, np.float32)], [0.0], [False]
    over = False
    try:
        while not over and (decisions is None or len(actions) <= decisions):
            seen = {"image": torch.from_numpy(image).to(device)}
            first = torch.tensor([len(actions) == 1], device=device)
            action, state = agent.act(seen, state, action, first, explore=False)
            chosen = action.cpu().numpy()
            reward, terminated = 0.0, False
            for _ in range(env.action_repeat):
                gained, terminated, truncated = simulator.step(native_action(chosen)[0])
                reward += gained
                over = terminated or truncated
                if over:
                    break
            if film is not None:
                film.append(simulator.env.render())  # type: ignore[arg-type]
            image = view(simulator.picture()[None])
            images.append(image[0])
            actions.append(chosen[0])
            rewards.append(reward)
            terminal.append(terminated)
    finally:
        simulator.close()
    is_first = np.zeros(len(rewards), bool)
    is_first[0] = True
    return Episode(
        {"image": np.stack(images)},
        np.stack(actions).astype(np.float32),
        np.array(rewards, np.float32),
        is_first,
        np.array(terminal),
    )
