"""Saving and loading a scheduler, in any order with its optimizer."""

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from stepsize.edits.kinds import Edit, Extend, Replan, edit_data
from stepsize.errors import FieldError, MismatchError, StepsizeError, UnitError
from stepsize.schedules.plan import Plan
from stepsize.torch import guards
from stepsize.torch.arguments import OnMismatch, check_way
from stepsize.torch.cell import FIRED, OWN, START, STEPS
from stepsize.torch.journal import KEPT
from stepsize.torch.seeing import Seeing
from stepsize.torch.state import Saved, differences, pack, unpack
from stepsize.torch.told import Told

if TYPE_CHECKING:
    from stepsize.torch.groups import Slot

_OTHERWISE = "use 'keep' (a jump) or 'adopt', then replan()"


def _kinds(description: Mapping[str, Any]) -> list[str]:
    return [each["kind"] for each in description.get("feedback", [])]


def _check_continuing(was: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    """Raise `MismatchError` where what cannot be joined without a jump has changed."""
    if _kinds(was) != _kinds(now):
        what = f"other controllers ({', '.join(_kinds(was)) or 'none'} before)"
    elif was.get("floor") != now.get("floor"):
        what = f"another floor= ({was.get('floor')} before)"
    else:
        return
    raise MismatchError(f"on_mismatch='continue' cannot go over to {what}: {_OTHERWISE}")


class _Course(NamedTuple):
    """What a loaded scheduler is to do: what it began with, its journal, what is told now."""

    first: Told
    origin: Told | None
    journal: list[dict[str, Any]]
    told: Told


class Savable(Seeing):
    """A scheduler that is saved and resumed."""

    _origin: Told | None = None  # what training began with, where the user's code says another

    def state_dict(self) -> dict[str, Any]:
        """Give the state as a fixed set of keys with numbers and strings.

        Safe for `torch.load(weights_only=True)` and for torch.distributed.checkpoint, which loads
        only keys that the receiver already has: what varies in shape is one JSON string.
        """
        self._reality.settle()
        bound, step = self._binding, self._cell[STEPS]
        if bound.outdated():
            self.rebind()
        return pack(self._as_saved(), bound.positions(step))

    def _as_saved(self, unit: str | None = None) -> Saved:
        bound, step = self._binding, self._cell[STEPS]
        return Saved(
            int(step),
            bool(self._cell[FIRED]),
            bound.position(step),
            bound.told.unit,
            self._described(self._began, unit),
            bound.rows(),
            None if self._origin is None else self._described(self._origin),
            self._journal,
            bound.controlled.saved(),
            self._clock.seconds,
        )

    def _described(self, told: Told, unit: str | None = None) -> dict[str, Any]:
        feedback = self._binding.controlled.described()
        floors = {"floor": self._by_group("floor")} if self._floors else {}
        names = [group.get("name") for _, _, group in self._binding.groups()]
        named = {"names": names} if any(names) else {}
        reacts = {"feedback": feedback} if feedback else {}
        try:
            described = told.described(unit)
        except UnitError:  # nothing here converts to it: they differ
            described = told.described()
        return {**described, **reacts, **floors, **named}

    def _by_group(self, what: str) -> dict[str, list[float | None]]:
        """Give base values, or floors, by key as lists by the present groups."""
        bound = self._binding
        index = {place[:2]: i for i, place in enumerate(bound.groups())}
        found: dict[str, list[float | None]] = {}
        for slot in bound.slots:
            row = found.setdefault(slot.key, [None] * len(index))
            row[index[slot.optimizer, slot.group]] = getattr(slot, what)
        return found

    def load_state_dict(
        self, state_dict: dict[str, Any], *, on_mismatch: OnMismatch | None = None
    ) -> None:
        """Take up the saved position, base values, controllers and journal, and write the values.

        A state of another schedule, horizon, unit or number of groups is a `MismatchError` that
        shows the difference; nothing is changed then. Another number of replicas alone is none.

        Args:
            state_dict: what `state_dict()` gave.
            on_mismatch: "error"; "keep": the present description at the saved number of steps, as
                if it had always been so; "adopt": the saved schedules and horizon; "continue": the
                present description from here on, joined to the saved one continuously in value
                (`extend` where only the length of the run differs, else `replan`). Default: what
                the scheduler was given.
        """
        way = self._on_mismatch if on_mismatch is None else check_way(on_mismatch)
        saved = unpack(state_dict)
        if self._binding.outdated():  # a group was added before loading
            self.rebind()
        found = differences(saved, self._as_saved(saved.description.get("total_unit", "st")))
        if found and way == "error":
            raise MismatchError(
                f"the saved state belongs to something else: {'; '.join(found)}. "
                "load_state_dict(..., on_mismatch='keep') keeps the present description at the "
                "saved step, 'adopt' takes the saved schedules, 'continue' goes over from "
                "the saved schedules to the present ones without a jump; where a framework loads, "
                "give Scheduler(..., on_mismatch=); groups that were added are added before loading"
            )
        if found and way == "continue":
            _check_continuing(saved.description, self._described(self._began))
        try:
            course = self._course(saved, way if found else "error")
        except StepsizeError:
            raise
        except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
            raise MismatchError(f"the state is damaged: {error!r}"[:300]) from None
        rebase = not found or way in ("adopt", "continue")
        self._take(saved, course, rebase=rebase, adopts=bool(found) and way == "adopt")

    def _course(self, saved: Saved, way: str) -> _Course:
        """Give what a state leads to, without changing anything."""
        first = self._began
        if way == "keep":
            journal = [*saved.journal, {"kind": KEPT, **self._where_of(saved)}]
            return _Course(first, None, journal, self._replayed(first, journal))
        said = first
        if way in ("adopt", "continue"):
            said = first.from_description(saved.description)
        first, began = said if way == "adopt" else first, said
        began = began if saved.origin is None else first.from_description(saved.origin)
        told = self._replayed(began, saved.journal)
        origin = None if began == first else began
        if way != "continue":
            return _Course(first, origin, saved.journal, told)
        where, journal = self._where_of(saved), list(saved.journal)
        for edit in _continuing(said, told, first):
            record = {**edit_data(edit), **where}
            try:
                told = told.edited(edit, self._moment_of(record, told))
            except FieldError as error:
                raise MismatchError(f"on_mismatch='continue': {error}; {_OTHERWISE}") from None
            journal.append(record)
        return _Course(first, began, journal, told)

    def _where_of(self, saved: Saved) -> dict[str, Any]:
        return {
            "step": saved.step,
            "position": saved.position,
            "unit": saved.unit,
            "seconds": saved.seconds,
        }

    def _take(self, saved: Saved, course: _Course, *, rebase: bool, adopts: bool) -> None:
        bound, before = self._binding, self._binding.told
        others: list[tuple[Slot, float]] = []
        controlled, slots, shifted = bound.controlled.saved(), bound.slots, bound.shift
        own = [row for row in saved.rows if row[2] not in self._bases]
        try:
            bound.use(course.told)
            shift = bound.shift_for(saved.step, saved.position, saved.unit)
            if _kinds(saved.description) == _kinds(self._described(self._began)):
                bound.controlled.load(saved.controlled, saved.step + shift)
            if adopts:
                bound.refloor(saved.description.get("floor", {}))
            if rebase:
                others = bound.rebase(own)
            bound.move(shift)
            self.rebind()
        except Exception:
            bound.use(before)
            bound.controlled.load(controlled, math.inf)
            bound.slots = slots
            bound.move(shifted)
            self.rebind()
            raise
        self._began, self._origin = course.first, course.origin
        bound.remarks.clear()
        now = {(s.optimizer, s.group, s.key): s for s in bound.slots}
        for old, was in others:
            slot = now[old.optimizer, old.group, old.key]
            if not math.isclose(was, bound.slot_value(slot, saved.step)):  # which a checkpoint has
                guards.other_base(self, slot, was)
        self._journal = [dict(record) for record in course.journal]
        self._clock.go_to(saved.seconds, saved.step)
        self._last_metric = None
        self._go_to(saved.step, counted=saved.counted and self._counts == "steps")

    def _go_to(self, step: float, *, counted: bool) -> None:
        cell = self._cell
        cell[STEPS], cell[FIRED], cell[START] = float(step), float(counted), float(step)
        cell[OWN] = 0.0
        guards.set_up(self)
        self._watch_first()
        self._renew()

    def __getstate__(self) -> dict[str, Any]:
        began = self._began
        index = {place[:2]: i for i, place in enumerate(self._binding.groups())}
        groups = {n if isinstance(n, str) else index[n]: s for n, s in began.special.items()}
        given: dict[str, Any] = {"base": self._by_group("base"), "counts": self._counts}
        given |= {**began.common, "groups": groups, "extra": began.extra, "reach": began.reach}
        given |= {"horizon": began.horizon, "clock": self._clock.read, "follow": self._follows}
        given |= {"feedback": self._controllers, "on_mismatch": self._on_mismatch}
        given["floor"] = self._by_group("floor") if self._floors else None
        return {"optimizers": self.optimizers, "given": given, "state": self.state_dict()}

    def __setstate__(self, saved: dict[str, Any]) -> None:
        # hooks do not travel with a copy: it is built anew
        self.__init__(saved["optimizers"], **saved["given"])  # type: ignore[misc]
        self.load_state_dict(saved["state"])
        self._bases = {}  # said once; groups added to the copy have bases of their own


def _continuing(said: Told, told: Told, now: Told) -> list[Edit]:
    """Give the edits that lead from what is told by now to something else, at one moment.

    `said` is what the code of the saved run said: where this code says the same but for the length,
    only the length counts.
    """
    if said.special != now.special:
        raise MismatchError(
            "on_mismatch='continue' cannot go over to other schedules of single groups: "
            f"{_OTHERWISE}"
        )
    if {*said.common, *said.extra} != {*now.common, *now.extra}:
        raise MismatchError(
            f"on_mismatch='continue' needs the same hyper-parameters scheduled: {_OTHERWISE}"
        )
    changed = {k: s for k, s in now.common.items() if said.common[k] != s}
    changed |= {k: s for k, s in now.extra.items() if said.extra[k] != s}
    before, after = (None if t.horizon is None else t.horizon.total for t in (told, now))
    edits: list[Edit] = []
    if before != after and after is not None and (not changed or before is not None):
        edits.append(Extend(after, why="the run was resumed with another length"))
    if changed:
        edits.append(Replan(Plan(**changed), since="start", why="resumed with another schedule"))
    return edits
