"""What a user may give to `Scheduler`, checked and brought into one form."""

from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from typing import Any, Literal

from torch.optim import Optimizer

from stepsize.errors import FieldError
from stepsize.schedules.fields import Bounds
from stepsize.schedules.plan import Plan
from stepsize.schedules.schedule import Schedule

Schedules = Mapping[str, Schedule]
Bases = float | Mapping[str, float | list[float] | Mapping[str | int, float]]
ByGroup = float | list[float | None] | dict[str | int, float]
KnownBases = dict[str, ByGroup]

OnMismatch = Literal["error", "keep", "adopt", "continue"]
_WAYS = ("error", "keep", "adopt", "continue")


def optimizers_of(given: Any) -> list[Optimizer]:
    """One optimizer or several, as a list."""
    one = hasattr(given, "param_groups") or not isinstance(given, Iterable)
    found = [_bare(each) for each in ([given] if one else given)]
    once = len({id(each) for each in found}) == len(found)
    if not found or not once or not all(hasattr(each, "param_groups") for each in found):
        raise FieldError.of("Scheduler.optimizer", "an optimizer or several", given)
    return found


def _bare(optimizer: Any) -> Any:
    """Give the optimizer inside a wrapper that has no hooks of its own, such as accelerate's."""
    inner = getattr(optimizer, "optimizer", None)
    hookless = not hasattr(optimizer, "_optimizer_step_post_hooks")
    return _bare(inner) if hookless and isinstance(inner, Optimizer) else optimizer


_KNOWN = [
    "groups",
    "extra",
    "horizon",
    "base",
    "floor",
    "feedback",
    "counts",
    "follow",
    "reach",
    "take_over",
    "clock",
    "plan",
]


def check_arguments(given: Mapping[str, Any]) -> None:
    """Raise `FieldError` for a keyword that is no schedule, and probably a mistyped argument."""
    for name, value in given.items():
        if isinstance(value, Schedule):
            continue
        if name == "last_epoch":
            cure = "load_state_dict() resumes; or set scheduler.last_epoch afterwards"
            raise FieldError.of("Scheduler: last_epoch", "left out", value, cure)
        near = get_close_matches(name, _KNOWN, n=1)
        if near:
            cure = f"did you mean {near[0]}=?"
            raise FieldError.of(f"Scheduler: {name}", "a known argument or a schedule", value, cure)


def plan_of(field: str, given: Any) -> Plan:
    """A plan, or a mapping of schedules as one."""
    if isinstance(given, Plan):
        return given
    if not isinstance(given, Mapping):
        raise FieldError.of(f"Scheduler.{field}", "a mapping from key to schedule", given)
    try:
        return Plan(**given)
    except FieldError as error:
        where = "Scheduler" if field == "plan" else f"Scheduler.{field}"
        raise FieldError(str(error).replace("Plan", where, 1)) from None


def special_of(groups: Any) -> dict[Any, dict[str, Schedule]]:
    """The schedules of single groups, by index or name."""
    if groups is None:
        return {}
    if not isinstance(groups, Mapping):
        raise FieldError.of("Scheduler.groups", "a mapping from group to schedules", groups)
    return {k: dict(plan_of(f"groups[{k!r}]", v)) for k, v in groups.items()}


def merged(plan: Any, schedules: Any, *others: Any) -> dict[str, Schedule]:
    """The schedules of all groups: the plan's and those by keyword, which may not overlap."""
    if isinstance(plan, Schedule):
        cure = "write Scheduler(optimizer, lr=schedule)"
        raise FieldError.of("Scheduler.plan", "a Plan", plan, cure)
    if plan is not None and not isinstance(plan, Plan):
        raise FieldError.of("Scheduler.plan", "a Plan", plan)
    both = set(plan or ()) & set(schedules)
    if both:
        raise FieldError.of("Scheduler.plan", "without keys that are given again", sorted(both))
    check_arguments(schedules)
    if not (plan or schedules or any(others)):
        raise FieldError("Scheduler needs a schedule, such as lr=Cosine(1000)")
    merged = {**(plan or {}), **schedules}
    return dict(plan_of("plan", merged)) if merged else {}


def bases_of(given: Bases | None, what: str = "base") -> KnownBases:
    """Explicit base values (or floors) by key."""
    if given is None:
        return {}
    by_key = given if isinstance(given, Mapping) else {"lr": given}
    return {key: _numbers(f"Scheduler.{what}[{key!r}]", value) for key, value in by_key.items()}


def _numbers(field: str, value: Any) -> ByGroup:
    if isinstance(value, Mapping):
        return {
            name: float(Bounds(ge=0).admit(f"{field}[{name!r}]", x)) for name, x in value.items()
        }
    if isinstance(value, list | tuple):
        return [None if x is None else float(Bounds(ge=0).admit(field, x)) for x in value]
    return float(Bounds(ge=0).admit(field, value))


def base_for(
    bases: KnownBases,
    key: str,
    index: int,
    what: str = "base",
    *,
    later: bool = False,
    name: Any = None,
) -> float | None:
    """Give the explicit base value (or floor) of one group's key, if there is one.

    A list speaks of the groups there are at first; one that comes `later` has none of its own.
    """
    given = bases.get(key)
    if isinstance(given, dict):
        return given.get(name, None if later else given.get(index))
    if not isinstance(given, list) or later:
        return None if isinstance(given, list) else given
    if index >= len(given):
        raise FieldError.of(f"Scheduler.{what}[{key!r}]", "a value for every group", given)
    return given[index]


def check_way(given: Any) -> OnMismatch:
    """Give what to do at a mismatch; `FieldError` for another word."""
    if given not in _WAYS:
        rule = ", ".join(map(repr, _WAYS[:-1])) + f" or {_WAYS[-1]!r}"
        raise FieldError.of("on_mismatch", rule, given)
    way: OnMismatch = given
    return way
