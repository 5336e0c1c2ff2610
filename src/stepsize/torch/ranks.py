"""What several ranks must agree on: what was seen, what was decided, what time it is.

Every function here is a collective call under torch.distributed: every rank makes it, or the
process group's timeout ends them all.
"""

import io
from collections.abc import Callable, Iterable
from typing import Any, TypeAlias, TypeVar

import torch
from torch import Tensor, distributed
from torch.nn import Module

from stepsize.errors import FieldError, SpecError

T = TypeVar("T")
Split: TypeAlias = tuple[Any, tuple[Any, ...]] | None
"""The mesh and the placements of a DTensor; None for a tensor that is whole on every rank."""


def ranks() -> int:
    """Give the number of ranks; 1 outside torch.distributed."""
    return distributed.get_world_size() if _running() else 1


def _running() -> bool:
    return distributed.is_available() and distributed.is_initialized()


def rank() -> int:
    """Give this rank's number; 0 outside torch.distributed."""
    return distributed.get_rank() if _running() else 0


def local(tensor: Tensor) -> Tensor:
    """Give this rank's part of a tensor: the tensor itself where it is whole."""
    part = getattr(tensor, "to_local", None)
    return tensor if part is None else part()


def reshard(modules: Iterable[Module]) -> None:
    """Let go of gathered parameters, as a backward pass does.

    fully_shard keeps those of the root after a forward pass, for a backward pass that does not come
    here: the next forward pass would not see that the parameters were moved.
    """
    if _running():
        from torch.distributed.fsdp import FSDPModule  # noqa: PLC0415 (takes long to import)

        for module in modules:
            if isinstance(module, FSDPModule):
                module.reshard()


def split_of(tensor: Tensor) -> Split:
    """Say how a tensor is split over the ranks."""
    mesh = getattr(tensor, "device_mesh", None)
    return None if mesh is None else (mesh, tensor.placements)  # type: ignore[attr-defined]


def scalar(value: Any) -> float:
    """Read one number, of a DTensor the whole one: `float()` would give this rank's part."""
    if isinstance(value, Tensor):
        whole = getattr(value, "full_tensor", None)
        return float((value if whole is None else whole()).detach().item())
    return float(value)


def means(
    read: Callable[[], dict[str, float]], names: tuple[str, ...], who: str = "observe"
) -> dict[str, float]:
    """Give the means over all ranks, the same on every one of them; NaN if it is NaN on one.

    One collective, whatever of `names` was read, so that ranks which show different things are told
    so (`FieldError`) instead of one's loss being averaged with another's norm. What one rank cannot
    read is an error on all of them, which begins with `who`.
    """
    if ranks() == 1:
        return read()
    seen, failed = _attempt(read)
    told = [seen.get(name, 0.0) for name in names] + [float(name in seen) for name in names]
    told.append(float(failed is not None))
    shared = torch.tensor(told, dtype=torch.float64, device=_device())
    distributed.all_reduce(shared)
    sums = shared.tolist()
    if failed is not None:
        raise failed
    if sums[-1]:
        raise FieldError(f"{who}: what was seen must be a number on every rank; on one it was not")
    given = dict(zip(names, sums[len(names) : -1], strict=True))
    for name, number in given.items():
        if number not in (0.0, ranks()):
            rule = f"given on every rank or on none, was given on {number:g} of {ranks()} ranks"
            raise FieldError(f"{who}: {name} must be {rule}")
    return {name: total / ranks() for name, total in zip(names, sums, strict=False) if given[name]}


def _attempt(read: Callable[[], dict[str, float]]) -> tuple[dict[str, float], FieldError | None]:
    try:
        return read(), None
    except FieldError as error:
        return {}, error


def from_first(make: Callable[[], T]) -> T:
    """Give what `make()` gives on rank 0, on every rank; only there it is called.

    What it raises is raised on every rank.
    """
    if ranks() == 1:
        return make()
    held: list[Any] = [_answer(make) if rank() == 0 else None]
    distributed.broadcast_object_list(held, src=0, device=_device())
    good, made = held[0]
    if not good:
        raise made
    return made  # type: ignore[no-any-return]  # what make gave, sent


def _answer(make: Callable[[], T]) -> tuple[bool, Any]:
    """Give an answer that can be sent: the other ranks wait for one, whatever happens here."""
    try:
        made = make()
    except Exception as error:  # noqa: BLE001 (raised on every rank)
        return _sendable(False, error)
    return _sendable(True, made)


def _sendable(good: bool, made: Any) -> tuple[bool, Any]:
    try:
        torch.save(made, io.BytesIO())
    except Exception as error:  # noqa: BLE001 (whatever a class does when it is pickled)
        told = f"what rank 0 gave cannot be sent to the other ranks ({error}): {made!r}"
        return False, SpecError(told)
    return good, made


def numbers_from_first(make: Callable[[], tuple[float, ...]], size: int) -> tuple[float, ...]:
    """Give so many numbers that `make()` gives on rank 0, on every rank; one small collective."""
    told = make() if rank() == 0 else (0.0,) * size
    if ranks() == 1:
        return told
    shared = torch.tensor(told, dtype=torch.float64, device=_device())
    distributed.broadcast(shared, src=0)
    return tuple(shared.tolist())


def _device() -> torch.device:
    """Give where numbers are shared: where they are, unless the backend takes a GPU's alone."""
    backend = str(distributed.get_backend())
    if "nccl" in backend and "gloo" not in backend:
        return torch.device("cuda", torch.cuda.current_device())
    return torch.device("cpu")
