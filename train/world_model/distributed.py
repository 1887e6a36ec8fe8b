"""Several processes that learn together, as `torchrun` starts them; alone, all of this does nothing."""

import os
from dataclasses import dataclass

import torch
import torch.distributed as dist

from train.run.device import pick_device
from train.run.errors import DreamdriveError, one_line


@dataclass(frozen=True)
class Team:
    """The processes of a job.

    Attributes:
        rank: which one this is.
        world: how many there are.
        device: where this one computes.
    """

    rank: int
    world: int
    device: torch.device

    @classmethod
    def join(cls, device: str) -> "Team":
        """The team that `torchrun` made this process part of, or a team of one.

        With GPUs each process takes the one of its number on its machine, and gradients go over NCCL; on
        CPUs they go over gloo.

        Raises:
            DreamdriveError: `torchrun`'s variables are broken, there are fewer GPUs than processes, or the
                others cannot be reached.
        """
        world = int(os.environ.get("WORLD_SIZE", "1"))
        if world == 1 and not dist.is_initialized():
            return cls(0, 1, pick_device(device))
        try:
            local = int(os.environ.get("LOCAL_RANK", "0"))
            one = pick_device(device)
            if one.type == "cuda":
                if local >= torch.cuda.device_count():
                    raise DreamdriveError(
                        f"process {local} of this machine has no GPU: there are {torch.cuda.device_count()}; "
                        "expected at most as many processes (--nproc-per-node)"
                    )
                one = torch.device("cuda", local)
                torch.cuda.set_device(one)
            if not dist.is_initialized():
                # Flags and counts go over gloo, too: they need not wait for the GPU.
                dist.init_process_group("cpu:gloo,cuda:nccl" if one.type == "cuda" else "gloo")
        except (ValueError, KeyError, RuntimeError) as error:
            raise DreamdriveError(
                f"cannot join the other processes ({one_line(error)[:200]}); expected torchrun to start this"
            ) from error
        return cls(dist.get_rank(), dist.get_world_size(), one)

    @property
    def leads(self) -> bool:
        """Whether this is the one that writes and talks."""
        return self.rank == 0

    def any(self, flag: bool) -> bool:
        """Whether any process says so; all get the same answer."""
        return self.sum([float(flag)])[0] > 0

    def sum(self, values: list[float]) -> list[float]:
        """The sums of numbers over all processes; each must give as many."""
        if self.world == 1:
            return values
        tensor = torch.tensor(values, dtype=torch.float64)
        dist.all_reduce(tensor)
        return tensor.tolist()

    def wait(self) -> None:
        """Wait until all processes are here."""
        self.sum([0.0])

    def leave(self) -> None:
        """End the team."""
        if self.world > 1 and dist.is_initialized():
            # A process that leaves first closes a connection that the others still use.
            dist.barrier()
            dist.destroy_process_group()
