"""Where the batches of a torch task come from: tensors in memory, a dataset, or any iterable.

A feed gives the batches of one optimizer step by its number. For what can be indexed, the order of
an epoch is a permutation drawn from (seed, epoch), and any step can be gone to at once. What can
only be iterated over is iterated anew and skipped, each skipped batch drawn as at first.
"""

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor

from stepsize.errors import FieldError
from stepsize.torch.tasks.chance import STEP, Chance, order

Batch = tuple[Any, Any]
Micro = tuple[Any, Any, float]
"""Inputs, targets, and the share of the step's samples."""


class Rows(Protocol):
    """Samples that can be indexed."""

    def __len__(self) -> int: ...

    def take(self, indices: Tensor) -> Batch:
        """Give the batch of these samples, on the device."""


class Arrays:
    """Two tensors in memory, on the device."""

    def __init__(self, x: Tensor, y: Tensor) -> None:
        self.x, self.y = x, y

    def __len__(self) -> int:
        return len(self.x)

    def take(self, indices: Tensor) -> Batch:
        """Index both: no sample is touched by Python."""
        return self.x.index_select(0, indices), self.y.index_select(0, indices)


class Items:
    """A dataset whose samples are fetched one by one and collated."""

    def __init__(self, dataset: Any, collate: Callable[[list[Any]], Any], device: Any) -> None:
        self._dataset, self._collate, self._device = dataset, collate, device

    def __len__(self) -> int:
        return len(self._dataset)

    def take(self, indices: Tensor) -> Batch:
        """Fetch, collate, and move."""
        batch = self._collate([self._dataset[i] for i in indices.tolist()])
        x, y = moved(pair(batch), self._device)
        return x, y


def pair(batch: Any) -> Batch:
    """Give a batch as its inputs and targets."""
    if not isinstance(batch, Sequence) or len(batch) != 2:  # noqa: PLR2004 (inputs and targets)
        cure = "give collate=, or write a Task of your own"
        kind = type(batch).__name__
        raise FieldError.of("Task: a batch", "a pair of inputs and targets", kind, cure)
    return batch[0], batch[1]


def moved(what: Any, device: torch.device) -> Any:
    """Move tensors, also those in tuples, lists and dictionaries, to the device."""
    if isinstance(what, Tensor):
        return what.to(device)
    if isinstance(what, dict):
        return {key: moved(value, device) for key, value in what.items()}
    if isinstance(what, (tuple, list)):
        each = [moved(value, device) for value in what]
        return type(what)(*each) if hasattr(what, "_fields") else type(what)(each)
    return what


class Feed(Protocol):
    """Gives the batches of a step; one for each run."""

    def step(self, seed: int, number: int) -> list[Micro]:
        """Give the batches of the step with this number, counted from the start of training."""


class Shuffled:
    """Batches of samples that can be indexed, in an order drawn from (seed, epoch)."""

    def __init__(self, rows: Rows, size: int, accumulate: int, used: int, device: Any) -> None:
        self._rows, self._size, self._used = rows, size, used
        self._per_step, self._device = size * accumulate, device
        self._steps = math.ceil(used / self._per_step)
        self._known: tuple[int, int] | None = None
        self._parts: Sequence[Tensor] = ()

    def step(self, seed: int, number: int) -> list[Micro]:
        """Look the step's samples up in the order of its epoch."""
        epoch, place = divmod(number, self._steps)
        if self._known != (seed, epoch):
            drawn = order(len(self._rows), seed, epoch)[: self._used]
            self._parts = torch.split(drawn.to(self._device), self._per_step)
            self._known = (seed, epoch)
        part = self._parts[place]
        if self._per_step == self._size:
            return [(*self._rows.take(part), 1.0)]
        count = len(part)
        return [
            (*self._rows.take(each), len(each) / count) for each in torch.split(part, self._size)
        ]


class Iterated:
    """Batches of an iterable that is made anew for each epoch."""

    def __init__(
        self, start: Callable[[int, int], Iterable[Any]], batches: int, accumulate: int,
        device: Any, chance: Chance,
    ) -> None:  # fmt: skip
        self._start, self._batches, self._accumulate = start, batches, accumulate
        self._device, self._chance = device, chance
        self._steps = math.ceil(batches / accumulate)
        self._next: tuple[int, int] | None = None
        self._left: Iterator[Any] = iter(())

    def step(self, seed: int, number: int) -> list[Micro]:
        """Give the next batches, where they are these; else go to them from the epoch's start."""
        here, self._next = self._next == (seed, number), None  # unknown, should an iterable raise
        if not here:
            for earlier in range(number - number % self._steps, number):
                with self._chance.drawn(seed, STEP, earlier):
                    self._given(seed, earlier)
        batches = [moved(pair(batch), self._device) for batch in self._given(seed, number)]
        self._next = (seed, number + 1)
        counts = [len(y) for _, y in batches] if len(batches) > 1 else [1]
        return [(x, y, n / sum(counts)) for (x, y), n in zip(batches, counts, strict=True)]

    def _given(self, seed: int, number: int) -> list[Any]:
        epoch, place = divmod(number, self._steps)
        if not place:
            self._left = iter(self._start(seed, epoch))
        first = place * self._accumulate
        wanted = min(self._accumulate, self._batches - first)
        return [self._batch(first + i, epoch) for i in range(wanted)]

    def _batch(self, index: int, epoch: int) -> Any:
        for batch in self._left:
            return batch
        cure = f"its epoch {epoch} gave {index}; set batches_per_epoch="
        raise FieldError.of("Task: train", "an iterable of all batches", self._batches, cure)


def first_samples(rows: Rows, size: int, device: torch.device) -> Batch:
    """Give a fixed choice of samples, as many as asked for or all."""
    return rows.take(order(len(rows), 0, -1)[:size].to(device))


def first_batches(
    start: Callable[[int, int], Iterable[Any]], size: int, device: torch.device
) -> Batch:
    """Give the first samples of an iterable's first epoch, as many as asked for or all."""
    inputs, targets, count = [], [], 0
    for batch in start(0, 0):
        x, y = moved(pair(batch), device)
        if not isinstance(x, Tensor) or not isinstance(y, Tensor):
            kinds = f"{type(x).__name__} and {type(y).__name__}"
            raise FieldError.of("Task: a batch to probe", "two tensors", kinds)
        inputs.append(x)
        targets.append(y)
        count += len(y)
        if count >= size:
            break
    return torch.cat(inputs)[:size], torch.cat(targets)[:size]
