"""Step sizes over a run, drawn with matplotlib."""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from matplotlib.figure import Figure

from stepsize.look.spreads import Spread, StepSizeHistory
from stepsize.plot.panels import DARK, LIGHT, WIDE, colour, height, legend, scales

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_BANDED = 6  # groups whose step sizes are drawn with what is around the median


def step_sizes(history: Any, *, dark: bool = False) -> Figure:
    """Draw step sizes over a run: of each group the median, the middle half, the extremes.

    Thick lines are medians. Bands lie between quantiles at equal shares from both ends, by default
    the quartiles; thin lines are the least and the greatest. Of more than a few groups or layers
    there are medians alone. Below is what the schedule does alone, lr over its base value, where
    that is known.

    Args:
        history: `stepsize.torch.StepSizes`, or a list of (step, what `step_sizes` gave).
        dark: light lines on a dark page.

    Raises `FieldError` where there is nothing above 0 to draw.
    """
    found = history if isinstance(history, StepSizeHistory) else StepSizeHistory(history)
    first, *below = found.panels(few=_BANDED)
    theme, names = DARK if dark else LIGHT, found.names()
    heights = [height(first), *(1.3 for _ in below)]
    figure = Figure((WIDE, sum(heights)), layout="constrained", facecolor=theme["paper"])
    grid = figure.subplots(len(heights), 1, squeeze=False, height_ratios=heights)[:, 0]
    for i, name in enumerate(names):
        _spread(grid[0], found.of(name), colour(i, len(names)), few=len(names) <= _BANDED)
    for axes, panel in zip(grid, (first, *below), strict=True):
        for series in panel.series:
            shade = colour(names.index(series.name), len(names))
            width = 1.8 if panel is first else 1.0
            axes.plot(*zip(*series.points, strict=True), color=shade, lw=width, label=series.name)
        scales(axes, panel, theme)
    if below:
        grid[0].set_xlabel("")
    legend(grid[0])
    figure.align_ylabels()
    return figure


def _spread(axes: "Axes", rows: Sequence[tuple[int, Spread]], colour: Any, *, few: bool) -> None:
    """Draw what lies around a median; nothing where a value is no number above 0."""
    shares = sorted({q for _, spread in rows for q in spread.quantiles}) if few else []
    steps = [step for step, _ in rows]

    def line(share: float) -> list[float]:
        values = (spread.quantiles.get(share, math.nan) for _, spread in rows)
        return [value if 0.0 < value < math.inf else math.nan for value in values]

    for share in shares:
        if share in (0.0, 1.0):
            axes.plot(steps, line(share), color=colour, linewidth=0.7, alpha=0.7)
        elif share < 1.0 - share in shares:
            ends = line(share), line(1.0 - share)
            axes.fill_between(steps, *ends, color=colour, alpha=0.08 + 0.5 * share, lw=0)
