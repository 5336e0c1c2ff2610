"""Golden files: the values of a schedule, kept beside a project's own tests and compared with."""

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from stepsize.drawing.series import finite, spoken
from stepsize.errors import FieldError, SpecError, StepsizeError
from stepsize.files.expression import parse
from stepsize.look.entries import Bases
from stepsize.look.preview import AXES
from stepsize.look.runs import run_of
from stepsize.look.tracks import Run, Track
from stepsize.schedules.fields import Bounds
from stepsize.time import Horizon

if TYPE_CHECKING:
    import os

_FORMAT = 1
_ALL = 256  # steps that are all kept
_EVENLY = 64  # moments besides the ends and the boundaries


def golden(
    what: Any,
    horizon: Horizon | None = None,
    *,
    base: Bases = None,
    seconds_per_step: float | None = None,
) -> dict[str, Any]:
    """Give what a golden file holds, as plain data: values by step, and the schedules as code.

    Every step of a run of up to 256; else the first and last, those around every moment at which
    the schedule may jump, and 64 between. The arguments are those of `preview`.

    >>> from stepsize import Linear, golden
    >>> golden(Linear(4))
    {'format': 1, 'unit': 'steps', 'total': 4.0, 'curves': {'value': {'code': 'Linear(4)', \
'points': [[0.0, 1.0], [1.0, 0.75], [2.0, 0.5], [3.0, 0.25]]}}}
    """
    run = run_of(what, horizon, base=base, seconds_per_step=seconds_per_step)
    curves: dict[str, Any] = {}
    for track in run.tracks:
        name = track.title or "value"
        if name in curves:
            raise FieldError.of("golden: the names", "different", name, "name the param groups")
        looked_at = finite([(time, track.value(time)) for time in _times(run, track)])
        points = [list(point) for point in looked_at]
        curves[name] = {"code": repr(track.schedule), "points": points}
    return {"format": _FORMAT, "unit": _unit(run), "total": run.total, "curves": curves}


def _unit(run: Run) -> str:
    return AXES["st" if run.whole else "s"]


def _times(run: Run, track: Track) -> list[float]:
    if run.whole and run.total <= _ALL:
        return list(map(float, range(int(run.total))))
    near = {math.ceil(m - 1e-9) + i for m in run.moments(track) for i in (-1, 0, 1)}
    even = {math.floor(run.last * i / _EVENLY) for i in range(_EVENLY + 1)}
    ends = {0, 1, 2, math.ceil(run.last) - 1}
    return sorted(float(t) for t in {*ends, *near, *even} if 0 <= t <= run.last)


def write_golden(path: "str | os.PathLike[str]", what: Any, *given: Any, **settings: Any) -> None:
    """Write a golden file; what comes after the path is as for `golden`."""
    import json  # noqa: PLC0415 (keeps the import of the library light)

    from stepsize.files.disk import write_whole  # noqa: PLC0415 (as above)

    write_whole(path, json.dumps(golden(what, *given, **settings), indent=1) + "\n")


def compare_golden(
    path: "str | os.PathLike[str]", what: Any, *given: Any, rtol: float = 1e-9, **settings: Any
) -> tuple[str, ...]:
    """Give what differs from a golden file, one sentence each; nothing where all is the same.

    In a project's own tests: `assert not compare_golden("tests/lr.json", schedule, horizon)`. A
    schedule written differently that has the same values is the same.

    Args:
        path: the file that `write_golden` or `stepsize table --golden FILE --write` wrote.
        what: what to compare with it, as for `golden`.
        *given: the horizon, as for `golden`.
        rtol: how far a value may be off, relative to itself (near 0, to a millionth of the peak).
        **settings: the other arguments of `golden`.

    Raises `SpecError` for a file that is missing or is no golden file.
    """
    rtol = float(Bounds(ge=0, lt=1).admit("compare_golden: rtol", rtol))
    saved, run = _read(path), run_of(what, *given, **settings)
    found = []
    if (saved["total"], saved["unit"]) != (run.total, _unit(run)):
        was, now = f"{spoken(saved['total'])} {saved['unit']}", f"{spoken(run.total)} {_unit(run)}"
        found.append(f"the run was {was} long, it is {now}")
    return (*found, *_moved(saved["curves"], run, rtol))


def _moved(saved: dict[str, Any], run: Run, rtol: float) -> Iterator[str]:
    tracks = {track.title or "value": track for track in run.tracks}
    for name in sorted(saved.keys() | tracks.keys()):
        if name not in tracks or name not in saved:
            yield f"{name}: is {'new' if name in tracks else 'gone'}"
            continue
        points, value, code = saved[name]["points"], tracks[name].value, saved[name]["code"]
        floor = 1e-6 * max(abs(old) for _, old in points)
        wrong = [p for p in points if abs(value(p[0]) - p[1]) > rtol * max(abs(p[1]), floor)]
        now = repr(tracks[name].schedule)
        changed = f"{code} became {now}: " if code != now else ""
        if wrong:
            time, old = wrong[0]
            yield (
                f"{name}: {changed}{len(wrong)} of {len(points)} values differ, first at "
                f"{_unit(run)[:-1]} {spoken(time)}: it was {old!r}, it is {value(time)!r}"
            )
        elif between := _between(code, tracks[name], run, rtol):
            yield f"{name}: {changed}{between}"


def _between(code: str, track: Track, run: Run, rtol: float) -> str:
    """Look where the present schedule jumps and the saved one, read from its code, did not."""
    try:
        was = run_of(parse(code), run.horizon, seconds_per_step=run.seconds_per_step).tracks[0]
    except StepsizeError:  # a user's own function, or one that does not fit this run any more
        return ""
    for time in _times(run, track):
        old, new = track.scale * was.factor(time), track.value(time)
        if abs(new - old) > rtol * max(abs(old), abs(new)):
            moment = f"{_unit(run)[:-1]} {spoken(time)}"
            return f"the values differ, first at {moment}: it was {old!r}, it is {new!r}"
    return ""


def _read(path: "str | os.PathLike[str]") -> dict[str, Any]:
    import json  # noqa: PLC0415 (keeps the import of the library light)
    from pathlib import Path  # noqa: PLC0415

    source = Path(path)
    try:
        data = json.loads(source.read_text(encoding="utf-8"))
        version = data["format"]
        if version == _FORMAT:
            _points(data)
    except FileNotFoundError:
        cure = "write it first: write_golden(path, ...), or stepsize table --golden FILE --write"
        raise SpecError(f"{source}: there is no such golden file; {cure}") from None
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise SpecError(f"{source}: is no golden file, or not a whole one") from None
    if version != _FORMAT:
        raise SpecError(f"{source}: format: unknown version {version!r}; update stepsize")
    found: dict[str, Any] = data
    return found


def _points(data: dict[str, Any]) -> None:
    """Touch all that will be read, so that a wrong file fails here."""
    float(data["total"]), str(data["unit"])
    for curve in data["curves"].values():
        str(curve["code"])
        numbers = [float(number) for time, value in curve["points"] for number in (time, value)]
        if not numbers or not all(map(math.isfinite, numbers)):
            raise ValueError
