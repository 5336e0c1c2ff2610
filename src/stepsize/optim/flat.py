"""The compiled form: one kernel over one flat vector, whatever the number of tensors.

A graph over a list of tensors compiles for minutes (0.17 s per tensor) and is compiled anew when
one more has a gradient. A vector has one shape, which is dynamic. Gradients are gathered by one
`torch.cat`, parameters stay where they are: the step is added to them at the end.
"""

from collections.abc import Callable, Mapping, Sequence
from types import FunctionType
from typing import Any

import torch
from torch import Tensor

from stepsize.errors import FieldError
from stepsize.optim.formula import Formula, step_of
from stepsize.optim.whole import local
from stepsize.torch.groups import Group

Kernel = Callable[..., None]


def compiled_kernel() -> Kernel:
    """Give the kernel, to be compiled when it is called, once for all shapes.

    torch keeps what it compiled by code object, eight graphs at most: each optimizer has its own.
    """
    own = FunctionType(_kernel.__code__.replace(), _kernel.__globals__, _kernel.__name__)
    return torch.compile(own, dynamic=True)


class Flat:
    """What a group remembers, in one vector per name; `state` holds views of them."""

    def __init__(
        self,
        kind: Formula,
        kernel: Kernel,
        params: Sequence[Tensor],
        state: Mapping[Tensor, Any],
    ) -> None:
        first = local(params[0])
        for p in params:
            if local(p).dtype != first.dtype or local(p).device != first.device:
                cure = "put them into groups by dtype and device, or leave compiled=False"
                raise FieldError.of("params of a compiled group", "alike", p.dtype, cure)
        self._kind, self._kernel = kind, kernel
        self._params = list(params)
        self._shapes = [local(p) for p in params]
        self._memory = {name: self._gathered(name, state) for name in kind.memory}
        self._wide = next(iter(self._memory.values())).dtype
        self._rooms: dict[str, tuple[Tensor, list[Tensor]]] = {}

    def holds(self, params: Sequence[Tensor]) -> bool:
        """Say whether it was laid out for these parameters."""
        return len(params) == len(self._params) and all(map(_same, params, self._params))

    def _number(self, given: Any) -> Tensor:
        """Give a number as a tensor: what changes as a float is compiled anew."""
        return torch.as_tensor(given, dtype=self._wide, device=self._shapes[0].device)

    def _gathered(self, name: str, state: Mapping[Tensor, Any]) -> Tensor:
        """Lay out one memory as a vector, and let the state see it there."""
        parts = [local(state[p][name]) for p in self._params]
        vector = torch.cat([t.reshape(-1) for t in parts])
        for part, view in zip(parts, _views(vector, parts), strict=True):
            part.set_(view)  # type: ignore[call-overload]  # the state's own tensor, over this memory
        return vector

    def step(self, group: Group) -> None:
        """Take one step."""
        settings = {**group, "weight_decay": 0.0}
        if group["weight_decay"]:
            settings["weight_decay"] = self._number(group["weight_decay"])
        lr = self._number(group["lr"])
        params = [local(p) for p in self._params]
        gradients = [local(p.grad) for p in self._params]  # type: ignore[arg-type]
        if len(params) == 1 and params[0].is_contiguous() and gradients[0].is_contiguous():
            given = params[0].view(-1), gradients[0].view(-1), self._memory
            self._kernel(self._kind, settings, given, lr, None)
            return
        gradient = self._copied("gradient", gradients)
        present = self._copied("present", params) if group["weight_decay"] else gradient
        step, steps = self._room("step", self._wide)
        self._kernel(self._kind, settings, (present, gradient, self._memory), lr, step)
        torch._foreach_sub_(params, steps)

    def _copied(self, name: str, tensors: Sequence[Tensor]) -> Tensor:
        """Give tensors as one vector."""
        vector, views = self._room(name, tensors[0].dtype)
        torch._foreach_copy_(views, list(tensors))
        return vector

    def _room(self, name: str, dtype: torch.dtype) -> tuple[Tensor, list[Tensor]]:
        """Give a vector for everything and its views by parameter; made once."""
        if name not in self._rooms:
            size = sum(t.numel() for t in self._shapes)
            vector = torch.empty(size, dtype=dtype, device=self._shapes[0].device)
            self._rooms[name] = vector, _views(vector, self._shapes)
        return self._rooms[name]


def _same(one: Tensor, other: Tensor) -> bool:
    return one is other


def _views(vector: Tensor, like: Sequence[Tensor]) -> list[Tensor]:
    pieces = torch.split(vector, [t.numel() for t in like])
    return [piece.view(t.shape) for piece, t in zip(pieces, like, strict=True)]


def _kernel(
    kind: Formula,
    group: Mapping[str, Any],
    given: tuple[Tensor, Tensor, Mapping[str, Tensor]],
    lr: Tensor,
    step: Tensor | None,
) -> None:
    """Write the step, or take it where there is no room for it."""
    present, gradient, memory = given
    like = next(iter(memory.values()))
    own, *rooms = ([torch.empty_like(like)] for _ in range(kind.rooms + 1))
    lists = {name: [vector] for name, vector in memory.items()}
    [found] = step_of(kind, group, ([present], [gradient], lists), (own, rooms))
    if step is None:
        present.sub_(found * lr)
    else:
        torch.mul(found, lr, out=step)
