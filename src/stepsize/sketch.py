"""Curves without a horizon as text and SVG; the standard library only.

A notebook shows a schedule as SVG and a terminal as text. A schedule that still needs a horizon is
drawn over a nominal one: its shape, without numbers on the time axis. `stepsize.preview` draws over
a real one.
"""

import math
from collections.abc import Sequence
from typing import Any

from stepsize.drawing import svg as svg_drawing
from stepsize.drawing import text as text_drawing
from stepsize.drawing.series import Axis, Panel, Series, survey, thinned, value_axis
from stepsize.schedules.fields import Bounds
from stepsize.schedules.schedule import Schedule, fields_of
from stepsize.schedules.walk import nodes, settled, times_of, units_of
from stepsize.units import Time

_LENGTHS = ("over", "every", "timescale", "at", "points")
Named = Sequence[tuple[str, Schedule]]


class _Nominal:
    """Every unit counts one, % and rest are of a total four times what is written in lengths."""

    def __init__(self, trees: Sequence[Schedule]) -> None:
        lengths = [
            length.amount if isinstance(length, Time) else length
            for tree in trees
            for node in nodes(tree)
            for name, value in fields_of(node).items()
            for length in (*times_of(value), *(_numbers(value) if name in _LENGTHS else ()))
            if not isinstance(length, Time) or length.unit not in ("%", "rest")
        ]
        self.total = 4.0 * max(lengths, default=250.0)

    def number(self, time: float | Time, field: str, at: float) -> float:
        del field, at
        if not isinstance(time, Time):
            return time
        return self.total * time.amount / 100.0 if time.unit == "%" else time.amount

    def rounded(self, position: float) -> float:
        return position


def settle_nominally(curves: Named) -> tuple[list[tuple[str, Schedule]], bool]:
    """Give the curves in plain numbers, and whether time had to be made up for that."""
    if not any(units_of(curve) for _, curve in curves):
        return list(curves), False
    clock = _Nominal([curve for _, curve in curves])
    return [(name, settled(curve, clock, clock.total)) for name, curve in curves], True


def extent(curves: Named) -> float:
    """Give a time over which the curves show what they do: the longest, or their scale."""
    ends = [curve.duration for _, curve in curves]
    finite = [end for end in ends if 0 < end < math.inf]
    scales = [
        _scale(curve) for (_, curve), end in zip(curves, ends, strict=True) if end == math.inf
    ]
    return max([*finite, *scales], default=0.0) or 100.0


def _scale(tree: Schedule) -> float:
    """A few times the longest length in an endless tree, or where it has fallen to a tenth."""
    lengths = [
        x
        for node in nodes(tree)
        for name, value in fields_of(node).items()
        if name in _LENGTHS
        for x in _numbers(value)
    ]
    longest = 4.0 * max(lengths, default=25.0)
    tenth = 0.1 * max(tree(0.0), tree(longest / 4.0))
    while tree(longest) > tenth and longest < 16.0 * max(lengths, default=25.0):
        longest *= 2.0
    return longest


def _numbers(value: Any) -> list[float]:
    if isinstance(value, float):
        return [value]
    if isinstance(value, tuple):
        moments = [row[0] if isinstance(row, tuple) else row for row in value]
        return [moment for moment in moments if isinstance(moment, float)]
    return []


def samples(curve: Schedule, total: float, count: int) -> list[float]:
    """Give the values at `count` evenly spaced times from 0 to `total`."""
    value = curve.compile(lowest=0.0)
    return [value(total * i / (count - 1)) for i in range(count)]


def panel_of(curves: Named, total: float | None = None) -> Panel:
    """Give the panel that shows curves over `total`, by default over what they need."""
    known, nominal = settle_nominally(curves)
    end = extent(known) if total is None else float(Bounds(gt=0).admit("total", total))
    axis = Axis("" if nominal else "steps", 0.0, end)
    drawn = [
        Series(name, thinned(survey(curve.compile(lowest=0.0), 0.0, end, whole=False), axis, 300))
        for name, curve in known
    ]
    values = [value for series in drawn for _, value in series.points]
    stated = max(curve.range[1] for _, curve in known)
    return Panel("", axis, value_axis("", values, stated, log=False), tuple(drawn))


def text(curves: Named, total: float | None = None, *, width: int = 60, height: int = 10) -> str:
    """Draw curves as text: one as dots, several as letters.

    >>> print(text([("", Linear(100))], width=20, height=3))
            1 ┤⠉⠒⠒⠤⠤⣀⡀
          0.5 ┤      ⠈⠉⠑⠒⠤⠤⣀⣀
            0 ┤              ⠉⠑⠒⠢⠤⢄
              └────────────────────
               0    50    100 steps
    """
    width, height = (int(Bounds(ge=2, whole=True).admit("sketch", x)) for x in (width, height))
    return text_drawing.draw(panel_of(curves, total), width=width, height=height)


def svg(curves: Named, total: float | None = None, *, title: str = "") -> str:
    """Draw curves as a stand-alone SVG, readable on light and on dark pages."""
    spoken_title = title or "; ".join(repr(curve) for _, curve in curves)
    return svg_drawing.draw((panel_of(curves, total),), spoken_title=spoken_title)
