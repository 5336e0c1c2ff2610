"""JSON, YAML and TOML as plain data, and one sentence where a text is none of it."""

from collections.abc import Callable, Mapping
from typing import Any, Final

from stepsize.errors import SpecError
from stepsize.schedules.names import nearest

_LONG_KEY: Final = r"""(?:(?:(?<![\w-])[\w-]++|"[^"\n]*+"|'[^'\n]*+')[ \t]*+\.[ \t]*+){64}"""


def form_named(name: str) -> tuple[Callable[[str], Any], Callable[[Any], str]]:
    """Give the functions that read and write a form."""
    forms = {
        "json": (_read_json, _write_json),
        "yaml": (_read_yaml, _write_yaml),
        "toml": (_read_toml, _write_toml),
    }
    if name not in forms:
        raise SpecError(f"unknown form {name!r}{nearest(name, forms)}: json, yaml or toml")
    return forms[name]


def _read_json(text: str) -> Any:
    import json  # noqa: PLC0415 (keeps the import of the library light)

    try:
        return json.loads(text, object_pairs_hook=_once, parse_constant=_no_number)
    except SpecError:
        raise
    except ValueError as error:  # JSONDecodeError, and a number of too many digits
        raise SpecError(f"not whole JSON: {error}") from None


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in pairs:
        if name in found:
            raise SpecError(f"the key {name!r} stands twice")
        found[name] = value
    return found


def _no_number(text: str) -> float:
    raise SpecError(f"{text} is no number of JSON, and no schedule needs it")


def _write_json(data: Any) -> str:
    import json  # noqa: PLC0415 (keeps the import of the library light)

    return json.dumps(data, indent=2) + "\n"


def _read_yaml(text: str) -> Any:
    from stepsize.files.yaml_core import read  # noqa: PLC0415 (needs PyYAML)

    return read(text)


def _write_yaml(data: Any) -> str:
    from stepsize.files.yaml_core import write  # noqa: PLC0415 (needs PyYAML)

    return write(data)


def _read_toml(text: str) -> Any:
    import re  # noqa: PLC0415 (keeps the import of the library light)
    import tomllib  # noqa: PLC0415

    if re.search(_LONG_KEY, text):  # tomllib takes hours for a long one
        raise SpecError("a key of 64 parts or more is too deep for a schedule")
    try:
        return tomllib.loads(text)
    except ValueError as error:  # TOMLDecodeError, and a number of too many digits
        raise SpecError(f"not whole TOML: {error}") from None


def _write_toml(data: Any) -> str:
    import tomli_w  # noqa: PLC0415 (an installed package, needed here alone)

    _no_none(data, "the description")
    return tomli_w.dumps(data)


def _no_none(data: Any, path: str) -> None:
    if data is None:
        raise SpecError(f"{path} is None, which TOML cannot hold: use JSON or YAML")
    if isinstance(data, Mapping):
        for name, value in data.items():
            _no_none(value, f"{path}.{name}")
    elif isinstance(data, list):
        for i, value in enumerate(data):
            _no_none(value, f"{path}[{i}]")
