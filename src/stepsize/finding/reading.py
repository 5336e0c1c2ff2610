"""Curves that were recorded elsewhere: files, and what other finders keep.

| from | what is read |
| --- | --- |
| a CSV file with a header | a column of rates and one of losses; Lightning's CSVLogger too |
| a JSON file | the same as lists by name, or what a `RangeTest` saved |
| Lightning's `tuner.lr_find(...)` | its `results` |
| torch-lr-finder's `LRFinder` | its `history` |
| fastai's `learn.recorder` | its `lrs` and `losses`, of which the losses are averages already |

No other finder is imported: objects are read by attribute.
"""

import csv
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from stepsize.errors import SpecError
from stepsize.finding.curve import RangeCurve

RATES = ("rate", "rates", "lr", "lrs", "learning_rate", "train/lr", "lr-*", "lr/*")
LOSSES = ("loss", "losses", "train_loss", "train_loss_step", "train/loss", "training_loss")
_STEPS = ("step", "global_step", "iteration", "batch")
_REPEATS = ("repeat", "run", "seed")
Columns = Mapping[str, Sequence[Any]]


def read_curve(source: Any, *, rate: str | None = None, loss: str | None = None) -> RangeCurve:
    """Read a curve from a file, a mapping of lists, or another library's finder.

    Args:
        source: a path that ends in .csv or .json; a mapping; an object with `results`, `history`
            or `lrs` and `losses`.
        rate: the column of rates. None: the first of the names that are known.
        loss: the column of losses, likewise.

    Raises:
        SpecError: where no rates or losses are found, with the columns that are there.
        FieldError: where they are no curve: rates that do not rise.

    >>> read_curve({"lr": [0.1, 0.2], "loss": [2.0, 1.5]})
    RangeCurve(rates=(0.1, 0.2), losses=((2.0, 1.5),), scores=())
    """
    if isinstance(source, str | os.PathLike):
        source = _file(Path(source))
    held: Mapping[str, Any] = source if isinstance(source, Mapping) else _held_by(source)
    if isinstance(held.get("curve"), Mapping):  # what a RangeTest saved
        held = held["curve"]
    if rate is None and loss is None and _has_rows(held):
        return RangeCurve.from_dict(dict(held))
    return _joined(held, _column(held, rate, RATES, "rates"), _column(held, loss, LOSSES, "losses"))


def _has_rows(held: Columns) -> bool:
    rows = held.get("losses") or ()
    return len(rows) > 0 and isinstance(rows[0], Sequence) and not isinstance(rows[0], str)


def _held_by(finder: Any) -> Columns:
    for name in ("results", "history"):
        found = getattr(finder, name, None)
        if isinstance(found, Mapping):
            return found
    if hasattr(finder, "lrs") and hasattr(finder, "losses"):
        return {"lrs": list(finder.lrs), "losses": [float(loss) for loss in finder.losses]}
    told = "a path to .csv or .json, a mapping, or a finder with results, history or lrs and losses"
    raise SpecError(f"a curve is read from {told}, not from {type(finder).__name__}")


def _file(path: Path) -> Columns:
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise SpecError(f"{path} cannot be read: {error}") from error
    if path.suffix == ".csv":
        rows = list(csv.DictReader(text.splitlines()))
        return {name: [row[name] for row in rows] for name in (rows[0] if rows else ())}
    if path.suffix != ".json":
        raise SpecError(f"{path} must end in .csv or .json to be read as a curve")
    try:
        found = json.loads(text)
    except json.JSONDecodeError as error:
        raise SpecError(f"{path} is no JSON: {error}") from error
    if not isinstance(found, dict):
        raise SpecError(f"{path} must hold lists of rates and losses by name")
    return found


def _column(held: Columns, asked: str | None, known: Iterable[str], what: str) -> str:
    if asked is not None:
        if asked in held:
            return asked
        raise SpecError(f"there is no column {asked!r}; there are: {_names(held)}")
    for name in known:
        stem = name.removesuffix("*")
        found = [key for key in held if key == name or (stem != name and key.startswith(stem))]
        if found:
            return found[0]
    kind = what.removesuffix("es") if what == "losses" else what.removesuffix("s")
    raise SpecError(f"no column of {what} was found; name it with {kind}=, of: {_names(held)}")


def _names(held: Columns) -> str:
    return ", ".join(repr(name) for name in held) or "none"


def _joined(held: Columns, rate: str, loss: str) -> RangeCurve:
    """Pair rates and losses, by the step where a logger gave them lines of their own."""
    names = {"rate": rate, "loss": loss, **({"score": "score"} if "score" in held else {})}
    steps = next((held[name] for name in _STEPS if name in held), None)
    runs = next((held[name] for name in _REPEATS if name in held), None)
    seen: dict[Any, dict[Any, dict[str, float]]] = {}
    for i in range(max(len(held[name]) for name in names.values())):
        step = steps[i] if steps else i
        line = seen.setdefault(runs[i] if runs else "", {}).setdefault(step, {})
        for kind, name in names.items():
            value = held[name][i] if i < len(held[name]) else ""
            if value not in ("", None):
                line[kind] = _number(name, value)
    rows = [[line for line in run.values() if "rate" in line] for run in seen.values()]
    if not any("loss" in line for row in rows for line in row):
        raise SpecError(f"no step has both {rate!r} and {loss!r}")
    rates = tuple(line["rate"] for line in max(rows, key=len))
    scores = tuple(_values(row, "score") for row in rows) if "score" in names else ()
    return RangeCurve(rates, tuple(_values(row, "loss") for row in rows), scores)


def _values(row: list[dict[str, float]], kind: str) -> tuple[float, ...]:
    """Give a column up to where it ends; a logger may leave lines out in between."""
    return tuple(line[kind] for line in row if kind in line)


def _number(name: str, value: Any) -> float:
    try:
        return float(value)
    except (TypeError, ValueError) as error:
        raise SpecError(f"column {name!r} must hold numbers, has {value!r}") from error


def write_curve(curve: RangeCurve, path: "str | os.PathLike[str]") -> None:
    """Write a line for each step of each repeat: repeat, step, rate, loss, and score if any.

    Where a repeat had ended the loss is left out, so that `read_curve` gives the same curve.
    """
    empty = ((),) * len(curve.losses)
    with Path(path).open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["repeat", "step", "rate", "loss", *(["score"] if curve.scores else [])])
        for repeat, told in enumerate(zip(curve.losses, curve.scores or empty, strict=True)):
            columns = told if curve.scores else told[:1]
            for step, rate in enumerate(curve.rates):
                values = (row[step] if step < len(row) else "" for row in columns)
                writer.writerow([repeat, step, rate, *values])
