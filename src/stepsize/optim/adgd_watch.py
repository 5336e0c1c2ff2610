"""Who wrote to parameters and gradients since the last step: what AdGD may take for granted."""

import weakref
from collections.abc import Iterable
from typing import Any, NamedTuple

from torch import Tensor, distributed

from stepsize.optim.whole import local


class _Mark(NamedTuple):
    """How often parameter and kept gradient had been written, and where the gradient was."""

    parameter: int
    kept: int
    gradient: weakref.ReferenceType[Tensor]


class Watch:
    """Remembers the versions of tensors, which torch counts up whenever one is written in place.

    What is written through `.data` is not counted and not seen.
    """

    def __init__(self) -> None:
        self._marks: dict[Tensor, _Mark] = {}

    def note(self, p: Tensor, kept: Tensor) -> None:
        """Remember a parameter as it is now, with the gradient that is kept of it."""
        gradient: Any = p.grad
        written = _written(p), _written(kept)
        self._marks[p] = _Mark(*written, weakref.ref(gradient))

    def moved(self, params: Iterable[Tensor]) -> bool:
        """Say whether somebody else wrote to a parameter."""
        return any(_written(p) != self._marks[p].parameter for p in params if p in self._marks)

    def overwritten(self, p: Tensor, kept: Tensor) -> bool:
        """Say whether a gradient that is kept where it was is no longer what it was."""
        if p in self._marks and _written(kept) != self._marks[p].kept:
            return True
        now = p.grad
        return now is not None and now is not kept and same_memory(now, kept)

    def renewed(self, p: Tensor) -> bool | None:
        """Say whether the gradient is another tensor than at the last step; None: not known."""
        if p not in self._marks or p.grad is None:
            return None
        before = self._marks[p].gradient()
        return (before is None or not same_memory(before, p.grad)) and not is_part(p.grad)


def _written(tensor: Tensor) -> int:
    return local(tensor)._version  # noqa: SLF001 (torch has no public name for it)


def same_memory(one: Tensor, other: Tensor) -> bool:
    """Say whether two tensors begin at the same place."""
    one, other = local(one), local(other)
    return one.numel() > 0 and one.data_ptr() == other.data_ptr()


def is_part(gradient: Tensor) -> bool:
    """Say whether a gradient lies in memory that others share, as in the buckets of DDP."""
    part = local(gradient)
    return part.untyped_storage().nbytes() > part.numel() * part.element_size()


def is_distributed() -> bool:
    """Say whether there may be ranks, on which tensors may lie otherwise than here."""
    return distributed.is_available() and distributed.is_initialized()
