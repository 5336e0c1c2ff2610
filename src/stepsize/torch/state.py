"""The state of a scheduler: fixed keys with numbers and strings, and how two of them differ."""

import hashlib
import json
import math
from typing import Any, NamedTuple

from stepsize.errors import MismatchError
from stepsize.files.changes import changes

FORMAT = 1
_KEYS = {"format", "step", "counted", "position", "unit", "fingerprint", "checksum", "details"}


class Saved(NamedTuple):
    """A state, read.

    `description` is what the user's code says, to which a state is held; `origin` what training
    began with, where that is something else; `journal` the changes of plan since.
    """

    step: int
    counted: bool
    position: float
    unit: str
    description: dict[str, Any]
    rows: list[tuple[int, int, str, float]]
    origin: dict[str, Any] | None
    journal: list[dict[str, Any]]
    controlled: dict[str, Any]
    seconds: float


def pack(saved: Saved, positions: dict[str, float]) -> dict[str, Any]:
    """Give the state dictionary; `positions`: the same moment in every unit that is known."""
    told = json.dumps(saved.description, sort_keys=True)
    details = {
        "description": saved.description,
        "bases": saved.rows,
        "origin": saved.origin,
        "journal": saved.journal,
        "controlled": saved.controlled,
        "seconds": saved.seconds,
        "positions": positions,
    }
    text = json.dumps(details, sort_keys=True)
    return {
        "format": FORMAT,
        "step": saved.step,
        "counted": int(saved.counted),
        "position": saved.position,
        "unit": saved.unit,
        "fingerprint": hashed(told),
        "checksum": _whole(text, saved.step, int(saved.counted), saved.position, saved.unit),
        "details": text,
    }


def _whole(details: str, step: Any, counted: Any, position: Any, unit: Any) -> str:
    return hashed(f"{int(step)} {int(counted)} {float(position)!r} {unit} {details}")


def hashed(told: str) -> str:
    """Give a short hash of a text."""
    return hashlib.sha256(told.encode()).hexdigest()[:16]


def unpack(state: Any) -> Saved:
    """Read a state dictionary; `MismatchError` for one that is none of ours, or damaged."""
    if not isinstance(state, dict) or not set(state) >= _KEYS:
        given = sorted(map(str, state)) if isinstance(state, dict) else type(state).__name__
        raise MismatchError(
            f"the state is not of a stepsize Scheduler: it has {given}, expected the keys "
            f"{sorted(_KEYS)}; a state of torch's own schedulers cannot be loaded: "
            "set scheduler.last_epoch to its last_epoch instead"
        )
    if state["format"] != FORMAT:
        raise MismatchError(
            f"the state has format {state['format']!r}, this version reads {FORMAT}: "
            "update stepsize"
        )
    try:
        outer = [state[key] for key in ("step", "counted", "position", "unit")]
        whole = _whole(state["details"], *outer) == state["checksum"]
        saved = _read(state)
    except (
        TypeError,
        ValueError,
        KeyError,
        OverflowError,
        RecursionError,
        AttributeError,
    ) as error:
        raise MismatchError(f"the state is damaged: {error!r}"[:300]) from None
    told = json.dumps(saved.description, sort_keys=True)
    if not whole or hashed(told) != state["fingerprint"] or saved.step < 0:
        raise MismatchError(
            "the state is damaged: its checksum, its fingerprint or its step is off"
        )
    return saved


def _read(state: dict[str, Any]) -> Saved:
    details = json.loads(state["details"])
    for told in (details["description"], details["origin"]):
        keys = ("schedules", "groups", "extra")
        if told is not None and not all(isinstance(told[key], dict) for key in keys):
            raise TypeError("its description is none")
    rows = [(int(o), int(g), str(key), float(base)) for o, g, key, base in details["bases"]]
    position, seconds = float(state["position"]), float(details["seconds"])
    if not all(map(math.isfinite, (position, seconds, *(row[3] for row in rows)))):
        raise ValueError("a number in it is not finite")
    step, counted = int(float(state["step"])), bool(state["counted"])
    journal, controlled = list(details["journal"]), dict(details["controlled"])
    if not all(isinstance(record["kind"], str) for record in journal):
        raise TypeError("its journal is none")
    told, origin = details["description"], details["origin"]
    unit = str(state["unit"])
    return Saved(step, counted, position, unit, told, rows, origin, journal, controlled, seconds)


def differences(saved: Saved, now: Saved) -> list[str]:
    """Say where a saved state and the present one differ, field by field; not in their position."""
    found = [
        f"{path}: saved {was}, now {is_now}"
        for path, was, is_now in changes(saved.description, now.description)
    ]
    places, present = ([(o, g, key) for o, g, key, _ in rows] for rows in (saved.rows, now.rows))
    if places != present:
        found.append(f"groups and keys: saved {_places(places)}, now {_places(present)}")
    return found


def _places(rows: list[tuple[int, int, str]]) -> str:
    return ", ".join(
        f"{key} of group {g}" + (f" of optimizer {o}" if o else "") for o, g, key in rows
    )
