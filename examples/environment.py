"""CarRacing as a vector environment: four cars, one second of random driving."""

import numpy as np

from envs.car_racing.env import CarRacingConfig
from train.drive.environments import make_env


def main() -> None:
    """Run the example; it prints what it shows."""
    config = CarRacingConfig(num_envs=4, image_size=64)
    env = make_env(config, seed=0)
    rng = np.random.default_rng(0)
    observation, _ = env.reset()
    total = np.zeros(4)
    for _ in range(12):
        action = rng.uniform(-1, 1, (4, config.action_size)).astype(np.float32)
        observation, reward, *_ = env.step(action)
        total += reward
    env.close()
    print({name: f"{value.shape} {value.dtype}" for name, value in observation.items()})
    print("rewards of the first second:", total.round(1).tolist())


if __name__ == "__main__":
    main()
