"""Pictures with matplotlib: PNG, SVG, PDF, or axes in a figure of your own."""

import io
import math
import textwrap
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import matplotlib as mpl
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, NullFormatter

from stepsize.drawing.series import Axis, Panel, Series, spoken
from stepsize.drawing.svg import COLOURS
from stepsize.errors import FieldError, SpecError
from stepsize.files.disk import write_whole
from stepsize.look.preview import Preview, preview
from stepsize.look.spreads import Spread, StepSizeHistory
from stepsize.time import Horizon

if TYPE_CHECKING:
    import os

    from matplotlib.axes import Axes

_WIDE, _HIGH = 7.2, 2.9  # inches, for each panel
_NAMED = 12  # names in a legend
_BANDED = 6  # groups whose step sizes are drawn with what is around the median
_LIGHT = {"ink": "#333333", "faint": "#8a8a8a", "paper": "#ffffff"}
_DARK = {"ink": "#dddddd", "faint": "#8f8f8f", "paper": "#1b1d21"}


def plot(
    what: Any, horizon: Horizon | None = None, *, dark: bool = False, **settings: Any
) -> Figure:
    """Draw schedules over a run as a matplotlib figure, one panel for each hyper-parameter.

    It needs matplotlib (`pip install "stepsize[plot]"`) and no display.

    Args:
        what: a schedule, a plan, several by name, a bound `Scheduler`, or a `Preview`.
        horizon: how long training is.
        dark: light lines on a dark page.
        **settings: `unit`, `base`, `seconds_per_step`, `log_x`, `log_y`: see `preview`.

    >>> from stepsize import Cosine, Warmup
    >>> figure = plot(Warmup(10) >> Cosine(90))
    >>> [float(x) for x in figure.axes[0].get_xlim()], figure.axes[0].get_xlabel()
    ([0.0, 100.0], 'steps')
    """
    found = what if isinstance(what, Preview) else preview(what, horizon, **settings)
    theme = _DARK if dark else _LIGHT
    size = (_WIDE, sum(map(_height, found.panels)))
    figure = Figure(figsize=size, layout="constrained", facecolor=theme["paper"])
    grid = figure.subplots(len(found.panels), 1, squeeze=False)
    for axes, panel in zip(grid[:, 0], found.panels, strict=True):
        draw(axes, panel, dark=dark)
    figure.align_ylabels()
    return figure


