"""Tokens back to pictures, and tokens from outside into a folder of tokens: `dreamdrive convert tokens`."""

import math
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from agent.tokenizer.choices import AnyTokenizer
from train.convert.recorded.commavq import Segment, find_segments
from train.convert.recorded.commavq_tokens import (
    GRID,
    KINDS,
    PLACES,
    RATE,
    array_of_bytes,
    file_bytes,
    token_frames,
)
from train.convert.recorded.recording import ConvertConfig, assemble
from train.data.episode_store import EpisodeFolder
from train.data.episodes import Episode, write_episode
from train.drive.open_loop import to_pixels
from train.drive.tokenizers import load_tokenizer
from train.pictures.video import write_mp4
from train.run.errors import DreamdriveError, explain_os_errors
from train.run.progress import Progress
from train.tokenizer.token_folder import TokenFolder, TokenNotes, written_line, written_tokens

_NUMBERS = 256 * 3 * 64 * 64  # of pictures that are decoded at once
_USUAL_RATE = 10.0  # films of tokens whose rate is not known [pictures/s]
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.\-]*")


@torch.no_grad()
def pictures_of_tokens(tokenizer: AnyTokenizer, tokens: NDArray[np.integer]) -> NDArray[np.uint8]:
    """The pictures (R, 3, H, W) of tokens (R, G), which are codes of `tokenizer`."""
    device = next(tokenizer.parameters()).device
    at_once = max(1, _NUMBERS // math.prod(tokenizer.image_shape))
    parts = torch.from_numpy(tokens.astype(np.int64)).split(at_once)
    return np.concatenate([to_pixels(tokenizer.decode(tokenizer.codes(part.to(device)))) for part in parts])


def decode_tokens(
    source: Path,
    output: Path,
    video: bool = False,
    tokenizer: Path | None = None,
    fps: float | None = None,
    device: str = "auto",
    progress: Progress | None = None,
) -> None:
    """Write the pictures of a folder of tokens into `output`: as episodes, or as MP4s.

    Files that are there already are kept.

    Args:
        source: the folder of tokens.
        output: made if missing.
        video: films instead of episodes.
        tokenizer: a run whose tokenizer decodes; None is the one in `source`.
        fps: pictures a second of the films; None is what `source` says, or 10.
        device: of the tokenizer.
        progress: shows how far it is; None shows a bar of its own.

    Raises:
        DreamdriveError: `source` is no such folder or broken; no tokenizer, or another one; `output` holds
            something else; or the disk refuses.
    """
    folder = TokenFolder(source)
    if tokenizer is None:
        decoder = folder.tokenizer(device)
    else:
        decoder = load_tokenizer(tokenizer, device).tokenizer
        folder.notes.check_tokenizer(str(source), decoder, str(tokenizer))
    notes = folder.notes
    rate = fps or notes.fps or _USUAL_RATE
    own = progress or Progress(f"decoding {source}", len(folder), "episodes")
    written = 0
    made = {"command": "convert tokens --decode"} | TokenNotes.of(decoder, notes.fps).model_dump(mode="json")
    with EpisodeFolder(output, "a", made=made), own as shown:
        for number, listed in enumerate(folder.episodes.names):
            path = output / (f"{listed.removesuffix('.npz')}.mp4" if video else listed)
            if not path.exists():
                episode = folder.read(number)
                images = pictures_of_tokens(decoder, episode.observations["token"])
                with explain_os_errors("cannot make the folder", path.parent):
                    path.parent.mkdir(exist_ok=True)
                if video:
                    write_mp4(path, images, rate)
                else:
                    others = {key: value for key, value in episode.observations.items() if key != "token"}
                    write_episode(path, replace(episode, observations={"image": images, **others}))
                written += 1
            shown.update(number + 1)
    kind = "film" if video else "episode"
    print(f"{output}: {len(folder)} {kind}{'s' * (len(folder) != 1)}, {written} of them written now")


@dataclass(frozen=True)
class TokensFrom:
    """What is said of tokens from outside; None leaves it to the tokenizer, the files, or commaVQ's way."""

    tokenizer: Path | None = None
    """A run whose tokenizer they are of."""
    grid: tuple[int, int] | None = None
    """Rows and columns of a picture's tokens; a file's own, or 8x16 for 128 of them."""
    codebook_size: int | None = None
    """Codes that a token may have; else 1,024."""
    fps: float | None = None
    """Pictures a second; else 20."""

    def notes(self, where: str, shape: tuple[int, ...], tokenizer: AnyTokenizer | None) -> TokenNotes:
        """What a folder shall say of tokens that have this shape in the first file, which `where` names.

        Raises:
            DreamdriveError: the grid is not known; or all is not as `tokenizer` has it.
        """
        grid, codes, fps = self.grid, self.codebook_size or KINDS, self.fps or RATE
        if tokenizer is not None:
            grid, codes = grid or tokenizer.grid_shape, self.codebook_size or tokenizer.codebook_size
        if grid is None and len(shape) == 2:
            grid = (shape[0], shape[1])
        elif grid is None and shape == (PLACES,):
            grid = GRID
        if grid is None:
            raise DreamdriveError(f"{where}: {shape[0]} tokens a picture, expected --grid ROWSxCOLUMNS, too")
        notes = TokenNotes(grid=grid, codebook_size=codes, fps=fps)
        _check_grid(where, shape, notes)
        if tokenizer is None:
            return notes
        notes.check_tokenizer(where, tokenizer, str(self.tokenizer))
        return TokenNotes.of(tokenizer, fps)


def import_tokens(
    sources: Sequence[Path], output: Path, known: TokensFrom | None = None, device: str = "auto"
) -> None:
    """Write tokens from outside into a folder of tokens, an episode for each file.

    Args:
        sources: .npy files of whole numbers, (T, rows, columns), (T, G) or a stream of commaVQ's GPT; or
            commaVQ's shards, and folders of its files. Where its poses lie beside its tokens, they become
            actions and rewards (see `train.convert.recorded.commavq`).
        output: the folder, made if missing; episodes that are there are kept.
        known: what the files do not say.
        device: of the tokenizer.

    Raises:
        DreamdriveError: a file is broken or does not fit; two have one name; `output` holds something else.
    """
    known = known or TokensFrom()
    tokenizer = None if known.tokenizer is None else load_tokenizer(known.tokenizer, device).tokenizer
    found = chain.from_iterable(map(_episodes, sources))
    first = next(found)
    shape, episode = first[1]()
    # The first complaint comes before anything is written.
    notes = known.notes(first[0], shape, tokenizer)
    notes.check(first[0], episode)
    names: set[str] = set()
    written = rows = 0
    with written_tokens(output, notes, tokenizer) as folder:
        for name, read in chain([first], found):
            if name in names:
                raise DreamdriveError(f"{name}: found twice, expected each name once")
            names.add(name)
            if not folder.has(name):
                shape, episode = read()
                _check_grid(name, shape, notes)
                folder.write(name, episode)
                written, rows = written + 1, rows + len(episode.rewards)
    print(written_line(output, len(names), written, rows, notes))
    if tokenizer is None:
        print("their tokenizer is not known: --decode will need --tokenizer RUN")


def _check_grid(where: str, shape: tuple[int, ...], notes: TokenNotes) -> None:
    """Raise `DreamdriveError` unless a picture's tokens of this shape are in the grid of `notes`, or flat."""
    if shape not in (notes.grid, (notes.tokens,)):
        raise DreamdriveError(
            f"{where}: {'x'.join(map(str, shape))} tokens a picture, expected {notes.grid[0]}x{notes.grid[1]}"
        )


_Read = Callable[[], tuple[tuple[int, ...], Episode]]
"""Reads an episode of tokens, and the shape that a picture's tokens have in the file."""


def _episodes(source: Path) -> Iterator[tuple[str, _Read]]:
    """Names of the episodes in a file or folder, and what reads each."""
    source = Path(source)
    pose = source.with_name(re.sub(r"tokens?\.npy$", "pose.npy", source.name))
    plain = source.suffix == ".npy" and (pose == source or not pose.is_file())
    if plain:
        name = re.sub(r"\.tokens?$", "", source.stem)
        if not _NAME.fullmatch(name):
            raise DreamdriveError(f"{source}: expected a name of letters, digits, and the signs . _ -")
        yield name, partial(_plain_episode, source, name)
        return
    for recording in find_segments(source):
        # The video, where there is one, is not wanted.
        own = replace(recording, video=None) if isinstance(recording, Segment) else recording
        for name, read in own.episodes(ConvertConfig()):
            yield name, partial(_commavq_episode, read)


def _commavq_episode(read: Callable[[], Episode]) -> tuple[tuple[int, ...], Episode]:
    episode = read()
    token = episode.observations["tokens"].astype(np.int32)
    return (PLACES,), replace(episode, observations={"token": token})


def _plain_episode(path: Path, name: str) -> tuple[tuple[int, ...], Episode]:
    """The episode of an .npy file; its actions and rewards are zeros."""
    array = array_of_bytes(str(path), file_bytes(path))
    if array.ndim == 1:
        array = token_frames(str(path), array)
    if array.dtype.kind not in "iu" or array.ndim not in (2, 3) or 0 in array.shape[1:]:
        raise DreamdriveError(
            f"{path}: {array.shape} {array.dtype}, expected whole numbers (T, rows, columns) or (T, tokens)"
        )
    if len(array) < 2:
        raise DreamdriveError(f"{path}: {len(array)} pictures, expected at least 2")
    if array.min() < 0 or array.max() >= 2**31:
        raise DreamdriveError(f"{path}: {array.min()} to {array.max()}, expected codes from 0 on")
    token = array.reshape(len(array), -1).astype(np.int32)
    return array.shape[1:], assemble(str(path), {"token": token}, None, ConvertConfig(), name)
