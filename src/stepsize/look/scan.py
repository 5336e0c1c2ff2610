"""Looking through a run: at every step of a million, else densely and where something happens."""

import math
from bisect import bisect_right
from collections.abc import Callable

from stepsize.drawing.series import GOLDEN, Point, finite, survey
from stepsize.look.tracks import Run, Track

EXACT = 1_000_000
_SUMMED = 1 << 17  # values that the mean of a longer run is taken from


def points_in(run: Run, track: Track, most: int = EXACT, columns: int = 1000) -> list[Point]:
    """Give the factors of every step; of a longer run densely and where the schedule may jump."""
    if run.whole and run.total <= most:
        factors = run.factors(track, 0, int(run.total))
        return finite(list(zip(map(float, range(len(factors))), factors, strict=True)))
    return survey(
        track.factor,
        0.0,
        run.total,
        whole=run.whole,
        marks=run.moments(track),
        columns=columns,
    )


def highest(seen: list[Point], value: Callable[[float], float], *, whole: bool) -> Point:
    """Give the first highest point: the highest seen, and what a climb between neighbours finds."""
    most = max(v for _, v in seen)
    i = next(i for i, (_, v) in enumerate(seen) if v == most)
    low, high = seen[max(i - 1, 0)][0], seen[min(i + 1, len(seen) - 1)][0]
    for _ in range(200):
        if high - low <= (2.0 if whole else 1e-9 * high):
            break
        third = math.floor((high - low) / 3.0) if whole else (high - low) / 3.0
        left, right = low + third, high - third
        low, high = (low, right) if value(left) >= value(right) else (left, high)
    middle = [low, low + 1.0, high] if whole else [0.5 * (low + high)]
    best = max((t for t in middle if t <= high), key=lambda t: (value(t), -t))
    return (best, value(best)) if value(best) > most else (seen[i][0], value(seen[i][0]))


def first_below(
    seen: list[Point], level: float, after: float, value: Callable[[float], float], *, whole: bool
) -> float | None:
    """Give the first time after a moment at which the value is at or below a level."""
    if not level:
        return None
    start = bisect_right(seen, (after, math.inf))
    found = next((i for i in range(start, len(seen)) if seen[i][1] <= level), None)
    if found is None:
        return None
    return first_where(lambda t: value(t) <= level, seen[found - 1][0], seen[found][0], whole=whole)


def first_where(holds: Callable[[float], bool], low: float, high: float, *, whole: bool) -> float:
    """Give the first time in (low, high] at which something holds that holds at `high`."""
    for _ in range(200):
        if high - low <= (1.0 if whole else 1e-9 * high):
            break
        middle = float(math.floor((low + high) / 2.0)) if whole else (low + high) / 2.0
        low, high = (low, middle) if holds(middle) else (middle, high)
    return high


def mean_of(run: Run, track: Track, seen: list[Point] | None = None) -> float:
    """Give the mean factor: of every step up to a million, else of one in every short stretch.

    `seen`: what `points_in` gave, if it was asked before.
    """
    if run.whole and run.total <= EXACT:
        values = run.factors(track, 0, int(run.total)) if seen is None else [v for _, v in seen]
        return math.fsum(values) / run.total
    width = run.total / _SUMMED
    # one at another place in each stretch: a period cannot hide between even ones
    times = ((i + i * GOLDEN % 1.0) * width for i in range(_SUMMED))
    spread = (track.factor(float(math.floor(t)) if run.whole else t) for t in times)
    return math.fsum(spread) / _SUMMED
