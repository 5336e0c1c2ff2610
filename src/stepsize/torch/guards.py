# ruff: noqa: SLF001 (a guard is a part of the scheduler that stands in a file of its own)
"""What a scheduler notices about how it is driven: each says once what is wrong, why, and the cure.

None of them changes a value: position follows the optimizer whatever the calls are. They look
seldom: the hot path compares one number (`cell[ALARM]`, `cell[LIMIT]`).
"""

import math
import sys
import warnings
import weakref
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import torch

from stepsize.time import driving_unit
from stepsize.torch.cell import ALARM, FIRED, LIMIT, OWN, START, STEPS, Cell
from stepsize.torch.groups import Slot, held, number

if TYPE_CHECKING:
    from stepsize.torch.core import Core

_OURS = (str(Path(__file__).parents[1]), str(Path(torch.__file__).parent), "<scheduler>")
_FIRST = 3  # steps at which it is looked whether groups were lent out
_CALLS = 20.0  # calls after which they are compared with the optimizer's steps
_EARLY = 2.0  # and already after so few, where the steps are very many more
_EPOCHS = 1000.0  # more epochs than this nobody means
_ENDLESS = 100_000.0  # steps without a call or a metric, where nothing has an end
_FEW = 20.0  # steps that a dry run or a profile may make
_SLACK = 1.05  # of a schedule's length: a partial batch more per epoch is nobody's mistake


class StepsizeWarning(UserWarning):
    """Something about how a scheduler is driven is probably not what was meant."""


def warn(text: str) -> None:
    """Say it."""
    warnings.warn(f"Scheduler: {text}", StepsizeWarning, stacklevel=_users_level())


def _users_level() -> int:
    """Give the stack level of the line that is neither ours nor torch's: the user's own."""
    frame, level = sys._getframe(1), 1
    while frame.f_back is not None and frame.f_code.co_filename.startswith(_OURS):
        frame, level = frame.f_back, level + 1
    return level


def once(core: "Core", what: str, text: str) -> None:
    """Say it, unless it was said before: a change of plan sets the guards up anew."""
    if what not in core._said:
        core._said.add(what)
        warn(text)


Call = Callable[[Any, float], float | None]


class Standing(Protocol):
    """What looks again and again, at steps that are the same on every rank."""

    due: float

    def aim(self, now: float) -> None:
        """Choose the next step again, where plans or the position have changed."""

    def look(self, core: Any, t: float) -> None:
        """Look, and choose the next step."""


class Alarms:
    """What is due at a step, and the next step at which something is."""

    def __init__(self, core: "Core", cell: Cell) -> None:
        self._core, self._cell = weakref.ref(core), cell
        self._due: list[tuple[float, Call]] = []
        self._looks = 0
        self.standing: Standing | None = None

    def at(self, step: float, call: Call) -> None:
        """Call at a step; it gives the next step at which it is to be called, or None."""
        self._due.append((step, call))
        self._set()

    def stand(self, standing: Standing | None) -> None:
        """Let something look again and again, whatever is cleared; None: nothing any more."""
        self.standing = standing
        self._set()

    def clear(self) -> None:
        """Forget everything but what stands."""
        self._due.clear()
        self._looks = 0
        if self.standing is not None:
            self.standing.aim(self._cell[STEPS])
        self._set()

    def ring(self, t: float) -> None:
        """Call what is due."""
        self._looks += 1
        ready = [call for step, call in self._due if step <= t]
        self._due = [(step, call) for step, call in self._due if step > t]
        core = self._core()
        for call in ready if core is not None else ():
            then = call(core, t)
            if then is not None:
                self._due.append((then, call))
        if core is not None and self.standing is not None and t >= self.standing.due:
            self.standing.look(core, t)
        self._set()

    def _set(self) -> None:
        first = 0.0 if self._looks < _FIRST else math.inf
        stands = math.inf if self.standing is None else self.standing.due
        self._cell[ALARM] = min([first, stands, *(step for step, _ in self._due)])


def set_up(core: "Core") -> None:
    """Arrange what is to be looked at, for what is told now."""
    core._alarms.clear()
    now, end = core._cell[STEPS], length(core)
    some = _ENDLESS if end is None else max(end / 2.0, 2.0)
    if core._counts == "calls":
        for calls in (_EARLY, _CALLS):
            core._alarms.at(now + calls, lambda core, t: _compare(core, t, end))
    if end is not None and end > now:
        core._alarms.at(end * _SLACK + 5.0, lambda core, t: _past(core, t, end))
    controllers = core._binding.controlled.controllers
    for what in ("metric", "loss"):
        begins = [each._moment("after") for each in controllers if each.sees == what]
        if begins:
            looks = max(now, min(begins)) + max(some, _FEW)
            core._alarms.at(looks, partial(_unseen, what=what))
    core._cell[LIMIT] = limit(core) if core._cell[FIRED] else -math.inf


def limit(core: "Core") -> float:
    """Give the step by which somebody should have driven the scheduler."""
    end = length(core)
    some = _ENDLESS if end is None else max(end / 2.0, _FEW)
    return math.inf if core._follows else float(core._cell[STEPS]) + some


