"""Rules about the course of a value: its start, its jumps, and whether it falls in time."""

import itertools
import math
from bisect import bisect_left
from collections.abc import Iterator

from stepsize.drawing.series import GOLDEN, Point, listed, spoken
from stepsize.lint.subject import Found, Look
from stepsize.look.structure import placed
from stepsize.schedules.combine import Scaled
from stepsize.schedules.schedule import FACTOR_PEAKS, Schedule, code, fields_of
from stepsize.schedules.timing import Held, Resumed
from stepsize.schedules.walk import nodes, over_children, rebuilt
from stepsize.schedules.warmup import Constant, Warmup
from stepsize.units import number_text

_LATE = 0.9  # where a restart comes too late to go anywhere
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
    yield "warning", 0.0, "the first step trains at rate 0", cure


def jump(look: Look) -> Found:
    """One part does not begin where the part before it ends."""
    track = look.track
    for (first, before), (begin, after) in _neighbours(_without_holds(track.resolved)):
        # a staircase of constants, a constant warmup and a restart are meant to jump
        staircase = isinstance(before, Constant) and (isinstance(after, Constant) or not first)
        time = look.run.time_at(begin, track.unit)
        if staircase or time >= look.total:
            continue
        left, right = (float(x) for x in (before(math.nextafter(before.duration, 0.0)), after(0.0)))
        peak = max(before.range[1], after.range[1])
        restart = type(before) is type(after) and right > left and right >= 0.95 * peak
        if restart or abs(right - left) <= 0.05 * peak:
            continue
        earlier, later = type(before).__name__, type(after).__name__
        what = f"{later} follows {earlier}, and the value jumps "
        what += f"from {spoken(track.scale * left)} to {spoken(track.scale * right)}"
        yield "warning", time, what, f"let {later} begin at {spoken(left)}: {_begun(after, left)}"


def _without_holds(tree: Schedule) -> Schedule:
    """Give a schedule without its holds, whose own steps are no jumps between parts."""
    bare = tree.of if isinstance(tree, Held) else tree
    if isinstance(bare, Resumed):  # taken up where its hold may be all that is left
        return bare
    return rebuilt(bare, lambda _, value: over_children(value, _without_holds))


def _begun(part: Schedule, level: float) -> str:
    """Write a part so that it begins at a level."""
    for name in ("start", "value"):
        if name in fields_of(part):
            return f"{name}={spoken(level)}"
    return f"{spoken(level)} * {code(part)}"


def _neighbours(tree: Schedule) -> Iterator[tuple[tuple[float, Schedule], tuple[float, Schedule]]]:
    for begin, node in placed(tree):
        parts = getattr(node, "parts", ())
        ends = itertools.accumulate((part.duration for part in parts), initial=begin)
        yield from itertools.pairwise(zip(ends, parts, strict=False))


def late_restart(look: Look) -> Found:
    """The rate rises again just before the end, or training ends at a high rate."""
    if not look.is_rate or not look.peak:
        return
    top = next(i for i, (_, value) in enumerate(look.points) if value >= 0.99 * look.peak)
    low = min(value for _, value in look.points[top:])
    if look.last > 0.3 * look.peak and low < 0.5 * look.last:
        at = _last_low(look.points[top:], low + 1e-6 * look.peak)
        share, height = 100.0 * (look.total - at) / look.total, 100.0 * look.last / look.peak
        what = (
            f"the rate rises again in the last {share:.3g} % of the run, from {spoken(low)}, "
            f"and training ends at {spoken(look.last)}, {height:.3g} % of the peak"
        )
        cure = f"end the run after {look.length(at + look.run.whole)}, or fit the cycles to it"
        yield "warning", at, what, cure
    elif restarted := _restart_at_the_end(look):
        share = 100.0 * (look.total - restarted) / look.total
        what = f"the rate restarts for the last {share:.3g} % of the run alone"
        yield "warning", restarted, what, "end the run there, or leave the last cycle out"


