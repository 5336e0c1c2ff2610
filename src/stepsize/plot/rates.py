"""The curve of a range test, drawn with matplotlib."""

import math
from typing import TYPE_CHECKING

from matplotlib.figure import Figure

from stepsize.drawing.svg import COLOURS
from stepsize.finding.report import RangeTest
from stepsize.finding.suggestion import smooth_curve
from stepsize.plot.panels import DARK, LIGHT, WIDE, scales

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_HIGH = 3.6  # inches
_ROWS = 3  # of names of rules


def range_test(found: RangeTest, *, dark: bool = False) -> Figure:
    """Draw a range test: losses, the smooth curve, the rate with its spread, and other rules.

    Thin lines are the repeats, the thick one is what our rule sees of them. The band is the spread
    of the rate that is suggested, the line in it the rate. Above are the rates that other rules
    say; Smith's two where accuracies were measured, which are then drawn on an axis of their own.

    Args:
        found: what `stepsize.torch.range_test` gave, or what was made of a recorded curve.
        dark: light lines on a dark page.
    """
    theme = DARK if dark else LIGHT
    figure = Figure((WIDE, _HIGH), layout="constrained", facecolor=theme["paper"])
    axes = figure.subplots()
    panel = found.panel()
    for series in panel.series:
        axes.plot(*zip(*series.points, strict=True), color=COLOURS[0], linewidth=0.8, alpha=0.45)
    rates, smooth = smooth_curve(found.curve)
    axes.plot(rates, [min(loss, panel.y.high) for loss in smooth], color=COLOURS[0], linewidth=2)
    scales(axes, panel, theme)
    _suggested(axes, found, theme)
    _others(axes, found, theme)
    _scores(axes, found, theme)
    return figure


def _suggested(axes: "Axes", found: RangeTest, theme: dict[str, str]) -> None:
    told = found.suggestion
    if told.rate is None or told.low is None:
        axes.set_title("no rate: see why", fontsize="small", color=theme["ink"], loc="left")
        return
    high = found.curve.rates[-1] if told.high is None else told.high
    axes.axvspan(told.low, high, color=COLOURS[1], alpha=0.2, linewidth=0)
    axes.axvline(told.rate, color=COLOURS[1], linewidth=1.8)
    spread = f"from {told.low:.2g} on" if told.high is None else f"{told.low:.2g} to {high:.2g}"
    title = f"{told.rate:.2g} ({spread})"
    axes.set_title(title, fontsize="medium", color=COLOURS[1], loc="left", pad=34)


def _others(axes: "Axes", found: RangeTest, theme: dict[str, str]) -> None:
    """Mark what other rules say above the axes, in rows where they are close."""
    rules = {name: rate for name, rate in found.rules.items() if rate is not None}
    if found.smith is not None:
        rules |= {"Smith, from": found.smith.base, "Smith, to": found.smith.most}
    low, high = found.panel().x.low, found.panel().x.high
    placed = sorted((rate, name) for name, rate in rules.items() if low <= rate <= high)
    ends = [-math.inf] * _ROWS  # of the last name in each row, as a part of the axis
    for rate, name in placed:
        place, half = found.panel().x.place(rate), 0.0065 * len(name)
        row = next((i for i, end in enumerate(ends) if place - half > end), _ROWS - 1)
        ends[row] = place + half
        axes.annotate(
            name,
            (rate, 1.0),
            xycoords=("data", "axes fraction"),
            xytext=(0, 5 + 9 * row),
            textcoords="offset points",
            ha="center",
            fontsize="x-small",
            color=theme["faint"],
            arrowprops={"arrowstyle": "-", "color": theme["faint"], "linewidth": 0.8},
        )


def _scores(axes: "Axes", found: RangeTest, theme: dict[str, str]) -> None:
    if not found.curve.scores:
        return
    beside = axes.twinx()
    for row in found.curve.scores:
        beside.plot(found.curve.rates[: len(row)], row, color=COLOURS[2], linewidth=0.8, alpha=0.6)
    beside.set_ylabel("accuracy", color=COLOURS[2])
    beside.tick_params(colors=theme["faint"], length=0, labelsize="small")
    for spine in beside.spines.values():
        spine.set_visible(False)
