"""What predicts the tokens of a compressed file: context mixing alone, or with a network beside it."""

from pathlib import Path
from typing import Literal, NamedTuple, Self

from train.run.errors import DreamdriveError
from train.tokenizer.compression.context_mixing import ContextMixing, FrameExpert
from train.tokenizer.compression.online_transformer import OnlineTransformer, OnlineTransformerConfig
from train.tokenizer.compression.run_expert import RunExpert, weights_sha256
from train.tokenizer.compression.token_file import TokenFileHeader


class Predictor(NamedTuple):
    """A choice of predictor, from which the same model is built when coding and decoding.

    Attributes:
        network: of a transformer that learns while it codes.
        run: whose network predicts.
        run_sha256: of its weights.
    """

    network: OnlineTransformerConfig | None = None
    run: Path | None = None
    run_sha256: str | None = None

    @property
    def kind(self) -> Literal["portable", "network", "run"]:
        """As a file's header names it."""
        if self.network is not None:
            return "network"
        return "portable" if self.run is None else "run"

    @classmethod
    def of(cls, path: Path, header: TokenFileHeader, run: Path | None) -> Self:
        """That of the file `path`.

        Raises:
            DreamdriveError: it needs another run.
        """
        if header.kind != "run":
            if run is not None:
                raise DreamdriveError(f"{path}: is of kind {header.kind}, which needs no --run")
            return cls(header.network)
        if run is None:
            raise DreamdriveError(f"{path}: was compressed with a trained run: --run RUN must name it")
        found = weights_sha256(run)
        if found != header.run_sha256:
            raise DreamdriveError(
                f"{run}: not the run that {path} was compressed with: the SHA-256 of its weights begins with "
                f"{found[:12]}, expected {str(header.run_sha256)[:12]}"
            )
        return cls(run=run, run_sha256=found)

    def build(self, grid: tuple[int, int], codes: int) -> ContextMixing:
        """The model before the first frame."""
        places = grid[0] * grid[1]
        network: FrameExpert | None = None
        if self.network is not None:
            network = OnlineTransformer(self.network, places, codes)
        elif self.run is not None:
            network = RunExpert(self.run, places, codes)
        return ContextMixing(*grid, codes, network)
