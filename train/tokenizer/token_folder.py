"""Folder of episodes as tokens, with the tokenizer that they are of.

```
tokens.json               what the tokens are: grid, codes, size of the pictures, frame rate, fingerprint
tokenizer.safetensors     a copy of the tokenizer, and
tokenizer.json            its config; both are absent where tokens came from outside without one
NAME.npz ...              episodes (`train.data.episodes`), `token` (T, G) in place of `observations`
train/, val/, test/       or episodes in folders of these names, as they were sorted by hand
```

So decoding and training need nothing else. Every job that reads episodes reads these, too, where its model
reads tokens.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal, Self

from pydantic import BaseModel, Field, ValidationError

from agent.tokenizer.choices import AnyTokenizer
from agent.world_model.interface import WorldModel
from train.data.episode_store import EpisodeFolder
from train.data.episodes import Episode, EpisodeLimits, read_episode, write_episode
from train.drive.tokenizers import load_saved_tokenizer, save_tokenizer, tokenizer_fingerprint
from train.run.checkpoint import write_text_aside
from train.run.errors import DreamdriveError, explain_os_errors, one_line

NOTES = "tokens.json"
"""The file that makes a folder one of tokens."""


class TokenNotes(BaseModel, extra="forbid", frozen=True, use_attribute_docstrings=True):
    """The contents of `tokens.json`: what the tokens in its folder are."""

    format: Literal[1] = 1
    """Version of the format."""
    grid: tuple[int, int] = Field()
    """Rows and columns of a picture's tokens, which stand row by row."""
    codebook_size: int = Field(ge=1, le=2**31)
    """Codes that a token may have: 0 to one less."""
    image_shape: tuple[int, int, int] | None = None
    """(3, H, W) of the pictures; null where no tokenizer is known."""
    fps: float | None = Field(None, gt=0, allow_inf_nan=False)
    """Pictures a second; null where it is not known."""
    fingerprint: str | None = Field(None, pattern="^[0-9a-f]{64}$")
    """Of the tokenizer (`train.drive.tokenizers.tokenizer_fingerprint`); null where none is known."""

    @classmethod
    def of(cls, tokenizer: AnyTokenizer, fps: float | None) -> Self:
        """Those of a tokenizer's tokens, of pictures at `fps` a second."""
        return cls(
            grid=tokenizer.grid_shape,
            codebook_size=tokenizer.codebook_size,
            image_shape=tokenizer.image_shape,
            fps=fps,
            fingerprint=tokenizer_fingerprint(tokenizer),
        )

    @classmethod
    def read(cls, folder: Path) -> Self:
        """Those in `folder`. Raises `DreamdriveError` where there are none, or they are broken."""
        path = folder / NOTES
        with explain_os_errors("cannot read", path):
            if not folder.is_dir() or not path.is_file():
                raise DreamdriveError(f"{folder}: no {NOTES} in it, expected a folder of tokens")
            text = path.read_bytes()
        try:
            notes = cls.model_validate_json(text)
        except ValidationError as error:
            problem = error.errors(include_url=False)[0]
            field = ".".join(map(str, problem["loc"])) or "all of it"
            raise DreamdriveError(
                f"{path}: broken, expected what `dreamdrive tokenise` wrote there "
                f"({field}: {one_line(problem['msg'])[:160]})"
            ) from error
        if min(notes.grid) < 1:
            raise DreamdriveError(f"{path}: grid {notes.grid}: expected rows and columns, 1 or more each")
        return notes

    @property
    def tokens(self) -> int:
        """G, tokens of a picture."""
        return self.grid[0] * self.grid[1]

    def require_tokenizer(self, where: str) -> None:
        """Raise `DreamdriveError`, beginning with `where`, unless the tokenizer is known."""
        if self.fingerprint is None:
            raise DreamdriveError(
                f"{where}: tokens without a tokenizer, expected one to read them with: --tokenizer RUN"
            )

    def check(self, where: str, episode: Episode) -> None:
        """Raise `DreamdriveError`, beginning with `where`, unless the episode is of such tokens."""
        check_tokens(where, episode, self.tokens, self.codebook_size, f"as {NOTES} says")

    def check_tokenizer(self, where: str, tokenizer: AnyTokenizer, whose: str) -> None:
        """Raise `DreamdriveError` unless the tokens are of `tokenizer`, which messages call `whose`."""
        if self.fingerprint is not None:
            found = tokenizer_fingerprint(tokenizer)
            if self.fingerprint != found:
                raise DreamdriveError(
                    f"{where}: tokens of another tokenizer (fingerprint {self.fingerprint[:8]}), expected "
                    f"those of {whose} ({found[:8]})"
                )
        elif (self.grid, self.codebook_size) != (tokenizer.grid_shape, tokenizer.codebook_size):
            raise DreamdriveError(
                f"{where}: {_grid(self.grid)} tokens of {self.codebook_size:,} codes, expected "
                f"{_grid(tokenizer.grid_shape)} of {tokenizer.codebook_size:,} as {whose} has"
            )


