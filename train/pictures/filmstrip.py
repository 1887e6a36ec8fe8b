"""Dreams beside the truth: filmstrip (PNG), animation (GIF), and how far they are apart step by step."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from agent.image_quality import psnr
from train.pictures.style import DREAMED, FAINT, INK, PAPER, SEEN, save_figure, written_aside
from train.pictures.video import PANEL_SIDE, checked_frames, enlarged, to_image, write_gif
from train.run.errors import DreamdriveError, one_line

_ERROR_COLOURS = "magma"
_STRIP_COLUMNS = 12
_TITLE = 30  # pixels above each of several filmstrips
_Frames = NDArray[np.uint8]


def filmstrip(
    path: Path,
    truth: _Frames,
    model: _Frames,
    context: int,
    times: Sequence[int] | None = None,
) -> None:
    """Write a PNG with three rows, truth / model / error, and a column for each step in `times`.

    truth, model: `(T, C, H, W)` uint8. The first `context` steps of the model are what it reconstructs from
    pictures it saw, the others are its open-loop dream; a bar above the columns says which, and the numbers
    below count steps from the last picture seen. Without `times` they are those of `strip_steps`.
    Raises DreamdriveError for shapes that differ and for steps outside the film.
    """
    truth, model = checked_pair(truth, model)
    times = strip_steps(len(truth), context) if times is None else times
    if not times or min(times) < 0 or max(times) >= len(truth):
        raise DreamdriveError(f"times: expected steps from 0 to {len(truth) - 1}, got {list(times)}")
    chosen = sorted(set(times))
    quality = frame_psnr(truth, model)
    cell = 1.15
    aspect = truth.shape[2] / truth.shape[3]
    width, height = 0.95 + cell * len(chosen) + 0.15, 0.62 + 3 * cell * aspect + 0.62
    figure = Figure(figsize=(width, height), dpi=160)
    grid = figure.add_gridspec(
        3,
        len(chosen),
        left=0.95 / width,
        right=1 - 0.15 / width,
        bottom=0.62 / height,
        top=1 - 0.62 / height,
        wspace=0.06,
        hspace=0.06,
    )
    films = {"truth": truth, "model": model, "error": error_frames(truth, model)}
    for row, (label, film) in enumerate(films.items()):
        for column, step in enumerate(chosen):
            axes = figure.add_subplot(grid[row, column])
            axes.imshow(film[step].transpose(1, 2, 0), interpolation="nearest")
            axes.set(xticks=[], yticks=[])
            axes.spines[:].set_visible(False)
            if column == 0:
                axes.set_ylabel(
                    label, rotation=0, ha="right", va="center", fontsize=12, color=INK, labelpad=8
                )
            if row == 0:
                mark_phase(axes, chosen, column, context)
            if row == 2:
                distance = step - context + 1
                axes.set_xlabel(f"{distance:+d}" if distance else "0", fontsize=11, color=INK, labelpad=3)
                place: dict[str, Any] = {"transform": axes.transAxes, "ha": "center", "va": "center"}
                axes.text(0.5, -0.31 / aspect, f"{quality[step]:.1f} dB", fontsize=9, color=FAINT, **place)
    figure.text(0.83 / width, 0.51 / height, "step", ha="right", va="center", fontsize=11, color=FAINT)
    save_figure(figure, path)


def strip_steps(length: int, context: int) -> list[int]:
    """The columns of a filmstrip of `length` steps: first and last one seen, then some of the dream."""
    seen = [0, context - 1] if context > 1 else [0]
    dreamt = np.linspace(context, length - 1, min(_STRIP_COLUMNS - len(seen), length - context))
    return sorted({*seen, *dreamt.round().astype(int).tolist()})


def mark_phase(axes: Axes, chosen: Sequence[int], column: int, context: int) -> None:
    """Draw the bar above one column of the filmstrip: green where the model sees, orange where it dreams."""
    dreaming = chosen[column] >= context
    colour = DREAMED if dreaming else SEEN
    starts = column == 0 or (chosen[column - 1] >= context) != dreaming
    ends = column == len(chosen) - 1 or (chosen[column + 1] >= context) != dreaming
    # Neighbours of one phase touch (0.06 of a cell lies between columns); a gap shows a change of phase.
    line = ([0.0 if starts else -0.04, 1.0 if ends else 1.04], [1.09, 1.09])
    axes.plot(
        *line, color=colour, linewidth=5, solid_capstyle="butt", transform=axes.transAxes, clip_on=False
    )
    if starts:
        text = "dreams, open loop" if dreaming else "sees"
        axes.text(0, 1.17, text, transform=axes.transAxes, ha="left", va="bottom", fontsize=11, color=colour)


def filmstrip_of(pictures: Path) -> Path | None:
    """The newest filmstrip in a run's folder of pictures, if there is one."""
    found = [path for path in pictures.glob("filmstrip*.png") if path.is_file()]
    return max(found, key=lambda path: path.stat().st_mtime_ns, default=None)


