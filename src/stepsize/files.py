"""Schedules and plans as plain data and JSON files. Loading never imports and never evaluates.

`{"format": 1, "schedule": {"kind": "linear", "over": 100}}`: kinds are plain words, lengths with
units are their texts, fields at their defaults are left out. A function (`Custom`) and a family of
another package load only where the caller names the package as trusted.
"""

import dataclasses
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, get_origin

from stepsize.errors import FieldError, SpecError
from stepsize.schedules.fields import FunctionRule
from stepsize.schedules.plan import Plan
from stepsize.schedules.schedule import REGISTRY, Schedule, changed_fields
from stepsize.units import Time

if TYPE_CHECKING:
    import os
    from pathlib import Path

FORMAT = 1


def to_dict(value: Schedule | Plan) -> dict[str, Any]:
    """Give a schedule or a plan as plain data that JSON can hold.

    >>> from stepsize import Cosine, Warmup
    >>> to_dict(Warmup("5%") >> Cosine(stop=0.1))["schedule"]["parts"][0]
    {'kind': 'warmup', 'over': '5%'}
    """
    if not isinstance(value, Schedule | Plan):
        raise SpecError(f"only a schedule or a plan can be described, got {value!r}")
    if isinstance(value, Plan):
        return {"format": FORMAT, "plan": {name: _data(each, name) for name, each in value.items()}}
    return {"format": FORMAT, "schedule": _data(value, type(value).__name__)}


def describe(schedule: Schedule) -> dict[str, Any]:
    """Give a schedule as plain data to compare with, a function without a name among it as text."""
    data: dict[str, Any] = _data(schedule, type(schedule).__name__, strict=False)
    return data


