"""The rate against the stability limit, as a picture."""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from matplotlib.figure import Figure

from stepsize.errors import FieldError
from stepsize.finding.stability import Moment, StabilityCourse
from stepsize.finding.studies import WarmupStudy
from stepsize.plot.panels import DARK, LIGHT, bare

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_RATE, _LIMIT, _OVER = "#00798c", "#edae49", "#d1495b"
Courses = Sequence[StabilityCourse]


def stability(found: WarmupStudy | StabilityCourse, *, dark: bool = False) -> Figure:
    """Draw the rate and the limit over the steps, and the loss below.

    A column for each length of warmup; thin lines where there are several seeds. Where the rate is
    above the limit the space between them is filled.

    Args:
        found: a study, or what one run's `StabilityLog` measured.
        dark: light lines on a dark page.

    Raises:
        FieldError: where no limit is known.

    >>> from stepsize.finding.stability import Moment
    >>> course = StabilityCourse([Moment(0, 0.5, limit=0.25), Moment(1, 0.5, limit=1.0)])
    >>> [text.get_text() for text in stability(course).axes[0].get_legend().get_texts()]
    ['limit', 'rate', 'rate above the limit']
    """
    columns = _columns(found)
    theme = DARK if dark else LIGHT
    size = (max(3.6 * len(columns), 5.4), 4.8)
    figure = Figure(size, layout="constrained", facecolor=theme["paper"])
    grid = figure.subplots(
        2, len(columns), squeeze=False, sharex="col", sharey="row", height_ratios=(3, 2)
    )
    for (above, below), (title, courses) in zip(grid.T, columns, strict=True):
        draw_rates(above, courses)
        draw_losses(below, courses)
        above.set_title(title, color=theme["ink"], fontsize="medium")
        below.set_xlabel("steps", color=theme["faint"])
    grid[0, 0].set_ylabel("rate, stability limit", color=theme["ink"])
    grid[1, 0].set_ylabel("loss", color=theme["ink"])
    for axes in grid.flat:
        bare(axes, theme)
    grid[0, 0].legend(frameon=False, fontsize="small", labelcolor=theme["ink"])
    return figure


def _columns(found: WarmupStudy | StabilityCourse) -> list[tuple[str, Courses]]:
    if isinstance(found, StabilityCourse):
        columns: list[tuple[str, Courses]] = [("", [found])]
    else:
        columns = [
            (f"warmup of {w} steps" if w else "no warmup", [run.course for run in found.of(w)])
            for w in found.lengths
        ]
    if not any(course.known for _, courses in columns for course in courses):
        raise FieldError.of("a picture of stability", "of moments with a limit", found)
    return columns


def draw_rates(axes: "Axes", courses: Courses) -> None:
    """Draw rates and limits into axes of your own."""
    for number, course in enumerate(courses):
        steps, rates, limits = _lines(course.known)
        style: dict[str, Any] = {"linewidth": 1.6 if len(courses) == 1 else 0.8}
        names = ("limit", "rate", "rate above the limit") if number == 0 else (None,) * 3
        axes.plot(steps, limits, color=_LIMIT, label=names[0], **style)
        every = [m.step for m in course], [m.rate for m in course]
        axes.plot(*every, color=_RATE, label=names[1], **(style | {"linewidth": 1.6}))
        over = [rate > limit for rate, limit in zip(rates, limits, strict=True)]
        axes.fill_between(
            steps, rates, limits, where=over, color=_OVER, alpha=0.3, lw=0, interpolate=True,
            label=names[2] if any(over) else None,
        )  # fmt: skip
        marked = [
            pair
            for pair, is_over in zip(zip(steps, rates, strict=True), over, strict=True)
            if is_over
        ]
        if marked:
            axes.plot(*zip(*marked, strict=True), ".", color=_OVER, markersize=3)
    axes.set_yscale("log")


def draw_losses(axes: "Axes", courses: Courses) -> None:
    """Draw the losses into axes of your own."""
    for course in courses:
        told = [(m.step, m.loss) for m in course if m.loss is not None and math.isfinite(m.loss)]
        if told:
            width = 1.6 if len(courses) == 1 else 0.8
            axes.plot(*zip(*told, strict=True), color=_RATE, linewidth=width)
    axes.set_yscale("log")


def _lines(moments: Sequence[Moment]) -> tuple[list[int], list[float], list[float]]:
    told = [(m.step, m.rate, m.limit) for m in moments if m.limit is not None]
    known = [(s, r, limit) for s, r, limit in told if math.isfinite(limit)]
    steps, rates, limits = zip(*known, strict=True) if known else ((), (), ())
    return list(steps), list(rates), list(limits)
