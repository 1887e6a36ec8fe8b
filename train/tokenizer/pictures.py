"""Pictures to train a tokenizer on: files of pictures, videos and recorded episodes, read by number.

Files of pictures are decoded when they are read. Videos and episodes are decoded once, into memory-mapped
files in a cache, since they cannot be read from the middle. So memory does not grow with the data.
"""

import hashlib
import itertools
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import imageio_ffmpeg
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from train.data.hdf5 import open_episodes
from train.run.checkpoint import write_aside
from train.run.errors import DreamdriveError, explain_os_errors, one_line

PICTURES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff", ".avif")
VIDEOS = (".mp4", ".mkv", ".mov", ".avi", ".webm", ".hevc", ".h264")
EPISODES = (".npz", ".h5", ".hdf5")
_GROUP = 64  # neighbouring pictures that are held out together, at most
_LONG = 256  # frames of a video that are, at most


@dataclass
class PictureSet:
    """Pictures of one size, by number.

    Attributes:
        height, width: of all, [px].
        skip_damaged: take the next picture in the place of one that cannot be read.
        groups: numbers (first, last + 1) of neighbours that are alike, and so are held out together.
        damaged: files that could not be read so far.
    """

    height: int
    width: int
    skip_damaged: bool = False
    groups: list[tuple[int, int]] = field(default_factory=list)
    damaged: set[Path] = field(default_factory=set)
    _files: list[Path] = field(default_factory=list)
    _mapped: list[NDArray[np.uint8]] = field(default_factory=list)
    _ends: list[int] = field(default_factory=list)

    def __len__(self) -> int:
        """How many there are."""
        return len(self._files) + (self._ends[-1] if self._ends else 0)

    def add_files(self, files: list[Path]) -> None:
        """Add files of pictures, in order; before any videos or episodes."""
        size = max(1, min(_GROUP, len(files) // 20))
        for _, same in itertools.groupby(range(len(files)), key=lambda n: files[n].parent):
            rows = list(same)
            for at in range(0, len(rows), size):
                part = rows[at : at + size]
                self.groups.append((len(self) + part[0], len(self) + part[-1] + 1))
        self._files += files

    def add_decoded(self, frames: NDArray[np.uint8]) -> None:
        """Add decoded frames (T, 3, H, W)."""
        start = len(self)
        size = max(1, min(_LONG, len(frames) // 4))
        self.groups += [
            (start + at, start + min(at + size, len(frames))) for at in range(0, len(frames), size)
        ]
        self._mapped.append(frames)
        self._ends.append((self._ends[-1] if self._ends else 0) + len(frames))

    def read(self, numbers: NDArray[np.int64]) -> NDArray[np.uint8]:
        """The pictures of these numbers, (N, 3, H, W).

        Raises:
            DreamdriveError: one is damaged and not to be skipped, or all are.
        """
        return np.stack([self._read(int(number)) for number in numbers])

    def _read(self, number: int) -> NDArray[np.uint8]:
        for _ in range(len(self)):
            if number >= len(self._files):
                number -= len(self._files)
                part = int(np.searchsorted(self._ends, number, side="right"))
                return self._mapped[part][number - (self._ends[part - 1] if part else 0)]
            path = self._files[number]
            try:
                return picture_file(path, self.height, self.width)
            except DreamdriveError:
                if not self.skip_damaged:
                    raise
            self.damaged.add(path)
            number = (number + 1) % len(self)
        raise DreamdriveError(f"{self._files[0].parent}: all pictures are damaged: expected one that is not")


def picture_file(path: Path, height: int, width: int) -> NDArray[np.uint8]:
    """A picture of any size and mode, (3, H, W): scaled to cover H x W, what is beyond cut away.

    Grey and palettes become RGB, 16 bits become 8, what is transparent is shown on black.

    Raises:
        DreamdriveError: it is damaged, empty, or no picture.
    """
    try:
        with Image.open(path) as opened:
            picture = ImageOps.exif_transpose(opened)
            if picture.mode.startswith("I") or picture.mode == "F":
                picture = _eight_bits(picture, path)
            if "A" in picture.getbands() or "transparency" in picture.info:
                picture = picture.convert("RGBA")
                picture = Image.alpha_composite(Image.new("RGBA", picture.size, (0, 0, 0, 255)), picture)
            fitted = ImageOps.fit(picture.convert("RGB"), (width, height), Image.Resampling.BOX)
    except (OSError, ValueError, SyntaxError, UnidentifiedImageError, Image.DecompressionBombError) as error:
        raise DreamdriveError(
            f"{path}: damaged, expected a picture ({one_line(error)[:120]}); --skip-damaged true leaves such "
            "files out"
        ) from error
    return np.ascontiguousarray(np.asarray(fitted).transpose(2, 0, 1))


def _eight_bits(picture: Image.Image, path: Path) -> Image.Image:
    """A picture of 16 bits, or of whole numbers up to 65,535, with 8."""
    values = np.asarray(picture)
    if values.dtype.kind == "f" or values.min() < 0 or values.max() > 65_535:
        raise DreamdriveError(f"{path}: mode {picture.mode}: expected 8 or 16 bits a channel")
    return Image.fromarray((values.astype(np.uint32) >> 8).astype(np.uint8))


def open_pictures(path: Path, height: int, width: int, cache: Path, skip_damaged: bool = False) -> PictureSet:
    """All pictures at `path`: of a folder of pictures, videos and episodes, with its folders, or of a file.

    Args:
        path: of a folder or a file.
        height, width: that all are brought to [px].
        cache: folder for decoded videos and episodes; made if it is needed.
        skip_damaged: leave out what cannot be read, and note it in `damaged`.

    Raises:
        DreamdriveError: there is nothing there, or a video or episode cannot be read.
    """
    if not path.exists():
        raise DreamdriveError(f"{path}: missing, expected pictures, videos or episodes")
    files = sorted(p for p in path.rglob("*") if p.is_file()) if path.is_dir() else [path]
    files = [p for p in files if cache not in p.parents]
    found = PictureSet(height, width, skip_damaged)
    found.add_files([p for p in files if p.suffix.lower() in PICTURES])
    for video in (p for p in files if p.suffix.lower() in VIDEOS):
        try:
            found.add_decoded(_decoded(video, found, cache, _video_frames))
        except DreamdriveError:
            if not skip_damaged:
                raise
            found.damaged.add(video)
    for episodes in _episode_stores(path, files):
        found.add_decoded(_decoded(episodes, found, cache, _episode_frames))
    if not len(found):
        raise DreamdriveError(
            f"{path}: no pictures: expected files of {', '.join((*PICTURES, *VIDEOS))}, or episodes"
        )
    return found


def _episode_stores(path: Path, files: list[Path]) -> list[Path]:
    """The folders and files that hold episodes."""
    single = [p for p in files if p.suffix.lower() in EPISODES[1:]]
    folders = sorted({p.parent for p in files if p.suffix.lower() == EPISODES[0]})
    return [*single, *folders]


def _decoded(source: Path, wanted: PictureSet, cache: Path, frames: Any) -> NDArray[np.uint8]:
    """The frames of a video or of episodes (T, 3, H, W), memory-mapped from the cache, decoded if need be."""
    with explain_os_errors("cannot read", source):
        parts = [source, *sorted(source.glob("*.npz"))] if source.is_dir() else [source]
        marks = [(str(p.resolve()), p.stat().st_size, p.stat().st_mtime_ns) for p in parts]
    key = hashlib.sha256(repr((marks, wanted.height, wanted.width)).encode()).hexdigest()[:24]
    file = cache / f"{key}.pictures"
    shape = (3, wanted.height, wanted.width)
    if not file.is_file():
        with explain_os_errors("cannot make the folder", cache):
            cache.mkdir(parents=True, exist_ok=True)

        def write(out: Any) -> None:
            for frame in frames(source, wanted.height, wanted.width):
                out.write(frame.tobytes())

        write_aside(file, write)
    size = int(np.prod(shape))
    count = file.stat().st_size // size
    if not count:
        raise DreamdriveError(f"{source}: no frames, expected some")
    return np.memmap(file, np.uint8, "r", shape=(count, *shape))


def _video_frames(path: Path, height: int, width: int) -> Iterator[NDArray[np.uint8]]:
    """The frames of a video, (3, H, W) each, scaled to cover and cut as pictures are."""
    fit = f"scale={width}:{height}:force_original_aspect_ratio=increase:flags=area,crop={width}:{height}"
    reader = imageio_ffmpeg.read_frames(
        str(path), pix_fmt="rgb24", output_params=["-fps_mode", "passthrough", "-vf", fit]
    )
    broken = ""
    try:
        next(reader)
        for data in reader:
            yield np.frombuffer(data, np.uint8).reshape(height, width, 3).transpose(2, 0, 1)
    except (OSError, RuntimeError, StopIteration, ValueError) as error:
        broken = one_line(error)[:200] or type(error).__name__
    finally:
        reader.close()
    if broken:
        # Out here, since an error of reading is not one of writing what was read.
        raise DreamdriveError(f"{path}: broken, expected a readable video ({broken})")


def _episode_frames(path: Path, height: int, width: int) -> Iterator[NDArray[np.uint8]]:
    """The pictures of all episodes of a folder or file, (3, H, W) each."""
    store = open_episodes(path)
    shape = store.shapes.get("image")
    if shape is None or shape[0] != 3:
        raise DreamdriveError(f"{path}: observations {store.shapes}: expected an entry 'image' of 3 channels")
    for number in range(len(store)):
        images = store.read(number).observations["image"]
        for image in images:
            if image.shape[1:] == (height, width):
                yield image
            else:
                picture = Image.fromarray(np.ascontiguousarray(image.transpose(1, 2, 0)))
                fitted = ImageOps.fit(picture, (width, height), Image.Resampling.BOX)
                yield np.asarray(fitted).transpose(2, 0, 1)
