"""Videos and sheets of pictures: MP4, GIF and contact sheets from uint8 frames.

Frames are `(T, C, H, W)` uint8 with C = 1 (grey) or 3 (RGB). Small pictures are enlarged by a whole factor
with nearest neighbour, so that a viewer sees the pixels that the model saw. Every file is written aside and
renamed: a reader never meets half a video.
"""

import math
from collections.abc import Sequence
from pathlib import Path

import imageio_ffmpeg
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from train.pictures.style import INK, PAPER, written_aside
from train.run.errors import DreamdriveError

_VIDEO_SIDE = 384
PANEL_SIDE = 192
_Frames = NDArray[np.uint8]


def checked_frames(frames: _Frames, name: str) -> _Frames:
    """Return `frames` as RGB `(T, 3, H, W)` uint8.

    Raises DreamdriveError, naming the argument, when they are not `(T, C, H, W)` uint8, C 1 or 3, T > 0.
    """
    if frames.dtype != np.uint8 or frames.ndim != 4 or frames.shape[1] not in (1, 3) or 0 in frames.shape:
        raise DreamdriveError(
            f"{name}: expected frames (T, C, H, W) uint8 with C 1 or 3 and T at least 1, "
            f"got {frames.shape} {frames.dtype}"
        )
    return frames if frames.shape[1] == 3 else np.repeat(frames, 3, axis=1)


def enlarged(frames: _Frames, side: int) -> _Frames:
    """Repeat pixels of `(..., H, W)` by the whole factor that brings the longer side nearest to `side`."""
    factor = max(1, round(side / max(frames.shape[-2:])))
    return frames.repeat(factor, axis=-2).repeat(factor, axis=-1)


def to_image(frame: _Frames) -> Image.Image:
    """Turn one `(3, H, W)` uint8 frame into an image."""
    return Image.fromarray(np.ascontiguousarray(frame.transpose(1, 2, 0)))


def write_mp4(path: Path, frames: _Frames, fps: float) -> None:
    """Write `(T, C, H, W)` uint8 frames as H.264 in yuv420p, which every browser plays.

    `fps` is in pictures a second. Sides are enlarged to about 384 pixels and padded to even lengths.
    Raises DreamdriveError for unusable frames or when the encoder cannot write.
    """
    checked_rate(fps)
    rgb = checked_frames(frames, "frames")
    height, width = enlarged(rgb[0], _VIDEO_SIDE).shape[-2:]
    padding = ((0, height % 2), (0, width % 2), (0, 0))
    with written_aside(path) as aside:
        encoder = imageio_ffmpeg.write_frames(
            str(aside),
            (width + width % 2, height + height % 2),
            fps=fps,
            codec="libx264",
            pix_fmt_out="yuv420p",
            macro_block_size=2,
            quality=None,
            # faststart moves the index to the front, so that a page can play before the file is loaded
            output_params=["-crf", "18", "-preset", "medium", "-movflags", "+faststart"],
            ffmpeg_log_level="error",
        )
        encoder.send(None)
        try:
            # One frame at a time: a long film at full size would not fit beside a replay buffer.
            for frame in rgb:
                picture = enlarged(frame, _VIDEO_SIDE).transpose(1, 2, 0)  # (H, W, C)
                encoder.send(np.ascontiguousarray(np.pad(picture, padding, mode="edge")))
        finally:
            encoder.close()
        if not aside.is_file() or aside.stat().st_size == 0:
            raise DreamdriveError(f"{path}: the video encoder wrote nothing")


def write_gif(path: Path, frames: _Frames, fps: float) -> None:
    """Write `(T, C, H, W)` uint8 frames at their own size as a looping GIF with one palette for all frames.

    `fps` is in pictures a second; GIF counts in 1/100 s and viewers slow down below 2/100, so 50 is the most.
    Raises DreamdriveError for unusable frames.
    """
    checked_rate(fps)
    rgb = checked_frames(frames, "frames")
    # The palette comes from frames spread over the whole film: one frame would miss colours of the others.
    sample = rgb[np.linspace(0, len(rgb) - 1, num=min(len(rgb), 16)).astype(int)]  # (N, 3, H, W)
    palette = to_image(np.concatenate(list(sample), axis=1)).quantize(256, Image.Quantize.MEDIANCUT)
    # No dithering: noise that changes from frame to frame makes the file many times larger.
    images = [to_image(frame).quantize(palette=palette, dither=Image.Dither.NONE) for frame in rgb]
    duration = max(20, round(100 / fps) * 10)
    with written_aside(path) as aside:
        images[0].save(
            aside, save_all=True, append_images=images[1:], duration=duration, loop=0, optimize=False
        )


def contact_sheet(
    path: Path,
    frames: _Frames,
    labels: Sequence[str] = (),
    columns: int = 0,
    side: int = PANEL_SIDE,
) -> None:
    """Write `(N, C, H, W)` uint8 pictures as one PNG, row by row, each with its label below.

    labels: N texts, or none. columns: pictures a row; 0 makes the sheet about square.
    side: about how long a picture's longer side becomes, in pixels.
    Raises DreamdriveError for unusable frames or when labels and pictures differ in number.
    """
    pictures = enlarged(checked_frames(frames, "frames"), side)
    if labels and len(labels) != len(pictures):
        raise DreamdriveError(f"labels: expected {len(pictures)}, one for each picture, got {len(labels)}")
    columns = min(columns or math.ceil(math.sqrt(len(pictures))), len(pictures))
    rows = math.ceil(len(pictures) / columns)
    height, width = pictures.shape[-2:]
    margin, caption = 10, 22 if labels else 0
    sheet = Image.new(
        "RGB", (columns * (width + margin) + margin, rows * (height + caption + margin) + margin), PAPER
    )
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(14)
    for index, picture in enumerate(pictures):
        row, column = divmod(index, columns)
        left, top = margin + column * (width + margin), margin + row * (height + caption + margin)
        sheet.paste(to_image(picture), (left, top))
        if labels:
            draw.text((left + width / 2, top + height + 16), labels[index], INK, font, anchor="ms")
    with written_aside(path) as aside:
        sheet.save(aside)


def checked_rate(fps: float) -> None:
    """Raise DreamdriveError unless `fps` is a positive, finite number of pictures a second."""
    if not (math.isfinite(fps) and fps > 0):
        raise DreamdriveError(f"fps: expected a positive number of pictures a second, got {fps}")
