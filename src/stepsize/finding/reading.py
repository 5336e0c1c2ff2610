"""Curves that were recorded elsewhere: files, and what other finders keep.

| from | what is read |
| --- | --- |
| a CSV file with a header | a column of rates and one of losses; Lightning's CSVLogger too |
| a JSON file | the same as lists by name, a list of records, or what a `RangeTest` saved |
| a pandas or polars table | the same columns |
| Lightning's `tuner.lr_find(...)` | its `results` |
| torch-lr-finder's `LRFinder` | its `history` |
| fastai's `learn.recorder` | its `lrs` and `losses`, of which the losses are averages already |

No other finder is imported: objects are read by attribute.
"""

import csv
import json
import math
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
    if hasattr(finder, "columns") and hasattr(finder, "__getitem__"):  # a table of pandas or polars
        return {str(name): _plain(finder[name]) for name in finder.columns}
    for name in ("results", "history"):
        found = getattr(finder, name, None)
        if isinstance(found, Mapping):
            return found
    if hasattr(finder, "lrs") and hasattr(finder, "losses"):
        return {"lrs": list(finder.lrs), "losses": [float(loss) for loss in finder.losses]}
    told = "a path to .csv or .json, a mapping, or a finder with results, history or lrs and losses"
    raise SpecError(f"a curve is read from {told}, not from {type(finder).__name__}")


def _plain(column: Any) -> list[Any]:
    """Give the values of a column; pandas says NaN where there is none."""
    values = column.tolist() if hasattr(column, "tolist") else list(column)
    missing = [isinstance(value, float) and math.isnan(value) for value in values]
    return [None if gone else value for gone, value in zip(missing, values, strict=True)]


def _file(path: Path) -> Columns:
    try:
        text = path.read_text(encoding="utf-8-sig")  # Excel begins files with a mark
    except (OSError, UnicodeDecodeError) as error:
        raise SpecError(f"{path} cannot be read: {error}") from error
    if path.suffix == ".csv":
        first = text.partition("\n")[0]
        return _columns(list(csv.DictReader(text.splitlines(), delimiter=_between(first))))
    if path.suffix != ".json":
        raise SpecError(f"{path} must end in .csv or .json to be read as a curve")
    try:
        found = json.loads(text)
    except json.JSONDecodeError as error:
        raise SpecError(f"{path} is no JSON: {error}") from error
    if isinstance(found, list) and found and all(isinstance(line, dict) for line in found):
        return _columns(found)
    if not isinstance(found, dict):
        raise SpecError(f"{path} must hold lists of rates and losses by name")
    return found


def _between(line: str) -> str:
    """Give what stands between the names of a header: a comma, a semicolon or a tab."""
    return max(",;\t", key=line.count)


def _columns(lines: Sequence[Mapping[str, Any]]) -> Columns:
    names = dict.fromkeys(name for line in lines for name in line)
    return {name: [line.get(name) for line in lines] for name in names}


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
    if len(held[loss]) > len(held[rate]):
        told = f"{len(held[rate])} rates in {rate!r} and {len(held[loss])} losses in {loss!r}"
        raise SpecError(f"a curve needs a rate for every loss; there are {told}")
    runs = [_row(lines, names) for lines in _lines(held, names).values()]
    rates = max((run["rate"] for run in runs), key=len)
    for run in runs:
        if run["rate"] != rates[: len(run["rate"])]:
            raise SpecError("the repeats have losses at different rates: read each on its own")
    if not any(run["loss"] for run in runs):
        raise SpecError(f"no step has both {rate!r} and {loss!r}")
    scores = tuple(run["score"] for run in runs) if "score" in names else ()
    return RangeCurve(rates, tuple(run["loss"] for run in runs), scores)


def _lines(held: Columns, names: Mapping[str, str]) -> dict[Any, list[dict[str, float]]]:
    """Give what is known of each step, by run."""
    steps = next((held[name] for name in _STEPS if name in held), None)
    runs = next((held[name] for name in _REPEATS if name in held), None)
    seen: dict[Any, dict[Any, dict[str, float]]] = {}
    for i in range(len(held[names["rate"]])):
        step = steps[i] if steps else i
        line = seen.setdefault(runs[i] if runs else "", {}).setdefault(step, {})
        for kind, name in names.items():
            value = held[name][i] if i < len(held[name]) else ""
            if value not in ("", None):
                line[kind] = _number(name, value)
    return {run: list(lines.values()) for run, lines in seen.items()}


def _row(lines: list[dict[str, float]], names: Mapping[str, str]) -> dict[str, tuple[float, ...]]:
    """Give the columns of one run: its whole lines, and the rates after the last of them.

    A logger that tells the loss at some steps alone leaves others out: those are no part of it.
    """
    lines = [line for line in lines if "rate" in line]
    ends = max((i + 1 for i, line in enumerate(lines) if "loss" in line), default=0)
    kept = [line for i, line in enumerate(lines) if i >= ends or "loss" in line]
    return {kind: tuple(line[kind] for line in kept if kind in line) for kind in names}


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