def length(core: "Core") -> float | None:
    """Give the step at which the rates have ended; None where they never do, or nobody knows."""
    bound = core._binding
    horizon, ends = bound.told.horizon, [0.0]
    for slot in bound.slots:
        unit = driving_unit(slot.schedule, horizon)
        if slot.key != "lr":
            continue
        if unit == "s":
            return None
        tree = bound.told.tree(slot.schedule)
        end = tree.duration
        if end < math.inf and tree(end) >= tree.range[1]:
            return None  # it ends at its peak, as a warmup alone does: what follows is its constant
        known = unit != "st" and horizon is not None and end < math.inf
        ends.append(horizon.step_at(end, unit) - bound.shift if known and horizon else end)
    return max(ends) if 0.0 < max(ends) < math.inf else None


def other_base(core: "Core", slot: Slot, present: float) -> None:
    """Say that the base value of a loaded state was taken, and not the script's."""
    if not slot.schedule.is_absolute:
        text = (
            f"group {slot.group}, {slot.key}: the base value {slot.base:g} of the loaded state was "
            f"taken, not the present {present:g}; give base= to say otherwise"
        )
        once(core, "base", text)


def remark(core: "Core") -> None:
    """Say which base values were taken, once training has begun and no state was loaded."""
    remarks = core._binding.remarks
    if remarks and core._cell[STEPS] > core._cell[START]:
        told, remarks[:] = list(remarks), []
        for each in told:
            warn(each.removeprefix("Scheduler, "))


def _past(core: "Core", t: float, end: float) -> None:
    horizon = core._binding.told.horizon
    rates = ", ".join(f"{rate:g}" for rate in dict.fromkeys(core._binding.at(t)["lr"]))
    if any(record["kind"] == "cool_down" for record in core._journal):
        text = (
            f"the cooldown was over at step {end:g} and training is at step {t:g}, with the rate "
            f"staying at {rates}: training can stop here (scheduler.finished says so)"
        )
    elif horizon is None or horizon.total is None:
        epochs = "if its lengths were meant as epochs, write Cosine('90ep') and give horizon=; "
        text = (
            f"the schedule was over at step {end:g} and training is at step {t:g}, with the rate "
            f"staying at {rates}; {epochs if end <= _EPOCHS else ''}if the run is longer than "
            "planned, make the schedule longer; if the constant rate is meant, append "
            ">> Constant(value=...)"
        )
    else:
        text = (
            f"the schedule was over at step {end:g} and training is at step {t:g}, with the rate "
            f"staying at {rates}: the run was planned for {horizon!r}; are batches, epochs, "
            "accumulate= and replicas= right? scheduler.extend(total) makes it longer"
        )
    once(core, f"over at {end:g}", text)


def _compare(core: "Core", t: float, end: float | None) -> None:
    calls, steps = t - core._cell[START], core._cell[OWN]
    if steps and calls >= max(2 * steps, _CALLS):
        once(
            core,
            "ahead",
            f'step() was called {calls:g} times for {steps:g} optimizer steps, and counts="calls" '
            "was asked for, so the schedule runs ahead (accumulated batches, or a framework that "
            'calls once per process?); remove counts="calls": optimizer steps are then counted, '
            "however often step() is called",
        )
    horizon, many = core._binding.told.horizon, 2.0 if calls >= _CALLS else _CALLS
    known = horizon is not None and horizon.total is not None
    if known and end and many * calls <= steps < end:  # more steps than that: it counts epochs
        once(
            core,
            "behind",
            f'step() was called {calls:g} times for {steps:g} optimizer steps, and counts="calls" '
            f"was asked for, so the schedule of {end:g} steps will not come to its end (called "
            'once per epoch?); remove counts="calls": optimizer steps are then counted, however '
            "often step() is called",
        )


def _unseen(core: "Core", t: float, what: str) -> None:
    controlled = core._binding.controlled
    names = [type(each).__name__ for each in controlled.given if each.sees == what]
    if what in core._shown:
        return
    cure = {
        "metric": "call scheduler.step(metric) after every evaluation, or let the framework do it "
        "(Lightning: monitor=; transformers: eval_strategy= and metric_for_best_model=)",
        "loss": "call scheduler.observe(loss) after every step",
    }[what]
    have, do = ("have", "they do") if len(names) > 1 else ("has", "it does")
    text = (
        f"{' and '.join(names)} {have} seen no {what} in {t:g} steps, so {do} nothing yet: {cure}"
    )
    once(core, what, text)


def undriven(core: "Core") -> None:
    """Say that nobody has called `step()`, if the values are still those of the start."""
    cell, bound = core._cell, core._binding
    cell[LIMIT] = math.inf
    first = {s: bound.slot_value(s, cell[START]) for s in bound.slots}
    moved = [s for s, value in first.items() if value != bound.slot_value(s, cell[STEPS])]
    if moved and all(_is(bound.group_of(s), s.key, first[s]) for s in moved):
        warn(
            f"the optimizer has made {cell[STEPS]:g} steps and scheduler.step() was never called, "
            f"so the {moved[0].key} is still {first[moved[0]]:g}: call it after optimizer.step(), "
            "or give follow=True and never call it"
        )


def _is(group: Any, key: str, value: float) -> bool:
    return math.isclose(number(held(group, key)), value, rel_tol=1e-2)
