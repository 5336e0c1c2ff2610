"""Some elements of many tensors, and the quantiles of what was computed from them."""

import math
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, distributed

from stepsize.torch.ranks import Split, local


def stride_for(numel: int, most: int | None) -> int:
    """Give the distance between elements that are looked at, so that there are at most so many.

    It has no divisor in common with any dimension: all rows and all columns have their turn.
    """
    stride = 1 if most is None else max(-(-numel // most), 1)
    while stride > 1 and math.gcd(stride, numel) > 1:
        stride += 1
    return stride


def sampled(tensor: Tensor, most: int | None) -> Tensor:
    """Give this rank's elements, or some of them, in float64; a complex number is two."""
    found = local(tensor.detach())
    found = (torch.view_as_real(found) if found.is_complex() else found).reshape(-1)
    found = found[:: stride_for(found.numel(), most)]
    return found.to(widest(found.device))


def widest(device: torch.device) -> torch.dtype:
    """Give the widest dtype of floating-point numbers that a device has."""
    return torch.float32 if device.type == "mps" else torch.float64


class Values(NamedTuple):
    """Values of an entry: each stands for `stride` elements, the last for the rest of them."""

    entry: int
    values: Tensor
    stride: int
    elements: int

    def columns(self, device: torch.device) -> Tensor:
        """Give in each column a value, how many elements it stands for, and the entry."""
        found = torch.empty((3, self.values.numel()), dtype=widest(device), device=device)
        found[0], found[1], found[2] = self.values, self.stride, self.entry
        found[1, -1:] = self.elements - self.stride * (self.values.numel() - 1)
        return found


def columns_of(held: Iterable[Values], split: Split, device: torch.device) -> Tensor:
    """Put the columns of all values, of all ranks that hold other parts, side by side; collective.

    Some may be empty: NaN, of no elements.
    """
    none = Values(0, torch.full((1,), math.nan), 0, 0)
    found = torch.cat([each.columns(device) for each in (none, *held)], 1)
    mesh, placements = split or (None, ())
    for dimension, placement in enumerate(placements):
        if not placement.is_replicate():  # `is_shard` is false of FSDP's split of a split tensor
            found = _gathered(found, mesh.get_group(dimension))  # type: ignore[union-attr]
    return found


def _gathered(columns: Tensor, group: Any) -> Tensor:
    most = torch.tensor(columns.shape[1], device=columns.device)
    distributed.all_reduce(most, distributed.ReduceOp.MAX, group)
    padded = columns.new_zeros((3, int(most)))
    padded[0] = math.nan
    padded[:, : columns.shape[1]] = columns
    parts = [torch.empty_like(padded) for _ in range(distributed.get_world_size(group))]
    distributed.all_gather(parts, padded, group)
    return torch.cat(parts, 1)


def quantiles_of(columns: Tensor, entries: int, shares: Sequence[float]) -> Tensor:
    """Give, for each entry, of how many elements a value is known, and the values at the shares.

    As if every value stood there as often as it has elements, interpolated linearly between two
    neighbours as `torch.quantile` does.
    """
    values, (counts, entry) = columns[0], columns[1:].long()
    counts = torch.where(values.isnan(), 0, counts)
    order = values.argsort()
    order = order[entry[order].argsort(stable=True)]
    values, counts, entry = values[order], counts[order], entry[order]
    until = counts.cumsum(0)  # of whole numbers, so that no entry is taken for its neighbour
    total = until.new_zeros(entries).index_add(0, entry, counts)
    begin = (total.cumsum(0) - total)[:, None]
    last = (total - 1).clamp(min=0)[:, None]
    place = columns.new_tensor(shares) * last
    low = place.floor().long()

    def at(number: Tensor) -> Tensor:
        found = torch.searchsorted(until, begin + number, right=True)
        return values[found.clamp(max=values.numel() - 1)]

    lower, upper = at(low), at(torch.minimum(low + 1, last))
    found = torch.where(lower == upper, lower, lower + (place - low) * (upper - lower))
    return torch.cat([total[:, None].to(found), found], 1)
