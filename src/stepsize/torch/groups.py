"""Keys of param groups: reading, base values, and writing many of them with one computed value."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from stepsize.errors import FieldError
from stepsize.schedules.schedule import FACTOR_PEAKS, Schedule

Group = dict[str, Any]
_BETAS = {"beta1": 0, "beta2": 1}


@dataclass(frozen=True, slots=True)
class Slot:
    """One hyper-parameter of one param group: what it is called, and the base value it scales."""

    optimizer: int
    group: int
    key: str
    schedule: Schedule
    base: float
    tensor: Tensor | None
    index: int = 0  # its group's number among those there were when it was bound
    floor: float | None = None

    @property
    def scale(self) -> float:
        """What the schedule's value is multiplied with."""
        return 1.0 if self.schedule.is_absolute else self.base


def is_beta(key: str) -> bool:
    """Tell whether a key is one of Adam's pair."""
    return key in _BETAS


def held(group: Group, key: str) -> Any:
    """Give what a group holds for a key, a number or a tensor; `KeyError` if it has none."""
    return group["betas"][_BETAS[key]] if key in _BETAS else group[key]


def number(value: Any) -> float:
    """Give a group's value as a Python float."""
    return float(value.item()) if isinstance(value, Tensor) else float(value)


def put(group: Group, key: str, value: Any) -> None:
    """Set a group's value, replacing what is there."""
    if key in _BETAS:
        betas = list(group["betas"])
        betas[_BETAS[key]] = value
        group["betas"] = tuple(betas)
    else:
        group[key] = value


def is_number(value: Any) -> bool:
    """Tell whether a value is one number, or a tensor of one."""
    if isinstance(value, Tensor):
        return value.is_floating_point() and value.numel() == 1
    return isinstance(value, float | int) and not isinstance(value, bool)


def check_key(group: Group, key: str, where: str) -> None:
    """Raise `FieldError` if the group has no such key."""
    field = "betas" if key in _BETAS else key
    plain = key not in ("betas", "params") and not key.startswith("initial_")
    if field in group and plain and is_number(held(group, key)):
        return
    known = [k for k in group if not k.startswith("initial_") and is_number(group[k])]
    known += list(_BETAS) if "betas" in group else []
    cure = "beta1 and beta2 are keys of their own" if key == "betas" else "use one of its keys"
    if key == "momentum" and "betas" in group:
        cure = "Adam's is called beta1: plan.renamed(momentum='beta1')"
    elif key == "momentum":
        cure = "this optimizer has no momentum: leave it out, such as one_cycle(momentum=None)"
    raise FieldError.of(f"{where}: the key", f"one of {', '.join(sorted(known))}", key, cure)


def base_of(group: Group, key: str, explicit: float | None, where: str) -> tuple[float, str]:
    """Give the base value of a key, and a remark where two values compete."""
    value = number(held(group, key))
    initial = group.get(f"initial_{key}")
    if explicit is not None:
        return float(explicit), ""
    if initial is None or number(initial) == value:
        return value, ""
    return number(initial), (
        f"{where}: initial_{key} = {number(initial):g} was taken as the base value, not the "
        f"present {key} = {value:g} (an optimizer that was scheduled before keeps its base there); "
        f"give base={{'{key}': ...}} to say otherwise"
    )


def check_factor(schedule: Schedule, peak: float, base: float, where: str) -> None:
    """Raise `FieldError` for a factor that is a rate in disguise."""
    if schedule.is_absolute:
        return
    low, high = FACTOR_PEAKS
    if peak and not low <= peak <= high:
        raise FieldError.of(
            f"{where}: the peak of a factor",
            f"within [{low:g}, {high:g}]",
            peak,
            f"it would multiply the base value {base:g}; if it is a value of its own, write "
            "schedule.absolute(peak) instead of peak * schedule",
        )


def check_bases(slots: list[Slot]) -> None:
    """Raise `FieldError` for a factor that has nothing to scale in any of its groups.

    Some of them may be at 0: biases and norms have no weight decay.
    """
    scaled = [slot for slot in slots if not slot.schedule.is_absolute]
    for key in dict.fromkeys(slot.key for slot in scaled):
        if not any(slot.base for slot in scaled if slot.key == key):
            cure = "write schedule.absolute(...), or Constant(value=0).absolute() to keep it at 0"
            rule = "other than 0 in one group at least, for a factor"
            raise FieldError.of(f"Scheduler, {key}: the base value", rule, 0.0, cure)


def wanted_for(
    group: Group,
    place: tuple[int, int],
    common: Mapping[str, Schedule],
    special: Mapping[Any, Mapping[str, Schedule]],
) -> dict[str, Schedule]:
    """Give the schedules of one group: the common ones, and its own by place or by name."""
    own: dict[str, Schedule] = {}
    for name in (place, group.get("name")):
        if name is not None and name in special:
            own |= special[name]
    return {**common, **own}


def check_group_names(groups: list[Group], special: Mapping[Any, Any]) -> None:
    """Raise `FieldError` for a group that is asked for and not there."""
    known: set[Any] = {*range(len(groups)), *(g["name"] for g in groups if "name" in g)}
    for name in special:
        if name not in known:
            shown = ", ".join(map(repr, sorted(known, key=str)))
            cure = 'name groups with {"params": ..., "name": "head"}'
            raise FieldError.of("Scheduler.groups: the group", f"one of {shown}", name, cure)
