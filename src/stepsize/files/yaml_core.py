"""YAML as data: the core schema of YAML 1.2, without tags, anchors and repeated keys.

PyYAML follows YAML 1.1: `3e-4` is a text there, `on` is True, `1:30` is 90 and `2024-01-01` a date.
"""

import re
from typing import Any, Final

import yaml  # type: ignore[import-untyped]  # PyYAML has no types of its own

from stepsize.errors import SpecError

_NULL, _BOOL, _INT, _FLOAT = (
    f"tag:yaml.org,2002:{name}" for name in ("null", "bool", "int", "float")
)
_CORE: Final = (
    (_NULL, r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    (_BOOL, r"true|True|TRUE|false|False|FALSE", list("tTfF")),
    (_INT, r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+", list("-+0123456789")),
    (_FLOAT, r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?", list("-+.0123456789")),
    (_FLOAT, r"[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)", list("-+.")),
)
_MOST_DIGITS: Final = 400  # more than any float has


class _Loader(yaml.SafeLoader):  # type: ignore[misc]  # as above
    """Reads what the core schema has, and nothing that refers, repeats or makes objects."""

    yaml_implicit_resolvers: dict[str, Any] = {}  # noqa: RUF012 (PyYAML's own protocol)

    def compose_node(self, parent: Any, index: Any) -> Any:
        event = self.peek_event()
        if getattr(event, "anchor", None) is not None:
            raise _wrong(event, "an anchor or an alias is not allowed: write the value out")
        if getattr(event, "tag", None) is not None:
            raise _wrong(event, f"the tag {event.tag!r} is not allowed: a file holds plain data")
        return super().compose_node(parent, index)

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        del deep
        found: dict[Any, Any] = {}
        for key_node, value_node in node.value:
            if not isinstance(key_node, yaml.ScalarNode):
                raise _wrong(key_node, "a key is a text or a number")
            key = self.construct_object(key_node)
            if key in found:
                raise _wrong(key_node, f"the key {key!r} stands twice")
            found[key] = self.construct_object(value_node, deep=True)
        return found

    def whole(self, node: Any) -> int:
        text = node.value
        if len(text) > _MOST_DIGITS:
            raise _wrong(node, f"a whole number of {len(text)} digits is too long")
        return int(text, {"0o": 8, "0x": 16}.get(text[:2], 10))

    def real(self, node: Any) -> float:
        text = node.value.lower()
        return float(text.replace(".inf", "inf").replace(".nan", "nan"))

    def truth(self, node: Any) -> bool:
        return bool(node.value.lower() == "true")


class _Dumper(yaml.SafeDumper):  # type: ignore[misc]  # as above
    """Writes texts so that YAML 1.1 and the core schema both read texts, a flat list in a line."""

    def ignore_aliases(self, data: Any) -> bool:
        del data
        return True

    def flat_list(self, data: list[Any]) -> Any:
        flat = not any(isinstance(each, dict | list) for each in data)
        return self.represent_sequence("tag:yaml.org,2002:seq", data, flow_style=flat)


for _tag, _pattern, _first in _CORE:
    _Loader.add_implicit_resolver(_tag, re.compile(rf"^(?:{_pattern})$"), _first)
    _Dumper.add_implicit_resolver(_tag, re.compile(rf"^(?:{_pattern})$"), _first)
_Dumper.add_representer(list, _Dumper.flat_list)
_Loader.add_constructor(_INT, _Loader.whole)
_Loader.add_constructor(_FLOAT, _Loader.real)
_Loader.add_constructor(_BOOL, _Loader.truth)


def _wrong(at: Any, message: str) -> SpecError:
    mark = at.start_mark
    return SpecError(f"line {mark.line + 1}, column {mark.column + 1}: {message}")


def read(text: str) -> Any:
    """Read one document; `SpecError` for anything but plain data in YAML."""
    try:
        return yaml.load(text, _Loader)  # noqa: S506 (a safe loader, made stricter)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f"line {mark.line + 1}, column {mark.column + 1}: " if mark else ""
        raise SpecError(where + " ".join(str(getattr(error, "problem", error)).split())) from None


def write(data: Any) -> str:
    """Write plain data."""
    text: str = yaml.dump(data, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=100)
    return text
