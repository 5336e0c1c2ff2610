"""Runs with and without a warmup, side by side, as a value."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from statistics import median
from typing import Any

from stepsize.drawing.series import spoken
from stepsize.errors import SpecError
from stepsize.finding.stability import StabilityCourse
from stepsize.finding.warmup import WarmupAdvice, recommend_warmup

_FORMAT = "stepsize warmup study 1"
_TITLES = ("", "seed", "moments over the limit", "rate/limit at worst", "loss at the end")


@dataclass(frozen=True)
class Trained:
    """One run of a study.

    Attributes:
        seed: of the run.
        warmup: how many steps its warmup had; 0 for none.
        course: what was measured along it.
        metrics: what `Run.evaluate()` gave at the end.
        finished: whether it took all steps with a finite loss.
    """

    seed: int
    warmup: int
    course: StabilityCourse
    metrics: Mapping[str, float]
    finished: bool = True

    @property
    def loss(self) -> float:
        """The loss on the probe at the end; NaN where there is none."""
        told = self.course.moments[-1].loss if self.course.moments else None
        return math.nan if told is None or not self.finished else told


@dataclass(frozen=True)
class WarmupStudy:
    """The same seeds trained with and without a warmup.

    Attributes:
        rate: that all runs go to.
        steps: how many each took.
        runs: each run.
    """

    rate: float
    steps: int
    runs: tuple[Trained, ...]

    @property
    def lengths(self) -> tuple[int, ...]:
        """The lengths of warmup that were tried, ascending."""
        return tuple(sorted({run.warmup for run in self.runs}))

    def of(self, warmup: int) -> tuple[Trained, ...]:
        """Give the runs with a warmup of so many steps."""
        return tuple(run for run in self.runs if run.warmup == warmup)

    def advice(self, *, margin: float = 1.0, along: str = "path") -> WarmupAdvice:
        """Recommend a warmup from the gentlest runs, the longest that any of them asks for."""
        courses = (run.course for run in self.of(self.lengths[-1]) if run.finished)
        given = [recommend_warmup(c, self.rate, margin=margin, along=along) for c in courses]
        if not given:
            return WarmupAdvice(None, self.rate, "no run with the longest warmup came to its end.")
        return max(given, key=lambda one: math.inf if one.steps is None else one.steps)

    def to_dict(self) -> dict[str, Any]:
        """Give everything as lists, dictionaries, numbers and texts, which JSON can hold."""
        runs = [
            {
                "seed": run.seed,
                "warmup": run.warmup,
                "course": run.course.to_dict(),
                "metrics": {name: str(float(x)) for name, x in run.metrics.items()},
                "finished": run.finished,
            }
            for run in self.runs
        ]
        return {"format": _FORMAT, "rate": self.rate, "steps": self.steps, "runs": runs}

    @staticmethod
    def from_dict(data: Mapping[str, Any]) -> "WarmupStudy":
        """Give the study that `to_dict` wrote. Raises `SpecError` for anything else."""
        if not isinstance(data, Mapping) or data.get("format") != _FORMAT:
            raise SpecError(f"a warmup study has 'format': {_FORMAT!r}, got {data!r:.80}")
        return WarmupStudy(data["rate"], data["steps"], tuple(map(_run, data["runs"])))

    def __str__(self) -> str:
        """Show a line for each run, and what was seen."""
        rows = [_TITLES, *(_row(run) for warmup in self.lengths for run in self.of(warmup))]
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        lines = ["  ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])])
                 for row in rows]  # fmt: skip
        return "\n".join([*lines, "", *map(self._told, self.lengths), f"advice: {self.advice()}"])

    def _told(self, warmup: int) -> str:
        runs = self.of(warmup)
        crossed = sum(bool(run.course.violations) for run in runs)
        losses = [run.loss for run in runs if run.finished]
        ends = f"median loss {spoken(median(losses))}" if losses else "none came to its end"
        return f"{_name(warmup)}: {crossed} of {len(runs)} runs went over the limit; {ends}"


def _name(warmup: int) -> str:
    return f"warmup of {warmup}" if warmup else "no warmup"


def _row(run: Trained) -> tuple[str, ...]:
    worst = run.course.worst
    over = f"{len(run.course.violations)} of {len(run.course.known)}"
    end = spoken(run.loss) if math.isfinite(run.loss) else "not finite"
    return _name(run.warmup), str(run.seed), over, "-" if worst is None else spoken(worst), end


def _run(told: Mapping[str, Any]) -> Trained:
    course = StabilityCourse.from_dict(told["course"])
    metrics = {name: float(x) for name, x in told["metrics"].items()}
    return Trained(told["seed"], told["warmup"], course, metrics, told["finished"])
