"""What a user names on the command line: an expression, a file, a length, a base value."""

import os
import re
from collections.abc import Iterable
from typing import Any

from stepsize.errors import FieldError, SpecError, UnitError
from stepsize.files.disk import load
from stepsize.files.expression import parse
from stepsize.schedules.plan import Plan
from stepsize.schedules.schedule import Schedule
from stepsize.time import Horizon

_NAMED = re.compile(r"\s*([A-Za-z_][\w. -]*)=(?!=)(.*)", re.DOTALL)
_FILE = re.compile(r"[^()'\"]*[./\\][^()'\"]*")  # a dot or a slash, and nothing that calls


def read(source: str, trust: Iterable[str] = ()) -> Schedule | Plan:
    """Read an expression, or a file where the text looks like one's name."""
    # os.path.isfile says no to a text too long for a name, where Path.is_file raises
    named_so = _FILE.fullmatch(source) or os.path.isfile(source)  # noqa: PTH113
    return load(source, trust=trust) if named_so else parse(source, trust=trust)


def read_all(sources: tuple[str, ...], trust: Iterable[str] = ()) -> Any:
    """Read one source as it is, several by name: `NAME=EXPRESSION`, or the text itself."""
    named = [named_source(source) for source in sources]
    if len(named) == 1:
        return read(named[0][1], trust)
    found = {name: read(text, trust) for name, text in named}
    if len(found) < len(named):
        raise SpecError("two of the schedules have the same name: write NAME=EXPRESSION")
    return found


def named_source(source: str) -> tuple[str, str]:
    """Give the name and the text of `NAME=SOURCE`; the text itself names what has no name."""
    found = _NAMED.fullmatch(source)
    if found and "(" not in found[1]:
        return found[1].strip(), found[2]
    return source, source


def length(text: str | None) -> float | str | None:
    """Read a length: a number of steps, or a text with a unit."""
    if text is None:
        return None
    try:
        return float(text.replace("_", "").replace(",", ""))
    except ValueError:
        return text


def batch_size(text: str | None, trust: Iterable[str] = ()) -> int | Schedule | None:
    """Read a batch size: a whole number, or an expression for a ramp of batch sizes."""
    if text is None:
        return None
    if text.strip().isdecimal():
        return int(text)
    found = read(text, trust)
    if isinstance(found, Plan):
        raise FieldError.of("--batch-size", "a number or one schedule", text)
    return found


def bases(given: tuple[str, ...]) -> dict[str, float] | None:
    """Read base values: `3e-4` for the rate, or `KEY=NUMBER`."""
    found: dict[str, float] = {}
    for text in given:
        key, _, number = text.rpartition("=")
        try:
            found[key.strip() or "lr"] = float(number)
        except ValueError:
            cure = "write --base 3e-4, or --base momentum=0.9"
            raise FieldError.of("--base", "a number, or KEY=NUMBER", text, cure) from None
    return found or None


def horizon_of(total: str | None, trust: Iterable[str], **fields: Any) -> Horizon | None:
    """Build the horizon from the options; None where none is given."""
    fields["batch_size"] = batch_size(fields["batch_size"], trust)
    unset = {"accumulate": 1, "replicas": 1, "last": "step"}
    if total is None and all(value in (None, unset.get(name)) for name, value in fields.items()):
        return None
    return Horizon(length(total), **fields)


def needs_options(error: UnitError) -> str:
    """Say the cure of a horizon that lacks something in the options' own names."""
    text = str(error)
    for field in (
        "total",
        "batches_per_epoch",
        "batch_size",
        "tokens_per_sample",
        "samples_per_epoch",
    ):
        option = f"--{field.replace('_', '-')}"
        text = re.sub(rf"Horizon\({field}=(\.\.\.)?\)", option, text)
    text = text.replace("Horizon(total, batches_per_epoch=...)", "--total and --batches-per-epoch")
    text = text.replace("Horizon(total)", "--total")
    return text.replace("seconds_per_step=", "--seconds-per-step")
