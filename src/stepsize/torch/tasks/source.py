"""What a user gives as training and validation data, read into what gives batches."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, TensorDataset, default_collate

from stepsize.errors import FieldError
from stepsize.schedules.fields import Bounds
from stepsize.torch.tasks.chance import ORDER, Chance, blended
from stepsize.torch.tasks.data import (
    Arrays,
    Batch,
    Feed,
    Items,
    Iterated,
    Rows,
    Shuffled,
    first_batches,
    first_samples,
    moved,
    pair,
)

Start = Callable[[int, int], Iterable[Any]]
_FORMS = "a pair (X, y), a dataset, a DataLoader, or a function that gives batches"


@dataclass(frozen=True, slots=True)
class Sizes:
    """How training samples make up steps; the fields are arguments of `from_torch`."""

    batch_size: int | None
    accumulate: int
    drop_last: bool
    batches_per_epoch: int | None
    evaluate_batch: int


@dataclass(frozen=True, slots=True)
class Data:
    """Where training and validation batches come from, and how many make an epoch."""

    train: "Rows | Start"
    held_out: "Rows | Callable[[], Iterable[Any]]"
    sizes: Sizes
    batches: int
    device: torch.device
    chance: Chance

    def feed(self) -> Feed:
        """Start to give the batches of steps."""
        if callable(self.train):
            accumulate = self.sizes.accumulate
            return Iterated(self.train, self.batches, accumulate, self.device, self.chance)
        size = self.sizes.batch_size or 1
        used = min(self.batches * size, len(self.train))
        return Shuffled(self.train, size, self.sizes.accumulate, used, self.device)

    def valid(self) -> Iterator[Batch]:
        """Give the validation samples, batch by batch."""
        if callable(self.held_out):
            yield from (moved(pair(batch), self.device) for batch in self.held_out())
            return
        indices = torch.arange(len(self.held_out), device=self.device)
        yield from map(self.held_out.take, torch.split(indices, self.sizes.evaluate_batch))

    def probe(self, size: int) -> Batch:
        """Give a fixed batch of training samples."""
        if callable(self.train):
            return first_batches(self.train, size, self.device)
        return first_samples(self.train, size, self.device)


def read_data(train: Any, valid: Any, collate: Any, sizes: Sizes, device: torch.device) -> Data:
    """Read both parts."""
    if isinstance(train, DataLoader):
        sizes, start = _of_loader(train, sizes)
    else:
        start = _read("train", train, collate, device)
    held_out = valid.__iter__ if isinstance(valid, DataLoader) else None
    held_out = held_out or _read("valid", valid, collate, device)
    batches = _batches(start, train, sizes)
    chance = Chance(device, widely=not isinstance(start, Arrays))
    return Data(start, held_out, sizes, batches, device, chance)


def _read(field: str, given: Any, collate: Any, device: torch.device) -> Any:
    if isinstance(given, TensorDataset) and collate is None and len(given.tensors) == 2:  # noqa: PLR2004 (X and y)
        given = given.tensors
    if isinstance(given, tuple):
        return _arrays(field, given, device)
    if hasattr(given, "__getitem__") and hasattr(given, "__len__"):
        if not len(given):
            raise FieldError.of(f"Task: {field}", "a dataset of at least one sample", len(given))
        return Items(given, collate or default_collate, device)
    if callable(given):
        return given
    raise FieldError.of(f"Task: {field}", _FORMS, type(given).__name__)


def _arrays(field: str, given: tuple[Any, ...], device: torch.device) -> Arrays:
    if len(given) != 2:  # noqa: PLR2004 (X and y)
        raise FieldError.of(f"Task: {field}", "a pair (X, y)", f"{len(given)} things")
    x, y = tensor(f"{field} X", given[0]), tensor(f"{field} y", given[1], targets=True)
    if len(x) != len(y):
        rule = "of as many samples as its targets"
        raise FieldError.of(f"Task: {field}", rule, f"{len(x):,} and {len(y):,}")
    if not len(x):
        raise FieldError.of(f"Task: {field}", "of at least one sample", len(x))
    return Arrays(x.to(device), y.to(device))


def tensor(field: str, given: Any, *, targets: bool = False) -> Tensor:
    """Give a tensor as it is, anything else as numbers of torch's default kinds."""
    if isinstance(given, Tensor):
        made = given.detach()
    else:
        try:
            made = torch.tensor(given.to_numpy() if hasattr(given, "to_numpy") else given)
        except (TypeError, ValueError, RuntimeError) as error:
            raise FieldError.of(f"Task: {field}", "an array of numbers", str(error)) from None
        if made.is_floating_point():
            made = made.to(torch.get_default_dtype())
        elif targets:
            made = made.long()
    if not made.dim():
        raise FieldError.of(f"Task: {field}", "an array of samples", given)
    return made


def _of_loader(loader: "DataLoader[Any]", sizes: Sizes) -> "tuple[Sizes, Start]":
    if sizes.batch_size is not None or sizes.drop_last:
        raise FieldError.of(
            "Task: batch_size and drop_last", "left out beside a DataLoader, which has its own",
            sizes.batch_size,
        )  # fmt: skip
    if loader.generator is not None or getattr(loader.sampler, "generator", None) is not None:
        cure = "leave generator= out: the order is then drawn from (seed, epoch)"
        raise FieldError.of("Task: train", "a DataLoader without a generator", "one", cure)
    return sizes, partial(_epoch_of, loader)


def _epoch_of(loader: "DataLoader[Any]", seed: int, epoch: int) -> Iterable[Any]:
    if hasattr(loader.sampler, "set_epoch"):  # as DistributedSampler and samplers like it
        loader.sampler.set_epoch(blended(seed, ORDER, epoch) % 2**31)
    return loader


def _batches(start: Any, train: Any, sizes: Sizes) -> int:
    """Give the batches of an epoch."""
    if isinstance(start, (Arrays, Items)):
        return _batches_of(len(start), sizes)
    if sizes.batches_per_epoch is None and not isinstance(train, DataLoader):
        rule = "the number of batches that the function gives in an epoch"
        raise FieldError.of("Task: batches_per_epoch", rule, None)
    return sizes.batches_per_epoch or len(train)


def _batches_of(samples: int, sizes: Sizes) -> int:
    if sizes.batches_per_epoch is not None:
        cure = "it follows from the samples and batch_size"
        raise FieldError.of("Task: batches_per_epoch", "left out", sizes.batches_per_epoch, cure)
    rule = Bounds(ge=1, le=samples, whole=True)
    if sizes.batch_size is None:
        raise FieldError.of("Task: batch_size", f"{rule.rule} (the training samples)", None)
    size = int(rule.admit("Task: batch_size", sizes.batch_size))
    return samples // size if sizes.drop_last else -(-samples // size)
