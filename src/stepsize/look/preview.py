"""Pictures of schedules over a real run: every scheduled value, before paying for it."""

from dataclasses import dataclass
from typing import Any

from stepsize.drawing import svg as svg_drawing
from stepsize.drawing import text as text_drawing
from stepsize.drawing.series import Axis, Panel, Point, Series, survey, thinned, value_axis
from stepsize.errors import FieldError
from stepsize.look.entries import Bases
from stepsize.look.runs import run_of
from stepsize.look.tracks import Run, Track
from stepsize.schedules.fields import Bounds
from stepsize.schedules.schedule import Schedule
from stepsize.time import Horizon
from stepsize.units import SECONDS, unit_named

AXES = {
    "st": "steps",
    "ep": "epochs",
    "samples": "samples",
    "tok": "tokens",
    "%": "% of the run",
    "s": "seconds",
    "min": "minutes",
    "h": "hours",
    "d": "days",
}


_STAIRS = 60  # steps that are wide enough to be seen one by one


@dataclass(frozen=True, slots=True)
class Preview:
    """A picture of schedules as a value: panels of curves, one panel for each hyper-parameter.

    `print(preview)` draws it as text, a notebook shows it as SVG, and `stepsize.plot.plot` draws it
    with matplotlib.
    """

    panels: tuple[Panel, ...]

    def text(self, *, width: int = 72, height: int = 12, paint: bool = False) -> str:
        """Draw the panels as text; `paint` adds a terminal's colours."""
        sizes = Bounds(ge=2, whole=True)
        wide = int(sizes.admit("Preview.text: width", width))
        high = int(sizes.admit("Preview.text: height", height))
        drawn = (text_drawing.draw(p, width=wide, height=high, paint=paint) for p in self.panels)
        return "\n\n".join(drawn)

    def svg(self) -> str:
        """Draw the panels as a stand-alone SVG, readable on light and on dark pages."""
        names = [series.name for panel in self.panels for series in panel.series if series.name]
        return svg_drawing.draw(self.panels, spoken_title=", ".join(dict.fromkeys(names)))

    def __str__(self) -> str:
        """Draw it as text."""
        return self.text()

    def _repr_svg_(self) -> str:
        return self.svg()


def preview(
    what: Any,
    horizon: Horizon | None = None,
    *,
    unit: str | None = None,
    base: Bases = None,
    seconds_per_step: float | None = None,
    log_x: bool = False,
    log_y: bool = False,
) -> Preview:
    """Show what schedules will do over a run.

    A curve shows the values that training uses: from the first step to the last, `schedule(N-1)`.

    Args:
        what: a schedule, a `Plan`, a mapping from names to those (to compare), or a bound
            `Scheduler` (every param group's values).
        horizon: how long training is; not needed where all lengths are plain numbers.
        unit: what the time axis counts: "steps", "epochs", "samples", "tokens", "%", "hours", ...,
            or "time" for the wall-clock unit that fits.
        base: what the factors multiply: a number for lr, or numbers by hyper-parameter.
        seconds_per_step: the rate between steps and wall-clock time, where both occur.
        log_x: show time by orders of magnitude, from the first step on.
        log_y: show values by orders of magnitude.

    >>> from stepsize import Cosine, Horizon, Warmup, preview
    >>> recipe = Warmup("5ep") >> Cosine(stop=0.1)
    >>> picture = preview(recipe, Horizon("90ep", batches_per_epoch=391), unit="epochs", base=0.3)
    >>> print(picture.text(width=40, height=5))
          0.3 ┤ ⢠⠏⠉⠉⠉⠑⠒⠒⠢⠤⠤⣀⣀
          0.2 ┤ ⡼            ⠉⠑⠒⠤⢄⣀
              ┤⢠⠇                  ⠉⠑⠢⠤⣀⡀
              ┤⣸                        ⠈⠉⠒⠒⠤⢄⣀⣀
            0 ┤⡇                                ⠉⠉⠑⠒⠒⠒⠒
              └────────────────────────────────────────
               0              45              90 epochs
               Warmup from 0, Cosine from 5
    """
    run = run_of(what, horizon, base=base, seconds_per_step=seconds_per_step, endless=True)
    return Preview(panels_of(run, time_axis(run, unit, log=log_x), log=log_y))


