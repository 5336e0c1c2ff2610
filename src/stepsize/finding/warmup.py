"""How long a warmup: the shortest that keeps the rate below the limit that was measured."""

import math
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import takewhile, zip_longest
from statistics import median
from typing import Any

from stepsize.drawing.series import spoken
from stepsize.errors import FieldError
from stepsize.finding.stability import Moment
from stepsize.schedules.fields import Bounds

_EDGE = 1.25  # times the limit: runs that go along the edge of stability hover below that
_PATH = (
    "The limit depends on the path that was taken: it was measured along one run, and another "
    "warmup takes another path."
)


@dataclass(frozen=True, slots=True)
class WarmupAdvice:
    """A length of a linear warmup, and why.

    Attributes:
        steps: for `Warmup(steps)`; 0 where none is needed, None where none helps.
        rate: that it leads up to.
        why: in sentences.
        throughout: what it would take to keep below the limit all along, and not only until it has
            risen; None where nothing would do.
    """

    steps: int | None
    rate: float
    why: str
    throughout: int | None = None

    def to_dict(self) -> dict[str, Any]:
        """Give it as a dictionary; `WarmupAdvice(**told)` gives it back."""
        return asdict(self)

    def __str__(self) -> str:
        """Say it."""
        lengths = {None: "no warmup helps", 0: "no warmup needed", 1: "a warmup of 1 step"}
        length = lengths.get(self.steps, f"a warmup of {self.steps} steps")
        return f"{length} to a rate of {spoken(self.rate)}: {self.why}"


def recommend_warmup(
    course: Sequence[Moment],
    rate: float,
    *,
    margin: float = 1.0,
    along: str = "path",
    most: int = 10_000,
) -> WarmupAdvice:
    r"""Give the shortest linear warmup that keeps below the stability limit that was measured.

    The rate of step t is $\eta \cdot \min((t+1)/(W+1), 1)$, as `Warmup(W)` has it. A measured
    limit is held against the rate that the run would have by then: after the same sum of rates
    ("path": a slower run gets to the same places later, which is exact for rates so small that
    descent follows the gradient flow), or after the same number of steps ("steps"). What counts is
    the opening: the moments until the limit is above the rate for the first time. Where it falls
    below it again later, a run is thrown a little way and mostly finds back by itself; a warmup
    that lasts until then (`throughout`) is only a slower run. The last quarter of the course says
    what the rate meets at the end, by the median of its limits.

    Args:
        course: the moments of a run, in order. Of a gentle run, such as one with a long warmup: a
            run that went over the limit has been thrown to somewhere else.
        rate: that the warmup leads up to.
        margin: what part of the limit may be used.
        along: "path" or "steps".
        most: how long a warmup may be.

    Raises:
        FieldError: for a course without any limit, and numbers that make no sense.

    >>> course = [Moment(t, 0.1, limit=limit) for t, limit in enumerate([0.25, 0.5, 2, 2, 2, 2])]
    >>> recommend_warmup(course, 1.0, along="steps").steps
    3
    >>> recommend_warmup(course, 0.2).steps, recommend_warmup(course, 4.0).steps
    (0, None)
    """
    top = float(Bounds(gt=0).admit("recommend_warmup: rate", rate))
    share = float(Bounds(gt=0, le=1).admit("recommend_warmup: margin", margin))
    longest = int(Bounds(ge=1, whole=True).admit("recommend_warmup: most", most))
    if along not in ("path", "steps"):
        raise FieldError.of("recommend_warmup: along", "'path' or 'steps'", along)
    found = _limits(course, by_path=along == "path")
    last = max(len(found) // 4, 1)
    end = median(limit for _, limit in found[-last:])
    if top > _EDGE * end:
        return WarmupAdvice(None, top, _above(end))
    held = [(place, share * limit) for place, limit in found[:-last]]
    opening = list(takewhile(lambda pair: pair[1] < top, held))
    steps, throughout = (
        _least(top, places, longest, by_path=along == "path") for places in (opening, held)
    )
    if steps is None:
        why = f"one of {longest} steps goes over the limit too, which is low for long. {_PATH}"
        return WarmupAdvice(None, top, why)
    later = sum(limit < top for _, limit in held[len(opening) :])
    return WarmupAdvice(steps, top, _enough(opening, later, top, end), throughout)


def _least(
    top: float, held: Sequence[tuple[float, float]], longest: int, *, by_path: bool
) -> int | None:
    """Give the least length that keeps below what it is held against."""

    def keeps(steps: int) -> bool:
        return all(_rate_at(place, steps, top, by_path=by_path) <= limit for place, limit in held)

    steps = bisect_left(range(longest + 1), x=True, key=keeps)  # longer ones keep below it too
    return None if steps > longest else steps


def _limits(course: Sequence[Moment], *, by_path: bool) -> list[tuple[float, float]]:
    """Give the limits that are known, each with its place: a sum of rates, or a step."""
    moments = list(course)
    found, gone = [], 0.0
    for now, after in zip_longest(moments, moments[1:]):
        if now.limit is not None:
            found.append((gone if by_path else float(now.step), now.limit))
        gone += now.rate * (after.step - now.step) if after else 0.0
    if not found:
        cure = "record at least one step after the first"
        raise FieldError.of("course", "of moments with a limit", f"{len(moments)} without", cure)
    return found


def _rate_at(place: float, steps: int, top: float, *, by_path: bool) -> float:
    """Give the rate where a linear warmup passes a place; it is the less the longer it is."""
    step = (math.sqrt(1 + 8 * place * (steps + 1) / top) - 1) / 2 if by_path else place
    return top * min((step + 1) / (steps + 1), 1.0)


def _above(end: float) -> str:
    return (
        f"at the end of what was measured the limit is {spoken(end)}, below the rate: a warmup "
        "only puts off the moment when the rate is too large. Either the run finds its way along "
        f"the edge of stability, or the rate has to be smaller. {_PATH}"
    )


def _enough(opening: Sequence[tuple[float, float]], later: int, top: float, end: float) -> str:
    told = "at the start the limit is above the rate."
    if opening:
        least = spoken(min(limit for _, limit in opening))
        told = (
            f"the limit is {least} at its least in the beginning and {spoken(end)} at the end; "
            "this is the shortest linear one that keeps below it until it is above the rate."
        )
    if later:
        told += f" It falls below the rate again at {later} later moment{'s' if later > 1 else ''}."
    if top > end:
        told += " At the end the rate is at the edge of stability, which no warmup changes."
    return f"{told} {_PATH}"