def _data(value: Any, path: str, *, strict: bool = True) -> Any:
    def inner(part: Any, name: str) -> Any:
        return _data(part, path + name, strict=strict)

    if isinstance(value, Schedule):
        fields = {name: inner(v, f".{name}") for name, v in changed_fields(value).items()}
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
    """
    if not isinstance(data, Mapping):
        raise SpecError(f"a description is an object with 'format', got {type(data).__name__}")
    version = data.get("format")
    if version != FORMAT or isinstance(version, bool):
        newer = isinstance(version, int) and not isinstance(version, bool) and version > FORMAT
        cure = "update stepsize" if newer else f"expected {FORMAT}"
        raise SpecError(f"format: unknown version {version!r}; {cure}")
    try:
        return _described(data, frozenset([trust] if isinstance(trust, str) else trust))
    except RecursionError:
        raise SpecError("the description is nested too deeply for a schedule") from None


def _described(data: Mapping[str, Any], trusted: frozenset[str]) -> Schedule | Plan:
    keys = set(data) - {"format"}
    if keys == {"schedule"}:
        return _node(data["schedule"], "schedule", trusted)
    if keys == {"plan"} and isinstance(data["plan"], Mapping):
        plan = {str(n): _node(d, f"plan.{n}", trusted) for n, d in data["plan"].items()}
        return Plan(**plan) if plan else _no_plan()
    raise SpecError(
        f"expected the keys 'format' and 'schedule' or 'plan', got {sorted(map(str, data))}"
    )


def _node(data: Any, path: str, trusted: frozenset[str]) -> Schedule:
    if not isinstance(data, Mapping) or not isinstance(data.get("kind"), str):
        raise SpecError(f"{path}: expected an object with a 'kind', got {data!r}")
    cls = _family(data["kind"], path, trusted)
    known = [name for name in cls.__dataclass_fields__ if cls.__dataclass_fields__[name].init]  # type: ignore[attr-defined]  # every family is a dataclass
    for name in data:
        if name != "kind" and name not in known:
            raise SpecError(
                f"{path}: {data['kind']!r} has no field {name!r}{_nearest(name, known)}"
            )
    fields = {n: _field(cls, n, v, f"{path}.{n}", trusted) for n, v in data.items() if n != "kind"}
    for name in known:
        if name not in fields and not _has_default(cls, name):
            raise SpecError(f"{path}: {data['kind']!r} needs the field {name!r}")
    try:
        return cls(**fields)
    except FieldError as error:
        raise SpecError(f"{path}: {error}") from error


def _has_default(cls: type[Schedule], name: str) -> bool:
    return cls.__dataclass_fields__[name].default is not dataclasses.MISSING  # type: ignore[attr-defined]  # every family is a dataclass


def _no_plan() -> Plan:
    raise SpecError("plan: expected at least one schedule")


def _field(cls: type[Schedule], name: str, value: Any, path: str, trusted: frozenset[str]) -> Any:
    if isinstance(value, Mapping):
        return _node(value, path, trusted)
    if isinstance(value, list):
        return tuple(_field(cls, name, v, f"{path}[{i}]", trusted) for i, v in enumerate(value))
    if not isinstance(value, str):
        return value
    if get_origin(cls.__annotations__.get(name)) is type:  # a field that takes a family
        return _family(value, path, trusted)
    if isinstance(cls._rules.get(name, (None,))[0], FunctionRule):  # type: ignore[attr-defined]  # set by @schedule
        return _function(value, path, trusted)
    return value


def _family(kind: str, path: str, trusted: frozenset[str]) -> type[Schedule]:
    if kind not in REGISTRY and trusted:
        import importlib.metadata  # noqa: PLC0415 (slow to import, and seldom needed)

        for entry in importlib.metadata.entry_points(group="stepsize.schedules"):
            if entry.name == kind and entry.module.partition(".")[0] in trusted:
                entry.load()
    if kind not in REGISTRY:
        raise SpecError(
            f"{path}: unknown kind {kind!r}{_nearest(kind, REGISTRY)}; "
            "a family of another package needs trust=('that_package',)"
        )
    return REGISTRY[kind]


def _function(text: str, path: str, trusted: frozenset[str]) -> Any:
    module, _, name = text.partition(":")
    package = module.partition(".")[0]
    if package not in trusted:
        raise SpecError(
            f"{path}: the function {text!r} is code of the package {package!r}, which loads only "
            f"with trust=({package!r},)"
        )
    import importlib  # noqa: PLC0415 (only for a package that the caller trusts)

    try:
        found = importlib.import_module(module)
    except ImportError as error:
        raise SpecError(f"{path}: {error}") from None
    function = getattr(found, name, None)
    if not callable(function):
        raise SpecError(f"{path}: {module} has no function {name!r}")
    return function


def _nearest(name: str, known: Iterable[str]) -> str:
    import difflib  # noqa: PLC0415 (only for an error)

    close = difflib.get_close_matches(name, list(known), 1)
    return f", did you mean {close[0]!r}" if close else ""


def dump(value: Schedule | Plan, path: "str | os.PathLike[str]") -> None:
    """Write a schedule or a plan to a JSON file, whole or not at all."""
    import json  # noqa: PLC0415 (keeps the import of the library light)
    import os  # noqa: PLC0415

    target = _json_path(path)
    partial = target.with_name(f".{target.name}.{os.getpid()}.partial")
    partial.write_text(json.dumps(to_dict(value), indent=2) + "\n", encoding="utf-8")
    partial.replace(target)


def load(path: "str | os.PathLike[str]", *, trust: Iterable[str] = ()) -> Schedule | Plan:
    """Read a schedule or a plan from a JSON file; see `from_dict`."""
    import json  # noqa: PLC0415 (keeps the import of the library light)

    source = _json_path(path)
    try:
        data = json.loads(source.read_text(encoding="utf-8-sig"))
    except FileNotFoundError:
        raise SpecError(f"{source}: there is no such file") from None
    except (OSError, UnicodeError) as error:
        raise SpecError(f"{source}: cannot be read: {error}") from None
    except ValueError as error:  # JSONDecodeError, and a number of too many digits
        raise SpecError(f"{source}: is not whole JSON: {error}") from None
    except RecursionError:
        raise SpecError(f"{source}: is nested too deeply for a schedule") from None
    try:
        return from_dict(data, trust=trust)
    except SpecError as error:
        raise SpecError(f"{source}: {error}") from error


def _json_path(path: "str | os.PathLike[str]") -> "Path":
    from pathlib import Path  # noqa: PLC0415 (keeps the import of the library light)

    target = Path(path)
    if target.suffix != ".json":
        raise SpecError(
            f"{target}: a schedule file ends in .json, got {target.suffix or 'no ending'}"
        )
    return target
