"""What picture codecs make of pictures in few bytes: WebP, AVIF and JPEG, beside a trained tokenizer.

Each codec at its smallest setting, and the best that it does within a number of bytes: pictures are then also
made smaller before coding and enlarged after. The setting is one for all pictures, chosen by PSNR on some of
them. Bytes are those of whole files, headers too. The perceptual and the Frechet distance are on features of
EfficientNet-Lite0; the Frechet distance depends on the number of pictures.

python benchmarks/codecs.py PICTURES [--run RUN] [--size 128 256] [--first 0] [--count 0] [--every 1]

PICTURES is a folder of pictures, videos and episodes, or one of these. A tokenizer's bytes are those of its
tokens at equal lengths, the logarithm of the number of codes; its pictures have its own size.
"""

import io
import math
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import bench
import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from rich.console import Console
from torch import Tensor

from agent.image_quality import psnr
from agent.tokenizer.choices import AnyTokenizer
from agent.tokenizer.efficientnet import EfficientNetLite0
from agent.tokenizer.image_tokenizer import ImageTokenizer
from agent.tokenizer.reconstruction_metrics import ReconstructionMetrics
from train.drive.tokenizers import TrainedTokenizer, load_tokenizer
from train.run.errors import DreamdriveError
from train.tokenizer.feature_network import load_feature_network
from train.tokenizer.pictures import open_pictures

_QUALITIES = (0, 1, 2, 5, 10, 20, 30, 40)
_SCALES = (1.0, 0.75, 0.5, 0.375, 0.25, 0.125)
_CHOSEN_ON = 16  # pictures
_TOGETHER = 16  # pictures compared at once
_DECIMALS = {"psnr": 2, "ssim": 3, "perceptual": 3, "frechet": 1}


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


def read(path: Path, height: int, width: int, rows: slice) -> list[Image.Image]:
    """The pictures of these numbers at a path, in their order, of this size."""
    with tempfile.TemporaryDirectory() as cache:
        found = open_pictures(path, height, width, Path(cache))
        chosen = np.arange(len(found))[rows]
        if not len(chosen):
            raise DreamdriveError(f"{path}: {len(found)} pictures: expected some from {rows.start} on")
        return [Image.fromarray(np.ascontiguousarray(p.transpose(1, 2, 0))) for p in found.read(chosen)]


def as_bytes(pictures: Sequence[Image.Image]) -> NDArray[np.uint8]:
    """Pictures of one size as (N, 3, H, W)."""
    return np.stack([np.asarray(picture).transpose(2, 0, 1) for picture in pictures])


def as_numbers(pictures: Sequence[Image.Image]) -> Tensor:
    """Pictures of one size as (N, 3, H, W) in [0, 1]."""
    return torch.from_numpy(as_bytes(pictures)) / 255.0


def mean_bytes_and_psnr(setting: Setting, pictures: list[Image.Image]) -> tuple[float, float]:
    """Mean bytes and mean PSNR [dB] of a codec."""
    sizes, decoded = zip(*(setting.coded(picture) for picture in pictures), strict=True)
    return float(np.mean(sizes)), float(psnr(as_numbers(decoded), as_numbers(pictures)).mean())


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
    device = network.stem.weight.device
    for start in range(0, len(pictures), _TOGETHER):
        part = pictures[start : start + _TOGETHER]
        sizes, decoded = zip(*(setting.coded(picture) for picture in part), strict=True)
        metrics.add(as_numbers(decoded).to(device), as_numbers(part).to(device))
        total += sum(sizes)
    return {"bytes": total / len(pictures), **metrics.result()}


def token_bytes(tokenizer: AnyTokenizer) -> float:
    """Bytes of a picture's tokens, each as long as the logarithm of the number of codes.

    Of an autoencoder that does not round, those of its numbers with 16 bits each.
    """
    if isinstance(tokenizer, ImageTokenizer) and not tokenizer.config.rounds:
        return 2.0 * tokenizer.tokens * tokenizer.code_size
    return tokenizer.tokens * math.log2(tokenizer.codebook_size) / 8


@torch.no_grad()
def reconstructed(
    trained: TrainedTokenizer, pictures: list[Image.Image], network: EfficientNetLite0
) -> dict[str, float]:
    """The same as `measured` of a tokenizer, whose pictures are rounded to bytes, too."""
    metrics, tokenizer = ReconstructionMetrics(network), trained.tokenizer
    device = network.stem.weight.device
    for start in range(0, len(pictures), _TOGETHER):
        images = torch.from_numpy(as_bytes(pictures[start : start + _TOGETHER])).to(device)
        painted = tokenizer.decode(tokenizer.encode(images)).mul(255.0).round() / 255.0
        metrics.add(painted, images / 255.0)
    return {"bytes": token_bytes(tokenizer), **metrics.result()}


def main() -> None:
    """Measure and print."""
    parser = bench.parser(__doc__)
    parser.add_argument("pictures", type=Path, help="folder of pictures, videos or episodes, or one of these")
    parser.add_argument("--run", type=Path, help="run with a tokenizer; sets --size and --bytes")
    bench.option(parser, "--size", [128, 256], "height and width that pictures are brought to [px]")
    bench.option(parser, "--first", 0, "number of the first picture")
    bench.option(parser, "--count", 0, "how many pictures are looked at from there on; 0 is all")
    bench.option(parser, "--every", 1, "takes each so-many-th of them")
    bench.option(parser, "--bytes", 222, "bytes of a picture to compare at; 0 leaves it out")
    bench.add_machine(parser)
    args = parser.parse_args()
    device = bench.set_up(args)
    network = load_feature_network(device)
    trained = load_tokenizer(args.run, args.device) if args.run else None
    height, width = args.size if trained is None else trained.tokenizer.image_shape[1:]
    budget = args.bytes if trained is None else token_bytes(trained.tokenizer)
    last = args.first + args.count if args.count else None
    pictures = read(args.pictures, height, width, slice(args.first, last, args.every))
    settings = list(SMALLEST)
    if budget:
        some = pictures[:: max(1, len(pictures) // _CHOSEN_ON)]
        for codec in SMALLEST:
            found = best_within(codec, some, budget)
            if found is None:
                print(f"{codec.name}: no setting with {budget:.0f} bytes a picture or fewer")
            else:
                settings.append(found)
    rows = {str(setting): measured(setting, pictures, network) for setting in settings}
    if trained is not None:
        rows[f"tokenizer {args.run}"] = reconstructed(trained, pictures, network)
    title = f"{args.pictures}: {len(pictures)} pictures of {height}x{width}"
    table = bench.table(title, "codec", "bytes", "PSNR dB", "SSIM", "perceptual", "Frechet")
    for name, row in rows.items():
        cells = [f"{row['bytes']:,.0f}", *(f"{row[n]:.{d}f}" for n, d in _DECIMALS.items() if n in row)]
        table.add_row(name, *cells)
    Console().print(table)
    bench.write(args.json, {"pictures": len(pictures), "height": height, "width": width, "codecs": rows})


if __name__ == "__main__":
    main()