def panels_of(run: Run, axis: Axis, *, log: bool = False) -> tuple[Panel, ...]:
    """Give a panel for every hyper-parameter of a run."""
    keys = dict.fromkeys(track.key for track in run.tracks)
    drawn: dict[Schedule, tuple[Point, ...]] = {}  # groups differ by a number more often than not
    for track in run.tracks:
        if track.schedule not in drawn:
            drawn[track.schedule] = points_of(run, track, axis)
    return tuple(
        _panel(run, [t for t in run.tracks if t.key == key], axis, drawn, log=log) for key in keys
    )


def time_axis(run: Run, unit: str | None = None, *, log: bool = False) -> Axis:
    """Give the axis of a run's time in a unit; by default in the unit of its clock."""
    chosen = axis_unit(run, unit)
    high = run.to(chosen, run.total)
    low = 0.0
    if log:
        low = run.to(chosen, min(1.0, run.total / 10.0) if run.whole else run.total / 1e4)
    return Axis(AXES[chosen], low, high, log=log)


def axis_unit(run: Run, unit: str | None) -> str:
    """Give the unit that a person named, or the one that fits the run."""
    if unit is None and run.whole:
        return "st"
    if unit is None or unit == "time":
        seconds = run.to("s", run.total)
        return next(u for u in ("d", "h", "min", "s") if seconds >= 2 * SECONDS[u] or u == "s")
    found = unit_named(unit)
    if found is None:
        known = ["%" if key == "%" else name for key, name in AXES.items()]
        raise FieldError.of("unit", f"one of {', '.join(known)}, time", unit)
    return found


def unit_of(axis: Axis) -> str:
    """Give the unit that an axis counts, by its name."""
    return next(unit for unit, name in AXES.items() if name == axis.name)


def points_of(run: Run, track: Track, axis: Axis) -> tuple[Point, ...]:
    """Give the points of one curve before it is scaled, in the axis' unit."""
    unit = unit_of(axis)
    low = min(1.0, run.total / 10.0) if run.whole else run.total / 1e4
    low, moments = low if axis.log else 0.0, run.moments(track)
    seen = survey(track.factor, low, run.total, whole=run.whole, marks=moments, log=axis.log)
    if run.whole and run.total <= _STAIRS:  # a step's value is used until the next step
        return tuple((run.to(unit, at), value) for t, value in seen for at in (t, t + 1.0))
    return thinned([(run.to(unit, time), value) for time, value in seen], axis)


def _panel(
    run: Run,
    tracks: list[Track],
    axis: Axis,
    drawn: dict[Schedule, tuple[Point, ...]],
    *,
    log: bool,
) -> Panel:
    series = tuple(_series(run, track, axis, drawn[track.schedule]) for track in tracks)
    values = [value for each in series for _, value in each.points]
    stated = max(track.resolved.range[1] * track.scale for track in tracks)
    key = tracks[0].key
    if len({track.is_value for track in tracks}) > 1:
        one = next(track.title for track in tracks if track.is_value)
        cure = "give base=, which turns factors into values"
        raise FieldError.of("the curves of a picture", "all factors or all values", one, cure)
    name = "value" if all(track.is_value for track in tracks) else "factor"
    return Panel(key, axis, value_axis(name, values, stated, log=log), series)


def _series(run: Run, track: Track, axis: Axis, points: tuple[Point, ...]) -> Series:
    unit = unit_of(axis)
    parts = tuple((run.to(unit, at), name) for at, name in track.parts if at < run.total)
    scaled = points if track.scale == 1.0 else tuple((x, track.scale * y) for x, y in points)
    return Series(track.name, scaled, parts)
