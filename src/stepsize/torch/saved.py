"""Saving and loading a scheduler, in any order with its optimizer."""

from typing import Any, Literal, NamedTuple

from stepsize.edits.kinds import Edit, Extend, Replan, edit_data
from stepsize.errors import FieldError, MismatchError, StepsizeError
from stepsize.schedules.plan import Plan
from stepsize.torch import guards
from stepsize.torch.cell import FIRED, OWN, START, STEPS
from stepsize.torch.edited import Edited
from stepsize.torch.journal import KEPT
from stepsize.torch.state import Saved, differences, pack, unpack
from stepsize.torch.told import Told

OnMismatch = Literal["error", "keep", "adopt", "continue"]
_WAYS = ("error", "keep", "adopt", "continue")


class _Course(NamedTuple):
    """What a loaded scheduler is to do: what it began with, its journal, what is told now."""

    first: Told
    origin: Told | None
    journal: list[dict[str, Any]]
    told: Told


class Savable(Edited):
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

    def _as_saved(self) -> Saved:
        bound, step = self._binding, self._cell[STEPS]
        return Saved(
            int(step),
            bool(self._cell[FIRED]),
            bound.position(step),
            bound.told.unit,
            self._described(self._began),
            bound.rows(),
            None if self._origin is None else self._described(self._origin),
            self._journal,
            bound.controlled.saved(),
            self._clock.seconds,
        )

    def _described(self, told: Told) -> dict[str, Any]:
        feedback = self._binding.controlled.described()
        floors = {"floor": self._by_group("floor")} if self._floors else {}
        return {**told.described(), **({"feedback": feedback} if feedback else {}), **floors}

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
        self, state_dict: dict[str, Any], *, on_mismatch: OnMismatch = "error"
    ) -> None:
        """Take up the saved position, base values, controllers and journal, and write the values.

        A state of another schedule, horizon, unit or number of groups is a `MismatchError` that
        shows the difference; nothing is changed then. Another number of replicas alone is none.

        Args:
            state_dict: what `state_dict()` gave.
            on_mismatch: "error"; "keep": the present description at the saved number of steps, as
                if it had always been so; "adopt": the saved schedules and horizon; "continue": the
                present description from here on, joined to the saved one continuously in value
                (`extend` where only the length of the run differs, else `replan`).
        """
        if on_mismatch not in _WAYS:
            rule = ", ".join(map(repr, _WAYS[:-1])) + f" or {_WAYS[-1]!r}"
            raise FieldError.of("on_mismatch", rule, on_mismatch)
        saved = unpack(state_dict)
        if self._binding.outdated():  # a group was added before loading
            self.rebind()
        found = differences(saved, self._as_saved())
        if found and on_mismatch == "error":
            raise MismatchError(
                f"the saved state belongs to something else: {'; '.join(found)}. "
                "load_state_dict(..., on_mismatch='keep') keeps the present description at the "
                "saved step, 'adopt' takes the saved schedules, 'continue' goes over from "
                "the saved schedules to the present ones without a jump"
            )
        try:
            course = self._course(saved, on_mismatch if found else "error")
            self._take(saved, course, rebase=not found or on_mismatch in ("adopt", "continue"))
        except StepsizeError:
            raise
        except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
            raise MismatchError(f"the state is damaged: {error!r}"[:300]) from None

    def _course(self, saved: Saved, way: str) -> _Course:
        """Give what a state leads to, without changing anything."""
        first = self._began
        if way == "keep":
            kept = {"kind": KEPT, **self._where_of(saved)}
            return _Course(first, None, [*saved.journal, kept], first)
        if way == "adopt":
            first = first.from_description(saved.description)
        began = first if saved.origin is None else first.from_description(saved.origin)
        if way == "continue":
            began = first.from_description(saved.origin or saved.description)
        told = self._replayed(began, saved.journal)
        origin = None if began == first else began
        if way != "continue":
            return _Course(first, origin, saved.journal, told)
        where, journal = self._where_of(saved), list(saved.journal)
        for edit in _continuing(told, first):
            record = {**edit_data(edit), **where}
            told = told.edited(edit, self._moment_of(record, told))
            journal.append(record)
        return _Course(first, began, journal, told)

    def _where_of(self, saved: Saved) -> dict[str, Any]:
        return {
            "step": saved.step,
            "position": saved.position,
            "unit": saved.unit,
            "seconds": saved.seconds,
        }

    def _take(self, saved: Saved, course: _Course, *, rebase: bool) -> None:
        bound, before = self._binding, self._binding.told
        controlled, rows = bound.controlled.saved(), bound.rows()
        try:
            bound.use(course.told)
            if saved.description.get("feedback", []) == bound.controlled.described():
                bound.controlled.load(saved.controlled)
            if rebase:
                bound.rebase(saved.rows)
            bound.move(bound.shift_for(saved.step, saved.position, saved.unit))
            self.rebind()
        except Exception:
            bound.use(before)
            bound.controlled.load(controlled)
            bound.rebase(rows)
            self.rebind()
            raise
        self._began, self._origin = course.first, course.origin
        bound.remarks.clear()
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
        common, special, extra, horizon, reach, _ = self._given
        given: dict[str, Any] = {"base": self._by_group("base"), "counts": self._counts, **common}
        given |= {"groups": special, "extra": extra, "reach": reach}
        given["floor"] = self._by_group("floor") if self._floors else None
        given |= {"feedback": self._controllers, "follow": self._follows}
        given["horizon"] = self._began.horizon if callable(horizon) else horizon
        return {"optimizers": self.optimizers, "given": given, "state": self.state_dict()}

    def __setstate__(self, saved: dict[str, Any]) -> None:
        # hooks do not travel with a copy: it is built anew
        self.__init__(saved["optimizers"], **saved["given"])  # type: ignore[misc]
        self.load_state_dict(saved["state"])
        self._bases = {}  # said once; groups added to the copy have bases of their own


def _continuing(was: Told, now: Told) -> list[Edit]:
    """Give the edits that lead from what is told to something else, at one moment."""
    if was.special != now.special and (was.special or now.special):
        raise MismatchError(
            "on_mismatch='continue' cannot go over to other schedules of single groups: "
            "use 'keep' (a jump) or 'adopt', then replan()"
        )
    before, after = (None if t.horizon is None else t.horizon.total for t in (was, now))
    same = (was.common, was.extra) == (now.common, now.extra)
    edits: list[Edit] = []
    if before != after and after is not None and (same or before is not None):
        edits.append(Extend(after, why="the run was resumed with another length"))
    if not same:
        changed = {k: s for k, s in now.common.items() if was.common.get(k) != s}
        changed |= {k: s for k, s in now.extra.items() if was.extra.get(k) != s}
        if {*was.common, *was.extra} != {*now.common, *now.extra}:
            raise MismatchError(
                "on_mismatch='continue' needs the same hyper-parameters scheduled as before: "
                "use 'keep' or 'adopt'"
            )
        edits.append(Replan(Plan(**changed), since="start", why="resumed with another schedule"))
    return edits
