"""The shipped world model: see five pictures, then dream two seconds with its own policy."""

from pathlib import Path

import torch

from agent.world_model.interface import State
from train.drive.agents import load_agent
from train.drive.environments import make_env

ROOT = Path(__file__).resolve().parents[1]


def main() -> None:
    """Run the example; it prints what it shows."""
    torch.set_num_threads(1)
    trained = load_agent(ROOT / "pretrained" / "car_racing", "cpu")
    model = trained.agent.world_model

    def policy(state: State) -> torch.Tensor:
        """The most likely action (B, A) in states (B)."""
        return trained.agent.behaviour.policy(model.features(state)).mode()

    one_car = trained.config.env.model_copy(update={"num_envs": 1, "backend": "gymnasium", "processes": 1})
    env = make_env(one_car, seed=0)
    observation, _ = env.reset()
    state = None
    with torch.no_grad():
        for _ in range(5):
            seen = {name: torch.from_numpy(value) for name, value in observation.items()}
            state = model.encode(seen, state)
            action = torch.zeros(1, model.action_size)
            observation, *_ = env.step(action.numpy())
        assert state is not None
        dream = model.imagine(state, policy, horizon=25)
        pictures = model.decode(dream.states)["image"]
    env.close()
    print("states:", tuple(dream.states.shape), "pictures:", tuple(pictures.shape))
    print(
        f"expected return: {dream.rewards.sum():.1f}; least probability to go on: {dream.continues.min():.3f}"
    )


if __name__ == "__main__":
    main()
