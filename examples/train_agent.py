"""The whole loop in Python: an agent far too small drives CarRacing for a moment, learns, and is scored."""

import tempfile
from pathlib import Path

from train.look.evaluate import evaluate
from train.online.config import OnlineConfig
from train.online.trainer import train_agent
from train.run.options import build

ROOT = Path(__file__).resolve().parents[1]
SMALL = {
    "env.num_envs": "4",
    "env.image_size": "32",
    "agent.world_model.units": "16",
    "agent.world_model.dynamics": "{deter: 16, hidden: 16, variables: 4, classes: 4, blocks: 1}",
    "agent.world_model.encoder": "{patch: 8, depth: 4, multipliers: [1, 2]}",
    "agent.world_model.decoder": "{patch: 8, depth: 4, multipliers: [1, 2]}",
    "agent.behaviour.units": "16",
    "agent.behaviour.starts": "16",
    "agent.behaviour.horizon": "15",
    "replay.batch_size": "4",
    "replay.sequence_length": "8",
    "trainer.frames": "1200",
    "trainer.prefill_frames": "800",
    "trainer.train_ratio": "16",
}


def main() -> None:
    """Run the example; it prints what it shows."""
    with tempfile.TemporaryDirectory() as folder:
        config = build(OnlineConfig, ROOT / "configs" / "demo.yaml", SMALL)
        run = train_agent(config, Path(folder) / "run")
        print("written:", ", ".join(sorted(path.name for path in run.path.iterdir())))
        scores = evaluate(run.path, episodes=1, first_seed=1_000_000)
        print(scores.line())


if __name__ == "__main__":
    main()
