"""The lengths that AdGD chooses by, taken in pieces that stay in the cache and read once."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from stepsize.optim.base import wide
from stepsize.optim.blocks import Rooms, Row, batches
from stepsize.optim.formula import Tensors
from stepsize.optim.whole import Totals, local, split_of
from stepsize.torch.groups import Group

Held = Mapping[Tensor, Tensor]


class _Sums(NamedTuple):
    """Where the sums of some parameters of a group belong."""

    totals: Totals
    number: int
    split: Any

    def squares(self, name: str, tensors: Tensors) -> None:
        """Add squares; the inner product reads one large tensor faster than a norm does."""
        if len(tensors) == 1:
            self.products(name, tensors, tensors)
        else:
            self.totals.add_squares(f"{name}{self.number}", tensors, self.split)

    def products(self, name: str, one: Tensors, other: Tensors) -> None:
        """Add inner products."""
        self.totals.add_products(f"{name}{self.number}", one, other, self.split)


class Norms:
    """Takes them, with scratch that is used again."""

    def __init__(self) -> None:
        self._rooms = Rooms()

    def read(
        self, groups: Sequence[Group], params: Sequence[Tensors], older: Held, places: Held
    ) -> dict[str, float]:
        """Give sums by name and number of the group, such as "change0".

        lr: its rate. square: |d|^2 of the direction of all `params`. change: |g - g'|^2 of those
        that have an `older` gradient. moved: |x - x'|^2 of those that have an older place, too.
        own, product: |g|^2 and <g, g'>, for "tighter".
        """
        totals = Totals()
        for number, (group, held) in enumerate(zip(groups, params, strict=True)):
            if isinstance(group["lr"], Tensor):
                totals.add(f"lr{number}", [group["lr"].reshape(())])
            for split, alike in by_split(held):
                for rows in _rows(alike, older, places):
                    for columns in batches(rows, together=group["foreach"]):
                        self._add(_Sums(totals, number, split), group, columns)
        return totals.read()

    def _add(self, sums: _Sums, group: Group, columns: list[Tensors]) -> None:
        present, gradients, *past = columns
        decay, coupled = group["weight_decay"], not group["decoupled_weight_decay"]
        one, two, three = self._rooms.like(present, 3, wide(present[0]))
        now = evidence(group, present, gradients, one) if coupled else _widened(gradients, one)
        if past:
            older, *before = past
            then = _widened(older, two)
            if before:
                sums.squares("moved", _difference(present, before[0], three))
                if coupled and decay:
                    then = evidence(group, before[0], older, two)
            sums.squares("change", _difference(now, then, three))
            if group["rule"] == "tighter":
                sums.squares("own", now)
                sums.products("product", now, then)
        if decay and not coupled:
            now = evidence(group, present, gradients, one)
        sums.squares("square", now)

    def directions(
        self, group: Group, columns: list[Tensors]
    ) -> tuple[Tensors, tuple[Tensors, Tensors]]:
        """Give the direction of a step, up to the sign of `maximize`, and two rooms."""
        present, gradients = columns[:2]
        one, *rooms = self._rooms.like(present, 3, wide(present[0]))
        found = evidence(group, present, gradients, one) if group["weight_decay"] else gradients
        return found, (rooms[0], rooms[1])

    def exchange(self, places: Held) -> None:
        """Exchange the numbers of parameters with those of other tensors, to the bit."""
        for present, others in batches([(local(p), local(o)) for p, o in places.items()]):
            [room] = self._rooms.like(present, 1, present[0].dtype)
            torch._foreach_copy_(room, present)
            torch._foreach_copy_(present, others)
            torch._foreach_copy_(others, room)


def sign_of(group: Group) -> float:
    """Give -1 where the gradient is climbed."""
    return -1.0 if group["maximize"] else 1.0


def evidence(group: Group, present: Tensors, gradients: Tensors, room: Tensors) -> Tensors:
    """Give the gradients with weight decay, in a room unless they are the gradients themselves.

    Their sign is that of the gradients, also where these are climbed: that of the decay is turned.
    """
    if not group["weight_decay"]:
        return _widened(gradients, room)
    torch._foreach_copy_(room, gradients)
    torch._foreach_add_(room, present, alpha=sign_of(group) * group["weight_decay"])
    return room


def _widened(tensors: Tensors, room: Tensors) -> Tensors:
    if tensors[0].dtype == room[0].dtype:
        return tensors
    torch._foreach_copy_(room, tensors)
    return room


def _difference(one: Tensors, other: Tensors, room: Tensors) -> Tensors:
    if len(one) == 1 and one[0].dtype == room[0].dtype:  # a large one: once through the memory
        torch.sub(one[0], other[0], out=room[0])
        return room
    torch._foreach_copy_(room, one)
    torch._foreach_sub_(room, other)
    return room


def _rows(params: Tensors, older: Held, places: Held) -> list[list[Row]]:
    """Sort them by what is known of their past: nothing, a gradient, a place as well."""
    found: dict[int, list[Row]] = {}
    for p in params:
        gradient: Any = p.grad
        past = older.get(p), places.get(p)
        known = [t for t in past if t is not None] if past[0] is not None else []
        row = tuple(map(local, (p, gradient, *known)))
        found.setdefault(len(row), []).append(row)
    return list(found.values())


def by_split(params: Tensors) -> Iterator[tuple[Any, Tensors]]:
    """Give those together that are split over the ranks alike."""
    alike: dict[Any, Tensors] = {}
    for p in params:
        alike.setdefault(split_of(p), []).append(p)
    yield from alike.items()
