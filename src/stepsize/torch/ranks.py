"""What several ranks must agree on: what was seen, what was decided, what time it is.

Every function here is a collective call under torch.distributed: every rank makes it, or the
process group's timeout ends them all.
"""

from collections.abc import Callable
from typing import Any, TypeVar

import torch
from torch import Tensor, distributed

T = TypeVar("T")


def ranks() -> int:
    """Give the number of ranks; 1 outside torch.distributed."""
    return distributed.get_world_size() if _running() else 1


def _running() -> bool:
    return distributed.is_available() and distributed.is_initialized()


def rank() -> int:
    """Give this rank's number; 0 outside torch.distributed."""
    return distributed.get_rank() if _running() else 0


def scalar(value: Any) -> float:
    """Read one number, of a DTensor the whole one: `float()` would give this rank's part."""
    if isinstance(value, Tensor):
        whole = getattr(value, "full_tensor", None)
        return float((value if whole is None else whole()).detach().item())
    return float(value)


def mean(value: float) -> float:
    """Give the mean over all ranks, the same on every one of them; NaN if it is NaN on one."""
    if ranks() == 1:
        return value
    shared = torch.tensor([value], dtype=torch.float64, device=_device())
    distributed.all_reduce(shared)
    return float(shared.item()) / ranks()


def from_first(make: Callable[[], T]) -> T:
    """Give what `make()` gives on rank 0, on every rank; only there it is called."""
    if ranks() == 1:
        return make()
    held: list[Any] = [None]
    if rank() == 0:
        try:
            held = [(True, make())]
        except Exception as error:  # noqa: BLE001 (raised on every rank, below)
            held = [(False, error)]
    distributed.broadcast_object_list(held, src=0, device=_device())
    good, made = held[0]
    if not good:
        raise made
    return made  # type: ignore[no-any-return]  # what make gave, sent


def _device() -> torch.device:
    backend = str(distributed.get_backend())
    return (
        torch.device("cuda", torch.cuda.current_device())
        if "nccl" in backend
        else torch.device("cpu")
    )
