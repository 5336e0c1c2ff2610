"""Schedules in words and numbers: peak, ends, quarters, half-life, how far they travel."""

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from stepsize.drawing.series import listed, spoken
from stepsize.look.entries import Bases
from stepsize.look.preview import AXES, axis_unit
from stepsize.look.runs import run_of
from stepsize.look.scan import first_below, highest, mean_of, points_in
from stepsize.look.tracks import Run, Track
from stepsize.time import Horizon

if TYPE_CHECKING:
    from stepsize.schedules.schedule import Schedule


@dataclass(frozen=True, slots=True)
class Facts:
    """What one scheduled value does over a run; times count `unit`, values what is written.

    Attributes:
        title: the hyper-parameter and the name, empty for a bare schedule.
        code: the schedule in plain numbers, as code.
        is_value: whether the numbers are values for the optimizer, or factors of its base value.
        unit: what times count: "steps", or "hours" and the like for wall-clock schedules.
        total: the length of the run.
        first: the value of the first step.
        last: the value of the last step, `schedule(N-1)`.
        peak: the highest value.
        peak_at: when it is first reached.
        half_at: when the value has first fallen to half its peak; None if never.
        quarters: the values at 25, 50, 75 and 100 % of the run.
        mean: the mean value of all steps; `mean * total` is the area under the curve.
        parts: when each part begins and what it is called.
    """

    title: str
    code: str
    is_value: bool
    unit: str
    total: float
    first: float
    last: float
    peak: float
    peak_at: float
    half_at: float | None
    quarters: dict[int, float]
    mean: float
    parts: tuple[tuple[float, str], ...]

    @property
    def area(self) -> float:
        """The sum of all values: how far the schedule lets training travel."""
        return self.mean * self.total

    def __str__(self) -> str:
        """Say it in a few sentences."""
        head = f"{self.title}: {self.code}" if self.title else self.code
        kind = "values" if self.is_value else "factors of the base value"
        quarters = ", ".join(f"{spoken(v)} at {q} %" for q, v in self.quarters.items())
        course = f"{self._peak_text()}{self._half_text()}"
        lines = [
            f"{head}\n  {self._length(self.total)}, {kind}.",
            f"Starts at {spoken(self.first)}, {course}, ends at {spoken(self.last)}.",
            f"{quarters[0].upper()}{quarters[1:]}.",
        ]
        if self.title.partition(",")[0] in ("", "lr"):
            lines.append(self._area_text())
        if len(self.parts) > 1:
            parts = [f"{name} from {spoken(begin)}" for begin, name in self.parts]
            lines.append(f"{listed(parts)}.")
        return "\n  ".join(lines)

    def _moment(self, time: float) -> str:
        share = 100.0 * time / self.total
        return f"{self.unit.removesuffix('s')} {spoken(time)} ({share:.3g} %)"

    def _length(self, time: float) -> str:
        return f"{spoken(time)} {self.unit.removesuffix('s') if time == 1.0 else self.unit}"

    def _peak_text(self) -> str:
        return f"peaks at {spoken(self.peak)} at {self._moment(self.peak_at)}"

    def _half_text(self) -> str:
        if self.half_at is None:
            return ", never falls to half of that"
        return f", is down to half of that at {self._moment(self.half_at)}"

    def _area_text(self) -> str:
        if not self.peak:
            return "Zero throughout."
        share = self.mean / self.peak
        return (
            f"The mean is {share:.3g} of the peak: the run travels as far as "
            f"{self._length(share * self.total)} at the peak."
        )


@dataclass(frozen=True, slots=True)
class Description:
    """The facts about every scheduled value; `print` says them in words."""

    facts: tuple[Facts, ...]

    def __str__(self) -> str:
        """Say all of them."""
        return "\n".join(map(str, self.facts))


def describe(
    what: Any,
    horizon: Horizon | None = None,
    *,
    base: Bases = None,
    seconds_per_step: float | None = None,
) -> Description:
    """Describe schedules in words: ends, peak and when, quarters, half-life, area, parts.

    Args: see `preview`.

    >>> from stepsize import Cosine, Horizon, Warmup, describe
    >>> print(describe(Warmup("5ep") >> Cosine(stop=0.1), Horizon("90ep", batches_per_epoch=391)))
    Warmup(1955) >> Cosine(33235, stop=0.1)
      35,190 steps, factors of the base value.
      Starts at 0.0005112, peaks at 1 at step 1,955 (5.56 %), is down to half of that at step \
19,751 (56.1 %), ends at 0.1.
      0.9091 at 25 %, 0.5915 at 50 %, 0.2469 at 75 %, 0.1 at 100 %.
      The mean is 0.547 of the peak: the run travels as far as 19,257 steps at the peak.
      Warmup from 0, Cosine from 1,955.
    """
    run = run_of(what, horizon, base=base, seconds_per_step=seconds_per_step)
    known: dict[Schedule, Facts] = {}  # groups differ by a number more often than not
    for track in run.tracks:
        if track.schedule not in known:
            known[track.schedule] = _facts(run, track)
    return Description(tuple(_scaled(known[track.schedule], track) for track in run.tracks))


def _facts(run: Run, track: Track) -> Facts:
    """The facts about a schedule, before it is scaled."""
    unit, value, whole = axis_unit(run, None), track.factor, run.whole
    seen = points_in(run, track)
    peak_at, peak = highest(seen, value, whole=whole)
    half_at = first_below(seen, 0.5 * peak, peak_at, value, whole=whole)
    moments = {q: min(run.total * q / 100.0, run.last) for q in (25, 50, 75, 100)}
    return Facts(
        title=track.title,
        code=repr(track.resolved),
        is_value=track.is_value,
        unit=AXES[unit],
        total=run.to(unit, run.total),
        first=value(0.0),
        last=value(run.last),
        peak=peak,
        peak_at=run.to(unit, peak_at),
        half_at=None if half_at is None else run.to(unit, half_at),
        quarters={q: value(float(math.floor(t)) if whole else t) for q, t in moments.items()},
        mean=mean_of(run, track, seen),
        parts=tuple((run.to(unit, at), name) for at, name in track.parts if at < run.total),
    )


def _scaled(facts: Facts, track: Track) -> Facts:
    scale = track.scale
    return replace(
        facts,
        title=track.title,
        code=f"{spoken(scale)} * ({facts.code})" if scale != 1.0 else facts.code,
        is_value=track.is_value,
        first=scale * facts.first,
        last=scale * facts.last,
        peak=scale * facts.peak,
        quarters={quarter: scale * value for quarter, value in facts.quarters.items()},
        mean=scale * facts.mean,
    )
