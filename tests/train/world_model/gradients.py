"""Write the gradients that this process, alone or with others, ends up with: gradients.py DATA BATCH OUT."""

import sys
from pathlib import Path

# Run by its path, Python would look for packages beside this file.
sys.path[0] = str(Path(__file__).resolve().parents[3])

import torch  # noqa: E402
from torch import Tensor  # noqa: E402

from agent.world_model.latents import CategoricalLatent  # noqa: E402
from tests.train.world_model.small import config  # noqa: E402
from train.data.loader import shares  # noqa: E402
from train.data.sequences import SequenceDataset  # noqa: E402
from train.data.windows import sequence_batch  # noqa: E402
from train.run.checkpoint import save_checkpoint  # noqa: E402
from train.world_model.distributed import Team  # noqa: E402
from train.world_model.learner import WorldModelLearner  # noqa: E402


class SameNoise(CategoricalLatent):
    """Latents whose noise for a sequence is the same, whichever process has the sequence."""

    team: Team

    def noise(self, *lead: int, device: torch.device) -> Tensor:
        """The rows of the noise of the global batch that are this process's."""
        generator = torch.Generator().manual_seed(3)
        whole = torch.rand(lead[0] * self.team.world, *lead[1:], self.variables, generator=generator)
        return whole[lead[0] * self.team.rank : lead[0] * (self.team.rank + 1)]


def main(data: Path, batch_size: int, out: Path) -> None:
    """See above."""
    torch.set_num_threads(1)
    team = Team.join("cpu")
    options = config(data, batch_size=batch_size, val_fraction=0.0)
    drives = SequenceDataset(data, options)
    torch.manual_seed(0)
    model = options.world_model.build(drives.shapes, options.action_dim)
    SameNoise.team = team
    model.dynamics.latent = SameNoise(options.latent_dim, options.num_categories, 0.01)
    learner = WorldModelLearner(model, options, team, lambda step, norm: None, drives.names_of)
    part = shares(drives.fixed_starts(), 0, batch_size, team.rank, team.world)[0]
    loss, _ = learner.loss(sequence_batch(drives.columns(part.starts), team.device), 1)
    loss.backward()
    gradients = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
    # The processes hold the same; the last one tells, the first one is looked at everywhere else.
    if team.rank == team.world - 1:
        save_checkpoint(out, {"loss": float(loss.detach()), "gradients": gradients})
    learner.leave()


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3]))
