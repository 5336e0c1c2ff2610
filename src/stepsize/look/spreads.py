"""Step sizes of many parameters as plain data: how they spread, now and over a run."""

import csv
import io
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from stepsize.drawing import svg as svg_drawing
from stepsize.drawing import text as text_drawing
from stepsize.drawing.series import Axis, Panel, Series, spoken, value_axis
from stepsize.errors import FieldError, SpecError
from stepsize.schedules.fields import Bounds

_NAMES = {0.0: "min", 0.5: "median", 1.0: "max"}
_FORMAT = "stepsize step sizes 1"


def label(share: float) -> str:
    """Give what a quantile is called.

    >>> [label(share) for share in (0, 0.05, 0.5, 1)]
    ['min', 'p5', 'median', 'max']
    """
    return _NAMES.get(share, f"p{100 * share:g}")


@dataclass(frozen=True, slots=True)
class Spread:
    """How the step sizes of some elements spread.

    Attributes:
        quantiles: the values by their shares, such as {0.5: 0.01}; none where no element has one.
        count: how many elements have a step size.
        elements: how many there are.
        schedule: `lr` over its base value; None where no base value is known.
    """

    quantiles: Mapping[float, float] = field(default_factory=dict)
    count: int = 0
    elements: int = 0
    schedule: float | None = None

    @property
    def median(self) -> float:
        """The middle one; NaN where there is none, or where it was not asked for."""
        return self.quantiles.get(0.5, math.nan)


class Spreads(Mapping[str, Spread]):
    """How step sizes spread in each group, layer or parameter, by name. `print` shows a table."""

    def __init__(self, spreads: Mapping[str, Spread]) -> None:
        self._spreads = dict(spreads)

    def __getitem__(self, name: str) -> Spread:
        if name not in self._spreads:
            known = ", ".join(map(repr, self._spreads))
            raise KeyError(f"no step sizes of {name!r}: there are {known}")
        return self._spreads[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._spreads)

    def __len__(self) -> int:
        return len(self._spreads)

    def __repr__(self) -> str:
        return f"Spreads({self._spreads!r})"

    def logs(self, prefix: str = "step_size") -> dict[str, float]:
        """Give every number by name, for any logger: `step_size/body/median`.

        The name is left out where there is but one, and what is not known is too.
        """
        found: dict[str, float] = {}
        for name, spread in self.items():
            start = f"{prefix}/{name}" if len(self) > 1 else prefix
            found |= {f"{start}/{label(q)}": value for q, value in spread.quantiles.items()}
            if spread.schedule is not None:
                found[f"{start}/schedule"] = spread.schedule
        return found

    def __str__(self) -> str:
        """Align names and numbers."""
        shares = shares_of([self])
        rows = [["", "elements", *map(label, shares)]]
        for name, spread in self.items():
            numbers = [spread.quantiles.get(q) for q in shares]
            rows.append([name, spoken(spread.elements), *map(_told, numbers)])
        lacking = [spread.elements - spread.count for spread in self.values()]
        _add_column(rows, "without", [float(n) for n in lacking], shown=any(lacking))
        factors = [spread.schedule for spread in self.values()]
        _add_column(rows, "schedule", factors, shown=any(x is not None for x in factors))
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        lines = ([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])] for row in rows)
        return "\n".join("  ".join(line) for line in lines)


def _told(value: float | None) -> str:
    if value is None:
        return "-"
    return spoken(value) if math.isfinite(value) else str(value)


def _add_column(
    rows: list[list[str]], name: str, values: Sequence[float | None], *, shown: bool
) -> None:
    if shown:
        for row, text in zip(rows, [name, *map(_told, values)], strict=True):
            row.append(text)


def shares_of(found: Iterable[Spreads]) -> list[float]:
    """Give the shares that quantiles were taken at, ascending."""
    return sorted({q for each in found for spread in each.values() for q in spread.quantiles})


