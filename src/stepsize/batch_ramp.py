"""A batch-size ramp as runs of equal batches, so that samples and steps convert exactly."""

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from stepsize.errors import FieldError, UnitError
from stepsize.schedules.schedule import Schedule
from stepsize.schedules.walk import settled, units_of
from stepsize.units import Time

if TYPE_CHECKING:
    from stepsize.horizon import Horizon

_LOOK_AHEAD = 65_536
_NEAR = 64


class _RampClock:
    """A ramp is written in steps, or in the samples or tokens used so far: no more is known."""

    def __init__(self, horizon: "Horizon", unit: str) -> None:
        self._horizon, self.unit = horizon, unit

    def number(self, time: float | Time, field: str, at: float = 0.0) -> float:
        del at
        if isinstance(time, float):
            unit, amount = "st", time
        elif time.unit == "%":
            return self._total(field) * time.amount / 100.0
        else:
            unit, amount = time.unit, time.amount
        if amount == 0.0:
            return 0.0
        if unit != self.unit:
            raise UnitError(
                f"{field} of the batch size is in '{unit}', the rest of it in '{self.unit}': "
                "write a batch-size ramp in one unit of st, samples, tok"
            )
        return amount

    def _total(self, field: str) -> float:
        total = self._horizon.total
        if total is None:
            raise UnitError(f"{field} of the batch size is a part of an unknown total")
        return self.number(total if isinstance(total, Time) else float(total), field)

    def room(self) -> float | None:
        return None if self._horizon.total is None else self._total("rest")

    def rounded(self, position: float) -> float:
        return position


def batch_runs(horizon: "Horizon") -> tuple[tuple[int, int, int], ...]:
    """Give (first step, samples before it, global batch) for each run of equal batches."""
    ramp, total = horizon.batch_size, horizon.total
    if not isinstance(ramp, Schedule):
        raise FieldError.of("Horizon.batch_size", "a schedule", ramp)
    unit = _unit(ramp, total)
    clock = _RampClock(horizon, unit)
    tree = settled(ramp, clock, clock.room() if units_of(ramp) & {"rest", "%"} else None)
    per_sample = (horizon.tokens_per_sample or 0) if unit == "tok" else 1
    if not per_sample:
        raise UnitError("a batch size in tokens needs Horizon(tokens_per_sample=...)")
    most_steps, most_samples = _limits(horizon, tree, unit)
    runs: list[tuple[int, int, int]] = []
    step = samples = 0
    while not runs or (step < most_steps and samples < most_samples):
        origin = step if unit == "st" else samples * per_sample
        size = _global(tree(float(origin)), horizon)
        if not runs or runs[-1][2] != size:
            runs.append((step, samples, size))
        steady = _steady(tree, origin, 1 if unit == "st" else size * per_sample, horizon)
        step, samples = step + steady, samples + steady * size
    return tuple(runs)


def _steady(tree: Schedule, origin: int, jump: int, horizon: "Horizon") -> int:
    """How many steps from an origin on have the same batch, as far as it looks ahead."""
    size = _global(tree(float(origin)), horizon)
    for steps in range(
        1, _NEAR
    ):  # most changes are near, and an array costs as much as many of these
        if _global(tree(float(origin + steps * jump)), horizon) != size:
            return steps
    far = tree(origin + jump * np.arange(_LOOK_AHEAD, dtype=np.float64))
    differs = np.flatnonzero(np.floor(far + 0.5) * horizon.per_step != size)
    return int(differs[0]) if differs.size else _LOOK_AHEAD


def _unit(ramp: Schedule, total: Any) -> str:
    units = units_of(ramp) - {"rest"}
    written = {total.unit if isinstance(total, Time) else "st"} if "%" in units else set()
    for unit in ("tok", "samples"):
        if unit in units | written:
            return unit
    return "st"


def _limits(horizon: "Horizon", tree: Schedule, unit: str) -> tuple[float, float]:
    """How many steps or samples must be looked at: to the ramp's end, or the run's."""
    per_sample = horizon.tokens_per_sample or math.nan
    limits = {"st": math.inf, "samples": math.inf}
    bounds = [(tree.duration, unit)]
    total = horizon.total
    if total is not None:
        bounds.append(
            (total.amount, total.unit) if isinstance(total, Time) else (float(total), "st")
        )
    for amount, of in bounds:
        if of == "tok":
            limits["samples"] = min(limits["samples"], amount / per_sample)
        elif of in limits:
            limits[of] = min(limits[of], amount)
    if limits["st"] == limits["samples"] == math.inf:
        raise UnitError(
            "a batch size that changes for ever needs a total: "
            "give Horizon(total=...) in steps, samples or tokens"
        )
    # one step past the end, where a ramp has its last value
    return limits["st"] + 1, limits["samples"] + 1


def _global(value: float, horizon: "Horizon") -> int:
    size = math.floor(value + 0.5)
    if size < 1:
        raise FieldError.of("Horizon.batch_size", "at least 1 sample at every step", value)
    return size * horizon.per_step
