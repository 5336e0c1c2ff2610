r"""The rate against the largest stable one, over a run; and how long a warmup that keeps below it.

Pure data: what measures it is `stepsize.torch.stability`.
"""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any

from stepsize.drawing.series import spoken
from stepsize.errors import FieldError, SpecError

_FORMAT = "stepsize stability 1"
_TITLES = ("step", "rate", "limit", "rate/limit", "sharpness", "preconditioned", "loss", "update")


def stable_rate(
    sharpness: float, momentum: float = 0.0, dampening: float = 0.0, nesterov: bool = False
) -> float:
    r"""Give the largest rate at which descent along an eigenvalue λ comes nearer at every step.

    With x = ηλ, momentum β and dampening δ the step is $b \leftarrow \beta b + (1-\delta)x\theta$,
    $\theta \leftarrow \theta - b$: the recurrence has the polynomial $z^2 - (1 + \beta -
    (1-\delta)x) z + \beta$. Both roots lie in the unit circle iff it is positive at 1 and at -1
    and β < 1, and at -1 that says $(1-\delta) x < 2(1+\beta)$. Nesterov's momentum, $\theta
    \leftarrow \theta - ((1-\delta)x\theta + \beta b)$ with the new b, has $z^2 - (1+\beta)(1 -
    (1-\delta)x) z + \beta(1 - (1-\delta)x)$: at -1, $(1-\delta) x < 2(1+\beta)/(1+2\beta)$.

    Args:
        sharpness: λ; where it is not above 0 no rate is too large, as far as this tells.
        momentum: β, from 0 to below 1.
        dampening: δ; an average of gradients, as Adam's, has δ = β.
        nesterov: whether the step looks ahead.

    Source: derived here; it is the Schur-Cohn criterion for two roots.

    >>> stable_rate(100.0), stable_rate(100.0, 0.9), round(stable_rate(100.0, 0.9, 0.9), 12)
    (0.02, 0.038, 0.38)
    """
    if math.isnan(sharpness):
        raise FieldError.of("sharpness", "a number", sharpness)
    if sharpness <= 0:
        return math.inf
    ahead = 1 + 2 * momentum if nesterov else 1.0
    return 2 * (1 + momentum) / ((1 - dampening) * ahead * sharpness)


@dataclass(frozen=True, slots=True)
class Moment:
    """What was measured at one place of a run.

    Attributes:
        step: how many steps had been taken.
        rate: of the step that came next.
        limit: the largest stable rate there; None where it is not known yet, as before Adam's
            first step.
        sharpness: the largest eigenvalue of the Hessian.
        preconditioned: that as the optimizer sees it, of which the limit is.
        loss: on the batch that all of it was measured on.
        update: the norm of the step that came next; None at the end.
        relative: the root mean square of that step's elements over the rate; about 1 for the first
            step of Adam.
    """

    step: int
    rate: float
    limit: float | None = None
    sharpness: float | None = None
    preconditioned: float | None = None
    loss: float | None = None
    update: float | None = None
    relative: float | None = None

    @property
    def share(self) -> float | None:
        """The rate over the limit: above 1 is too fast."""
        return None if self.limit is None else self.rate / self.limit


@dataclass(frozen=True)
class StabilityCourse(Sequence[Moment]):
    """The moments of a run, in order.

    >>> course = StabilityCourse([Moment(0, 0.5, limit=0.25), Moment(1, 0.5, limit=1.0)])
    >>> [moment.step for moment in course.violations], course.worst
    ([0], 2.0)
    """

    moments: tuple[Moment, ...] = ()

    def __post_init__(self) -> None:
        moments = tuple(self.moments)
        steps = [moment.step for moment in moments]
        if steps != sorted(set(steps)):
            raise FieldError.of("StabilityCourse.moments", "in the order of their steps", steps)
        object.__setattr__(self, "moments", moments)

    def __getitem__(self, index: Any) -> Any:
        return self.moments[index]

    def __len__(self) -> int:
        return len(self.moments)

    def __iter__(self) -> Iterator[Moment]:
        return iter(self.moments)

    @property
    def known(self) -> tuple[Moment, ...]:
        """The moments whose limit is known."""
        return tuple(moment for moment in self.moments if moment.limit is not None)

    @property
    def violations(self) -> tuple[Moment, ...]:
        """The moments whose rate was above the limit."""
        return tuple(moment for moment in self.known if (moment.share or 0.0) > 1.0)

    @property
    def worst(self) -> float | None:
        """The largest rate over its limit; None where no limit is known."""
        return max((moment.share or 0.0 for moment in self.known), default=None)

    def to_dict(self) -> dict[str, Any]:
        """Give dictionaries, numbers and texts, which JSON can hold."""
        rows = [{n: _kept(x) for n, x in asdict(moment).items()} for moment in self.moments]
        return {"format": _FORMAT, "moments": rows}

    @staticmethod
    def from_dict(data: Mapping[str, Any]) -> "StabilityCourse":
        """Give the course that `to_dict` wrote. Raises `SpecError` for anything else."""
        if not isinstance(data, Mapping) or data.get("format") != _FORMAT:
            raise SpecError(f"a course of stability has 'format': {_FORMAT!r}, got {data!r:.80}")
        names = {field.name for field in fields(Moment)}
        told = ({n: _back(n, x) for n, x in row.items() if n in names} for row in data["moments"])
        return StabilityCourse(tuple(Moment(**row) for row in told))

    def table(self, most: int = 20) -> str:
        """Give the moments as aligned text, of many some at even distances."""
        every = max(-(-len(self.moments) // most), 1)
        rows = [_TITLES, *map(_row, self.moments[::every])]
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        return "\n".join("  ".join(map(str.rjust, row, widths)) for row in rows)

    def __str__(self) -> str:
        """Say how often the limit was crossed, and show a table."""
        return f"{self._summary()}\n\n{self.table()}"

    def _summary(self) -> str:
        worst, crossed, known = self.worst, self.violations, len(self.known)
        if worst is None:
            return "no stability limit is known"
        if not crossed:
            return f"the rate stayed below the stability limit at all {known} moments"
        where = _stretches(moment.step for moment in crossed)
        return (
            f"the rate was above the stability limit at {len(crossed)} of {known} moments, by a "
            f"factor of {spoken(worst)} at worst: at steps {where}"
        )


def _kept(value: float | None) -> Any:
    """Keep what JSON has no number for as text."""
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value


def _back(name: str, value: Any) -> Any:
    return value if value is None or name == "step" else float(value)


def _row(moment: Moment) -> tuple[str, ...]:
    told = [moment.rate, moment.limit, moment.share, moment.sharpness, moment.preconditioned]
    told += [moment.loss, moment.update]
    return (str(moment.step), *map(_told, told))


def _told(value: float | None) -> str:
    if value is None:
        return "-"
    return spoken(value) if math.isfinite(value) else str(value)


def _stretches(steps: Iterable[int]) -> str:
    """Name steps by their first and last where they were measured one after the other."""
    found = list(steps)
    few = 6
    shown = ", ".join(map(str, found[:few]))
    return shown if len(found) <= few else f"{shown} ... {found[-1]}"
