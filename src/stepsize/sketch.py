"""Curves as text and SVG, from samples; the standard library only.

A notebook shows a schedule as SVG and a terminal as text. A schedule that still needs a horizon is
drawn over a nominal one: its shape, without numbers on the time axis.
"""

import html
import math
from collections.abc import Sequence
from typing import Any

from stepsize.schedules.fields import Bounds
from stepsize.schedules.schedule import Schedule, fields_of
from stepsize.schedules.walk import nodes, settled, times_of, units_of
from stepsize.units import Time, number_text

_COLOURS = ("#2f7ed8", "#d9822b", "#3a9d5d", "#b0418e", "#7a6ff0", "#8a7f2d", "#d0453c", "#3f9aa5")
_WIDTH, _HEIGHT, _LEFT, _TOP, _BOTTOM = 640, 240, 52, 14, 30
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
    return max([*finite, *scales], default=100.0)


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


def _end(curves: Named, total: float | None) -> float:
    return extent(curves) if total is None else float(Bounds(gt=0).admit("total", total))


def _top(curves: Named, drawn: list[list[float]]) -> float:
    """Give the highest value: a curve's stated one, where the samples come near it."""
    found = max(max(values) for values in drawn)
    stated = max(curve.range[1] for _, curve in curves)
    return (stated if found <= stated <= 2.0 * found else found) or 1.0


def text(curves: Named, total: float | None = None, *, width: int = 60, height: int = 10) -> str:
    """Draw curves as text, two samples to a column; the first curve with dots, others with letters.

    >>> print(text([("", Linear(100))], width=12, height=3))
            1 ┤⠉⠒⠤⣀
          0.5 ┤    ⠉⠒⠤⣀
            0 ┤        ⠉⠒⠤⣀
              └────────────
               0        100
    """
    width, height = (int(Bounds(ge=2, whole=True).admit("sketch", x)) for x in (width, height))
    settled_curves, nominal = settle_nominally(curves)
    end = _end(settled_curves, total)
    drawn = [samples(curve, end, 2 * width) for _, curve in settled_curves]
    top = _top(settled_curves, drawn)
    rows = [[0] * width for _ in range(height)]
    for values in drawn:
        _dots(rows, values, top)
    lines = []
    for i, row in enumerate(rows):
        label = _label(top, i, height)
        lines.append(f"{label:>9} ┤" + "".join(chr(0x2800 + cell) if cell else " " for cell in row))
    lines = [line.rstrip() for line in lines]
    right = "end (needs a horizon)" if nominal else number_text(_short(end))
    axis = " " * 10 + "└" + "─" * width
    foot = " " * 11 + "0" + right.rjust(width - 1)
    return "\n".join([*lines, axis, foot])


def _label(top: float, row: int, height: int) -> str:
    if height > 1 and row in (0, height - 1, (height - 1) // 2):
        return number_text(_short(top * (1.0 - row / (height - 1))))
    return ""


def _short(value: float) -> float:
    return float(f"{value:.4g}")


_BITS = ((0x01, 0x08), (0x02, 0x10), (0x04, 0x20), (0x40, 0x80))  # braille: row, then column


def _dots(rows: list[list[int]], values: list[float], top: float) -> None:
    """Set the braille dots of a curve, joined vertically so that a jump is a line."""
    high = 4 * len(rows) - 1
    levels = [min(max(round(high * (1.0 - value / top)), 0), high) for value in values]
    for x, level in enumerate(levels):
        before = levels[max(x - 1, 0)]
        step = 1 if level > before else -1
        joined = range(before + step, level + step, step) if abs(level - before) > 1 else (level,)
        for y in joined:
            rows[y // 4][x // 2] |= _BITS[y % 4][x % 2]


def svg(curves: Named, total: float | None = None, *, title: str = "") -> str:
    """Draw curves as a stand-alone SVG, readable on light and on dark pages."""
    settled_curves, nominal = settle_nominally(curves)
    end = _end(settled_curves, total)
    width, height = _WIDTH - _LEFT - 12, _HEIGHT - _TOP - _BOTTOM
    drawn = [samples(curve, end, width + 1) for _, curve in settled_curves]
    top = _top(settled_curves, drawn)
    body = [_axes(top, "" if nominal else number_text(_short(end)), width, height)]
    for i, values in enumerate(drawn):
        points = _path(values, top, height)
        body.append(
            f'<path d="{points}" fill="none" stroke="{_COLOURS[i % len(_COLOURS)]}" '
            'stroke-width="2" stroke-linejoin="round"/>'
        )
    names = [name for name, _ in settled_curves if name]
    legend = "".join(
        f'<text x="{_WIDTH - 14}" y="{_TOP + 14 + 15 * i}" text-anchor="end" '
        f'fill="{_COLOURS[i % len(_COLOURS)]}">{html.escape(name)}</text>'
        for i, name in enumerate(names)
    )
    spoken = html.escape(title or "; ".join(repr(curve) for _, curve in curves))
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {_HEIGHT}" '
        f'width="{_WIDTH}" height="{_HEIGHT}" role="img" font-family="system-ui, sans-serif" '
        f'font-size="11"><title>{spoken}</title>{"".join(body)}{legend}</svg>'
    )


def _path(values: list[float], top: float, height: int) -> str:
    """Give the path through the samples, without the points of straight horizontal stretches."""
    ys = [f"{_TOP + height * (1.0 - value / top):.1f}" for value in values]
    kept = [i for i, y in enumerate(ys) if i in (0, len(ys) - 1) or not ys[i - 1] == y == ys[i + 1]]
    return "M" + "L".join(f"{_LEFT + i} {ys[i]}" for i in kept)


def _axes(top: float, end: str, width: int, height: int) -> str:
    grey = "#808080"
    lines = [
        f'<text x="{_LEFT}" y="{_HEIGHT - 10}" fill="{grey}">0</text>',
        (
            f'<text x="{_LEFT + width}" y="{_HEIGHT - 10}" fill="{grey}" text-anchor="end">'
            f"{end}</text>"
        ),
        f'<text x="{_LEFT + width // 2}" y="{_HEIGHT - 10}" fill="{grey}" text-anchor="middle">'
        "steps</text>"
        if end
        else "",
    ]
    for i in range(5):
        y, value = _TOP + height * i / 4, number_text(_short(top * (1 - i / 4)))
        lines.append(
            f'<line x1="{_LEFT}" x2="{_LEFT + width}" y1="{y}" y2="{y}" stroke="{grey}" '
            'stroke-opacity=".25"/>'
            f'<text x="{_LEFT - 6}" y="{y + 4}" fill="{grey}" text-anchor="end">{value}</text>'
        )
    return "".join(lines)
