"""How many updates a run owes for what it has collected."""

from dataclasses import dataclass

from train.online.config import OnlineConfig


@dataclass
class Pace:
    """How many updates are due: those of a starting point, and what the steps collected since ask for.

    Attributes:
        decisions: collected up to the starting point; at first the prefill, which asks for no updates.
        updates: done up to the starting point.
        ratio: replayed steps for each collected one.
        batch_steps: steps in a batch, B * T.
    """

    decisions: int
    updates: int
    ratio: float
    batch_steps: int

    @classmethod
    def of(cls, config: OnlineConfig, decisions: int = 0, updates: int = 0) -> "Pace":
        """The pace of `config` for a run that has got so far."""
        prefill = config.trainer.prefill_frames // config.env.action_repeat
        steps = config.replay.batch_size * config.replay.sequence_length
        return cls(max(prefill, decisions), updates, config.trainer.train_ratio, steps)

    def due(self, decisions: int) -> int:
        """Updates that should have been done after `decisions` collected steps."""
        return self.updates + max(0, int((decisions - self.decisions) * self.ratio / self.batch_steps))
