"""Remembering what objects hold, and putting it back in place: the same objects, the same bits."""

import random
from collections import deque
from collections.abc import Callable
from functools import partial
from operator import is_
from types import FunctionType
from typing import Any

import torch
from torch import Tensor
from torch.amp import GradScaler
from torch.autograd.grad_mode import _unsafe_preserve_version_counter as version_of
from torch.nn import Parameter
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from stepsize.torch.ranks import local

ATOMS = frozenset({int, float, bool, str, bytes, complex, type(None)})
_WHOLE = (Tensor, Parameter)  # and no subclass, whose parts may lie elsewhere
_OPEN = (Optimizer, LRScheduler, GradScaler)  # whose attributes are all that they are
_WRITTEN = "<scheduler>"  # the file name of a Scheduler's hot path


class Kept:
    """What things held when they were noted; `restore()` puts it back, as often as it is called.

    Containers and tensors are filled in place, so whoever holds them sees it. Followed are lists,
    dictionaries, sets, generators of random numbers, optimizers, torch's schedulers and scalers,
    and everything of stepsize; other objects are kept as they are, not what they hold.
    """

    def __init__(self) -> None:
        self._undo: list[Callable[[], Any]] = []
        self._seen: dict[int, Any] = {}  # which keeps what was noted alive: its id is its own

    def then(self, undo: Callable[[], Any]) -> None:
        """Let something be called by `restore()`, before all that was noted so far."""
        self._undo.append(undo)

    def restore(self) -> None:
        """Put everything back, as far as it can be; then raise what went wrong, if anything did."""
        failed: list[BaseException] = []
        with torch.no_grad():
            for undo in reversed(self._undo):
                try:
                    undo()
                except BaseException as error:  # noqa: BLE001 (a second Ctrl-C, too)
                    failed.append(error)
        if failed:
            raise failed[0]

    def note(self, *values: Any) -> None:
        """Note what values hold, and what the values in them hold."""
        for value in values:
            if type(value) in ATOMS or id(value) in self._seen:
                continue
            self._seen[id(value)] = value
            if isinstance(value, Tensor):
                self._tensor(value)
            elif isinstance(value, dict | list | set | deque | tuple):
                self._container(value)
            else:
                self._object(value)

    def shallow(self, container: Any) -> None:
        """Note what is in a list, dictionary, set or deque, and not what that holds in turn."""
        if isinstance(container, dict):
            self.then(partial(_fill_names, container, list(container), list(container.values())))
        else:
            self.then(partial(_fill, container, list(container)))

    def _container(self, value: Any) -> None:
        if not isinstance(value, tuple):
            self.shallow(value)
        self.note(*(value.values() if isinstance(value, dict) else value))

    def _object(self, value: Any) -> None:
        if isinstance(value, FunctionType):
            self._function(value)
        elif isinstance(value, torch.Generator):
            self.then(partial(value.set_state, value.get_state()))
        elif isinstance(value, random.Random):
            self.then(partial(value.setstate, value.getstate()))
        elif hasattr(value, "bit_generator"):  # NumPy's
            self.then(partial(setattr, value.bit_generator, "state", value.bit_generator.state))
        elif is_open(value):
            self.note(getattr(value, "__dict__", None))

    def _function(self, function: FunctionType) -> None:
        """Note what the hot path of a Scheduler remembers: where it is, and what it wrote last."""
        if function.__code__.co_filename == _WRITTEN:
            for cell in function.__closure__ or ():
                self.then(partial(setattr, cell, "cell_contents", cell.cell_contents))

    def _tensor(self, tensor: Tensor) -> None:
        memory = local(tensor.detach())
        room = _apart(memory)
        # AdGD counts how often torch has seen a tensor written, and so does autograd: nothing was
        version = None if tensor.is_inference() else version_of(memory)
        self.then(partial(_put, tensor, memory, room, room.clone(), version))
        if tensor.is_leaf and (tensor.requires_grad or isinstance(tensor, Parameter)):
            self.then(partial(_put_gradient, tensor, tensor.grad, wanted=tensor.requires_grad))
            self.note(tensor.grad)


def is_open(thing: Any) -> bool:
    """Say whether all that a thing is stands in its attributes, which can be noted."""
    return isinstance(thing, _OPEN) or type(thing).__module__.startswith("stepsize.")


def _fill(container: Any, held: list[Any]) -> None:
    """Let a list, a set or a deque hold what it held, in the same order."""
    if len(container) != len(held) or not all(map(is_, container, held)):
        container.clear()
        (container.update if isinstance(container, set) else container.extend)(held)


def _fill_names(container: dict[Any, Any], names: list[Any], values: list[Any]) -> None:
    """Let a dictionary hold what it held, in the same order."""
    same = len(container) == len(names) and all(map(is_, container, names))
    if not (same and all(map(is_, container.values(), values))):
        container.clear()
        container.update(zip(names, values, strict=True))


def _apart(tensor: Tensor) -> Tensor:
    """Give a tensor without the dimensions along which it repeats the same memory."""
    if tensor.layout is not torch.strided or 0 not in tensor.stride():
        return tensor
    for dimension, stride in enumerate(tensor.stride()):
        if stride == 0 and tensor.shape[dimension] > 1:
            tensor = tensor.narrow(dimension, 0, 1)
    return tensor


def _put(tensor: Tensor, memory: Tensor, room: Tensor, value: Tensor, version: Any) -> None:
    now = tensor if type(tensor) in _WHOLE else local(tensor.detach())
    if not _is_there(now, memory):  # somebody gave the tensor other memory, or another type
        if type(tensor.data) is type(memory):
            tensor.data = memory
        else:
            room = now
    room.copy_(value)
    if version is not None:
        version.__exit__(None, None, None)


def _is_there(now: Tensor, memory: Tensor) -> bool:
    if now.layout is not torch.strided or memory.layout is not torch.strided:
        return True
    same = now.data_ptr() == memory.data_ptr() and now.dtype is memory.dtype
    return same and now.shape == memory.shape and now.stride() == memory.stride()


def _put_gradient(tensor: Tensor, gradient: Tensor | None, *, wanted: bool) -> None:
    if tensor.grad is not gradient:
        tensor.grad = gradient
    if tensor.requires_grad != wanted:
        tensor.requires_grad_(wanted)