def _last_low(points: tuple[Point, ...], level: float) -> float:
    """When the value is lowest in the last stretch below a level."""
    ends = max(i for i, (_, value) in enumerate(points) if value <= level)
    begins = ends
    while begins and points[begins - 1][1] <= level:
        begins -= 1
    return min(points[begins : ends + 1], key=lambda point: (point[1], -point[0]))[0]


def _restart_at_the_end(look: Look) -> float:
    """When the rate jumps up for a last cycle that is much shorter than those before it; or 0."""
    value, moments = look.track.value, look.run.moments(look.track)
    ups = [m for m in moments if value(m) - value(max(m - 1.0, 0.0)) > 0.3 * look.peak]
    last = [0.0, *ups][-2:]
    left = look.total - last[-1]
    short = len(last) > 1 and 1.0 < left < 0.5 * (last[1] - last[0])
    return last[1] if short and last[1] >= _LATE * look.total else 0.0


def freezes(look: Look) -> Found:
    """The decay freezes too early: for most of the run the rate is too small to move anything."""
    if not look.is_rate or look.track.ends < look.total or not look.peak:
        return
    width, factor = look.total / _SUMMED, look.track.factor
    times = ((i + i * GOLDEN % 1.0) * width for i in range(_SUMMED))
    values = (factor(math.floor(t) if look.run.whole else t) for t in times)
    travelled = list(itertools.accumulate(values))
    at = (bisect_left(travelled, 0.99 * travelled[-1]) + 1) * width
    if at < 0.5 * look.total:
        left = 100.0 * (1.0 - at / look.total)
        what = f"99 % of the travel is done, the other {left:.3g} % of the run hardly move anything"
        cure = "decay more slowly, or keep a floor: schedule.between(0.01)"
        yield "warning", float(math.floor(at)) if look.run.whole else at, what, cure


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
    yield "warning", look.run.last, what, cure


def factor_is_rate(look: Look) -> Found:
    """A factor that looks like a rate: it would multiply the optimizer's own rate."""
    schedule, (low, high) = look.track.schedule, FACTOR_PEAKS
    peak = look.peak / look.track.scale
    if look.track.extra or schedule.is_absolute or not peak or low <= peak <= high:
        return
    of, by = (schedule.of, schedule.by) if isinstance(schedule, Scaled) else (schedule, 1.0)
    inner = f"({code(of)})" if {">>", "*"} & set(code(of).split()) else code(of)
    what = f"a factor whose peak is {spoken(peak)} multiplies the optimizer's own rate"
    yield "error", None, what, f"if it is the rate, write {inner}.absolute({number_text(by)})"


def momentum(look: Look) -> Found:
    """A momentum reaches 1 and never forgets, or a factor multiplies the optimizer's own."""
    key = look.track.key
    if key not in ("momentum", "beta1", "beta2") or look.track.extra:
        return
    if look.track.is_value and look.peak >= 1.0:
        at = next(time for time, value in look.points if value >= 1.0)
        yield "error", at, f"{key} reaches {spoken(look.peak)}", "keep it below 1"
    elif not look.track.schedule.is_absolute and min(value for _, value in look.points) < 1.0:
        what = f"a factor multiplies the optimizer's own {key}"
        cure = f"if these are the values, write ({code(look.track.schedule)}).absolute()"
        yield "warning", None, what, cure


def decays_all(look: Look) -> Found:
    """An absolute weight decay overwrites the 0 of groups that were to have none."""
    zeros = look.track.zeros
    if look.track.key == "weight_decay" and zeros and look.peak:
        what = f"the schedule overwrites the weight decay 0 of {listed(zeros, 3)}"
        cure = (
            f"give groups={{{zeros[0]!r}: {{'weight_decay': Constant(value=0).absolute()}}, ...}}"
        )
        yield "warning", None, what, f"to keep it at 0, {cure}"
