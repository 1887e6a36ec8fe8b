"""Videos and pictures of what the agent sees and dreams: MP4, GIF and contact sheets from uint8 frames.

Frames are `(T, C, H, W)` uint8 with C = 1 (grey) or 3 (RGB). Small pictures are enlarged by a whole factor
with nearest neighbour, so that a viewer sees the pixels that the model saw. Every file is written aside and
renamed: a reader never meets half a video.
"""

import math
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import imageio_ffmpeg
import numpy as np
import torch
from matplotlib import colormaps
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from agent.image_quality import psnr
from train.run.errors import DreamdriveError, explain_os_errors

Frames = NDArray[np.uint8]

# One colour for one meaning, in every picture and chart.
SEEN = "#2a9d6f"
DREAMED = "#e4761b"
INK = "#22262b"
FAINT = "#8b929a"
PAPER = "#ffffff"
ERROR_COLOURS = "magma"

VIDEO_SIDE = 384
PANEL_SIDE = 192


@contextmanager
def written_aside(path: Path) -> Iterator[Path]:
    """Give a path beside `path` to write to, and rename it to `path` once the block has ended well.

    The extension stays the last part of the name, because encoders choose their format by it.
    On any error nothing is left behind and an older `path` stays as it was.
    Raises DreamdriveError when the system refuses the write (no such folder, no space, no permission).
    """
    aside = path.with_name(f".{path.stem}.{os.getpid()}.partial{path.suffix}")
    with explain_os_errors("writing", path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            yield aside
            os.replace(aside, path)
        finally:
            aside.unlink(missing_ok=True)


def checked_frames(frames: Frames, name: str) -> Frames:
    """Return `frames` as RGB `(T, 3, H, W)` uint8.

    Raises DreamdriveError, naming the argument, when they are not `(T, C, H, W)` uint8, C 1 or 3, T > 0.
    """
    if frames.dtype != np.uint8 or frames.ndim != 4 or frames.shape[1] not in (1, 3) or 0 in frames.shape:
        raise DreamdriveError(
            f"{name}: expected frames (T, C, H, W) uint8 with C 1 or 3 and T at least 1, "
            f"got {frames.shape} {frames.dtype}"
        )
    return frames if frames.shape[1] == 3 else np.repeat(frames, 3, axis=1)


def checked_pair(truth: Frames, model: Frames) -> tuple[Frames, Frames]:
    """Return truth and model as RGB frames; raises DreamdriveError when their shapes differ."""
    truth, model = checked_frames(truth, "truth"), checked_frames(model, "model")
    if truth.shape != model.shape:
        raise DreamdriveError(f"model: expected the shape of truth {truth.shape}, got {model.shape}")
    return truth, model


def enlarged(frames: Frames, side: int) -> Frames:
    """Repeat pixels of `(..., H, W)` by the whole factor that brings the longer side nearest to `side`."""
    factor = max(1, round(side / max(frames.shape[-2:])))
    return frames.repeat(factor, axis=-2).repeat(factor, axis=-1)


def error_frames(truth: Frames, model: Frames) -> Frames:
    """Colour the absolute error of `(T, C, H, W)`, averaged over channels: `(T, 3, H, W)` uint8.

    Black is no error. The square root keeps small errors visible beside large ones, on a scale that is the
    same for every picture, so two films can be compared.
    """
    truth, model = checked_pair(truth, model)
    error = np.abs(truth.astype(np.float32) - model.astype(np.float32)).mean(axis=1) / 255  # (T, H, W)
    coloured = colormaps[ERROR_COLOURS](np.sqrt(error), bytes=True)  # (T, H, W, 4)
    return np.ascontiguousarray(coloured[..., :3].transpose(0, 3, 1, 2))


def frame_psnr(truth: Frames, model: Frames) -> NDArray[np.float32]:
    """Peak signal-to-noise ratio of each step in dB, `(T, C, H, W)` twice -> `(T,)`; 100 where equal."""
    one, other = (torch.from_numpy(film.astype(np.float32)) / 255 for film in checked_pair(truth, model))
    return psnr(one, other).numpy()


def write_mp4(path: Path, frames: Frames, fps: float) -> None:
    """Write `(T, C, H, W)` uint8 frames as H.264 in yuv420p, which every browser plays.

    `fps` is in pictures a second. Sides are enlarged to about 384 pixels and padded to even lengths.
    Raises DreamdriveError for unusable frames or when the encoder cannot write.
    """
    checked_rate(fps)
    rgb = checked_frames(frames, "frames")
    height, width = enlarged(rgb[0], VIDEO_SIDE).shape[-2:]
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
                picture = enlarged(frame, VIDEO_SIDE).transpose(1, 2, 0)  # (H, W, C)
                encoder.send(np.ascontiguousarray(np.pad(picture, padding, mode="edge")))
        finally:
            encoder.close()
        if not aside.is_file() or aside.stat().st_size == 0:
            raise DreamdriveError(f"{path}: the video encoder wrote nothing")


def write_gif(path: Path, frames: Frames, fps: float) -> None:
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


def dream_frames(truth: Frames, model: Frames, context: int) -> Frames:
    """Lay truth, model and error side by side under a line that says whether the model sees or dreams.

    truth, model: `(T, C, H, W)` uint8; the model's first `context` frames are reconstructions of what it saw,
    the others its open-loop dream. Returns `(T, 3, H', W')` uint8, enlarged for viewing.
    """
    truth, model = checked_pair(truth, model)
    panels = [enlarged(film, PANEL_SIDE) for film in (truth, model, error_frames(truth, model))]
    height, width = panels[0].shape[-2:]
    margin, header, footer = 14, 34, 30
    canvas_size = (3 * width + 4 * margin, header + height + footer)
    quality = frame_psnr(truth, model)
    font = ImageFont.load_default(15)
    result = []
    for step in range(len(truth)):
        dreaming = step >= context
        colour = DREAMED if dreaming else SEEN
        canvas = Image.new("RGB", canvas_size, PAPER)
        draw = ImageDraw.Draw(canvas)
        for column, (panel, label) in enumerate(zip(panels, ("truth", "model", "error"), strict=True)):
            left = margin + column * (width + margin)
            canvas.paste(to_image(panel[step]), (left, header))
            draw.text((left, header - 9), label, INK, font, anchor="ls")
        # The frame and the words around the model's panel carry the state: green sees, orange dreams.
        left = 2 * margin + width
        frame = (left - 4, header - 4, left + width + 3, header + height + 3)
        draw.rectangle(frame, outline=colour, width=4)
        state = f"dreaming +{step - context + 1}" if dreaming else "seeing"
        draw.text((left + width, header - 9), state, colour, font, anchor="rs")
        draw.text((canvas_size[0] - margin, header - 9), f"{quality[step]:.1f} dB", FAINT, font, anchor="rs")
        draw_progress(
            draw, (margin, header + height + 14, canvas_size[0] - margin), step, len(truth), context
        )
        result.append(np.asarray(canvas).transpose(2, 0, 1))
    return np.stack(result)


def draw_progress(
    draw: ImageDraw.ImageDraw, line: tuple[int, int, int], step: int, length: int, context: int
) -> None:
    """Draw a progress line (left, y, right in pixels): green up to `context`, then orange, up to `step`."""
    left, y, right = line
    draw.rectangle((left, y, right, y + 5), fill="#e8eaed")
    for start, end, colour in ((0, min(step + 1, context), SEEN), (context, step + 1, DREAMED)):
        if end > start:
            x = [left + round((right - left) * part / length) for part in (start, end)]
            draw.rectangle((x[0], y, x[1], y + 5), fill=colour)


def dream_gif(path: Path, truth: Frames, model: Frames, context: int, fps: float) -> None:
    """Write `dream_frames` (truth | model | error, `(T, C, H, W)` uint8) as a GIF at `fps` pictures/s."""
    write_gif(path, dream_frames(truth, model, context), fps)


def contact_sheet(
    path: Path, frames: Frames, labels: Sequence[str] = (), columns: int = 0, side: int = PANEL_SIDE
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


def to_image(frame: Frames) -> Image.Image:
    """Turn one `(3, H, W)` uint8 frame into an image."""
    return Image.fromarray(np.ascontiguousarray(frame.transpose(1, 2, 0)))
