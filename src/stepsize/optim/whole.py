"""Numbers of the whole model, the same on every rank; the one place that reads a tensor.

`float()` and `.item()` of a DTensor give this rank's part without a word, so nothing else in this
room may use them.
"""
# ruff: noqa: SLF001 (the foreach functions, which torch's own optimizers are made of)

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, distributed

from stepsize.errors import FieldError
from stepsize.torch import ranks
from stepsize.torch.groups import Group
from stepsize.torch.ranks import Split, local, means, scalar

__all__ = ["Totals", "is_rehearsal", "local", "mean_loss", "over_ranks", "split_as", "split_of"]


def split_of(tensor: Tensor) -> Split:
    """Say how a tensor is split over the ranks.

    Raises:
        FieldError: for a parameter of FullyShardedDataParallel, a part that does not say of what.
    """
    if getattr(tensor, "_fsdp_flattened", False):
        cure = "use torch.distributed.fsdp.fully_shard, or an optimizer with a rate per element"
        given = "parts of FullyShardedDataParallel"
        raise FieldError.of("params", "whole tensors or DTensors", given, cure)
    return ranks.split_of(tensor)


def split_as(tensor: Tensor, parameter: Tensor) -> Tensor:
    """Give a gradient as its parameter is split (collective where it is not).

    Under sequence parallelism the gradients of a norm are sums that have not been made yet:
    `local` of one would be this rank's term.
    """
    laid = getattr(tensor, "placements", None)
    if laid is None or laid == parameter.placements:  # type: ignore[attr-defined]
        return tensor
    return tensor.redistribute(placements=parameter.placements)  # type: ignore[attr-defined,no-any-return]


def mean_loss(loss: Any, *, reduce: bool = True) -> float:
    """Read a loss; under torch.distributed the mean over the ranks, if `reduce` (collective)."""
    if not reduce:
        return scalar(loss)
    return means(lambda: {"loss": scalar(loss)}, ("loss",))["loss"]


def is_rehearsal(groups: Iterable[Group]) -> bool:
    """Say whether a step without closure is one by which torch makes the state of an optimizer.

    torch.distributed.checkpoint calls it so, with every rate 0 and every gradient zeros.
    """
    held = list(groups)
    if any(_turns(group["lr"]) for group in held):
        return False
    gradients = [p.grad for group in held for p in group["params"] if p.requires_grad]
    if not gradients or any(g is None or g.is_sparse for g in gradients):
        return False
    totals = Totals()
    for gradient in gradients:
        totals.add("not zero", [local(gradient).count_nonzero()], split_of(gradient))
    return totals.read()["not zero"] == 0


def _turns(lr: float | Tensor) -> bool:
    if isinstance(lr, Tensor) and lr.device.type != "cpu":  # not what torch puts there, nor read
        return True
    return bool(lr != 0)


class Totals:
    """Sums over all parameters: added up where they are, read once, over all ranks."""

    def __init__(self) -> None:
        self._parts: dict[Split, dict[str, list[Tensor]]] = {}

    def add(self, name: str, values: Iterable[Tensor], split: Split = None) -> None:
        """Add numbers (0-dimensional tensors) that are sums over this rank's part."""
        self._parts.setdefault(split, {}).setdefault(name, []).extend(values)

    def add_squares(self, name: str, tensors: Sequence[Tensor], split: Split = None) -> None:
        """Add the squares of all elements of this rank's parts."""
        if tensors:
            norms = torch._foreach_norm(list(tensors))
            self.add(name, [_summed(norms, square=True)], split)

    def add_products(
        self, name: str, one: Sequence[Tensor], other: Sequence[Tensor], split: Split = None
    ) -> None:
        """Add the inner product of this rank's parts."""
        pairs = zip(one, other, strict=True)
        self.add(name, [torch.dot(a.reshape(-1), b.reshape(-1)) for a, b in pairs], split)

    def read(self) -> dict[str, float]:
        """Give the sums over everything, on every rank; collective where tensors are split."""
        found: dict[str, float] = {}
        for split, parts in self._parts.items():
            each = [_summed(values) for values in parts.values()]
            sums = torch.stack([one.to(each[0].device) for one in each])
            for name, number in zip(parts, over_ranks(sums, split).tolist(), strict=True):
                found[name] = found.get(name, 0.0) + number
        return found


def _summed(values: Sequence[Tensor], *, square: bool = False) -> Tensor:
    wide = torch.float32 if values[0].device.type == "mps" else torch.float64
    numbers = torch.stack([v.to(values[0].device) for v in values]).to(wide)
    return numbers.square().sum() if square else numbers.sum()


def over_ranks(numbers: Tensor, split: Split, *, greatest: bool = False) -> Tensor:
    """Give sums over this rank's part as sums over all parts (or the greatest), where they are."""
    if split is None:
        return numbers
    mesh, placements = split
    for dimension, placement in enumerate(placements):
        if not placement.is_replicate():  # `is_shard` is false of FSDP's split of a split tensor
            how = distributed.ReduceOp.MAX if greatest else distributed.ReduceOp.SUM
            distributed.all_reduce(numbers, how, group=mesh.get_group(dimension))
    return numbers
