"""Schedules and plans as plain data. Reading them never imports and never evaluates.

`{"format": 1, "schedule": {"kind": "linear", "over": 100}}`: kinds are plain words, lengths with
units are their texts, fields at their defaults are left out; a schedule may also be the text of an
expression (`parse`). A function (`Custom`) and a family of another package load only where the
caller names the package as trusted.
"""

import dataclasses
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final, TypeVar

from stepsize.errors import FieldError, SpecError
from stepsize.files.expression import parse
from stepsize.schedules.fields import FunctionRule, NodeRule, NodesRule, TableRule
from stepsize.schedules.names import (
    Trusted,
    by_class,
    by_kind,
    nearest,
    shown,
    taken_family,
    trusted,
    trusted_function,
)
from stepsize.schedules.plan import Plan
from stepsize.schedules.schedule import Schedule, changed_fields, fields_of
from stepsize.units import Time

FORMAT: Final = 1
Found = TypeVar("Found")


def to_dict(value: Schedule | Plan) -> dict[str, Any]:
    """Give a schedule or a plan as plain data that JSON, YAML and TOML can hold.

    >>> from stepsize import Cosine, Warmup
    >>> to_dict(Warmup("5%") >> Cosine(stop=0.1))["schedule"]["parts"][0]
    {'kind': 'warmup', 'over': '5%'}
    """
    if not isinstance(value, Schedule | Plan):
        raise SpecError(f"only a schedule or a plan can be described, got {shown(value)}")
    if isinstance(value, Plan):
        return {"format": FORMAT, "plan": {name: _data(each, name) for name, each in value.items()}}
    return {"format": FORMAT, "schedule": _data(value, type(value).__name__)}


def plain_data(schedule: Schedule, *, whole: bool = False) -> dict[str, Any]:
    """Give a schedule as plain data to compare with, a function without a name among it as text.

    `whole`: also the fields that have their defaults.
    """
    data: dict[str, Any] = _data(schedule, type(schedule).__name__, strict=False, whole=whole)
    return data


def value_data(value: Any) -> Any:
    """Give a field's value as `plain_data` does."""
    return _data(value, type(value).__name__, strict=False)


def _data(value: Any, path: str, *, strict: bool = True, whole: bool = False) -> Any:
    def inner(part: Any, name: str) -> Any:
        return _data(part, path + name, strict=strict, whole=whole)

    if isinstance(value, Schedule):
        told = fields_of(value) if whole else changed_fields(value)
        fields = {name: inner(v, f".{name}") for name, v in told.items()}
        return {"kind": value.kind, **fields}
    if isinstance(value, Time):
        return str(value)
    if isinstance(value, tuple):
        return [inner(item, f"[{i}]") for i, item in enumerate(value)]
    if isinstance(value, type) and issubclass(value, Schedule):
        return value.kind
    if isinstance(value, float) and value == int(value) and abs(value) < 2**53:
        return int(value)
    return _function_name(value, path, strict=strict) if callable(value) else value


def _function_name(function: Any, path: str, *, strict: bool) -> str:
    module = getattr(function, "__module__", None)
    name = getattr(function, "__qualname__", f"<{type(function).__name__}>")
    if strict and (not module or "<" in name or "." in name):
        raise SpecError(
            f"{path} is the function {name!r}, which has no name that a file could hold: "
            "use a function defined at the top of a module"
        )
    return f"{module}:{name}"


def from_dict(data: Any, *, trust: Iterable[str] = ()) -> Schedule | Plan:
    """Build the schedule or plan that the data describe.

    Args:
        data: what `to_dict` gave.
        trust: names of packages whose functions and families may be used; nothing else is imported.

    Raises:
        SpecError: for anything that is not such a description, with the path to it.

    >>> from_dict({"format": 1, "schedule": "Warmup('5%') >> Cosine(stop=0.1)"})
    Warmup('5%') >> Cosine(stop=0.1)
    """
    if not isinstance(data, Mapping):
        raise SpecError(f"a description is an object with 'format', got {type(data).__name__}")
    version = data.get("format")
    if version != FORMAT or isinstance(version, bool):
        newer = isinstance(version, int) and not isinstance(version, bool) and version > FORMAT
        cure = "update stepsize" if newer else f"write format: {FORMAT}"
        known = f"unknown version {shown(version)}" if "format" in data else "is missing"
        raise SpecError(f"format: {known}; {cure}")
    try:
        return _described(data, trusted(trust))
    except RecursionError:
        raise SpecError("the description is nested too deeply for a schedule") from None


