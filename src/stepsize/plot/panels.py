"""Schedules and their panels, drawn with matplotlib."""

import textwrap
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import matplotlib as mpl
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, NullFormatter

from stepsize.drawing.series import Axis, Panel, Series, spoken
from stepsize.drawing.svg import COLOURS
from stepsize.errors import FieldError
from stepsize.look.preview import Preview, preview
from stepsize.time import Horizon

if TYPE_CHECKING:
    from matplotlib.axes import Axes

WIDE, _HIGH = 7.2, 2.9  # inches, for each panel
_NAMED = 12  # names in a legend
LIGHT = {"ink": "#333333", "faint": "#8a8a8a", "paper": "#ffffff"}
DARK = {"ink": "#dddddd", "faint": "#8f8f8f", "paper": "#1b1d21"}


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
    theme = DARK if dark else LIGHT
    size = (WIDE, sum(map(height, found.panels)))
    figure = Figure(figsize=size, layout="constrained", facecolor=theme["paper"])
    grid = figure.subplots(len(found.panels), 1, squeeze=False)
    for axes, panel in zip(grid[:, 0], found.panels, strict=True):
        draw(axes, panel, dark=dark)
    figure.align_ylabels()
    return figure


def height(panel: Panel) -> float:
    """Give the inches for a panel: its legend stands above it."""
    names = [series.name[:60] for series in panel.series[:_NAMED] if series.name]
    return _HIGH + (0.2 * -(-len(names) // _columns(names)) if names else 0.0)


def draw(axes: "Axes", panel: Panel, *, dark: bool = False) -> None:
    """Draw one panel of a preview into axes of your own."""
    if not hasattr(axes, "plot"):
        raise FieldError.of("axes", "matplotlib axes", axes)
    theme = DARK if dark else LIGHT
    count = len(panel.series)
    for i, series in enumerate(panel.series):
        x, y = zip(*series.points, strict=True)
        axes.plot(x, y, color=colour(i, count), label=series.name or None, linewidth=1.8)
    scales(axes, panel, theme)
    if count == 1:
        _parts(axes, panel.series[0], panel.x, theme)
    if any(series.name for series in panel.series):
        legend(axes)


def colour(i: int, count: int) -> Any:
    """Give colours that differ, or shades in order for many: the layers of a network."""
    if count <= len(COLOURS):
        return COLOURS[i]
    return mpl.colormaps["viridis"](0.1 + 0.8 * i / (count - 1))


def legend(axes: "Axes") -> None:
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


def scales(axes: "Axes", panel: Panel, theme: dict[str, str]) -> None:
    """Set the extents, ticks and names of axes as a panel has them."""
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
    bare(axes, theme)


def bare(axes: "Axes", theme: dict[str, str]) -> None:
    """Leave of the frame a line below, and a faint grid."""
    axes.set_facecolor(theme["paper"])
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
