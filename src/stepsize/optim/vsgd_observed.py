"""Curvatures that are given to vSGD from outside."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from stepsize.optim.base import wide
from stepsize.optim.blocks import Rooms, Row, batches
from stepsize.optim.whole import local
from stepsize.torch.groups import Group


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