class TokenFolder:
    """A folder of tokens, to read.

    Args:
        path: the folder.
        limits: what one episode may cost.

    Attributes:
        notes: what the tokens are.
        episodes: the files; `read` of this class reads them with a check of their codes.

    Raises:
        DreamdriveError: no such folder, no episode in it, or `tokens.json` is missing or broken.
    """

    def __init__(self, path: Path, limits: EpisodeLimits | None = None) -> None:
        self.path = Path(path)
        self.notes = TokenNotes.read(self.path)
        self.episodes = EpisodeFolder(self.path, limits=limits, grouped=True)

    def __len__(self) -> int:
        """How many episodes there are."""
        return len(self.episodes)

    def __iter__(self) -> Iterator[Episode]:
        """The episodes one after the other; raises as `read` does."""
        return (self.read(index) for index in range(len(self)))

    def read(self, index: int) -> Episode:
        """Episode `index`, checked, its codes too.

        Raises:
            DreamdriveError: one line with file, key and expectation.
            IndexError: there is no such episode.
        """
        episode = self.episodes.read(index)
        self.notes.check(self.episodes.where(index), episode)
        return episode

    def tokenizer(self, device: str = "auto") -> AnyTokenizer:
        """The tokenizer of these tokens; in evaluation, frozen.

        Raises:
            DreamdriveError: there is none, it is damaged, or it is another one than `tokens.json` names.
        """
        self.notes.require_tokenizer(str(self.path))
        tokenizer = load_saved_tokenizer(self.path, device)
        self.notes.check_tokenizer(str(self.path), tokenizer, "the tokenizer in it")
        return tokenizer


@contextmanager
def written_tokens(path: Path, notes: TokenNotes, tokenizer: AnyTokenizer | None) -> Iterator["TokenWriter"]:
    """Make a folder of tokens, or go on with one that holds the same tokens; nobody else writes meanwhile.

    Args:
        path: the folder, made if missing.
        notes: what the tokens are.
        tokenizer: is copied into it; None where there is none.

    Raises:
        DreamdriveError: it holds other things, it is in use, or the disk refuses.
    """
    with EpisodeFolder(path, "a"):
        if (path / NOTES).exists():
            there = TokenNotes.read(path)
            for name in type(notes).model_fields:
                found, wanted = getattr(there, name), getattr(notes, name)
                if found != wanted:
                    raise DreamdriveError(
                        f"{path}: was made with {name} {_short(found)}, expected {_short(wanted)}; give "
                        "another --output"
                    )
        elif any(path.glob("*.npz")) or any(path.glob("*/*.npz")):
            raise DreamdriveError(f"{path}: has other episodes, expected an empty folder or one of tokens")
        if tokenizer is not None:
            save_tokenizer(path, tokenizer)
        # Last: with it the folder is one of tokens.
        write_text_aside(path / NOTES, notes.model_dump_json(indent=1) + "\n")
        yield TokenWriter(path, notes)


