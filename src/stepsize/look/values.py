"""Scheduled values as a table."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from stepsize.drawing.series import finite, spoken
from stepsize.errors import FieldError
from stepsize.look.entries import Bases
from stepsize.look.preview import AXES, axis_unit
from stepsize.look.runs import run_of
from stepsize.look.tracks import Run
from stepsize.schedules.fields import Bounds, LengthRule
from stepsize.time import Horizon
from stepsize.units import SECONDS, Time

_MOST_ROWS = 1_000_000


@dataclass(frozen=True, slots=True)
class Table:
    """Values by time: `columns` names the time and every scheduled value, `rows` hold them."""

    columns: tuple[str, ...]
    rows: tuple[tuple[float, ...], ...]

    def __str__(self) -> str:
        """Align the columns; numbers with four digits."""
        texts = [self.columns, *(tuple(map(spoken, row)) for row in self.rows)]
        widths = [max(map(len, column)) for column in zip(*texts, strict=True)]
        return "\n".join(
            "  ".join(text.rjust(width) for text, width in zip(row, widths, strict=True))
            for row in texts
        )

    def csv(self) -> str:
        """Write the rows as comma-separated values, with every digit."""
        import csv  # noqa: PLC0415 (beside its only use)
        import io  # noqa: PLC0415

        text = io.StringIO()
        csv.writer(text, lineterminator="\n").writerows([self.columns, *self.rows])
        return text.getvalue().removesuffix("\n")


def table(
    what: Any,
    horizon: Horizon | None = None,
    *,
    every: float | str | Time | None = None,
    rows: int = 21,
    unit: str | None = None,
    base: Bases = None,
    seconds_per_step: float | None = None,
) -> Table:
    """Give scheduled values at regular times, from the first step to the last.

    Args, beside those of `preview`:
        every: the time between rows, such as 100 or "1ep"; by default `rows` of them, evenly.
        rows: how many rows, where `every` is not given.

    >>> from stepsize import Horizon, Linear, Step, table
    >>> print(table({"linear": Linear(), "step": Step("3ep")}, Horizon("9ep", batches_per_epoch=10),
    ...             every="3ep", unit="epochs"))
    epochs   linear  step
         0        1     1
         3   0.6667   0.1
         6   0.3333  0.01
       8.9  0.01111  0.01
    """
    run = run_of(what, horizon, base=base, seconds_per_step=seconds_per_step)
    chosen = axis_unit(run, unit)
    times = _times(run, every, int(Bounds(ge=2, whole=True).admit("table: rows", rows)))
    names = [track.title or ("value" if track.is_value else "factor") for track in run.tracks]
    curves = [finite([(t, track.value(t)) for t in times]) for track in run.tracks]
    by_time = zip(*([value for _, value in curve] for curve in curves), strict=True)
    found = tuple((run.to(chosen, t), *row) for t, row in zip(times, by_time, strict=True))
    return Table((AXES[chosen], *names), found)


def _times(run: Run, every: float | str | Time | None, rows: int) -> list[float]:
    if every is None:
        rows = min(rows, int(run.total)) if run.whole else rows
        times = [run.last * i / max(rows - 1, 1) for i in range(rows)]
    else:
        times = [*_multiples(run, every), run.last]
    rounded = {float(math.floor(t + 0.5)) if run.whole else t for t in times}
    return sorted(time for time in rounded if time <= run.last)


def _multiples(run: Run, every: float | str | Time) -> Iterator[float]:
    """The times at every multiple of a length, whatever is a step's length in that unit."""
    length = LengthRule().admit("table: every", every)
    for i in range(_MOST_ROWS):
        time = _time_at(run, length, i)
        if time >= run.total - 1e-9:
            return
        yield time
    cure = "give a longer time between rows, or use schedule.curve(steps)"
    raise FieldError.of("table: every", f"at most {_MOST_ROWS:,} rows", every, cure)


def _time_at(run: Run, length: float | Time, i: int) -> float:
    if not isinstance(length, Time):
        return i * length
    if length.unit == "%":
        return run.total * i * length.amount / 100.0
    if length.unit in SECONDS:
        return run.time_at(i * length.amount * SECONDS[length.unit], "s")
    return max(run.time_at(i * length.amount, length.unit), 0.0)