def stack_filmstrips(path: Path, strips: Sequence[tuple[str, Path]]) -> None:
    """Write a PNG with the filmstrips one above the other, each under the name of its run.

    Raises `DreamdriveError` for a file that is no picture, or when the disk refuses.
    """
    images = []
    for _, file in strips:
        try:
            with Image.open(file) as image:
                images.append(image.convert("RGB"))
        except (OSError, ValueError) as error:
            raise DreamdriveError(f"{file}: not a picture that can be read ({one_line(error)})") from error
    width = max(image.width for image in images)
    sheet = Image.new("RGB", (width, sum(image.height + _TITLE for image in images)), PAPER)
    pen, font, top = ImageDraw.Draw(sheet), ImageFont.load_default(18), 0
    for (name, _), picture in zip(strips, images, strict=True):
        pen.text((10, top + _TITLE - 6), name, INK, font, anchor="ls")
        sheet.paste(picture, (0, top + _TITLE))
        top += picture.height + _TITLE
    with written_aside(path) as aside:
        sheet.save(aside)


def dream_gif(path: Path, truth: _Frames, model: _Frames, context: int, fps: float) -> None:
    """Write `dream_frames` (truth | model | error, `(T, C, H, W)` uint8) as a GIF at `fps` pictures/s."""
    write_gif(path, dream_frames(truth, model, context), fps)


def dream_frames(truth: _Frames, model: _Frames, context: int) -> _Frames:
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


def checked_pair(truth: _Frames, model: _Frames) -> tuple[_Frames, _Frames]:
    """Return truth and model as RGB frames; raises DreamdriveError when their shapes differ."""
    truth, model = checked_frames(truth, "truth"), checked_frames(model, "model")
    if truth.shape != model.shape:
        raise DreamdriveError(f"model: expected the shape of truth {truth.shape}, got {model.shape}")
    return truth, model


def error_frames(truth: _Frames, model: _Frames) -> _Frames:
    """Colour the absolute error of `(T, C, H, W)`, averaged over channels: `(T, 3, H, W)` uint8.

    Black is no error. The square root keeps small errors visible beside large ones, on a scale that is the
    same for every picture, so two films can be compared.
    """
    truth, model = checked_pair(truth, model)
    error = np.abs(truth.astype(np.float32) - model.astype(np.float32)).mean(axis=1) / 255  # (T, H, W)
    coloured = colormaps[_ERROR_COLOURS](np.sqrt(error), bytes=True)  # (T, H, W, 4)
    return np.ascontiguousarray(coloured[..., :3].transpose(0, 3, 1, 2))


def frame_psnr(truth: _Frames, model: _Frames) -> NDArray[np.float32]:
    """Peak signal-to-noise ratio of each step in dB, `(T, C, H, W)` twice -> `(T,)`; 100 where equal."""
    one, other = (torch.from_numpy(film.astype(np.float32)) / 255 for film in checked_pair(truth, model))
    return psnr(one, other).numpy()
