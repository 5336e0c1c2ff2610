"""The JSON Schema of files, from the registered families: editors complete and check with it."""

import dataclasses
import inspect
from typing import Any, Final

from stepsize.files.description import FORMAT, value_data
from stepsize.schedules.names import taken_family
from stepsize.schedules.schedule import REGISTRY, Schedule

_NODE: Final = {"$ref": "#/$defs/node"}
_EXPRESSION: Final = 'or the text of an expression, such as Warmup("5%") >> Cosine(stop=0.1)'


def json_schema() -> dict[str, Any]:
    """Give the JSON Schema (draft 2020-12) of a schedule file in JSON, YAML or TOML.

    It has every family that is registered now, also those of other packages.

    >>> sorted(json_schema()["$defs"]["family-step"]["properties"])
    ['every', 'factor', 'kind']
    """
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "A stepsize schedule or plan",
        "type": "object",
        "properties": {
            "$schema": {"type": "string"},
            "format": {"const": FORMAT},
            "schedule": _NODE,
            "plan": _plan(),
        },
        "required": ["format"],
        "oneOf": [{"required": ["schedule"]}, {"required": ["plan"]}],
        "additionalProperties": False,
        "$defs": {
            "node": _node(),
            **{f"family-{kind}": _family(cls) for kind, cls in REGISTRY.items()},
        },
    }


def _plan() -> dict[str, Any]:
    return {
        "description": f"Schedules by hyper-parameter (lr, momentum, ...), {_EXPRESSION}.",
        "type": ["object", "string"],
        "additionalProperties": _NODE,
        "minProperties": 1,
        "minLength": 1,
    }


def _node() -> dict[str, Any]:
    """Choose the family by its kind: with `oneOf`, every family would check every part."""
    return {
        "description": f"A schedule, {_EXPRESSION}.",
        "type": ["object", "string"],
        "minLength": 1,
        "properties": {"kind": {"enum": sorted(REGISTRY)}},
        "required": ["kind"],
        "allOf": [
            {
                "if": {
                    "type": "object",
                    "properties": {"kind": {"const": kind}},
                    "required": ["kind"],
                },
                "then": {"$ref": f"#/$defs/family-{kind}"},
            }
            for kind in sorted(REGISTRY)
        ],
    }


def _family(cls: type[Schedule]) -> dict[str, Any]:
    fields = [field for field in dataclasses.fields(cls) if field.init]  # type: ignore[arg-type]  # every family is a dataclass
    needed = [field.name for field in fields if field.default is dataclasses.MISSING]
    return {
        "title": cls.__name__,
        "description": " ".join((inspect.getdoc(cls) or "").partition("\n\n")[0].split()),
        "type": "object",
        "properties": {
            "kind": {"const": cls.kind},
            **{field.name: _field(cls, field) for field in fields},
        },
        "required": ["kind", *needed],
        "additionalProperties": False,
    }


def _field(cls: type[Schedule], field: "dataclasses.Field[Any]") -> dict[str, Any]:
    rule, optional = cls._rules.get(field.name, (None, False))  # type: ignore[attr-defined]  # set by @schedule
    base = taken_family(cls, field.name)
    schema = _classes(base) if base else _ruled(rule)
    if optional and schema:
        schema = {"anyOf": [schema, {"type": "null"}]}
    if field.default is not dataclasses.MISSING:
        schema = {**schema, "default": value_data(field.default)}
    return schema


def _ruled(rule: Any) -> dict[str, Any]:
    """Ask the rule; one of another package may have nothing to say."""
    schema: dict[str, Any] = rule.json_schema() if hasattr(rule, "json_schema") else {}
    return schema


def _classes(base: type[Schedule]) -> dict[str, Any]:
    found = [cls for cls in REGISTRY.values() if issubclass(cls, base)]
    return {"enum": sorted({name for cls in found for name in (cls.kind, cls.__name__)})}
