"""What a range test saw: a loss at every rate, of one run or of several."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from stepsize.errors import FieldError

Row = tuple[float, ...]


@dataclass(frozen=True)
class RangeCurve:
    """Losses over rising rates: a row for each repeat, which may end early.

    The loss at `rates[i]` is what a model said before the step with that rate, so it is what the
    steps at `rates[:i]` led to.

    Args:
        rates: of each step, rising, finite and not negative.
        losses: a row of finite numbers for each repeat, at most as long as `rates`. A shorter row
            was stopped there; what is not finite at its end is left out of it.
        scores: accuracies at the same steps, if any were measured; more is better.

    Raises:
        FieldError: where that does not hold.

    >>> curve = RangeCurve([1e-3, 1e-2, 1e-1], [[2.3, 2.2, float("nan")], [2.4, 2.1, 1.9]])
    >>> curve.losses
    ((2.3, 2.2), (2.4, 2.1, 1.9))
    >>> curve.first(2).rates
    (0.001, 0.01)
    """

    rates: Row
    losses: tuple[Row, ...]
    scores: tuple[Row, ...] = ()

    def __post_init__(self) -> None:
        rates = _numbers("rates", self.rates)
        if not all(math.isfinite(rate) and rate >= 0 for rate in rates):
            raise FieldError.of("rates", "finite and not negative", rates)
        if any(after <= before for before, after in pairwise(rates)):
            cure = "give them in the order of the steps, each once"
            raise FieldError.of("rates", "rising", _shortened(rates), cure)
        object.__setattr__(self, "rates", rates)
        object.__setattr__(self, "losses", _rows("losses", self.losses, len(rates)))
        object.__setattr__(self, "scores", _rows("scores", self.scores, len(rates)))
        if not self.losses:
            raise FieldError.of("losses", "a row for each repeat", self.losses)

    def pairs(self) -> list[tuple[Row, Row]]:
        """Give the rates and losses of each repeat, of equal lengths."""
        return [(self.rates[: len(row)], row) for row in self.losses]

    def first(self, count: int) -> "RangeCurve":
        """Give the first steps alone."""
        rows = (tuple(row[:count] for row in told) for told in (self.losses, self.scores))
        return RangeCurve(self.rates[:count], *rows)

    def to_dict(self) -> dict[str, Any]:
        """Give lists and numbers that JSON can hold."""
        told: dict[str, Any] = {"rates": list(self.rates), "losses": [*map(list, self.losses)]}
        return told | ({"scores": [*map(list, self.scores)]} if self.scores else {})

    @classmethod
    def from_dict(cls, told: dict[str, Any]) -> "RangeCurve":
        """Give the curve that `to_dict` described."""
        return cls(told["rates"], told["losses"], told.get("scores", ()))


def _rows(field: str, rows: Iterable[Iterable[float]], most: int) -> tuple[Row, ...]:
    if isinstance(rows, Sequence) and rows and not isinstance(rows[0], Iterable):
        raise FieldError.of(field, "a row for each repeat", rows[0], "of one run: give [losses]")
    told = tuple(_until_not_finite(_numbers(field, row)) for row in rows)
    for row in told:
        if len(row) > most:
            raise FieldError.of(field, f"at most as long as rates, {most}", len(row))
    return told


def _until_not_finite(row: Row) -> Row:
    ends = (i for i, value in enumerate(row) if not math.isfinite(value))
    return row[: next(ends, len(row))]


def _numbers(field: str, values: Iterable[Any]) -> Row:
    try:
        return tuple(float(value) for value in values)
    except (TypeError, ValueError) as error:
        raise FieldError.of(field, "numbers", values) from error


def _shortened(values: Row, most: int = 6) -> str:
    text = ", ".join(f"{value:g}" for value in values[:most])
    return f"[{text}, ...]" if len(values) > most else f"[{text}]"
