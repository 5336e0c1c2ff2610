"""What a scheduler was told, as a value: schedules by key, by group, extras, and the horizon."""

import dataclasses
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

from stepsize.edits.carry import carried
from stepsize.edits.kinds import CoolDown, Edit, Extend, Replan
from stepsize.edits.moment import Moment, written
from stepsize.errors import FieldError, UnitError
from stepsize.files.description import from_dict, plain_data
from stepsize.horizon import Horizon, amount_of
from stepsize.schedules.schedule import FACTOR_PEAKS, Schedule
from stepsize.schedules.walk import units_of
from stepsize.time import driving_unit, resolve
from stepsize.units import Time

Schedules = dict[str, Schedule]
Place = tuple[int, int]
Special = dict[Place | str, Schedules]


@dataclass(frozen=True, slots=True)
class Told:
    """Schedules by hyper-parameter, those of single groups by place or name, and the extras."""

    common: Schedules
    special: Special
    extra: Schedules
    horizon: Horizon | None = None
    reach: Literal["end", "last"] = "end"
    by_epoch: bool = False  # whether epochs counted before an edit wrote the past in steps

    def __post_init__(self) -> None:
        needs = [schedule for schedule in self.schedules() if units_of(schedule)]
        if needs and self.horizon is None:
            raise UnitError(
                f"Scheduler.horizon is needed: {needs[0]!r} is written in units; "
                "give horizon=Horizon(total=...) or Horizon.from_loader(loader, epochs=...)"
            )
        if self.reach == "last" and (self.horizon is None or self.horizon.total is None):
            raise FieldError.of("Scheduler.reach", "'end' without a horizon with a total", "last")
        for schedule in self.schedules():
            self.tree(schedule)

    def schedules(self) -> Iterator[Schedule]:
        """Every schedule."""
        for told in (self.common, *self.special.values(), self.extra):
            yield from told.values()

    @property
    def unit(self) -> str:
        """The unit in which the position must survive a change of batch size."""
        units = {driving_unit(schedule, self.horizon) for schedule in self.schedules()}
        return next(
            (u for u in ("tok", "samples") if u in units), "ep" if self._by_epoch() else "st"
        )

    def _by_epoch(self) -> bool:
        """Tell whether it is epochs that count, however many steps they have."""
        horizon = self.horizon
        if horizon is None or horizon.batches_per_epoch is None:
            return False
        if self.by_epoch:
            return True
        units: set[str] = set().union(*map(units_of, self.schedules()))
        length = "" if horizon.total is None else amount_of(horizon.total)[1]
        ramp = isinstance(horizon.batch_size, Schedule)
        return not ramp and ("ep" in units or bool(length == "ep" and units & {"%", "rest"}))

    @property
    def timed(self) -> bool:
        """Whether a schedule is moved by wall-clock time."""
        return any(driving_unit(s, self.horizon) == "s" for s in self.schedules())

    def tree(self, schedule: Schedule) -> Schedule:
        """Give a schedule in plain numbers of its driving unit."""
        if self.horizon is None:
            return schedule
        return resolve(schedule, self.horizon, reach=self.reach)

    # Editing ------------------------------------------------------------------------------------

    def edited(self, edit: Edit, moment: Moment) -> "Told":
        """Give what is told after an edit; `FieldError` where it makes no sense."""
        if isinstance(edit, CoolDown | Replan):
            self._check_keys(edit)
        elif self.reach == "last":
            raise FieldError.of("extend", "of a run planned with reach='end'", self.reach)
        if self.reach == "last":
            return self._reached(moment).edited(edit, moment)
        common, horizon = carried(edit, self.common, moment)
        extra, _ = carried(edit, self.extra, moment)
        special = {n: carried(edit, own, moment)[0] for n, own in self.special.items()}
        made = Told(common, special, extra, horizon, by_epoch=self.unit == "ep")
        if isinstance(edit, Extend) and horizon != self.horizon:
            self._check_moved(made, moment)
        if isinstance(edit, CoolDown) and made == self:
            cure = "there is nothing to cool down"
            raise FieldError.of("cool_down", "of a value above 0", 0.0, cure)
        return made

    def _check_moved(self, made: "Told", moment: Moment) -> None:
        """Raise `FieldError` where a longer run moves nothing, though something will end.

        A run that has ended may be made longer: its values stay, and can be replanned then.
        """
        if all(map(moment.ended, self.schedules())):
            return
        both = zip(self.schedules(), made.schedules(), strict=True)
        pairs = [(self.tree(old), made.tree(new)) for old, new in both]
        ends = [new for _, new in pairs if new.duration < math.inf]
        if ends and all(old == new for old, new in pairs):
            raise FieldError(
                f"extend: nothing would move: {ends[0]!r} has a length of its own, which does not "
                'depend on the run\'s; write lengths as shares ("5%", "rest"), or replan(lr=...)'
            )

    def _reached(self, moment: Moment) -> "Told":
        """Give the same values by schedules in plain lengths, for which `reach` is no question."""

        def plain(told: Schedules) -> Schedules:
            return {k: written(self.tree(s), moment.clock(s).unit) for k, s in told.items()}

        special = {name: plain(own) for name, own in self.special.items()}
        return Told(
            plain(self.common), special, plain(self.extra), self.horizon, by_epoch=self.unit == "ep"
        )

    def _check_keys(self, edit: CoolDown | Replan) -> None:
        if isinstance(edit, Replan):
            _check_peaks(edit)
        known = {*self.common, *self.extra, *(k for own in self.special.values() for k in own)}
        for key in edit.keys if isinstance(edit, CoolDown) else edit.plan:
            if key not in known:
                shown = ", ".join(sorted(known))
                raise FieldError.of(f"{edit.kind}: a key", f"scheduled ({shown})", key)

    # As data ------------------------------------------------------------------------------------

    def described(self, given: str | None = None) -> dict[str, Any]:
        """Everything that must agree for a position to mean the same, as plain data.

        `given` is a unit for the length of the run, to compare with one that is in it.
        """
        unit = self.unit if given is None else given
        told: dict[str, Any] = {
            "schedules": _data(self.common),
            "groups": {_name(g): _data(own) for g, own in sorted(self.special.items(), key=str)},
            "extra": _data(self.extra),
        }
        units: set[str] = set().union(*map(units_of, self.schedules()))
        horizon = self.horizon
        if horizon is not None and units & {"%", "rest"}:
            told |= {"total": _total(horizon, unit)} if horizon.total else {"open_end": True}
        if horizon is not None and "ep" in units:
            told["epoch"] = horizon.position(horizon.step_at(1.0, "ep"), unit)
        if unit != "st" and ("total" in told or "epoch" in told):
            told["total_unit"] = unit
        return told | ({"reach": "last"} if self.reach == "last" else {})

    def from_description(self, data: Mapping[str, Any]) -> "Told":
        """Give what a description tells, with the rates between units that are known here."""
        common, extra = _read(data["schedules"]), _read(data["extra"])
        special = {_place(name): _read(own) for name, own in data["groups"].items()}
        horizon = self.horizon
        if "total" in data:
            total, unit = data["total"], data.get("total_unit", "st")
            if not isinstance(total, str) and unit != "st":
                total = Time(float(total), unit)
            horizon = replace(horizon or Horizon(), total=total, open_end=False)
        elif "open_end" in data:
            horizon = replace(horizon or Horizon(), total=None, open_end=True)
        return Told(common, special, extra, horizon, data.get("reach", "end"))

    def moved(self, places: Mapping[Place, Place]) -> "Told":
        """Give the same where groups have other places now; those that are gone drop out."""
        special: Special = {
            places.get(name, name) if isinstance(name, tuple) else name: own
            for name, own in self.special.items()
            if not isinstance(name, tuple) or name in places
        }
        return dataclasses.replace(self, special=special)


