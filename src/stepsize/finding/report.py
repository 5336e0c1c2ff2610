"""The result of a range test: what it saw and what follows, to print, draw and keep."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stepsize.drawing import svg as svg_drawing
from stepsize.drawing import text as text_drawing
from stepsize.drawing.series import Axis, Panel, Series, thinned
from stepsize.errors import SpecError
from stepsize.files.disk import write_whole
from stepsize.finding.bounds import Smith, smith
from stepsize.finding.curve import RangeCurve, Row
from stepsize.finding.divergence import until_diverged
from stepsize.finding.rules import RULES
from stepsize.finding.suggestion import Suggestion, suggest

if TYPE_CHECKING:
    import os

FORMAT = 1


@dataclass(frozen=True)
class RangeTest:
    """What a range test saw, and what follows from it.

    Args:
        curve: rates and losses.
        ramp: how the rates rose, "geometric" or "linear".
        steps: how many were asked for in each repeat.
        ended: how each repeat ended: "end" of the ramp, "diverged" or "not finite".
        ratios: of every param group, its name and its rate over that of the first.
        seconds: how long it took.
    """

    curve: RangeCurve
    ramp: str = "geometric"
    steps: int = 0
    ended: tuple[str, ...] = ()
    ratios: tuple[tuple[str, float], ...] = ()
    seconds: float = 0.0

    @cached_property
    def suggestion(self) -> Suggestion:
        """The rate, its spread and the reason; see `suggest`."""
        return suggest(self.curve)

    @property
    def rate(self) -> float | None:
        """The rate that is suggested for the first param group."""
        return self.suggestion.rate

    @property
    def rates(self) -> dict[str, float]:
        """The rate that is suggested for every param group, by name; empty if there is none."""
        rate = self.rate
        return {} if rate is None else {name: rate * ratio for name, ratio in self.ratios}

    @cached_property
    def rules(self) -> dict[str, float | None]:
        """What other people's rules say, of the mean over the repeats that had not ended."""
        means = _means(self.curve)
        return {name: rule(self.curve.rates[: len(means)], means) for name, rule in RULES.items()}

    @cached_property
    def smith(self) -> Smith | None:
        """The two rates that Smith reads off accuracies; None without these."""
        return smith(self.curve) if self.curve.scores else None

    def text(self, width: int = 60, height: int = 10) -> str:
        """Draw the curve, and say what is suggested, why, and what others would say."""
        drawn = text_drawing.draw(self.panel(), width=width, height=height)
        return "\n".join([drawn, "", *self._lines()])

    def _lines(self) -> list[str]:
        lines = [str(self.suggestion)]
        if len(self.ratios) > 1:
            each = ", ".join(f"{name} {rate:.2g}" for name, rate in self.rates.items())
            lines.append(f"of each group: {each}")
        others = (f"{name} {_spoken(rate)}" for name, rate in self.rules.items())
        lines.append("other rules: " + ", ".join(others))
        if self.smith is not None:
            lines.append(f"Smith's bounds: {self.smith.base:.2g} to {self.smith.most:.2g}")
        return lines

    def __str__(self) -> str:
        return self.text()

    def panel(self) -> Panel:
        """Give the losses over the rates, cut where they rise far above the first ones."""
        return losses_panel(self.curve, log=self.ramp == "geometric")

    def _repr_svg_(self) -> str:
        return svg_drawing.draw((self.panel(),), spoken_title="losses over rates")

    def to_dict(self) -> dict[str, Any]:
        """Give what JSON can hold; the suggestion and the other rules too, to read."""
        told = {each.name: getattr(self, each.name) for each in fields(self)}
        told |= {"curve": self.curve.to_dict(), "suggestion": asdict(self.suggestion)}
        return {"format": FORMAT, **told, "rules": self.rules}

    @classmethod
    def from_dict(cls, told: Mapping[str, Any]) -> "RangeTest":
        """Give the result that `to_dict` described; what follows from it is found again.

        Raises:
            SpecError: for another format, or without a curve.
        """
        if told.get("format") != FORMAT or not isinstance(told.get("curve"), Mapping):
            raise SpecError(f"a range test has format {FORMAT} and a curve, not {sorted(told)}")
        given = {each.name: told[each.name] for each in fields(cls) if each.name in told}
        given |= {"curve": RangeCurve.from_dict(told["curve"])}
        given |= {"ended": tuple(told.get("ended", ()))}
        given |= {"ratios": tuple((str(n), float(r)) for n, r in told.get("ratios", ()))}
        return cls(**given)

    def save(self, path: "str | os.PathLike[str]") -> None:
        """Write it as JSON; a file that is there is replaced as a whole."""
        write_whole(Path(path), json.dumps(self.to_dict(), indent=1).encode())

    @classmethod
    def load(cls, path: "str | os.PathLike[str]") -> "RangeTest":
        """Read what `save` wrote. Raises `SpecError` for anything else."""
        try:
            told = json.loads(Path(path).read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise SpecError(f"{path} cannot be read as a range test: {error}") from error
        if not isinstance(told, dict):
            raise SpecError(f"{path} holds no range test")
        return cls.from_dict(told)


def losses_panel(curve: RangeCurve, *, log: bool) -> Panel:
    """Give losses over rates as a panel, one series for each repeat."""
    kept = [until_diverged(row) for row in curve.losses]
    zeros = sum(rate <= 0.0 for rate in curve.rates) if log else 0
    rates = curve.rates[zeros : max(map(len, kept))]
    if not any(kept):
        x, y = Axis("learning rate", 0.0, 1.0), Axis("loss", 0.0, 1.0)
        return Panel("no loss is finite", x, y, ())
    begun = max(row[0] for row in kept if row)
    least = min(min(row) for row in kept if row)
    top = begun + max(0.5 * (begun - least), 1e-3 * abs(begun), 1e-12)
    last = (
        rates[-1] if len(rates) > 1 else 2.0 * rates[0] + float(not rates[0])
    )  # an axis of length
    x = Axis("learning rate", rates[0], last, log=log)
    y = Axis("loss", least - 0.05 * (top - least), top)
    names = ("",) if len(kept) == 1 else tuple(f"repeat {i + 1}" for i in range(len(kept)))
    series = []
    for name, row in zip(names, kept, strict=True):
        points = [(rate, min(loss, top)) for rate, loss in zip(rates, row[zeros:], strict=False)]
        series.append(Series(name, thinned(points, x)))
    return Panel("", x, y, tuple(series))


def _means(curve: RangeCurve) -> Row:
    steps = range(max(map(len, curve.losses)))
    alive = ([row[i] for row in curve.losses if i < len(row)] for i in steps)
    return tuple(sum(losses) / len(losses) for losses in alive)


def _spoken(rate: float | None) -> str:
    return "none" if rate is None else f"{rate:.2g}"