class StepSizeHistory:
    """Step sizes over a run: `rows` of (step, `Spreads`), and the `steps` taken so far.

    `print` draws the medians as text, `stepsize.plot.step_sizes` makes a picture with bands.
    """

    def __init__(self, rows: Iterable[tuple[int, Spreads]] = (), steps: int = 0) -> None:
        self.rows = list(rows)
        self.steps = max([steps, *(step for step, _ in self.rows)])

    def names(self) -> list[str]:
        """Give the names in order of appearance: groups may join later."""
        return list(dict.fromkeys(name for _, found in self.rows for name in found))

    def of(self, name: str) -> list[tuple[int, Spread]]:
        """Give what is known of one group, layer or parameter, by step."""
        held = [(step, found[name]) for step, found in self.rows if name in found]
        return [(step, spread) for step, spread in held if spread.quantiles]

    def to_dict(self) -> dict[str, Any]:
        """Give everything as lists, dictionaries and numbers, which JSON can hold."""
        rows = []
        for step, found in self.rows:
            told = {n: [*map(list, s.quantiles.items())] for n, s in found.items()}
            counts = {n: [s.count, s.elements, s.schedule] for n, s in found.items()}
            rows.append({"step": step, "quantiles": told, "counts": counts})
        return {"format": _FORMAT, "steps": self.steps, "rows": rows}

    @staticmethod
    def from_dict(data: Mapping[str, Any]) -> "StepSizeHistory":
        """Give the history that `to_dict` wrote. Raises `SpecError` for anything else."""
        if not isinstance(data, Mapping) or data.get("format") != _FORMAT:
            raise SpecError(f"a history of step sizes has 'format': {_FORMAT!r}, got {data!r:.80}")
        return StepSizeHistory(map(_row, data["rows"]), data["steps"])

    def csv(self) -> str:
        """Write a line for each step and name, with every digit."""
        shares = shares_of(found for _, found in self.rows)
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        titles = ["step", "name", "elements", "count", "schedule"]
        writer.writerow([*titles, *map(label, shares)])
        for step, found in self.rows:
            for name, s in found.items():
                numbers = [s.quantiles.get(q) for q in shares]
                writer.writerow([step, name, s.elements, s.count, s.schedule, *numbers])
        return text.getvalue().removesuffix("\n")

    def panels(self, few: int = 0) -> list[Panel]:
        """Give the medians as curves by orders of magnitude, and the schedules' factors below.

        The axis has room for all quantiles, where there are at most so few names.
        """
        medians = self._curves(lambda spread: spread.median, least=math.ulp(0.0))
        if not medians:
            raise FieldError.of("a picture of step sizes", "of medians above 0", self.names())
        times = [float(step) for step, _ in self.rows]
        axis = Axis("steps", times[0], max(times[-1], times[0] + 1.0))
        values = [v for curve in medians for _, v in curve.points]
        if len(self.names()) <= few:
            spreads = [s for name in self.names() for _, s in self.of(name)]
            values += [v for s in spreads for v in s.quantiles.values() if v > 0.0]
        found = [Panel("", axis, value_axis("step size", values, 0.0, log=True), medians)]
        factors = self._curves(lambda spread: spread.schedule, least=0.0)
        if factors:
            heights = [v for curve in factors for _, v in curve.points]
            found += [Panel("", axis, value_axis("schedule", heights, 1.0, log=False), factors)]
        return found

    def _curves(self, value: Callable[[Spread], float | None], least: float) -> tuple[Series, ...]:
        found = []
        for name in self.names():
            told = [(float(step), value(spread)) for step, spread in self.of(name)]
            points = [(t, v) for t, v in told if v is not None and least <= v < math.inf]
            found += [Series(name, tuple(points))] if points else []
        return tuple(found)

    def text(self, *, width: int = 72, height: int = 12, paint: bool = False) -> str:
        """Draw the medians as text; `paint` adds a terminal's colours."""
        sizes = Bounds(ge=2, whole=True)
        wide, high = (int(sizes.admit("StepSizeHistory.text", n)) for n in (width, height))
        return text_drawing.draw(self.panels()[0], width=wide, height=high, paint=paint)

    def __str__(self) -> str:
        """Draw it as text."""
        return self.text() if any(map(self.of, self.names())) else repr(self)

    def __repr__(self) -> str:
        return f"<step sizes at {len(self.rows)} of {self.steps} steps>"

    def _repr_svg_(self) -> str:
        return svg_drawing.draw(tuple(self.panels()), spoken_title="step sizes over steps")


def _row(told: Mapping[str, Any]) -> tuple[int, Spreads]:
    spreads = {
        name: Spread(dict(pairs), *told["counts"][name])
        for name, pairs in told["quantiles"].items()
    }
    return told["step"], Spreads(spreads)