def _height(panel: Panel) -> float:
    """Inches for a panel: its legend stands above it."""
    names = [series.name[:60] for series in panel.series[:_NAMED] if series.name]
    return _HIGH + (0.2 * -(-len(names) // _columns(names)) if names else 0.0)


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
    theme, names = _DARK if dark else _LIGHT, found.names()
    heights = [_height(first), *(1.3 for _ in below)]
    figure = Figure((_WIDE, sum(heights)), layout="constrained", facecolor=theme["paper"])
    grid = figure.subplots(len(heights), 1, squeeze=False, height_ratios=heights)[:, 0]
    for i, name in enumerate(names):
        _spread(grid[0], found.of(name), _colour(i, len(names)), few=len(names) <= _BANDED)
    for axes, panel in zip(grid, (first, *below), strict=True):
        for series in panel.series:
            colour = _colour(names.index(series.name), len(names))
            width = 1.8 if panel is first else 1.0
            axes.plot(*zip(*series.points, strict=True), color=colour, lw=width, label=series.name)
        _axes(axes, panel, theme)
    if below:
        grid[0].set_xlabel("")
    _legend(grid[0])
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


def save(what: Any, path: "str | os.PathLike[str]", *given: Any, **settings: Any) -> None:
    """Draw as `plot` does, or `step_sizes` for a history of those, into a .png, .svg or .pdf file.

    Raises `SpecError` for another ending, or where the file cannot be written.
    """
    from pathlib import Path  # noqa: PLC0415 (beside its only use)

    target = Path(path)
    ending = target.suffix.lower()
    if ending not in (".png", ".svg", ".pdf"):
        raise SpecError(f"{target}: a picture ends in .png, .svg or .pdf")
    draws = step_sizes if isinstance(what, StepSizeHistory) else plot
    figure = draws(what, *given, **settings)
    # the same picture is the same file: no date, no random ids, and text that stays text
    fixed: dict[Any, Any] = {"svg.hashsalt": "stepsize", "svg.fonttype": "none"}
    dates = {".svg": {"Date": None}, ".pdf": {"CreationDate": None}}
    content = io.BytesIO()
    with mpl.rc_context(fixed):
        figure.savefig(content, dpi=150, format=ending[1:], metadata=dates.get(ending))
    write_whole(target, content.getvalue())


def draw(axes: "Axes", panel: Panel, *, dark: bool = False) -> None:
    """Draw one panel of a preview into axes of your own."""
    if not hasattr(axes, "plot"):
        raise FieldError.of("axes", "matplotlib axes", axes)
    theme = _DARK if dark else _LIGHT
    count = len(panel.series)
    for i, series in enumerate(panel.series):
        x, y = zip(*series.points, strict=True)
        axes.plot(x, y, color=_colour(i, count), label=series.name or None, linewidth=1.8)
    _axes(axes, panel, theme)
    if count == 1:
        _parts(axes, panel.series[0], panel.x, theme)
    if any(series.name for series in panel.series):
        _legend(axes)


def _colour(i: int, count: int) -> Any:
    """Colours that differ, or shades in order where there are many: the layers of a network."""
    if count <= len(COLOURS):
        return COLOURS[i]
    return mpl.colormaps["viridis"](0.1 + 0.8 * i / (count - 1))


def _legend(axes: "Axes") -> None:
    """Name the curves above the panel; of many, some."""
    lines, names = axes.get_legend_handles_labels()
    every = -(-len(lines) // _NAMED)
    shown = [textwrap.shorten(name, 60, placeholder=" ...") for name in names[::every]]
    axes.legend(
        lines[::every],
        shown,
        loc="lower left",
        bbox_to_anchor=(0.0, 1.0),
        ncols=_columns(shown),
        frameon=False,
        fontsize="small",
        labelcolor="linecolor",
    )


def _columns(names: Sequence[str]) -> int:
    """How many names fit beside each other."""
    return max(min(4, 90 // (max(map(len, names)) + 5)), 1)


def _axes(axes: "Axes", panel: Panel, theme: dict[str, str]) -> None:
    axes.set_facecolor(theme["paper"])
    axes.set_xlabel(panel.x.name or "time (needs a horizon)", color=theme["faint"])
    told = panel.title if panel.title and panel.y.name != "factor" else ""
    axes.set_ylabel(told or f"{panel.title} {panel.y.name}".strip(), color=theme["ink"])
    for axis, name in ((panel.x, "x"), (panel.y, "y")):
        _scale(axes, axis, name)
    room = 0.04 * (panel.y.high - panel.y.low)
    if panel.y.log:
        axes.set_ylim(panel.y.low, panel.y.high * (panel.y.high / panel.y.low) ** 0.04)
    else:
        axes.set_ylim(panel.y.low - room, panel.y.high + room)
    axes.grid(visible=True, color=theme["faint"], alpha=0.25, linewidth=0.7)
    axes.minorticks_off()
    axes.tick_params(colors=theme["faint"], length=0, labelsize="small")
    for side, spine in axes.spines.items():
        spine.set_visible(side == "bottom")
        spine.set_color(theme["faint"])


def _scale(axes: "Axes", axis: Axis, name: str) -> None:
    getattr(axes, f"set_{name}scale")("log" if axis.log else "linear")
    getattr(axes, f"set_{name}lim")(axis.low, axis.high)
    scale = getattr(axes, f"{name}axis")
    scale.set_major_locator(FixedLocator(axis.ticks()))
    scale.set_major_formatter(FuncFormatter(lambda value, _: spoken(value)))
    scale.set_minor_formatter(NullFormatter())


def _parts(axes: "Axes", series: Series, x: Axis, theme: dict[str, str]) -> None:
    """Name the parts of a schedule where they begin, or right of the name before."""
    free = 0.0
    for begin, name in _named(series, x):
        if begin > x.low:
            axes.axvline(begin, color=theme["faint"], alpha=0.5, linewidth=0.8, linestyle=":")
        place = max(x.place(begin), free)
        free = place + 0.0095 * (len(name) + 2)  # about what a character takes
        if free > 1.0:
            break
        axes.annotate(
            name,
            (place, 1.0),
            xycoords="axes fraction",
            xytext=(2, 2),
            textcoords="offset points",
            fontsize="x-small",
            color=theme["faint"],
        )


def _named(series: Series, x: Axis) -> Iterator[tuple[float, str]]:
    if len(series.parts) > 1:
        yield from ((begin, name) for begin, name in series.parts if begin < x.high)
