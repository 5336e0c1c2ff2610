"""The line on which one step size moves all parameters: points of it, and sums over the whole."""
# ruff: noqa: SLF001 (the foreach functions, which torch's own optimizers are made of)

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor

from stepsize.errors import FieldError
from stepsize.optim.base import POSITIVE, SelfSizing, wide, with_gradients
from stepsize.optim.blocks import Row, batches
from stepsize.optim.whole import Totals, local, split_of
from stepsize.torch.groups import Group

OF_A_GROUP = ("lr", "weight_decay", "decoupled_weight_decay", "foreach")
"""Fields that groups may have of their own where one step size is found for all of them."""


class Ceiling:
    """A number > 0, or inf for no limit."""

    def admit(self, field: str, value: object) -> float:
        """Check it."""
        return math.inf if value == math.inf else POSITIVE.admit(field, value)


class OneForAll(SelfSizing):
    """An optimizer that finds one number for all groups; they differ in `OF_A_GROUP` alone."""

    def add_param_group(self, param_group: Group) -> None:
        """Add a group. Raises `FieldError`, also for a field that all groups must share."""
        for name, value in param_group.items():
            shared = name == "maximize" or (name in self.rules and name not in OF_A_GROUP)
            if shared and value != self.defaults[name]:
                cure = f"give it to {type(self).__name__}, not to a group"
                raise FieldError.of(name, "the same for all groups", value, cure)
        super().add_param_group(param_group)

    def _tell(self, **numbers: float) -> None:
        """Write numbers of the whole into every group."""
        for group in self.param_groups:
            group.update(numbers)


class Departure:
    """The parameters that have a gradient, and their gradients, as they are before a step."""

    def __init__(self, groups: Sequence[Group], *, copied: bool = False) -> None:
        """Take them; `copied` where the gradients will be written to meanwhile."""
        self.groups = list(groups)
        self.params = [with_gradients(group["params"]) for group in groups]
        self.gradients: list[list[Tensor]] = [
            [p.grad.clone() if copied else p.grad for p in params]  # type: ignore[union-attr,misc]
            for params in self.params
        ]

    @contextmanager
    def gradients_kept(self) -> Iterator[None]:
        """Put back every gradient: the same tensors, with the same numbers in them."""
        everything = [p for group in self.groups for p in group["params"]]
        held = [p.grad for p in everything]
        try:
            yield
        finally:
            for p, gradient in zip(everything, held, strict=True):
                p.grad = gradient
            for params, copies in zip(self.params, self.gradients, strict=True):
                for p, copy in zip(params, copies, strict=True):
                    # DistributedDataParallel may write later gradients into the same memory
                    p.grad.copy_(copy)  # type: ignore[union-attr]


class _Sums(NamedTuple):
    """Of one group: `lr`, |d|^2 of its direction, <theta, d> and |theta|^2."""

    lr: float
    square: float
    product: float
    size: float


