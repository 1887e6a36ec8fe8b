"""How far a job is: a live panel on a terminal, a plain line now and then where there is none."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from types import TracebackType
from typing import Self

from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

Value = int | float | str

_WINDOW = 60.0  # seconds over which rates are taken: long enough to be steady, short enough to be true now
_REDRAW = 0.25  # seconds between drawings of the panel


class Progress:
    """Shows `done` of `total` units, rates, time gone and left, and whatever fields the job gives.

    Args:
        title: what the job is.
        total: how many units there are to do; None when that is not known.
        unit: what is counted, in the plural, such as "frames".
        rates: names of fields that count something, too, and are shown with their rate, such as "updates".
        done: units done before, by the run that is resumed.
        interval: seconds between plain lines.
        console: where to write; standard output when None.
        clock: seconds, for tests.
    """

    def __init__(
        self,
        title: str,
        total: int | None,
        unit: str = "frames",
        rates: Sequence[str] = (),
        done: int = 0,
        interval: float = 30.0,
        console: Console | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.title = title
        self.total = total
        self.unit = unit
        self._rates = tuple(rates)
        self._fields: dict[str, Value] = {}
        self._interval = interval
        self._clock = clock
        self._console = console or Console(highlight=False, soft_wrap=True)
        self._begin = self._shown = clock()
        self._history: deque[tuple[float, dict[str, float]]] = deque([(self._begin, {unit: float(done)})])
        self._live: Live | None = None
        if self._console.is_terminal:
            self._live = Live(console=self._console, auto_refresh=False, transient=False)

    def __enter__(self) -> Self:
        if self._live is not None:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._show()
        if self._live is not None:
            self._live.stop()

    def update(self, done: int, fields: Mapping[str, Value] | None = None) -> None:
        """Say that `done` units are done in all, and what the `fields` are now; fields not named stay."""
        self._fields |= fields or {}
        now = self._clock()
        counts = {name: float(self._fields[name]) for name in self._rates if name in self._fields}
        self._history.append((now, {self.unit: float(done), **counts}))
        while len(self._history) > 2 and self._history[1][0] <= now - _WINDOW:
            self._history.popleft()
        if now - self._shown >= (self._interval if self._live is None else _REDRAW):
            self._show()

    def say(self, line: str) -> None:
        """Write a line of its own, above the panel."""
        self._console.print(line, markup=False, highlight=False)

    def line(self) -> str:
        """All that is known, as one plain line."""
        return f"{self.title}: " + " | ".join(f"{name} {text}".strip() for name, text in self._parts())

    @property
    def done(self) -> int:
        """Units done."""
        return int(self._history[-1][1][self.unit])

    def rate(self, name: str) -> float | None:
        """How many of `name` a second, over the last minute; None when that cannot be said yet."""
        known = [(at, counts[name]) for at, counts in self._history if name in counts]
        if len(known) < 2 or known[-1][0] <= known[0][0]:
            return None
        return (known[-1][1] - known[0][1]) / (known[-1][0] - known[0][0])

    def _parts(self) -> list[tuple[str, str]]:
        of = f"/{self.total:,} ({self.done / max(self.total, 1):.0%})" if self.total is not None else ""
        speed = self.rate(self.unit)
        parts = [(self.unit, f"{self.done:,}{of}{_per_second(speed)}")]
        for name, value in self._fields.items():
            per_second = _per_second(self.rate(name)) if name in self._rates else ""
            parts.append((name, f"{_text(value)}{per_second}"))
        parts.append(("elapsed", duration(self._clock() - self._begin)))
        if self.total is not None and speed:
            parts.append(("left", duration(max(0, self.total - self.done) / speed)))
        return parts

    def _show(self) -> None:
        self._shown = self._clock()
        if self._live is None:
            self._console.print(self.line(), markup=False, highlight=False)
            return
        table = Table.grid(padding=(0, 2))
        for name, text in self._parts():
            table.add_row(Text(name, style="dim"), Text(text))
        bar = (
            ProgressBar(total=self.total, completed=self.done, width=60) if self.total is not None else Text()
        )
        self._live.update(Group(Text(self.title, style="bold"), bar, table), refresh=True)


def duration(seconds: float) -> str:
    """Seconds as h:mm:ss."""
    whole = int(seconds)
    return f"{whole // 3600}:{whole // 60 % 60:02d}:{whole % 60:02d}"


def _per_second(rate: float | None) -> str:
    return "" if rate is None else f", {rate:,.0f}/s" if rate >= 10 else f", {rate:.2f}/s"


def _text(value: Value) -> str:
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"
    return f"{value:,}" if isinstance(value, int) else value