def _check_peaks(edit: Replan) -> None:
    """Raise `FieldError` for a factor that is a rate in disguise."""
    low, high = FACTOR_PEAKS
    for key, then in edit.plan.items():
        peak = then.range[1]
        if not then.is_absolute and 0.0 < peak < math.inf and not low <= peak <= high:
            cure = "if it is a value of its own, write schedule.absolute(peak)"
            rule = f"within [{low:g}, {high:g}], for a factor"
            raise FieldError.of(f"replan: the peak of {key}", rule, peak, cure)


def _total(horizon: Horizon, unit: str) -> float | str:
    amount, written = amount_of(horizon.total)  # type: ignore[arg-type]  # there is one
    if unit == "st" or written == "s":
        return f"{amount!r} s" if written == "s" else horizon.steps
    if written == unit == "ep":
        return amount
    # not up to whole steps, which are as long as the world is large
    return round(horizon.position(horizon.step_at(amount, written), unit))


def _name(group: Place | str) -> str:
    if isinstance(group, str):
        return f"name {group}"
    return f"{group[1]} of optimizer {group[0]}" if group[0] else str(group[1])


def _place(name: str) -> Place | str:
    if name.startswith("name "):
        return name.removeprefix("name ")
    group, _, optimizer = name.partition(" of optimizer ")
    return (int(optimizer or 0), int(group))


def _data(told: Mapping[str, Schedule]) -> dict[str, Any]:
    return {name: plain_data(schedule) for name, schedule in sorted(told.items())}


def _read(data: dict[str, Any]) -> Schedules:
    made = {name: from_dict({"format": 1, "schedule": each}) for name, each in data.items()}
    return {name: each for name, each in made.items() if isinstance(each, Schedule)}
