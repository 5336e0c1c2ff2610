"""Panels as stand-alone SVG: for notebooks and pages, readable on light and on dark ones."""

import html
import textwrap

from stepsize.drawing.series import Axis, Panel, Point, spoken

COLOURS = ("#2f7ed8", "#d9822b", "#3a9d5d", "#b0418e", "#7a6ff0", "#8a7f2d", "#d0453c", "#3f9aa5")
_WIDTH, _HEIGHT, _LEFT, _TOP, _BOTTOM = 640, 240, 56, 14, 30
_LINE, _NAMED = 15, 12  # a line of names, and how many there are
_GREY = "#808080"  # as far from white as from black


def draw(panels: tuple[Panel, ...], *, spoken_title: str = "") -> str:
    """Draw panels one below the other."""
    body, high = "", 0
    for panel in panels:
        names = _names(panel)
        body += _panel(panel, names, high)
        high += _HEIGHT + _LINE * len(names)
    title = spoken_title or ", ".join(panel.title for panel in panels if panel.title) or "schedule"
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {high}" '
        f'width="{_WIDTH}" height="{high}" role="img" font-family="system-ui, sans-serif" '
        f'font-size="11"><title>{html.escape(title)}</title>{body}</svg>'
    )


def _names(panel: Panel) -> list[tuple[str, str]]:
    """The lines above a panel, and their colours: its title, and what the curves are called."""
    lines = [(panel.title, _GREY)] if panel.title else []
    named = [(each.name, _colour(i)) for i, each in enumerate(panel.series) if each.name]
    lines += [(textwrap.shorten(name, 90, placeholder=" ..."), c) for name, c in named[:_NAMED]]
    if len(named) > _NAMED:
        lines.append((f"and {len(named) - _NAMED} more", _GREY))
    return lines


def _colour(i: int) -> str:
    return COLOURS[i % len(COLOURS)]


def _panel(panel: Panel, names: list[tuple[str, str]], down: int) -> str:
    wide, high = _WIDTH - _LEFT - 14, _HEIGHT - _TOP - _BOTTOM
    curves = "".join(
        f'<path d="{_path(series.points, panel, wide, high)}" fill="none" '
        f'stroke="{_colour(i)}" stroke-width="2" stroke-linejoin="round"/>'
        for i, series in enumerate(panel.series)
    )
    legend = "".join(
        _text(_LEFT, _TOP - _LINE * (len(names) - i) + 4, name, "start", colour)
        for i, (name, colour) in enumerate(names)
    )
    frame = _grid(panel.y, wide, high) + _moments(panel.x, wide)
    down += _LINE * len(names)
    return f'<g transform="translate(0 {down})">{frame}{curves}{legend}</g>'


def _path(points: tuple[Point, ...], panel: Panel, wide: int, high: int) -> str:
    """Give the path through the points, without those inside straight horizontal stretches."""
    xy = [
        (
            f"{_LEFT + wide * panel.x.place(t):.1f}",
            f"{_TOP + high * (1.0 - min(max(panel.y.place(value), 0.0), 1.0)):.1f}",
        )
        for t, value in points
    ]
    kept = [
        p
        for i, p in enumerate(xy)
        if i in (0, len(xy) - 1) or not xy[i - 1][1] == p[1] == xy[i + 1][1]
    ]
    return "M" + "L".join(f"{x} {y}" for x, y in kept)


def _text(x: float, y: float, text: str, anchor: str, colour: str = _GREY) -> str:
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" fill="{colour}" text-anchor="{anchor}">'
        f"{html.escape(text)}</text>"
    )


def _grid(axis: Axis, wide: int, high: int) -> str:
    found = []
    for tick in axis.ticks(5):
        y = _TOP + high * (1.0 - axis.place(tick))
        found.append(
            f'<line x1="{_LEFT}" x2="{_LEFT + wide}" y1="{y:.1f}" y2="{y:.1f}" stroke="{_GREY}" '
            f'stroke-opacity=".25"/>{_text(_LEFT - 6, y + 4, spoken(tick), "end")}'
        )
    return "".join(found)


def _moments(axis: Axis, wide: int) -> str:
    y = _HEIGHT - _BOTTOM + 16
    if not axis.name:
        return _text(_LEFT, y, "0", "start")
    ticks = [t for t in axis.ticks(5) if axis.place(t) < 0.84]  # noqa: PLR2004 (room for the end)
    found = [
        _text(_LEFT + wide * axis.place(t), y, spoken(t), "middle" if axis.place(t) else "start")
        for t in ticks
    ]
    return "".join(found) + _text(_LEFT + wide, y, f"{spoken(axis.high)} {axis.name}", "end")