def _described(data: Mapping[str, Any], packages: Trusted) -> Schedule | Plan:
    keys = set(data) - {"format", "$schema"}  # the latter is for editors
    if keys == {"schedule"}:
        return _node(data["schedule"], "schedule", packages)
    if keys == {"plan"}:
        return _plan(data["plan"], packages)
    given = sorted(map(str, data))
    raise SpecError(f"expected the keys 'format' and 'schedule' or 'plan', got {shown(given)}")


def _plan(data: Any, packages: Trusted) -> Plan:
    if isinstance(data, str):
        made = _parsed(data, "plan", packages)
        if not isinstance(made, Plan):
            raise SpecError(f"plan: expected a Plan, got the schedule {shown(data)}")
        return made
    if not isinstance(data, Mapping) or not data:
        raise SpecError(f"plan: expected at least one schedule by its name, got {shown(data)}")
    for name in data:
        if not isinstance(name, str):
            raise SpecError(f"plan: a name is a text, got {shown(name)}")
    schedules = {name: _node(each, f"plan.{name}", packages) for name, each in data.items()}
    try:
        return Plan(**schedules)
    except FieldError as error:
        raise SpecError(f"plan: {error}") from error


def _node(data: Any, path: str, packages: Trusted) -> Schedule:
    if isinstance(data, str):
        made = _parsed(data, path, packages)
        if not isinstance(made, Schedule):
            raise SpecError(f"{path}: expected a schedule, got the Plan {shown(data)}")
        return made
    if isinstance(data, int | float):
        cure = f"a constant is the text Constant(value={data!r}).absolute()"
        raise SpecError(f"{path}: expected a schedule, got {shown(data)}; {cure}")
    if not isinstance(data, Mapping) or not isinstance(data.get("kind"), str):
        raise SpecError(f"{path}: expected an object with a 'kind', got {shown(data)}")
    cls = _within(path, by_kind, data["kind"], packages)
    given = {name: value for name, value in data.items() if name != "kind"}
    _complete(cls, given, path)
    fields = {n: _field(cls, n, value, f"{path}.{n}", packages) for n, value in given.items()}
    try:
        return cls(**fields)
    except (ArithmeticError, ValueError) as error:
        raise SpecError(f"{_place(path, cls, error)}: {error}") from error


def _parsed(text: str, path: str, packages: Trusted) -> Schedule | Plan:
    return _within(path, lambda: parse(text, trust=packages))


def _within(path: str, find: Callable[..., Found], *args: object) -> Found:
    """Put the path before the error of what is found by name."""
    try:
        return find(*args)
    except SpecError as error:
        raise SpecError(f"{path}: {error}") from error


def _complete(cls: type[Schedule], given: Mapping[str, Any], path: str) -> None:
    known = {field.name: field for field in dataclasses.fields(cls) if field.init}  # type: ignore[arg-type]  # every family is a dataclass
    for name in given:
        if name not in known:
            near = nearest(name, known)
            raise SpecError(f"{path}: {cls.kind!r} has no field {shown(name)}{near}")
    for name, field in known.items():
        if name not in given and field.default is dataclasses.MISSING:
            raise SpecError(f"{path}: {cls.kind!r} needs the field {name!r}")


def _place(path: str, cls: type[Schedule], error: Exception) -> str:
    """Give the path to the field that the error of a family begins with, else to the node."""
    owner, _, name = str(error).partition(" ")[0].partition("[")[0].rpartition(".")
    known = owner == cls.__name__ and name in cls.__dataclass_fields__  # type: ignore[attr-defined]  # every family is a dataclass
    return f"{path}.{name}" if known else path


def _field(cls: type[Schedule], name: str, value: Any, path: str, packages: Trusted) -> Any:
    if isinstance(value, list):
        each = enumerate(value)
        return tuple(_field(cls, name, v, f"{path}[{i}]", packages) for i, v in each)
    rule, _ = cls._rules.get(name, (None, False))  # type: ignore[attr-defined]  # set by @schedule
    if isinstance(value, Mapping) and isinstance(rule, TableRule):
        return {_moment(key): level for key, level in value.items()}
    if isinstance(value, Mapping):
        return _node(value, path, packages)
    return _text(cls, name, value, path, packages) if isinstance(value, str) else value


def _moment(key: Any) -> Any:
    """Read a key of a table: JSON and TOML have no keys but texts."""
    try:
        return float(key)
    except (TypeError, ValueError):
        return key


def _text(cls: type[Schedule], name: str, value: str, path: str, packages: Trusted) -> Any:
    rule, _ = cls._rules.get(name, (None, False))  # type: ignore[attr-defined]  # set by @schedule
    if isinstance(rule, NodeRule | NodesRule):
        return _node(value, path, packages)
    if isinstance(rule, FunctionRule):
        return _within(path, trusted_function, value, packages)
    if taken_family(cls, name):
        return by_class(value, packages) or _within(path, by_kind, value, packages)
    return value
