"""What picture codecs make of pictures in few bytes: WebP, AVIF and JPEG, beside a trained tokenizer.

Each codec at its smallest setting, and the best that it does within a number of bytes: pictures are then also
made smaller before coding and enlarged after. The setting is one for all pictures, chosen by PSNR on some of
them. Bytes are those of whole files, headers too. The perceptual and the Frechet distance are on features of
EfficientNet-Lite0; the Frechet distance depends on the number of pictures.

python benchmarks/codecs.py PICTURES [--first 0] [--count 0] [--every 1] [--bytes 222] [--json PATH]

PICTURES is a folder of pictures or a video.
"""

import io
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import bench
import imageio_ffmpeg
import numpy as np
import torch
from PIL import Image, UnidentifiedImageError
from rich.console import Console
from torch import Tensor

from agent.image_quality import psnr
from agent.tokenizer.efficientnet import EfficientNetLite0
from agent.tokenizer.reconstruction_metrics import ReconstructionMetrics
from train.run.errors import DreamdriveError, one_line
from train.tokenizer.feature_network import load_feature_network

_SUFFIXES = {".png", ".jpg", ".jpeg", ".webp", ".bmp"}
_QUALITIES = (0, 1, 2, 5, 10, 20, 30, 40)
_SCALES = (1.0, 0.75, 0.5, 0.375, 0.25, 0.125)
_CHOSEN_ON = 16  # pictures
_TOGETHER = 16  # pictures compared at once


