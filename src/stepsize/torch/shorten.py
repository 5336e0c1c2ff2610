# ruff: noqa: SLF001 (a part of the scheduler that stands in a file of its own)
"""How long a cooldown may be that has to be over before the job ends."""

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from stepsize.edits.kinds import CoolDown
from stepsize.horizon import Horizon, amount_of
from stepsize.time import HorizonClock, driving_unit
from stepsize.torch import guards
from stepsize.torch.endings import seconds
from stepsize.torch.told import Told
from stepsize.units import REST, SECONDS, Time

if TYPE_CHECKING:
    from stepsize.schedules.schedule import Schedule
    from stepsize.torch.edited import Edited

SHARE = 0.2  # of the steps there will have been: what `wsd` takes
_MARGIN = 0.1  # of the time left


@dataclass(frozen=True, slots=True)
class Ending:
    """The cooldown that is wanted; `over=None`: as long as fits, a fifth before a deadline.

    Args:
        wanted: the cooldown; its length counts where `given`.
        given: whether a length was given.
        margin: seconds to be left after it; None: a tenth of the time that is left.
    """

    wanted: CoolDown
    given: bool
    margin: float | None

    @classmethod
    def of(cls, over: float | str | Time | None, margin: object, **cooldown: Any) -> "Ending":
        """Check what was given."""
        wanted = CoolDown(REST if over is None else over, **cooldown)
        spare = None
        if margin is not None:
            spare = 0.0 if margin == 0 else seconds("watch: margin", margin)
        return cls(wanted, over is not None, spare)

    def check(self, core: "Edited") -> None:
        """Raise the error that the cooldown would meet, as far as it is known by now."""
        core._binding.told._check_keys(self.wanted)
        _wanted(core, self, Left(0.0, 1.0, 1.0, at_once=False), 1.0, timed=Course.of(core).timed)


class Left(NamedTuple):
    """How things stand: the step, seconds until the job ends, seconds per step.

    `at_once`: whether to begin now, or as late as the wanted length allows.
    """

    step: float
    seconds: float
    pace: float
    at_once: bool

    def steps(self, seconds: float) -> float:
        """Give how many steps fit into a time."""
        return seconds / self.pace if self.pace else math.copysign(math.inf, seconds)


class Course(NamedTuple):
    """Where the rates or the run end, in steps or seconds; found anew when the plan has changed."""

    told: Told
    shift: float
    rates: list["Schedule"]
    timed: bool
    end: float

    @classmethod
    def of(cls, core: "Edited") -> "Course":
        """Find it out."""
        bound, told = core._binding, core._binding.told
        rates = list({slot.schedule: None for slot in bound.slots if slot.key == "lr"})
        timed = any(driving_unit(schedule, told.horizon) == "s" for schedule in rates)
        if timed:
            end = max(told.tree(schedule).duration for schedule in rates)
            return cls(told, bound.shift, rates, timed, end)
        end = guards.length(core) or math.inf
        total = None if told.horizon is None else told.horizon.total
        if told.horizon is not None and total is not None and amount_of(total)[1] != "s":
            end = min(end, told.horizon.steps - bound.shift)
        return cls(told, bound.shift, rates, timed, end)

    def holds(self, core: "Edited") -> bool:
        """Tell whether the plan is the same."""
        return self.told is core._binding.told and self.shift == core._binding.shift

    def left(self, core: "Edited", now: Left) -> float:
        """Give the steps that are left; infinite where nobody knows."""
        return now.steps(self.end - core._clock.seconds) if self.timed else self.end - now.step


def shortened(
    core: "Edited", course: Course, ending: Ending, now: Left
) -> tuple[CoolDown, bool] | None:
    """Give the cooldown that is due now, and whether not one step of it fits in time.

    None where the run comes to its end in time as it is, or where it can wait.
    """
    told, last = ending.wanted, core._journal[-1:]
    cooling = any(e["kind"] == told.kind and {*told.keys} <= {*e["keys"]} for e in last)
    spare = _MARGIN * now.seconds if ending.margin is None else ending.margin
    fits, room = now.steps(now.seconds - spare), course.left(core, now)
    if room <= max(now.steps(now.seconds) if cooling else fits, 0.0):
        return None
    wanted = _wanted(core, ending, now, fits, timed=course.timed)
    if not now.at_once and fits > wanted:
        return None
    steps = max(float(math.floor(min(wanted, fits, room))), 1.0)
    remark = f"{now.seconds:.3g} s left at {now.pace:.3g} s per step"
    over: float | Time = Time(steps * now.pace or 1.0, "s") if course.timed else steps
    to = _rest_of(core, course.rates[0]) if cooling and course.rates else told.to
    return CoolDown(over, to, told.along, told.keys, remark), fits < 1.0


def _wanted(core: "Edited", ending: Ending, now: Left, fits: float, *, timed: bool) -> float:
    """Give the wanted length in steps."""
    if not ending.given:
        return math.inf if now.at_once else SHARE * (now.step + max(fits, 0.0))
    over = ending.wanted.over
    if over == REST:
        return math.inf
    if isinstance(over, Time) and over.unit in SECONDS:
        return now.steps(over.amount * SECONDS[over.unit])
    bound = core._binding
    clock = HorizonClock(bound.told.horizon or Horizon(), "s" if timed else "st")
    found = clock.number(over, "watch: over", now.step + bound.shift)  # type: ignore[arg-type]  # a length by now
    return now.steps(found) if timed else found


def _rest_of(core: "Edited", schedule: "Schedule") -> float:
    """Give the share of the present rate at which the cooldown under way would have ended."""
    moment = core._moment()
    value, tree = moment.value(schedule), moment.tree(schedule)
    return min(float(tree(tree.duration)) / value, 1.0) if value else 0.0
