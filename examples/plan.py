"""Planning with the cross-entropy method in the shipped world model: one decision."""

from pathlib import Path

import numpy as np
import torch

from agent.behaviour.planner import PlannerConfig
from train.drive.agents import load_world_model

ROOT = Path(__file__).resolve().parents[1]


def main() -> None:
    """Run the example; it prints what it shows."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    loaded = load_world_model(ROOT / "pretrained" / "car_racing", "cpu")
    planner = PlannerConfig(method="cem", samples=64, horizon=10, elites=6).build(
        loaded.world_model, policy=None, discount=0.99
    )
    rng = np.random.default_rng(0)
    observation = {
        name: torch.from_numpy(rng.integers(0, 256, (1, *shape), dtype=np.uint8))
        if len(shape) == 3
        else torch.zeros(1, *shape)
        for name, shape in loaded.shapes.items()
    }
    with torch.no_grad():
        state = loaded.world_model.encode(observation)
        plan = planner.plan(state, torch.tensor([True]))
    print("action:", plan.action[0].tolist())
    print("considered:", tuple(plan.actions.shape), "best return:", round(float(plan.returns.max()), 2))


if __name__ == "__main__":
    main()
