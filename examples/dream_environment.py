"""The dream as a Gymnasium environment: what learns in a simulator learns in a world model, too."""

from pathlib import Path

import numpy as np
import torch

from envs.dream import DreamConfig, DreamVectorEnv
from train.drive.agents import load_world_model

ROOT = Path(__file__).resolve().parents[1]


def main() -> None:
    """Run the example; it prints what it shows."""
    torch.set_num_threads(1)
    model = load_world_model(ROOT / "pretrained" / "car_racing", "cpu").world_model
    # They begin before anything was seen; `envs.dream.states_after` gives states after recorded pictures.
    env = DreamVectorEnv(model, model.initial(1), 8, DreamConfig(observation="image", max_steps=20))
    rng = np.random.default_rng(0)
    observation, _ = env.reset(seed=0)
    lengths: list[int] = []
    for _ in range(45):
        action = rng.uniform(-1, 1, (8, model.action_size)).astype(np.float32)
        observation, _, _, _, infos = env.step(action)
        if "episode" in infos:
            lengths += infos["episode"]["l"][infos["_episode"]].tolist()
    env.close()
    print("pictures:", observation["image"].shape, "; dreams that ended:", len(lengths))


if __name__ == "__main__":
    main()
