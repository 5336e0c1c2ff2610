"""Schedules and plans in JSON, YAML and TOML: the same content, see `to_dict`."""

from collections.abc import Iterable
from typing import TYPE_CHECKING, Final

from stepsize.errors import SpecError
from stepsize.files.description import from_dict, to_dict
from stepsize.files.forms import form_named
from stepsize.schedules.plan import Plan
from stepsize.schedules.schedule import Schedule

if TYPE_CHECKING:
    import os
    from pathlib import Path

FORMS: Final = {".json": "json", ".yaml": "yaml", ".yml": "yaml", ".toml": "toml"}
_LARGEST: Final = 16 * 2**20


def dumps(value: Schedule | Plan, form: str = "json") -> str:
    """Write a schedule or a plan as the text of a file, in JSON, YAML or TOML.

    >>> from stepsize import Cosine, Warmup
    >>> print(dumps(Warmup("5%") >> Cosine(stop=0.1), "yaml"), end="")
    format: 1
    schedule:
      kind: sequence
      parts:
      - kind: warmup
        over: 5%
      - kind: cosine
        stop: 0.1
    """
    return form_named(form)[1](to_dict(value))


def loads(text: str, form: str = "json", *, trust: Iterable[str] = ()) -> Schedule | Plan:
    r"""Read a schedule or a plan from the text of a file; see `from_dict`.

    >>> loads("format: 1\nschedule: Warmup('5%') >> Cosine()", "yaml")
    Warmup('5%') >> Cosine()
    """
    read = form_named(form)[0]
    if not isinstance(text, str):
        raise SpecError(f"the text of a file is a str, got {type(text).__name__}")
    if len(text) > _LARGEST:
        raise SpecError(_too_large(len(text)))
    try:
        return from_dict(read(text), trust=trust)
    except RecursionError:
        raise SpecError("nested too deeply for a schedule") from None


def dump(value: Schedule | Plan, path: "str | os.PathLike[str]") -> None:
    """Write a schedule or a plan to a .json, .yaml or .toml file, whole or not at all.

    Raises:
        SpecError: for another ending, for what the form cannot hold, or where nothing can be
            written.
    """
    target, form = _form_of(path)
    write_whole(target, dumps(value, form))


def write_whole(path: "str | os.PathLike[str]", text: str) -> None:
    """Write a text file whole or not at all; `SpecError` where it cannot be written."""
    import os  # noqa: PLC0415 (keeps the import of the library light)
    from pathlib import Path  # noqa: PLC0415

    target = Path(path)
    partial = target.with_name(f".{target.name}.{os.getpid()}.partial")
    try:
        partial.write_text(text, encoding="utf-8")
        partial.replace(target)
    except FileNotFoundError:
        raise SpecError(f"{target}: there is no folder {target.parent}: make it first") from None
    except (OSError, ValueError) as error:
        raise SpecError(f"{target}: cannot be written: {_reason(error)}") from None
    finally:
        _remove(partial)


def load(path: "str | os.PathLike[str]", *, trust: Iterable[str] = ()) -> Schedule | Plan:
    """Read a schedule or a plan from a .json, .yaml or .toml file; see `from_dict`."""
    source, form = _form_of(path)
    try:
        return loads(_content(source), form, trust=trust)
    except SpecError as error:
        raise SpecError(f"{source}: {error}") from error


def _form_of(path: "str | os.PathLike[str]") -> "tuple[Path, str]":
    from pathlib import Path  # noqa: PLC0415 (keeps the import of the library light)

    target = Path(path)
    if target.suffix not in FORMS:
        given = target.suffix or "no ending"
        raise SpecError(f"{target}: a schedule file ends in {', '.join(FORMS)}, got {given}")
    return target, FORMS[target.suffix]


def _content(source: "Path") -> str:
    try:
        with source.open("rb") as file:
            content = file.read(_LARGEST + 1)
        size = source.stat().st_size
    except FileNotFoundError:
        raise SpecError("there is no such file") from None
    except (OSError, ValueError) as error:
        raise SpecError(f"cannot be read: {_reason(error)}") from None
    if len(content) > _LARGEST:
        raise SpecError(_too_large(size))
    try:
        return content.decode("utf-8-sig")
    except UnicodeError as error:
        raise SpecError(f"cannot be read: it is no text in UTF-8: {error}") from None


def _reason(error: Exception) -> str:
    return str(getattr(error, "strerror", None) or error)


def _too_large(size: int) -> str:
    return f"a schedule file has at most {_LARGEST} bytes, this has {size}"


def _remove(partial: "Path") -> None:
    try:
        partial.unlink(missing_ok=True)
    except (OSError, ValueError):
        return  # what kept it from being written keeps it from being removed, and was reported
