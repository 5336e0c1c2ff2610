"""The second look of vSGD at a minibatch, from the place to which the mean gradient points."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from stepsize.optim.again import Repeatable
from stepsize.optim.base import wide, with_gradients
from stepsize.optim.blocks import Rooms, batches
from stepsize.optim.formula import Tensors
from stepsize.optim.vsgd_rules import LOOK_ROOMS, Probed, look, shift
from stepsize.optim.whole import local
from stepsize.torch.groups import Group

State = Mapping[Tensor, dict[str, Any]]


class Part(NamedTuple):
    """Parameters of a group that are as far as each other."""

    number: int
    group: Group
    params: Tensors
    weight: float | None
    """Of this gradient in the averages; None: after the slow start, 1 / tau."""


def probe(repeat: Repeatable, parts: Sequence[Part], state: State, rooms: Rooms) -> None:
    """Evaluate at theta + E g; take up the curvatures. Parameters and gradients come back."""
    params = [p for part in parts for p in part.params]
    # copies: the buckets of DistributedDataParallel are written anew by the second evaluation
    kept = [(p, local(p).clone(), p.grad.clone()) for p in params]  # type: ignore[union-attr]
    at = {p: (place, local(gradient)) for p, place, gradient in kept}
    try:
        for part in parts:
            _shift(part, state, rooms)
        for p in params:
            p.grad = None
        repeat.again()
        with_gradients(params)
        for part in parts:
            _look(part, at, state, rooms)
    finally:
        for p, place, gradient in kept:
            local(p).copy_(place)
            _give_back(p, gradient)


def _shift(part: Part, state: State, rooms: Rooms) -> None:
    rows = [(local(p), local(p.grad), local(state[p]["g"])) for p in part.params]  # type: ignore[arg-type]
    for params, gradients, means in batches(rows, together=part.group["foreach"]):
        scratch = rooms.like(params, 2, wide(params[0]))
        shift(part.group, params, gradients, means, scratch)


def _look(
    part: Part, at: Mapping[Tensor, tuple[Tensor, Tensor]], state: State, rooms: Rooms
) -> None:
    rows = []
    for p in part.params:
        place, first = at[p]
        second = torch.zeros_like(first) if p.grad is None else local(p.grad)
        memory = (local(state[p][name]) for name in Probed.memory)
        rows.append((local(p), place, second, first, *memory))
    for shifted, places, seconds, firsts, *memories in batches(
        rows, together=part.group["foreach"]
    ):
        scratch = rooms.like(shifted, LOOK_ROOMS, wide(shifted[0]))
        memory_of = dict(zip(Probed.memory, memories, strict=True))
        look(part.group, (shifted, places, seconds, firsts), memory_of, scratch, part.weight)


def _give_back(p: Tensor, gradient: Tensor) -> None:
    if p.grad is None:
        p.grad = gradient
    else:
        p.grad.copy_(gradient)
