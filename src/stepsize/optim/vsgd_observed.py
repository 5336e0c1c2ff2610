"""Curvatures that are given to vSGD from outside."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, distributed

from stepsize.errors import FieldError
from stepsize.optim.base import wide
from stepsize.optim.blocks import Rooms, Row, batches
from stepsize.optim.whole import local, split_of
from stepsize.torch.groups import Group
from stepsize.torch.ranks import ranks


def told(
    diagonals: Sequence[Tensor | None], params: Sequence[Tensor], *, reduce: bool
) -> list[Tensor | None]:
    """Check what was observed, and give its means over the ranks. Raises `FieldError`."""
    if len(diagonals) != len(params):
        rule = f"one tensor, or None, for each of {len(params)} parameters"
        raise FieldError.of("diagonals", rule, f"{len(diagonals)} of them")
    for n, (p, found) in enumerate(zip(params, diagonals, strict=True)):
        if found is not None and (found.shape, split_of(found)) != (p.shape, split_of(p)):
            rule = f"of shape {tuple(p.shape)}, and split over the ranks as the parameter is"
            raise FieldError.of(f"diagonals[{n}]", rule, tuple(found.shape))
    return [_mean(found) if reduce else found for found in diagonals]


@torch.no_grad()
def _mean(tensor: Tensor | None) -> Tensor | None:
    """Give the mean over the ranks of what is whole on each; collective."""
    if tensor is None or split_of(tensor) is not None or ranks() == 1:
        return tensor
    mean = tensor.detach() / ranks()
    distributed.all_reduce(mean)
    return mean


def take_up(
    group: Group,
    diagonals: Mapping[Tensor, Tensor],
    state: Mapping[Tensor, dict[str, Any]],
    rooms: Rooms,
) -> None:
    """Average the curvatures of a group, as the next step will average its gradients."""
    alike: dict[float | None, list[Row]] = {}
    for p, found in diagonals.items():
        own = state[p]
        if "h" not in own:
            own["h"] = torch.zeros_like(p, dtype=wide(p))
        weight = _weight(group, own)
        row: Row = local(own["h"]), local(found)
        if weight is None:
            row = *row, local(own["tau"]).expand(row[0].shape)
        alike.setdefault(weight, []).append(row)
        own["looked"] = 1
    for weight, rows in alike.items():
        for means, values, *taus in batches(rows, together=group["foreach"]):
            value, room = rooms.like(means, 2, means[0].dtype)
            torch._foreach_copy_(value, values)
            torch._foreach_abs_(value)
            if group["weight_decay"] and not group["decoupled_weight_decay"]:
                torch._foreach_add_(value, group["weight_decay"])
            if weight is None:
                torch._foreach_copy_(room, taus[0])
                torch._foreach_reciprocal_(room)
            torch._foreach_lerp_(means, value, room if weight is None else weight)


def _weight(group: Group, own: Mapping[str, Any]) -> float | None:
    """Give the share of an observation: all at first, then equal ones, then 1 / tau (None)."""
    seen = own.get("seen", 0)
    if not (seen and own.get("looked", 0)):
        return 1.0
    return None if seen >= group["slow_start"] else 1 / (seen + 1)
