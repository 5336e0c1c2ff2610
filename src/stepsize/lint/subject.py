"""What the rules of the lint look at, and what they find."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from stepsize.drawing.series import Point, spoken
from stepsize.look.preview import AXES, axis_unit
from stepsize.look.tracks import Run, Track

Level = Literal["error", "warning"]


@dataclass(frozen=True, slots=True)
class Finding:
    """What one rule found: `level` is "error" where training is surely not what was meant.

    Attributes:
        rule: its name.
        level: "error" or "warning".
        title: the hyper-parameter and the param groups; empty for a bare schedule.
        where: the moment, as a person would say it.
        what: what is wrong.
        cure: what to write instead.
        at: the moment as a number; None where it is the whole run.
        unit: what it counts: "steps", or "hours" and the like.
    """

    rule: str
    level: Level
    title: str
    where: str
    what: str
    cure: str
    at: float | None = None
    unit: str = ""

    def __str__(self) -> str:
        """Say it in one line."""
        place = ", ".join(filter(None, (self.title, self.where)))
        head = f"{self.level} [{self.rule}]{' ' if place else ''}{place}"
        return f"{head}: {self.what}; {self.cure}"


@dataclass(frozen=True, slots=True)
class Look:
    """One scheduled value over a run, as the rules see it: thousands of values by time.

    `peak` is the highest value seen, `last` the value of the last step.
    """

    run: Run
    track: Track
    points: tuple[Point, ...]
    peak: float
    last: float

    @property
    def is_rate(self) -> bool:
        """Whether it is the learning rate, whose course the rules know what to expect of."""
        return self.track.key in ("", "lr") and not self.track.extra

    @property
    def total(self) -> float:
        """The length of the run."""
        return self.run.total

    def moment(self, time: float) -> str:
        """Say a time of the run as a person would: the step, and the share of the run."""
        unit = axis_unit(self.run, None)
        name, share = AXES[unit].removesuffix("s"), 100.0 * time / self.total
        return f"{name} {spoken(self.run.to(unit, time))} ({share:.3g} %)"

    def length(self, time: float) -> str:
        """Say a length of time: 1,000 steps."""
        unit = axis_unit(self.run, None)
        return f"{spoken(self.run.to(unit, time))} {AXES[unit]}"

    @property
    def epochs(self) -> float | None:
        """How many epochs the run has; None where unknown, or where an epoch is a few steps."""
        horizon = self.run.horizon
        if not self.run.whole or horizon.batches_per_epoch is None:
            return None
        epochs = horizon.position(self.total, "ep")
        return epochs if self.total >= 5 * epochs else None


Found = Iterator[tuple[Level, float | None, str, str]]
"""What a rule yields: level, when in the run, what, cure."""