class Ray:
    """The points theta - t * share * d, where d is the gradient (with weight decay) of a group.

    The group with the greatest `lr` has share 1, others in proportion: the ratio of the groups is
    part of the direction, so that what is measured is what is stepped along. The greatest `lr`
    itself, `factor`, multiplies the step afterwards. Where all are 0, all shares are 1.
    """

    def __init__(self, departure: Departure) -> None:
        self._groups = departure.groups
        self._params = departure.params
        both = zip(self._groups, self._params, departure.gradients, strict=True)
        self._directions = [_evidence(*each) for each in both]
        self._starts: list[list[Tensor]] | None = None
        self._sums = self._measured()
        self.factor = max(sums.lr for sums in self._sums)
        self._shares = [s.lr / self.factor if self.factor else 1.0 for s in self._sums]
        weighted = zip(self._shares, self._sums, strict=True)
        self.square: float = sum(share * sums.square for share, sums in weighted)
        """How fast the loss falls at the start of the ray: its slope is minus this."""

    def _measured(self) -> list[_Sums]:
        """Read what the decisions need, at once."""
        totals = Totals()
        for number, group in enumerate(self._groups):
            if isinstance(group["lr"], Tensor):
                totals.add(f"lr{number}", [group["lr"].reshape(())])
            for split, params, directions in self._by_split(number):
                totals.add_squares(f"square{number}", directions, split)
                if _coupled(group):
                    here = [local(p).to(wide(p)) for p in params]
                    totals.add_products(f"product{number}", here, directions, split)
                    totals.add_squares(f"size{number}", here, split)
        read = totals.read()
        return [_sums(n, group, read) for n, group in enumerate(self._groups)]

    def _by_split(self, number: int) -> Iterator[tuple[Any, list[Tensor], list[Tensor]]]:
        """Give parameters and directions of a group, those together that are split alike."""
        alike: dict[Any, tuple[list[Tensor], list[Tensor]]] = {}
        for p, d in zip(self._params[number], self._directions[number], strict=True):
            params, directions = alike.setdefault(split_of(p), ([], []))
            params.append(p)
            directions.append(d)
        return ((split, *both) for split, both in alike.items())

    @property
    def penalty(self) -> float:
        """What coupled weight decay adds to the loss at the start: weight_decay/2 |theta|^2."""
        both = zip(self._groups, self._sums, strict=True)
        return sum((g["weight_decay"] / 2 * s.size for g, s in both if _coupled(g)), 0.0)

    def penalty_change(self, t: float) -> float:
        """Give how much the penalty differs at t.

        From the sums at the start: the difference of two norms would be lost in their rounding.
        """
        change = 0.0
        for group, sums, share in zip(self._groups, self._sums, self._shares, strict=True):
            if _coupled(group):
                s = t * share
                change += group["weight_decay"] * s * (s * sums.square / 2 - sums.product)
        return change

    def hold(self) -> None:
        """Copy the parameters, so that every point is reached from the same numbers."""
        self._starts = [[local(p).clone() for p in params] for params in self._params]

    def place(self, t: float) -> None:
        """Put the parameters at t; 0 is the start, to the bit. `hold` comes before."""
        self._put([t * share for share in self._shares])

    def go(self, step_size: float) -> None:
        """Take the step: lr * step_size * d in every group."""
        self._put([sums.lr * step_size for sums in self._sums])

    def _put(self, steps: Sequence[float]) -> None:
        for number, step in enumerate(steps):
            group = self._groups[number]
            for columns in batches(self._rows(number), together=group["foreach"]):
                present, directions, *starts = columns
                if starts:
                    torch._foreach_copy_(present, starts[0])
                if step:  # 0 * inf would be NaN
                    _move(group, present, directions, step)

    def _rows(self, number: int) -> list[Row]:
        columns = [[local(p) for p in self._params[number]], self._directions[number]]
        if self._starts is not None:
            columns.append(self._starts[number])
        return list(zip(*columns, strict=True))


def _sums(number: int, group: Group, read: Mapping[str, float]) -> _Sums:
    lr = read[f"lr{number}"] if isinstance(group["lr"], Tensor) else group["lr"]
    return _Sums(lr, *(read.get(f"{name}{number}", 0.0) for name in ("square", "product", "size")))


def _coupled(group: Group) -> bool:
    """Say whether weight decay is part of what is measured."""
    decay: float = group["weight_decay"]
    return decay > 0 and not group["decoupled_weight_decay"]


def _move(group: Group, present: list[Tensor], directions: list[Tensor], step: float) -> None:
    if group["weight_decay"] and group["decoupled_weight_decay"]:
        torch._foreach_mul_(present, 1 - step * group["weight_decay"])
    torch._foreach_sub_(present, directions, alpha=step)


def _evidence(group: Group, params: list[Tensor], gradients: list[Tensor]) -> list[Tensor]:
    """Give the gradient of what is descended, in float32 or wider."""
    found = [local(g).to(wide(p)) for p, g in zip(params, gradients, strict=True)]
    if found and group["maximize"]:
        found = list(torch._foreach_neg(found))
    if found and _coupled(group):
        here = [local(p) for p in params]
        found = list(torch._foreach_add(found, here, alpha=group["weight_decay"]))
    return found
