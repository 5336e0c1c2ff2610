"""Going through many tensors in pieces that stay in the cache, with scratch that is used again.

A fresh temporary of 40 MB costs more than the arithmetic on it: its pages come from the kernel one
by one (`benchmarks/optim.py`). So tensors are taken in batches of at most `BLOCK` elements, large
ones cut into slices, small ones several at a time for torch's foreach functions, and what lies
between is written into one small room per dtype and device.
"""

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

BLOCK = 1 << 16
"""Elements in a batch: with four to six float32 operands about what a core's cache holds."""

Row = tuple[Tensor, ...]
"""A parameter, its gradient and what is remembered about it, all of one shape."""


def batches(rows: Sequence[Row], *, together: bool = True) -> Iterator[list[list[Tensor]]]:
    """Give batches of rows as columns (all first tensors, all second ones ...).

    A batch is of one dtype and device by its first tensors. Rows of large tensors that lie alike in
    memory are cut; others stay whole. `together=False`: one tensor at a time, whole.
    """
    kinds: dict[tuple[torch.dtype, torch.device], list[Row]] = {}
    for row in rows:
        kinds.setdefault((row[0].dtype, row[0].device), []).append(row)
    for alike in kinds.values():
        if not together:
            yield from ([[t] for t in row] for row in alike)
            continue
        yield from _filled(alike)


def _filled(rows: Sequence[Row]) -> Iterator[list[list[Tensor]]]:
    held: list[Row] = []
    size = 0
    for row in rows:
        numel = row[0].numel()
        if numel > BLOCK and _alike(row):
            yield from ([[t] for t in piece] for piece in _cut(row, numel))
            continue
        if held and size + numel > BLOCK:
            yield [list(column) for column in zip(*held, strict=True)]
            held, size = [], 0
        held.append(row)
        size += numel
    if held:
        yield [list(column) for column in zip(*held, strict=True)]


def _alike(row: Row) -> bool:
    """Say whether all tensors lie in memory in the same order, without gaps."""
    stride = row[0].stride()
    return _dense(row[0]) and all(t.stride() == stride for t in row)


def _dense(tensor: Tensor) -> bool:
    extent = 1 + sum((n - 1) * s for n, s in zip(tensor.shape, tensor.stride(), strict=True))
    return extent == tensor.numel() and 0 not in tensor.stride()


def _cut(row: Row, numel: int) -> Iterator[Row]:
    flat = [t.as_strided((numel,), (1,)) for t in row]
    for begin in range(0, numel, BLOCK):
        yield tuple(t[begin : begin + BLOCK] for t in flat)


class Rooms:
    """Scratch: lists of tensors shaped as others, over memory that every batch uses anew."""

    def __init__(self) -> None:
        self._kept: dict[object, list[list[Tensor]]] = {}
        self._floors: dict[object, Tensor] = {}

    def like(self, tensors: Sequence[Tensor], count: int, dtype: torch.dtype) -> list[list[Tensor]]:
        """Give `count` lists of tensors with the shapes of these; what is in them is arbitrary."""
        first = tensors[0]
        shapes = tuple((t.shape, t.stride()) for t in tensors)
        key = (shapes, dtype, first.device, count)
        found = self._kept.get(key)
        if found is None:
            found = self._kept[key] = self._laid_out(tensors, count, dtype)
        return found

    def _laid_out(
        self, tensors: Sequence[Tensor], count: int, dtype: torch.dtype
    ) -> list[list[Tensor]]:
        size, device = sum(t.numel() for t in tensors), tensors[0].device
        if not all(_dense(t) for t in tensors):
            return [[torch.empty_like(t, dtype=dtype) for t in tensors] for _ in range(count)]
        lists: list[list[Tensor]] = []
        for number in range(count):
            floor = self._floor((dtype, device, number), size, dtype, device)
            begins = _begins(tensors)
            both = zip(tensors, begins, strict=True)
            lists.append([floor.as_strided(t.shape, t.stride(), begin) for t, begin in both])
        return lists

    def _floor(self, key: object, size: int, dtype: torch.dtype, device: torch.device) -> Tensor:
        floor = self._floors.get(key)
        if floor is None or floor.numel() < size:
            floor = self._floors[key] = torch.empty(max(size, BLOCK), dtype=dtype, device=device)
        return floor


def _begins(tensors: Sequence[Tensor]) -> Iterator[int]:
    at = 0
    for t in tensors:
        yield at
        at += t.numel()
