"""What an evaluation asks of a policy, on which tracks, and who chooses for it."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from train.drive.courses import held_out_seeds
from train.language.instructions import understand
from train.language.sentence_encoder import SentenceEncoder
from train.run.errors import DreamdriveError
from train.vla.instruction_metrics import Trial, repeated, shuffled, suite


@dataclass(frozen=True)
class Guided:
    """Who chooses among a policy's chunks, how they are drawn, and how much of one is driven."""

    by: Path | None = None
    """A run, whose world model does; None drives the first chunk."""
    candidates: int = 16
    """Chunks to choose from."""
    gauges: Path | None = None
    """Folder of that world model's gauges; None judges by its returns alone."""
    execute: int | None = None
    """Decisions driven of a chunk; None takes the policy's own."""
    temperature: float | None = None
    """Of the noise that a driven chunk is drawn from; None takes the policy's own."""


@dataclass(frozen=True)
class Asked:
    """What a policy is told, and on which tracks."""

    episodes: int
    """For each instruction, or each cell of the suite."""
    first_seed: int = 1_000_000
    """Of the tracks, 1,000,000 or more; the others follow, a track for each episode."""
    instructions: Sequence[str] = ()
    """What to tell it; each is driven `episodes` times."""
    suite: bool = False
    """Instead of instructions, every speed with every place (and every way through a junction), in phrasings
    kept for testing."""
    shuffle: bool = False
    """Tell each episode what another one is asked for; the score must be clearly worse."""

    def trials(self, junctions: bool = False) -> list[Trial]:
        """The episodes to drive; `junctions` says whether the environment has any.

        Raises:
            DreamdriveError: both or neither of suite and instructions; a sentence that nobody understands;
                seeds that training may have used; or as `shuffled`.
        """
        if self.suite == bool(self.instructions):
            raise DreamdriveError("eval: expected either --instruction, once or several times, or --suite")
        if self.suite:
            trials = suite(self.episodes, self.first_seed, junctions)
        else:
            encoder = SentenceEncoder()
            meant = [(text, understand(text, encoder)) for text in self.instructions]
            trials = repeated(meant, self.episodes, self.first_seed)
        held_out_seeds(len(trials), self.first_seed)
        return shuffled(trials) if self.shuffle else trials
