"""Panels as text: braille dots for one curve or for coloured ones, letters for several."""

import itertools
import string
from collections.abc import Iterator
from dataclasses import replace

from stepsize.drawing.series import Axis, Panel, Point, Series, listed, spoken

_MARGIN = 11
_NAMED = 12  # curves that are named below a picture
_DOTS = ((0x01, 0x08), (0x02, 0x10), (0x04, 0x20), (0x40, 0x80))  # braille: row, then column
_PAINTS = (34, 33, 32, 35, 36, 31)  # the terminal's own blue, yellow, green, ...: light and dark
Grid = list[list[tuple[str, int]]]  # a character, and which curve it belongs to


def draw(panel: Panel, *, width: int = 60, height: int = 10, paint: bool = False) -> str:
    """Draw a panel as text, with colours only where `paint` says that a terminal shows them."""
    dotted = paint or len(panel.series) == 1
    cells = _dotted(panel, width, height) if dotted else _lettered(panel, width, height)
    lines = [panel.title] if panel.title else []
    labels = _labels(panel.y, height)
    for row, cell in enumerate(cells):
        runs = itertools.groupby(cell, key=lambda each: (each[1], each[0] == " "))
        line = "".join(
            _painted("".join(c for c, _ in run), key[0], paint=paint) for key, run in runs
        )
        lines.append(f"{labels.get(row, ''):>{_MARGIN - 2}} ┤{line}".rstrip())
    lines.append(" " * (_MARGIN - 1) + "└" + "─" * width)
    lines.append(" " * _MARGIN + _foot(panel.x, width))
    lines += _legend(panel, dotted=dotted, paint=paint)
    return "\n".join(lines)


def _painted(text: str, curve: int, *, paint: bool) -> str:
    return f"\x1b[{_PAINTS[curve % len(_PAINTS)]}m{text}\x1b[0m" if paint and text.strip() else text


def _labels(axis: Axis, height: int) -> dict[int, str]:
    """The rows that carry a number: the top, and round values where their rows are free."""
    labels = {0: spoken(axis.high)}
    for tick in axis.ticks(max(height // 2, 2)):
        row = round((height - 1) * (1.0 - axis.place(tick)))
        crowded = {row, row - 1} if height > 5 else {row}  # noqa: PLR2004 (few rows: every one)
        if not crowded & labels.keys() or (row == height - 1 and row not in labels):
            labels[row] = spoken(tick)
    return labels


def _foot(axis: Axis, width: int) -> str:
    if not axis.name:
        return "0" + "end (needs a horizon)".rjust(width - 1)
    left, right = spoken(axis.low), f"{spoken(axis.high)} {axis.name}"
    middle = spoken(axis.at(0.5)).center(width - len(left) - len(right))
    between = middle if len(middle) + len(left) + len(right) == width else "  "
    return left + between + right


def _legend(panel: Panel, *, dotted: bool, paint: bool) -> Iterator[str]:
    if len(panel.series) > _NAMED:
        more = len(panel.series) - _NAMED
        yield from _legend(replace(panel, series=panel.series[:_NAMED]), dotted=dotted, paint=paint)
        yield f"{' ' * _MARGIN}and {more} more"
        return
    for i, series in enumerate(panel.series):
        sign = "━━" if dotted else _letter(i)
        if series.name:
            yield f"{' ' * _MARGIN}{_painted(sign, i, paint=paint)} {series.name}"
        if len(series.parts) > 1 and len(panel.series) == 1:
            parts = [f"{name} from {spoken(begin)}" for begin, name in series.parts]
            yield " " * _MARGIN + listed(parts)


def _letter(i: int) -> str:
    return string.ascii_letters[i % len(string.ascii_letters)]


def _lettered(panel: Panel, width: int, height: int) -> Grid:
    grid = [[(" ", 0)] * width for _ in range(height)]
    for i, series in enumerate(panel.series):
        for x, y in _raster(series, panel, width, height):
            grid[y][x] = (_letter(i), i)
    return grid


def _dotted(panel: Panel, width: int, height: int) -> Grid:
    bits = [[0] * width for _ in range(height)]
    owner = [[0] * width for _ in range(height)]
    for i, series in enumerate(panel.series):
        for x, y in _raster(series, panel, 2 * width, 4 * height):
            bits[y // 4][x // 2] |= _DOTS[y % 4][x % 2]
            owner[y // 4][x // 2] = i
    return [
        [(chr(0x2800 + bit) if bit else " ", i) for bit, i in zip(*rows, strict=True)]
        for rows in zip(bits, owner, strict=True)
    ]


def _raster(series: Series, panel: Panel, columns: int, rows: int) -> Iterator[tuple[int, int]]:
    """Cells of a curve, joined vertically so that a jump is a line."""
    before: tuple[int, int] | None = None
    for x, levels in _columns(series, panel, columns, rows):
        thin = max(levels) - min(levels) < 2  # noqa: PLR2004 (one cell up or down is the slope)
        levels = levels[:1] if thin else levels  # noqa: PLW2901
        if before is not None:
            yield from _joined(before, (x, levels[0]))
        yield from ((x, y) for y in range(min(levels), max(levels) + 1))
        before = (x, levels[-1])


def _columns(
    series: Series, panel: Panel, columns: int, rows: int
) -> Iterator[tuple[int, list[int]]]:
    """The levels in each column, in order of time."""
    cells = [_cell(point, panel, columns, rows) for point in series.points]
    for x, group in itertools.groupby(cells, key=lambda cell: cell[0]):
        yield x, [y for _, y in group]


def _joined(start: tuple[int, int], end: tuple[int, int]) -> Iterator[tuple[int, int]]:
    """Cells between two cells: a straight line over a gap, a vertical one beside a jump."""
    (x, y), (last_x, last_y) = start, end
    for column in range(x + 1, last_x + 1):
        level = round(start[1] + (last_y - start[1]) * (column - x) / (last_x - x))
        step = 1 if level > y else -1
        yield from ((column, row) for row in range(y + step, level, step))
        yield column, level
        y = level


def _cell(point: Point, panel: Panel, columns: int, rows: int) -> tuple[int, int]:
    x = int(panel.x.place(point[0]) * columns)
    y = round((rows - 1) * (1.0 - panel.y.place(point[1])))
    return min(max(x, 0), columns - 1), min(max(y, 0), rows - 1)
