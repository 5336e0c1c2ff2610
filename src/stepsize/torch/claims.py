"""Who writes which key of which group: kept on the optimizer, where a second scheduler looks."""

import weakref
from collections.abc import Iterable
from typing import Any

from torch.optim import Optimizer

from stepsize.errors import FieldError
from stepsize.torch.known_rates import held_by

_CLAIMS = "_stepsize_claims"
Place = tuple[Optimizer, int, str]


def rivals(owner: Any, places: Iterable[Place], *, take_over: bool) -> list[Any]:
    """Give the other living writers of the owner's (optimizer, group, key).

    Raises `FieldError` for the first of them, unless it is to be taken over.
    """
    found = []
    for optimizer, group, key in places:
        other = _claims(optimizer).get((group, key), _nobody)()
        if other is None or other is owner:
            continue
        if not take_over:
            raise FieldError.of(
                "Scheduler",
                "the only one to write a key of a group",
                f"{key!r} of group {group}, which another scheduler writes",
                "detach() that one, or give take_over=True",
            )
        found.append(other)
    return found


def claim(owner: Any, places: Iterable[Place]) -> None:
    """Note the owner as the writer of (optimizer, group, key)."""
    for optimizer, group, key in places:
        _claims(optimizer)[group, key] = weakref.ref(owner)


def announce(owner: Any, optimizers: Iterable[Optimizer]) -> None:
    """Note an owner that will say at the first step which keys it writes."""
    for optimizer in optimizers:
        _claims(optimizer)[id(owner), ""] = weakref.ref(owner)


def writers(optimizer: Any) -> list[Any]:
    """Give all living schedulers that write to an optimizer or to one inside it, or will."""
    found: dict[int, Any] = {}
    while optimizer is not None:
        claims = getattr(optimizer, "__dict__", {}).get(_CLAIMS, {})
        found |= {id(owner): owner for alive in claims.values() if (owner := alive()) is not None}
        optimizer = held_by(optimizer)
    return list(found.values())


def release(owner: Any, optimizers: Iterable[Optimizer]) -> None:
    """Forget the owner's claims."""
    for optimizer in optimizers:
        claims = _claims(optimizer)
        for place in [p for p, alive in claims.items() if alive() in (owner, None)]:
            del claims[place]


def _claims(optimizer: Optimizer) -> dict[tuple[int, str], Any]:
    found: dict[tuple[int, str], Any] = optimizer.__dict__.setdefault(_CLAIMS, {})
    return found


def _nobody() -> None:
    return None
