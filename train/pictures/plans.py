"""Pictures of planning: the observation, imagined futures with their returns, and the chosen action."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from train.pictures.style import DREAMED, FAINT, INK, PAPER, SEEN
from train.pictures.video import checked_frames, contact_sheet, enlarged, to_image, write_mp4

POLICY = "#3b78b8"
_ROWS = 5
_CELL, _GAP, _MARGIN, _HEADER = 96, 4, 14, 30
_BARS, _CHART, _SEEN = 150, 120, 192
_SHEET = 6  # decisions on the contact sheet


@dataclass
class PlannedDecision:
    """One decision of one car: K candidates, of which R are shown.

    Attributes:
        seen: (C, H, W) uint8, the present.
        futures: (R, S, C, H, W) uint8, imagined pictures of the shown candidates.
        steps: (S,), how far ahead each picture is [decisions].
        shown: (R,), which candidates are shown, the best first.
        returns: (K,), imagined.
        by_policy: how many candidates, the first ones, followed the policy.
        actions: (K, H, A), of the candidates.
        action: (A,), what was chosen.
    """

    seen: NDArray[np.uint8]
    futures: NDArray[np.uint8]
    steps: NDArray[np.int64]
    shown: NDArray[np.int64]
    returns: NDArray[np.float32]
    by_policy: int
    actions: NDArray[np.float32]
    action: NDArray[np.float32]


def rank(returns: NDArray[np.float32], rows: int = _ROWS) -> NDArray[np.int64]:
    """Candidates to show by their returns (K,), best first, evenly by rank to the worst: (up to `rows`,)."""
    order = np.argsort(-returns, kind="stable")
    places = np.unique(np.linspace(0, len(order) - 1, rows).round().astype(int))
    return np.asarray(order[places], np.int64)


def decision_frame(decision: PlannedDecision, low: float, high: float) -> NDArray[np.uint8]:
    """One decision as a picture (3, H', W') uint8; returns are drawn on a scale from `low` to `high`."""
    rows, columns = decision.futures.shape[:2]
    left = 2 * _MARGIN + _SEEN
    width = left + columns * (_CELL + _GAP) + _BARS + _MARGIN
    height = _HEADER + max(rows * (_CELL + _GAP), _SEEN + _CHART + 3 * _MARGIN) + _MARGIN
    canvas = Image.new("RGB", (width, height), PAPER)
    draw, font = ImageDraw.Draw(canvas), ImageFont.load_default(14)
    draw.text((_MARGIN, _HEADER - 8), "seen", SEEN, font, anchor="ls")
    canvas.paste(_enlarged_to(decision.seen, _SEEN), (_MARGIN, _HEADER))
    for column, step in enumerate(decision.steps.tolist()):
        x = left + column * (_CELL + _GAP)
        draw.text((x, _HEADER - 8), f"+{step}" if step else "now", DREAMED, font, anchor="ls")
    bars = left + columns * (_CELL + _GAP) + 8
    draw.text((bars, _HEADER - 8), "imagined return", INK, font, anchor="ls")
    for row in range(rows):
        y = _HEADER + row * (_CELL + _GAP)
        for column in range(columns):
            x = left + column * (_CELL + _GAP)
            canvas.paste(_enlarged_to(decision.futures[row, column], _CELL), (x, y))
        candidate = int(decision.shown[row])
        value = float(decision.returns[candidate])
        colour = POLICY if candidate < decision.by_policy else DREAMED
        length = round((_BARS - 20) * (value - low) / max(high - low, 1e-6))
        middle = y + _CELL // 2
        draw.rectangle((bars, middle - 6, bars + max(length, 1), middle + 6), fill=colour)
        draw.text((bars, middle - 12), f"{value:.1f}", INK, font, anchor="ls")
        origin = "policy" if candidate < decision.by_policy else "drawn"
        draw.text((bars, middle + 12), "best" if row == 0 else origin, FAINT, font, anchor="lt")
    _draw_actions(draw, decision, (_MARGIN, _HEADER + _SEEN + 2 * _MARGIN))
    return np.asarray(canvas).transpose(2, 0, 1)


def _enlarged_to(picture: NDArray[np.uint8], side: int) -> Image.Image:
    """A picture (C, H, W) as an image, its longer side `side` pixels."""
    whole = to_image(enlarged(checked_frames(picture[None], "picture"), side)[0])
    factor = side / max(whole.size)
    return whole.resize((round(whole.width * factor), round(whole.height * factor)), Image.Resampling.NEAREST)


def _draw_actions(draw: ImageDraw.ImageDraw, decision: PlannedDecision, at: tuple[int, int]) -> None:
    """The first number of the candidates' actions over the horizon (steering, of a car), and the choice."""
    x, y = at
    font = ImageFont.load_default(12)
    draw.text((x, y - 4), "first number of the actions", INK, font, anchor="ls")
    draw.rectangle((x, y, x + _SEEN, y + _CHART), outline="#c9ced4")
    horizon = decision.actions.shape[1]

    def point(step: int, value: float) -> tuple[float, float]:
        return x + _SEEN * step / max(horizon - 1, 1), y + _CHART * (1 - value) / 2

    # The best last: nothing lies above it.
    for candidate in decision.shown[::-1].tolist():
        best = candidate == decision.shown[0]
        colour = INK if best else POLICY if candidate < decision.by_policy else "#f2c49b"
        values = decision.actions[candidate, :, 0].tolist()
        points = [point(step, value) for step, value in enumerate(values)]
        if len(points) == 1:
            points.append((x + _SEEN, points[0][1]))
        draw.line(points, fill=colour, width=3 if best else 1)
    chosen = "  ".join(f"{value:+.2f}" for value in decision.action.tolist())
    draw.text((x, y + _CHART + 4), f"chosen: {chosen}", INK, font, anchor="lt")


def draw_decisions(folder: Path, decisions: list[PlannedDecision], title: str, fps: float) -> list[Path]:
    """Write `plan.mp4`, a frame for each decision, and `plan.png`, some of them; returns their paths.

    Raises `DreamdriveError` when the disk refuses.
    """
    low = min(float(decision.returns.min()) for decision in decisions)
    high = max(float(decision.returns.max()) for decision in decisions)
    frames = np.stack([decision_frame(decision, low, high) for decision in decisions])
    film, sheet = folder / "plan.mp4", folder / "plan.png"
    write_mp4(film, frames, fps)
    chosen = np.unique(np.linspace(0, len(frames) - 1, _SHEET).round().astype(int))
    labels = [f"{title}: decision {number + 1}" for number in chosen.tolist()]
    contact_sheet(sheet, frames[chosen], labels, columns=2, side=max(frames.shape[-2:]))
    return [film, sheet]
