"""The journal of a run: every change of plan as plain data, and what is told after all of them."""

import dataclasses
import math
from typing import Any

from stepsize.edits.kinds import WHERE, edit_from
from stepsize.edits.moment import Moment
from stepsize.files.description import from_dict
from stepsize.schedules.schedule import Schedule
from stepsize.torch.cell import STEPS
from stepsize.torch.core import Core
from stepsize.torch.told import Place, Told
from stepsize.units import Time

Record = dict[str, Any]
GROUP, KEPT = "group", "kept"


class Journalled(Core):
    """A scheduler that knows what was changed, and when."""

    @property
    def journal(self) -> list[Record]:
        """Every change of plan until now, as plain data: what, at which step, and why."""
        return [dict(record) for record in self._journal]

    def _moment(self) -> Moment:
        bound, step, seconds = self._binding, self._cell[STEPS], self._clock.seconds
        if bound.ahead:
            return Moment(step + bound.ahead, bound.told.horizon, 0.0, seconds)
        return Moment(step, bound.told.horizon, bound.shift, seconds)

    def _where(self) -> Record:
        bound, step = self._binding, self._cell[STEPS]
        return {
            "step": int(step),
            "position": bound.position(step),
            "unit": bound.told.unit,
            "seconds": self._clock.seconds,
        }

    def _replayed(self, told: Told, journal: list[Record]) -> Told:
        """Give what is told after all the changes of a journal."""
        last = max((i for i, each in enumerate(journal) if each["kind"] == KEPT), default=-1)
        joined = [record for record in journal[: last + 1] if record["kind"] == GROUP]
        for record in [*joined, *journal[last + 1 :]]:
            moment = self._moment_of(record, told)
            if record["kind"] == GROUP:
                own = {key: _schedule(data) for key, data in record["schedules"].items()}
                place = (int(record["place"][0]), int(record["place"][1]))
                told = joining(told, place, own, record["clock"], moment)
            else:
                data = {k: v for k, v in record.items() if k not in WHERE}
                told = told.edited(edit_from(data), moment)
        return told

    def _moment_of(self, record: Record, told: Told) -> Moment:
        horizon, unit, step = told.horizon, record["unit"], float(record["step"])
        if horizon is None or not unit == told.unit != "st":
            return Moment(step, horizon, 0.0, float(record["seconds"]))
        there = horizon.step_at(float(record["position"]), unit)
        if unit == "ep":
            return Moment(_near(there, step), horizon, 0.0, float(record["seconds"]))
        return Moment(step, horizon, there - step, float(record["seconds"]))


def _near(there: float, step: float) -> float:
    """Give the step itself where only a conversion and back lies between the two."""
    return step if math.isclose(there, step, rel_tol=1e-12) else there


def joining(
    told: Told, place: Place, schedules: dict[str, Schedule], clock: str, moment: Moment
) -> Told:
    """Give what is told when a group comes in."""
    own = {**told.common, **schedules} if clock == "own" else dict(schedules)
    if clock == "own":
        own = {key: _later(each, moment) for key, each in own.items()}
    if not own:
        return told
    return dataclasses.replace(told, special={**told.special, place: own})


def _later(schedule: Schedule, moment: Moment) -> Schedule:
    at, unit = moment.at(schedule), moment.clock(schedule).unit
    if not at:
        return schedule
    return schedule.shifted(at if unit == "st" else Time(at, unit))


def _schedule(data: Any) -> Schedule:
    made = from_dict({"format": 1, "schedule": data})
    if not isinstance(made, Schedule):
        raise TypeError("a plan where a schedule was expected")
    return made
