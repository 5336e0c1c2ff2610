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
_LARGEST: Final = {"json": 4 * 2**20, "toml": 4 * 2**20, "yaml": 2**19}
"""How many bytes a file may have: PyYAML takes ten seconds for half a megabyte."""


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
    _check_size(len(text), form)
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
    text = dumps(value, form)
    _check_size(len(text), form)
    write_whole(target, text)


def write_whole(path: "str | os.PathLike[str]", content: str | bytes) -> None:
    """Write a file whole or not at all, with the mode it has; `SpecError` where that fails."""
    import os  # noqa: PLC0415 (keeps the import of the library light)
    from pathlib import Path  # noqa: PLC0415

    data = content.encode() if isinstance(content, str) else content
    partial = None
    try:
        target = Path(os.path.realpath(path))  # a link stays one
        if not target.parent.is_dir():
            raise SpecError(f"{path}: there is no folder {Path(path).parent}: make it first")
        mode = target.stat().st_mode & 0o777 if target.exists() else 0o666
        partial = target.with_name(f".{target.name}.{os.urandom(8).hex()}.partial")
        with os.fdopen(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as file:
            file.write(data)
        partial.replace(target)
    except (OSError, ValueError) as error:
        if isinstance(error, SpecError):
            raise
        raise SpecError(f"{path}: cannot be written: {_reason(error)}") from None
    finally:
        if partial is not None:
            _remove(partial)


def load(path: "str | os.PathLike[str]", *, trust: Iterable[str] = ()) -> Schedule | Plan:
    """Read a schedule or a plan from a .json, .yaml or .toml file; see `from_dict`."""
    source, form = _form_of(path)
    try:
        return loads(_content(source, form), form, trust=trust)
    except SpecError as error:
        raise SpecError(f"{source}: {error}") from error


def _form_of(path: "str | os.PathLike[str]") -> "tuple[Path, str]":
    from pathlib import Path  # noqa: PLC0415 (keeps the import of the library light)

    target = Path(path)
    if target.suffix not in FORMS:
        given = target.suffix or "no ending"
        raise SpecError(f"{target}: a schedule file ends in {', '.join(FORMS)}, got {given}")
    return target, FORMS[target.suffix]


def _content(source: "Path", form: str) -> str:
    try:
        with source.open("rb") as file:
            content = file.read(_LARGEST[form] + 1)
        size = source.stat().st_size
    except FileNotFoundError:
        raise SpecError("there is no such file") from None
    except (OSError, ValueError) as error:
        raise SpecError(f"cannot be read: {_reason(error)}") from None
    _check_size(size, form)
    try:
        return content.decode("utf-8-sig")
    except UnicodeError as error:
        raise SpecError(f"cannot be read: it is no text in UTF-8: {error}") from None


def _reason(error: Exception) -> str:
    return str(getattr(error, "strerror", None) or error)


def _check_size(size: int, form: str) -> None:
    if size > _LARGEST[form]:
        cure = "; JSON may be longer" if form == "yaml" else ""
        most = f"a schedule file has at most {_LARGEST[form]} bytes in {form.upper()}"
        raise SpecError(f"{most}, this has {size}{cure}")


def _remove(partial: "Path") -> None:
    try:
        partial.unlink(missing_ok=True)
    except (OSError, ValueError):
        return  # what kept it from being written keeps it from being removed, and was reported