@dataclass(frozen=True)
class Setting:
    """A codec with all that decides what it writes."""

    name: str
    format: str
    quality: int
    scale: float = 1.0
    options: dict[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        size = "" if self.scale == 1.0 else f", scale {self.scale:g}"
        return f"{self.name}, quality {self.quality}{size}"

    def coded(self, picture: Image.Image) -> tuple[int, Image.Image]:
        """The bytes of the file, and the picture read back from it, in its first size."""
        width, height = picture.size
        if self.scale != 1.0:
            small = max(1, round(width * self.scale)), max(1, round(height * self.scale))
            smaller = picture.resize(small, Image.Resampling.LANCZOS)
        else:
            smaller = picture
        file = io.BytesIO()
        smaller.save(file, self.format, quality=self.quality, **self.options)
        size = file.tell()
        with Image.open(file) as read:
            back = read.convert("RGB")
        return size, back if back.size == picture.size else back.resize(
            picture.size, Image.Resampling.BICUBIC
        )


# Pillow's defaults but for the tables of the second JPEG. At quality 0 JPEG is what it is at 1.
SMALLEST = (
    Setting("WebP", "WEBP", 0),
    Setting("AVIF", "AVIF", 0),
    Setting("JPEG", "JPEG", 1),
    Setting("JPEG with tables of its own", "JPEG", 1, options={"optimize": True}),
)


def pictures_of(path: Path, first: int, count: int, every: int) -> list[Image.Image]:
    """Pictures of a folder, by name, or of a video: each `every`-th of `count` from `first` on; 0 is all.

    Raises:
        DreamdriveError: there are none, one cannot be read, or they are not all of one size.
    """
    last = first + count if count else None
    found: list[Image.Image] = []
    if path.is_dir():
        files = sorted(file for file in path.iterdir() if file.suffix.lower() in _SUFFIXES)
        for file in files[first:last:every]:
            try:
                with Image.open(file) as opened:
                    found.append(opened.convert("RGB"))
            except (OSError, UnidentifiedImageError) as error:
                raise DreamdriveError(f"{file}: {one_line(error)}: expected a picture") from error
    else:
        for number, picture in enumerate(frames(path)):
            if last is not None and number >= last:
                break
            if number >= first and (number - first) % every == 0:
                found.append(picture)
    if not found or len({picture.size for picture in found}) > 1:
        sizes = ", ".join(sorted(f"{p.height}x{p.width}" for p in {p.size: p for p in found}.values()))
        raise DreamdriveError(f"{path}: pictures of {sizes or 'no'} size: expected one size")
    return found


def frames(path: Path) -> Iterator[Image.Image]:
    """All frames of a video.

    Raises:
        DreamdriveError: it cannot be read.
    """
    try:
        reader = imageio_ffmpeg.read_frames(str(path), output_params=["-fps_mode", "passthrough"])
        width, height = next(reader)["size"]
        for data in reader:
            yield Image.fromarray(np.frombuffer(data, np.uint8).reshape(height, width, 3))
    except (OSError, RuntimeError, StopIteration, ValueError) as error:
        raise DreamdriveError(f"{path}: {one_line(error)[:200]}: expected a folder or a video") from error


def numbers(pictures: list[Image.Image]) -> Tensor:
    """Pictures of one size as (N, 3, H, W) in [0, 1]."""
    return torch.from_numpy(np.stack([np.asarray(p) for p in pictures])).permute(0, 3, 1, 2) / 255.0


def mean_bytes_and_psnr(setting: Setting, pictures: list[Image.Image]) -> tuple[float, float]:
    """Mean bytes and mean PSNR [dB] of a codec."""
    sizes, decoded = zip(*(setting.coded(picture) for picture in pictures), strict=True)
    return float(np.mean(sizes)), float(psnr(numbers(list(decoded)), numbers(pictures)).mean())


def best_within(codec: Setting, pictures: list[Image.Image], budget: float) -> Setting | None:
    """The quality and scale with the best PSNR whose mean bytes are at most `budget`; None: all have more."""
    best, highest = None, -np.inf
    for scale in _SCALES:
        for quality in (q for q in _QUALITIES if q >= codec.quality):
            tried = Setting(codec.name, codec.format, quality, scale, codec.options)
            size, decibels = mean_bytes_and_psnr(tried, pictures)
            if size > budget:
                break  # better quality has more
            if decibels > highest:
                best, highest = tried, decibels
    return best


def measured(setting: Setting, pictures: list[Image.Image], network: EfficientNetLite0) -> dict[str, float]:
    """Mean bytes of a codec, and how near its pictures are to those coded."""
    metrics, total = ReconstructionMetrics(network), 0
    for start in range(0, len(pictures), _TOGETHER):
        part = pictures[start : start + _TOGETHER]
        sizes, decoded = zip(*(setting.coded(picture) for picture in part), strict=True)
        metrics.add(numbers(list(decoded)), numbers(part))
        total += sum(sizes)
    return {"bytes": total / len(pictures), **metrics.result()}


def main() -> None:
    """Measure and print."""
    parser = bench.parser(__doc__)
    parser.add_argument("pictures", type=Path, help="folder of pictures, or video")
    bench.option(parser, "--first", 0, "number of the first picture")
    bench.option(parser, "--count", 0, "how many pictures are looked at from there on; 0 is all")
    bench.option(parser, "--every", 1, "takes each so-many-th of them")
    bench.option(parser, "--bytes", 222, "bytes of a picture to compare at; 0 leaves it out")
    bench.add_machine(parser)
    args = parser.parse_args()
    device = bench.set_up(args)
    pictures = pictures_of(args.pictures, args.first, args.count, args.every)
    network = load_feature_network(device)
    settings = list(SMALLEST)
    if args.bytes:
        some = pictures[:: max(1, len(pictures) // _CHOSEN_ON)]
        for codec in SMALLEST:
            found = best_within(codec, some, args.bytes)
            if found is None:
                print(f"{codec.name}: no setting with {args.bytes} bytes a picture or fewer")
            else:
                settings.append(found)
    rows = {str(setting): measured(setting, pictures, network) for setting in settings}
    height, width = pictures[0].height, pictures[0].width
    title = f"{args.pictures}: {len(pictures)} pictures of {height}x{width}"
    table = bench.table(title, "codec", "bytes", "PSNR dB", "SSIM", "perceptual", "Frechet")
    for name, row in rows.items():
        cells = [
            f"{row['bytes']:,.0f}",
            f"{row['psnr']:.2f}",
            f"{row['ssim']:.3f}",
            f"{row['perceptual']:.3f}",
        ]
        table.add_row(name, *cells, f"{row['frechet']:.2f}" if "frechet" in row else "")
    Console().print(table)
    bench.write(args.json, {"pictures": len(pictures), "height": height, "width": width, "codecs": rows})


if __name__ == "__main__":
    main()