class TokenWriter:
    """Writes episodes into a folder of tokens, each whole or not at all; see `written_tokens`."""

    def __init__(self, path: Path, notes: TokenNotes) -> None:
        self.path, self.notes = path, notes

    def has(self, name: str) -> bool:
        """Whether the episode of that name is there."""
        return self._file(name).exists()

    def write(self, name: str, episode: Episode) -> None:
        """Write an episode; `name` is that of its file without .npz, or such a name in a folder.

        Raises:
            DreamdriveError: it breaks the format, it is of other tokens, or the disk refuses.
        """
        path = self._file(name)
        self.notes.check(str(path), episode)
        with explain_os_errors("cannot make the folder", path.parent):
            path.parent.mkdir(exist_ok=True)
        write_episode(path, episode)

    def _file(self, name: str) -> Path:
        return self.path / f"{name}.npz"


def is_token_folder(path: Path) -> bool:
    """Whether `path` is a folder of tokens."""
    return (path / NOTES).is_file()


def folder_of(file: Path) -> Path | None:
    """The folder of tokens that an episode's file lies in; None if it lies in none."""
    parents = (file.parent, file.parent.parent)
    return next((folder for folder in parents if is_token_folder(folder)), None)


def read_for_model(path: Path, model: WorldModel, limits: EpisodeLimits | None = None) -> Episode:
    """The episode in a file, pictures or tokens, for a world model to read.

    Raises:
        DreamdriveError: it is broken; or it is of tokens, and the model reads none, or those of another
            tokenizer.
    """
    episode = read_episode(path, limits)
    if "token" not in episode.observations:
        return episode
    tokenizer = getattr(model, "tokenizer", None)
    if tokenizer is None:
        raise DreamdriveError(
            f"{path}: an episode of tokens, expected pictures as the world model reads "
            "(`dreamdrive convert tokens DIR --decode` makes them)"
        )
    folder = folder_of(path)
    if folder is not None:
        TokenNotes.read(folder).check_tokenizer(str(path), tokenizer, "the world model")
    check_tokens(str(path), episode, tokenizer.tokens, tokenizer.codebook_size, "as the world model reads")
    return episode


def check_tokens(where: str, episode: Episode, tokens: int, codebook_size: int, by: str) -> None:
    """Raise `DreamdriveError` unless an episode has so many tokens a picture, all within the codebook.

    `where` begins the message, `by` says where the expectation comes from.
    """
    found = episode.observations.get("token")
    if found is None:
        raise DreamdriveError(
            f"{where}: observations {sorted(episode.observations)}, expected 'token', (T, {tokens}) codes"
        )
    if found.shape[1:] != (tokens,):
        raise DreamdriveError(f"{where}: 'token': {found.shape[1]} a picture, expected {tokens} {by}")
    if not 0 <= found.min() <= found.max() < codebook_size:
        wrong = (found < 0) | (found >= codebook_size)
        row = int(wrong.any(1).argmax())
        code = int(found[row][wrong[row]][0])
        raise DreamdriveError(
            f"{where}: 'token': {code} in row {row}, expected codes from 0 to {codebook_size - 1} {by}"
        )


def written_line(output: Path, episodes: int, written: int, rows: int, notes: TokenNotes) -> str:
    """The line that says what was written: `written` of the `episodes` in `output`, with `rows` pictures."""
    return (
        f"{output}: {episodes} episode{'s' * (episodes != 1)}, {written} of them written now with {rows:,} "
        f"pictures of {_grid(notes.grid)} tokens, {notes.codebook_size:,} codes"
    )


def _grid(shape: tuple[int, int]) -> str:
    return f"{shape[0]}x{shape[1]}"


def _short(value: object) -> object:
    """A fingerprint's beginning; other values as they are."""
    return value[:8] if isinstance(value, str) else value
