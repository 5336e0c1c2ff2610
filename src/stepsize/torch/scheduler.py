"""The torch binding: writes schedules into the param groups of optimizers, at the position they are at."""

import functools
import math
import warnings
import weakref
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Literal, cast

from torch import Tensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from stepsize.errors import FieldError, MismatchError, UnitError
from stepsize.files import from_dict, to_dict
from stepsize.schedules.formula import Names
from stepsize.schedules.plan import Plan
from stepsize.schedules.schedule import Schedule
from stepsize.schedules.walk import units_of
from stepsize.time import Horizon, driving_unit, resolve, stepwise
from stepsize.torch import hooks
from stepsize.torch.groups import (
    Group,
    Slot,
    base_of,
    check_factor,
    check_group_names,
    check_key,
    held,
    number,
    put,
    wanted_for,
)
from stepsize.torch.hot import Lane, advancer
from stepsize.torch.state import differences, pack, unpack

Schedules = Mapping[str, Schedule]
Bases = float | Mapping[str, float | list[float]]
OnMismatch = Literal["error", "keep", "adopt"]


class Scheduler(LRScheduler):
    """Writes schedules into an optimizer's param groups; a torch `LRScheduler` to every framework.

    ```python
    scheduler = Scheduler(optimizer, lr=Warmup("5%") >> Cosine(), horizon=Horizon.from_loader(loader, epochs=90))
    for batch in ...:
        loss.backward()
        optimizer.step()
        scheduler.step()
    ```

    **Position follows the optimizer.** Time is the number of real steps of the first optimizer,
    counted by its own post-step hook. `step()` brings the values up to that count: calling it twice
    for one step, once per epoch, or before `optimizer.step()` cannot shift the schedule. Until the
    hook has fired once, a call counts one, so that a dry loop works. `counts="calls"` counts calls
    instead.

    Args:
        optimizer: one optimizer or several; the first is the driver whose steps are counted.
        plan: schedules by hyper-parameter name, as one value; or give them by keyword.
        lr, ...: a schedule for any key of the param groups: `lr`, `momentum`, `beta1`, `beta2`,
            `weight_decay`, ...; a factor multiplies each group's base value, an absolute
            schedule is written as it is.
        groups: schedules of single groups, by name or index, in place of the common ones.
        extra: schedules of values that live elsewhere (EMA decay, loss weight): read `values()`.
        horizon: how long training is; needed where a schedule is written in units.
        base: base values, a number for lr or a mapping from key to a number or a list by group.
            Default: `initial_<key>` in the group, else the group's present value.
        counts: "steps" of the optimizer, or "calls" of `step()`.
        take_over: detach a scheduler that writes the same keys instead of raising.

    Raises `FieldError` for unknown keys and groups, a factor that is a rate in disguise (peak
    outside [0.01, 100]), or a key that another scheduler writes; `UnitError` where a horizon is
    missing. It never patches `optimizer.step` and never calls the parent's constructor.
    """

    def __init__(
        self,
        optimizer: Optimizer | Iterable[Optimizer],
        plan: Plan | None = None,
        *,
        groups: Mapping[str | int, Schedules] | None = None,
        extra: Schedules | None = None,
        horizon: Horizon | None = None,
        base: Bases | None = None,
        counts: Literal["steps", "calls"] = "steps",
        take_over: bool = False,
        **schedules: Schedule,
    ) -> None:
        self.optimizers = _optimizers(optimizer)
        self.optimizer = self.optimizers[0]
        self._common = _merged(plan, schedules, groups, extra)
        self._special = {k: dict(_plan(f"groups[{k!r}]", v)) for k, v in (groups or {}).items()}
        self._extra = dict(_plan("extra", extra)) if extra else {}
        self.horizon = horizon
        self._bases = _bases(base)
        if counts not in ("steps", "calls"):
            raise FieldError.of("Scheduler.counts", "'steps' or 'calls'", counts)
        self._counts = counts
        self._unit = self._driving_unit()
        self._shift = 0.0  # steps of the horizon's map that lie before step 0 of this count
        self._compiled: dict[Schedule, Callable[[float], float]] = {}
        self._slots: list[Slot] = []
        self._count: list[float] = [
            0.0,
            0.0,
            0.0,
        ]  # steps, whether a hook gave them, steps at the start
        check_group_names([g for _, _, g in self._groups()], self._special)
        self._bind()
        _claim(self, take_over=take_over)
        self._removers: list[Callable[[], None] | None] = []
        if counts == "steps":
            self._removers.append(hooks.attach(self.optimizer, self._count))
        self._removers += [hooks.after_loading(each, self) for each in self.optimizers]
        self._arm()

    # Building ------------------------------------------------------------------------------------

    def _groups(self) -> list[tuple[int, int, Group]]:
        """Every param group: its optimizer, its place there, and itself."""
        return [
            (o, g, group)
            for o, each in enumerate(self.optimizers)
            for g, group in enumerate(each.param_groups)
        ]

    def _driving_unit(self) -> str:
        every = [self._common, *self._special.values(), self._extra]
        units = {driving_unit(s) for schedules in every for s in schedules.values()}
        if "s" in units:
            raise UnitError(
                "Scheduler: wall-clock schedules cannot be bound to an optimizer yet: "
                "write the schedule in steps, epochs, samples or tokens"
            )
        needs = [s for schedules in every for s in schedules.values() if units_of(s)]
        if needs and self.horizon is None:
            raise UnitError(
                f"Scheduler.horizon is needed: {needs[0]!r} is written in units; "
                "give horizon=Horizon(total=...) or Horizon.from_loader(loader, epochs=...)"
            )
        return next((u for u in ("tok", "samples") if u in units), "st")

    def _value_of(self, schedule: Schedule) -> Callable[[float], float]:
        """Give the compiled schedule as a function of this count of steps; once per schedule."""
        if schedule not in self._compiled:
            value = stepwise(schedule, self.horizon)
            shift = self._shift
            self._compiled[schedule] = value if not shift else lambda step: value(step + shift)
        return self._compiled[schedule]

    def _bind(self) -> None:
        """Find every slot: base values are read once, and kept for groups that are known."""
        known = {(s.optimizer, s.group, s.key): s for s in self._slots}
        slots = []
        for index, (o, g, group) in enumerate(self._groups()):
            for key, schedule in wanted_for(group, index, self._common, self._special).items():
                slots.append(
                    self._slot(group, (o, g, index), key, schedule, known.get((o, g, key)))
                )
        self._slots = slots

    def _slot(
        self,
        group: Group,
        place: tuple[int, int, int],
        key: str,
        schedule: Schedule,
        old: Slot | None,
    ) -> Slot:
        o, g, index = place
        where = f"Scheduler, group {group.get('name', index)!r}, {key}"
        check_key(group, key, where)
        present = held(group, key)
        if old is None:
            base, remark = base_of(group, key, self._explicit_base(key, index), where)
            if remark and not schedule.is_absolute:
                warnings.warn(remark, stacklevel=5)
            tensor = present if isinstance(present, Tensor) else None
        else:
            base, tensor = old.base, old.tensor
        if tensor is not None and present is not tensor:
            put(group, key, tensor)  # a loaded optimizer made a new one; others hold the old one
        check_factor(schedule, self._peak(schedule), base, where)
        group[f"initial_{key}"] = base
        return Slot(o, g, key, schedule, base, tensor)

    def _explicit_base(self, key: str, index: int) -> float | None:
        given = self._bases.get(key)
        if isinstance(given, list):
            if index >= len(given):
                raise FieldError.of(f"Scheduler.base[{key!r}]", "a value for every group", given)
            return given[index]
        return given

    def _peak(self, schedule: Schedule) -> float:
        high = schedule.range[1]
        if high < math.inf:
            return high
        value, last = self._value_of(schedule), 1_000_000
        if self.horizon is not None and self.horizon.total is not None:
            last = self.horizon.steps
        return max(value(float(last * i // 256)) for i in range(257))

    def _formula_of(self, schedule: Schedule) -> Callable[[Any, Names], Any]:
        """Give the schedule's formula of this count of steps."""
        if self._unit == "st" and not self._shift:
            tree = schedule if self.horizon is None else resolve(schedule, self.horizon)
            return tree._value  # noqa: SLF001 (compiled into the hot path, as `compile` does)
        value = self._value_of(schedule)
        return lambda t, xp: xp.call(value, t)

    def _lanes(self) -> list[Lane]:
        """One lane per key and distinct schedule, so that a value is computed once."""
        lanes: dict[tuple[str, Schedule], list[tuple[Group, Slot]]] = {}
        for slot in self._slots:
            group = self.optimizers[slot.optimizer].param_groups[slot.group]
            lanes.setdefault((slot.key, slot.schedule), []).append((group, slot))
        return [Lane(key, self._formula_of(s), places) for (key, s), places in lanes.items()]

    def _arm(self) -> None:
        """Build the hot path, one closure that holds all it needs, and write the present values."""
        alive, others = weakref.ref(self), self.optimizers[1:]

        def stale() -> None:
            found = alive()
            if found is not None:
                found.rebind()

        changed = functools.partial(
            _changed, [(o, o.param_groups, len(o.param_groups)) for o in others]
        )
        advance, write = advancer(
            self._lanes(), self._count, self.optimizer, stale, changed if others else None
        )
        self.__dict__["step"] = advance
        write(self._count[0])

    # Driving -------------------------------------------------------------------------------------

    def step(self) -> None:  # type: ignore[override]  # torch's deprecated `epoch` argument is gone here
        """Bring every value up to the optimizer's position.

        The instance holds the closure that does it: see `_arm`.
        """
        self.__dict__["step"]()

    def rebind(self) -> None:
        """Look at the param groups again and write the present values.

        Happens by itself after `optimizer.load_state_dict` and when groups were added or replaced.
        """
        self._bind()
        self._arm()

    def detach(self) -> None:
        """Stop counting and writing; the values stay as they are."""
        for remove in self._removers:
            if remove is not None:
                remove()
        self._removers.clear()
        self.__dict__["step"] = lambda: None
        _release(self)

    # Reading -------------------------------------------------------------------------------------

    @property
    def last_epoch(self) -> int:  # type: ignore[override]  # a number that is counted, not stored
        """Optimizer steps completed (torch's name for it)."""
        return int(self._count[0])

    @last_epoch.setter
    def last_epoch(self, steps: int) -> None:
        self._go_to(steps)

    def _go_to(self, step: float) -> None:
        self._count[:] = float(step), 0.0, float(step)
        self.rebind()

    @property
    def _step_count(self) -> int:
        return self.last_epoch + 1

    @property
    def base_lrs(self) -> list[float]:  # type: ignore[override]  # read from the slots
        """The base value of every group's lr."""
        bases = {(s.optimizer, s.group): s.base for s in self._slots if s.key == "lr"}
        return [bases.get((o, g), number(group["lr"])) for o, g, group in self._groups()]

    @property
    def _last_lr(self) -> list[float | Tensor]:
        return [group["lr"] for _, _, group in self._groups()]

    def get_last_lr(self) -> list[float | Tensor]:
        """Give every group's present rate, as the groups hold it."""
        return self._last_lr

    def get_lr(self) -> list[float | Tensor]:
        """Give every group's rate at `last_epoch`, without writing it."""
        return cast("list[float | Tensor]", self.at(self.last_epoch)["lr"])

    def values(self) -> dict[str, Any]:
        """Give every scheduled value now: a list by group for each key, a number for each extra."""
        return self.at(self.last_epoch)

    def at(self, step: float) -> dict[str, Any]:
        """Give what every scheduled value is at an optimizer step, before paying for it."""
        groups = [(o, g) for o, g, _ in self._groups()]
        keys = {"lr": None, **dict.fromkeys(slot.key for slot in self._slots)}
        found: dict[str, Any] = {}
        for key in keys:
            slots = {(s.optimizer, s.group): s for s in self._slots if s.key == key}
            found[key] = [
                slots[p].scale * self._value_of(slots[p].schedule)(step)
                if p in slots
                else _present(self.optimizers[p[0]].param_groups[p[1]], key)
                for p in groups
            ]
        return found | {name: self._value_of(s)(step) for name, s in self._extra.items()}

    # Saving --------------------------------------------------------------------------------------

    def _described(self) -> dict[str, Any]:
        """Everything that must agree for a position to mean the same, as plain data."""
        told: dict[str, Any] = {
            "schedules": {n: to_dict(s)["schedule"] for n, s in sorted(self._common.items())},
            "groups": {
                str(g): {n: to_dict(s)["schedule"] for n, s in sorted(own.items())}
                for g, own in sorted(self._special.items(), key=str)
            },
            "extra": {n: to_dict(s)["schedule"] for n, s in sorted(self._extra.items())},
        }
        every = [*self._common.values(), *self._extra.values()]
        units = set().union(*(units_of(s) for s in every + [s.schedule for s in self._slots]))
        if self.horizon is not None and units & {"%", "rest"}:
            told["total"] = str(self.horizon.total)
        if self.horizon is not None and "ep" in units:
            told["epoch"] = self.horizon.position(
                float(self.horizon.step_at(1.0, "ep")), self._unit
            )
        return told

    def state_dict(self) -> dict[str, Any]:
        """Give the state as a fixed set of keys with numbers and strings.

        Safe for `torch.load(weights_only=True)` and for torch.distributed.checkpoint, which loads
        only keys that the receiver already has: what varies in shape is one JSON string.
        """
        step = self.last_epoch
        position = step + self._shift
        if self.horizon is not None and self._unit != "st":
            position = self.horizon.position(position, self._unit)
        return pack(step, float(position), self._unit, self._described(), self._base_rows())

    def load_state_dict(
        self, state_dict: dict[str, Any], *, on_mismatch: OnMismatch = "error"
    ) -> None:
        """Take up the saved position and base values, and write the values there.

        A state of another schedule, horizon, unit or number of groups is a `MismatchError` that
        shows the difference. `on_mismatch="keep"` keeps the present description at the saved
        number of steps, `"adopt"` takes the saved schedules.
        """
        if on_mismatch not in ("error", "keep", "adopt"):
            raise FieldError.of("on_mismatch", "'error', 'keep' or 'adopt'", on_mismatch)
        saved = unpack(state_dict)
        found = differences(saved, pack(0, 0.0, self._unit, self._described(), self._base_rows()))
        if found and on_mismatch == "error":
            raise MismatchError(
                "the saved state belongs to something else: " + "; ".join(found) + ". "
                "load_state_dict(..., on_mismatch='keep') keeps the present description at the saved "
                "step, 'adopt' takes the saved schedules"
            )
        if found and on_mismatch == "adopt":
            self._adopt(saved.description)
        if not found or on_mismatch == "adopt":
            rows = {(o, g, key): base for o, g, key, base in saved.bases}
            self._slots = [
                Slot(
                    s.optimizer,
                    s.group,
                    s.key,
                    s.schedule,
                    rows.get((s.optimizer, s.group, s.key), s.base),
                    s.tensor,
                )
                for s in self._slots
            ]
        self._shift = 0.0
        if self.horizon is not None and self._unit == saved.unit != "st":
            self._shift = self.horizon.step_at(saved.position, self._unit) - saved.step
        self._compiled.clear()
        self._go_to(saved.step)

    def _base_rows(self) -> list[list[Any]]:
        return [[s.optimizer, s.group, s.key, s.base] for s in self._slots]

    def _adopt(self, description: dict[str, Any]) -> None:
        def read(told: dict[str, Any]) -> dict[str, Schedule]:
            made = {n: from_dict({"format": 1, "schedule": d}) for n, d in told.items()}
            return cast("dict[str, Schedule]", made)

        names = {str(g): g for g in range(len(self._groups()))}
        self._common = read(description["schedules"])
        self._special = {names.get(g, g): read(own) for g, own in description["groups"].items()}
        self._extra = read(description["extra"])
        self._unit = self._driving_unit()
        self._compiled.clear()
        self._bind()

    def __getstate__(self) -> dict[str, Any]:
        given = ("optimizers", "_common", "_special", "_extra", "horizon", "_counts")
        size, index = len(self._groups()), {(o, g): i for i, (o, g, _) in enumerate(self._groups())}
        bases: dict[str, list[float | None]] = {}
        for slot in self._slots:
            of_key = bases.setdefault(slot.key, [None] * size)
            of_key[index[slot.optimizer, slot.group]] = slot.base
        kept = {"bases": bases, "state": self.state_dict()}
        return {name: getattr(self, name) for name in given} | kept

    def __setstate__(self, saved: dict[str, Any]) -> None:
        self.__init__(  # type: ignore[misc]  # hooks do not travel with a copy: it is built anew
            saved["optimizers"],
            groups=saved["_special"],
            extra=saved["_extra"],
            horizon=saved["horizon"],
            base=saved["bases"],
            counts=saved["_counts"],
            **saved["_common"],
        )
        self.load_state_dict(saved["state"])

    def __repr__(self) -> str:
        told = {
            **self._common,
            **{f"groups[{k!r}]": Plan(**v) for k, v in self._special.items()},
            **self._extra,
        }
        inner = ", ".join(f"{name}={each!r}" for name, each in told.items())
        return f"Scheduler({inner}, at step {self.last_epoch})"


def _optimizers(given: Any) -> list[Optimizer]:
    one = hasattr(given, "param_groups") or not isinstance(given, Iterable)
    found = [given] if one else list(given)
    if not found or not all(hasattr(each, "param_groups") for each in found):
        raise FieldError.of("Scheduler.optimizer", "an optimizer or several", given)
    return found


def _plan(field: str, given: Any) -> Plan:
    if isinstance(given, Plan):
        return given
    if not isinstance(given, Mapping):
        raise FieldError.of(f"Scheduler.{field}", "a mapping from key to schedule", given)
    try:
        return Plan(**given)
    except FieldError as error:
        where = "Scheduler" if field == "plan" else f"Scheduler.{field}"
        raise FieldError(str(error).replace("Plan", where, 1)) from None


def _merged(plan: Any, schedules: Any, groups: Any, extra: Any) -> dict[str, Schedule]:
    if isinstance(plan, Schedule):
        cure = "write Scheduler(optimizer, lr=schedule)"
        raise FieldError.of("Scheduler.plan", "a Plan", plan, cure)
    if plan is not None and not isinstance(plan, Plan):
        raise FieldError.of("Scheduler.plan", "a Plan", plan)
    both = set(plan or ()) & set(schedules)
    if both:
        raise FieldError.of("Scheduler.plan", "without keys that are given again", sorted(both))
    if not (plan or schedules or groups or extra):
        raise FieldError("Scheduler needs a schedule, such as lr=Cosine(1000)")
    merged = {**(plan or {}), **schedules}
    return dict(_plan("plan", merged)) if merged else {}


def _bases(base: Bases | None) -> dict[str, float | list[float | None]]:
    if base is None:
        return {}
    given = base if isinstance(base, Mapping) else {"lr": base}
    return {
        k: [x if x is None else float(x) for x in v] if isinstance(v, list | tuple) else float(v)
        for k, v in given.items()
    }


def _changed(sizes: list[tuple[Optimizer, list[Group], int]]) -> bool:
    return any(o.param_groups is not known or len(known) != size for o, known, size in sizes)


def _present(group: Group, key: str) -> float | None:
    try:
        return number(held(group, key))
    except KeyError:
        return None


# Who writes what: kept on the optimizer, where a second scheduler looks.
_CLAIMS = "_stepsize_claims"


def _claim(scheduler: Scheduler, *, take_over: bool) -> None:
    for slot in scheduler._slots:  # noqa: SLF001 (its own other half)
        optimizer = scheduler.optimizers[slot.optimizer]
        claims: dict[tuple[int, str], Any] = optimizer.__dict__.setdefault(_CLAIMS, {})
        other = claims.get((slot.group, slot.key), lambda: None)()
        if other is not None and other is not scheduler:
            if not take_over:
                _release(scheduler)
                raise FieldError.of(
                    "Scheduler",
                    "the only one to write a key of a group",
                    f"group {slot.group}, {slot.key!r}, which another scheduler writes",
                    "detach() that one, or give take_over=True",
                )
            other.detach()
        claims[slot.group, slot.key] = weakref.ref(scheduler)


def _release(scheduler: Scheduler) -> None:
    for optimizer in scheduler.optimizers:
        claims = optimizer.__dict__.get(_CLAIMS, {})
        for place in [p for p, alive in claims.items() if alive() in (scheduler, None)]:
            del claims[place]
