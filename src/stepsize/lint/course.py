"""Rules about the course of a value: its start, its jumps, and whether it falls in time."""

import itertools
import math
from bisect import bisect_left
from collections.abc import Iterator

from stepsize.drawing.series import spoken
from stepsize.lint.subject import Found, Look
from stepsize.look.tracks import placed
from stepsize.schedules.combine import Scaled
from stepsize.schedules.schedule import FACTOR_PEAKS, Schedule, code
from stepsize.schedules.walk import nodes, rebuilt
from stepsize.schedules.warmup import Constant, Warmup
from stepsize.time import driving_unit
from stepsize.units import number_text

_FALLING = 3  # steps that it takes to see a fall
_SUMMED = 4096  # values that a share of the travel is found from


def zero_start(look: Look) -> Found:
    """The first step trains at rate 0: it is wasted."""
    if not look.is_rate or look.points[0][1] != 0.0 or not look.peak:
        return
    warmups = [n for n in nodes(look.track.schedule) if isinstance(n, Warmup) and n.start == 0.0]
    cure = "start above 0"
    if warmups:
        better = rebuilt(warmups[0], lambda name, value: None if name == "start" else value)
        cure = f"write {better!r}, which starts one step up the ramp"
    yield "warning", look.moment(0.0), "the first step trains at rate 0", cure


def jump(look: Look) -> Found:
    """One part does not begin where the part before it ends."""
    unit, value = driving_unit(look.track.schedule), look.track.value
    for (first, before), (begin, after) in _neighbours(look.track.resolved):
        # a staircase of constants, or a constant warmup, is meant to jump
        staircase = isinstance(before, Constant) and (isinstance(after, Constant) or not first)
        time = look.run.time_at(begin, unit)
        left, right = value(math.nextafter(time, 0.0)), value(time)
        if staircase or time >= look.total or abs(right - left) <= 0.05 * look.peak:
            continue
        earlier, later = type(before).__name__, type(after).__name__
        what = f"{later} follows {earlier}, and the value jumps "
        what += f"from {spoken(left)} to {spoken(right)}"
        level = spoken(float(before(math.nextafter(before.duration, 0.0))))
        yield "warning", look.moment(time), what, f"let {later} begin at {level}: start={level}"


def _neighbours(tree: Schedule) -> Iterator[tuple[tuple[float, Schedule], tuple[float, Schedule]]]:
    for begin, node in placed(tree):
        parts = getattr(node, "parts", ())
        ends = itertools.accumulate((part.duration for part in parts), initial=begin)
        yield from itertools.pairwise(zip(ends, parts, strict=False))


def late_restart(look: Look) -> Found:
    """The rate rises again towards the end, and training ends at a high rate."""
    if not look.is_rate or look.last <= 0.3 * look.peak:
        return
    top = next(i for i, (_, value) in enumerate(look.points) if value >= 0.99 * look.peak)
    low = min(value for _, value in look.points[top:])
    if low >= 0.5 * look.last:
        return
    low_at = max(time for time, value in look.points[top:] if value <= low + 1e-3 * look.peak)
    share, height = 100.0 * (look.total - low_at) / look.total, 100.0 * look.last / look.peak
    what = (
        f"the rate rises again in the last {share:.3g} % of the run, from {spoken(low)}, "
        f"and training ends at {spoken(look.last)}, {height:.3g} % of the peak"
    )
    cure = f"end the run after {look.length(low_at + look.run.whole)}, or fit the cycles to it"
    yield "warning", look.moment(low_at), what, cure


def freezes(look: Look) -> Found:
    """The decay freezes too early: for most of the run the rate is too small to move anything."""
    if not look.is_rate or look.track.ends < look.total or not look.peak:
        return
    width = look.total / _SUMMED
    times = [(i + 0.5) * width for i in range(_SUMMED)]
    values = (look.track.value(math.floor(t) if look.run.whole else t) for t in times)
    travelled = list(itertools.accumulate(values))
    at = (bisect_left(travelled, 0.99 * travelled[-1]) + 1) * width
    if at < 0.5 * look.total:
        left = 100.0 * (1.0 - at / look.total)
        what = f"99 % of the travel is done, the other {left:.3g} % of the run hardly move anything"
        cure = "decay more slowly, or keep a floor: schedule.between(0.01)"
        yield "warning", look.moment(at), what, cure


def never_falls(look: Look) -> Found:
    """The rate stays near its peak to the end: training wanders around what it could settle in."""
    if not look.is_rate or not look.peak or look.total < _FALLING:
        return
    top = next(i for i, (_, value) in enumerate(look.points) if value == look.peak)
    if min(value for _, value in look.points[top:]) < 0.9 * look.peak:
        return
    what = f"the rate never falls: it ends at {100 * look.last / look.peak:.3g} % of its peak"
    cure = (
        'end with a cooldown, such as ... >> Constant("rest") >> Linear("20%"), or ignore this '
        "rule where weights are averaged or the optimizer is schedule-free"
    )
    yield "warning", look.moment(look.run.last), what, cure


def factor_is_rate(look: Look) -> Found:
    """A factor that looks like a rate: it would multiply the optimizer's own rate."""
    schedule, (low, high) = look.track.schedule, FACTOR_PEAKS
    peak = look.peak / look.track.scale
    if schedule.is_absolute or not peak or low <= peak <= high:
        return
    of, by = (schedule.of, schedule.by) if isinstance(schedule, Scaled) else (schedule, 1.0)
    inner = f"({code(of)})" if {">>", "*"} & set(code(of).split()) else code(of)
    what = f"a factor whose peak is {spoken(peak)} multiplies the optimizer's own rate"
    yield "error", "", what, f"if it is the rate, write {inner}.absolute({number_text(by)})"


def momentum_at_1(look: Look) -> Found:
    """A momentum of 1 or more never forgets: the optimizer diverges."""
    if look.track.key in ("momentum", "beta1", "beta2") and look.track.is_value and look.peak >= 1:
        at = next(time for time, value in look.points if value >= 1.0)
        what = f"{look.track.key} reaches {spoken(look.peak)}"
        yield "error", look.moment(at), what, "keep it below 1"
