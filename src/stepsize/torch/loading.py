"""A loader's batches, as many as are wanted, in an order of one's own; and the loader kept."""

import copy
import random
from collections.abc import Iterator
from functools import partial
from itertools import count
from typing import Any

import torch

from stepsize.errors import FieldError
from stepsize.torch.kept import Kept
from stepsize.torch.streams import mixed

_HOLD = ("sampler", "batch_sampler", "base_dataloader")  # what of a loader draws the order
_APART = 1000  # epochs between the first ones of two orders: no test takes as many


def check_loader(loader: Any) -> None:
    """Raise `FieldError` for what gives no batches, or gives them once and cannot go back."""
    if not hasattr(loader, "__iter__"):
        raise FieldError.of("loader", "something that gives batches", loader)
    if hasattr(loader, "__next__") and not _can_go_back(loader):
        rule = "one whose batches can be had again"
        cure = "give the loader itself, not an iterator over it"
        raise FieldError.of("loader", rule, type(loader).__name__, cure)


def keep_loader(kept: Kept, loader: Any) -> None:
    """Note where a loader and its samplers are, and set workers aside that stay between epochs."""
    check_loader(loader)
    held = [vars(part) for part in _parts(loader) if hasattr(part, "__dict__")]
    for own in held:
        kept.shallow(own)
        kept.note(*(value for value in own.values() if _draws(value)))
        if own is not getattr(loader, "__dict__", None):  # a loader's lists may be the data
            for value in own.values():
                if isinstance(value, list):
                    kept.shallow(value)
    dataset: Any = getattr(loader, "dataset", None)
    if hasattr(dataset, "set_epoch") and hasattr(dataset, "epoch"):
        kept.then(partial(dataset.set_epoch, dataset.epoch))
    if _can_go_back(loader):
        _keep_position(kept, loader)
    set_aside(loader)


def _keep_position(kept: Kept, loader: Any) -> None:
    try:
        position = copy.deepcopy(loader.state_dict())
    except AttributeError:  # Accelerate's loaders have the method, whatever they hold
        return
    own = getattr(loader, "__dict__", {})
    before = dict(own)

    def back() -> None:
        own.update(before)  # whoever is in the middle of an epoch goes on with its own iterator
        if not _alike(loader.state_dict(), position):
            loader.load_state_dict(copy.deepcopy(position))
        else:
            own.update(before)  # telling its state may have made an iterator

    kept.then(back)


def _alike(one: Any, other: Any) -> bool:
    try:
        return bool(one == other)
    except (RuntimeError, ValueError):  # tensors and arrays in it
        return False


def set_aside(loader: Any) -> None:
    """Let the next epoch have workers of its own: those that are there may be in another."""
    own = getattr(loader, "__dict__", {})
    if own.get("_iterator") is not None:
        own["_iterator"] = None


def batches(loader: Any, seed: int, order: int) -> Iterator[Any]:
    """Give batch after batch without end, in one of many orders; a pass is an epoch.

    Global streams of random numbers are not begun anew here; generators of the loader's are.
    """
    set_aside(loader)
    for generator in _generators(loader):
        began = generator.initial_seed() if isinstance(generator, torch.Generator) else 0
        # on ranks that share the samples out, one seed stays one
        (getattr(generator, "manual_seed", None) or generator.seed)(mixed(seed, order, began))
    return _batches(loader, _APART * order)


def _batches(loader: Any, epoch: int) -> Iterator[Any]:
    movable = [(part, getattr(part, "epoch", 0)) for part in _movable(loader)]
    for number in count(epoch):
        for part, began in movable:
            part.set_epoch(began + number)
        empty = True
        for batch in loader:
            empty = False
            yield batch
        if empty:
            rule = "one with batches, as often as it is gone through"
            raise FieldError.of("loader", rule, f"none in pass {number - epoch + 1}")


def _parts(loader: Any) -> list[Any]:
    """Give the loader, its samplers, and theirs."""
    found: dict[int, Any] = {}
    left = [loader]
    while left:
        part = left.pop()
        if part is not None and id(part) not in found:
            found[id(part)] = part
            left += [getattr(part, name, None) for name in _HOLD]
    return list(found.values())


def _movable(loader: Any) -> list[Any]:
    parts = [*_parts(loader), getattr(loader, "dataset", None)]
    return [part for part in parts if callable(getattr(part, "set_epoch", None))]


def _generators(loader: Any) -> list[Any]:
    held = [value for part in _parts(loader) for value in getattr(part, "__dict__", {}).values()]
    return list({id(g): g for g in held if isinstance(g, torch.Generator | random.Random)}.values())


def _draws(value: Any) -> bool:
    return isinstance(value, torch.Generator | random.Random) or hasattr(value, "bit_generator")


def _can_go_back(loader: Any) -> bool:
    return hasattr(loader, "state_dict") and hasattr(loader, "load_state_dict")
