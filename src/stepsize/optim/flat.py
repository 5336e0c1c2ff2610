"""The compiled form: one kernel over one flat vector, whatever the number of tensors.

A graph over a list of tensors compiles for minutes (0.17 s per tensor) and is compiled anew when
one more has a gradient. A vector has one shape, which is dynamic. Gradients are gathered by one
`torch.cat`, parameters stay where they are: the step is added to them at the end.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from stepsize.errors import FieldError
from stepsize.optim.formula import Formula, step_of
from stepsize.optim.whole import local
from stepsize.torch.groups import Group

Kernel = Callable[..., None]


class Flat:
    """What a group remembers, in one vector per name; `state` holds views of them."""

    def __init__(
        self, kind: Formula, params: Sequence[Tensor], state: Mapping[Tensor, Any]
    ) -> None:
        first = local(params[0])
        for p in params:
            if local(p).dtype != first.dtype or local(p).device != first.device:
                cure = "put them into groups by dtype and device, or leave compiled=False"
                raise FieldError.of("params of a compiled group", "alike", p.dtype, cure)
        self._kind = kind
        self._params = list(params)
        self._memory = {name: self._gathered(name, state) for name in kind.memory}
        self._kernel: Kernel = torch.compile(_kernel, dynamic=True, fullgraph=True)
        size = sum(local(p).numel() for p in params)
        wide = next(iter(self._memory.values())).dtype
        self._gradient = torch.empty(size, dtype=first.dtype, device=first.device)
        self._present = self._gradient if len(params) == 1 else torch.empty_like(self._gradient)
        self._step = torch.empty(size, dtype=wide, device=first.device)
        self._steps = _views(self._step, [local(p) for p in params])

    def holds(self, params: Sequence[Tensor]) -> bool:
        """Say whether it was laid out for these parameters."""
        return len(params) == len(self._params) and all(map(_same, params, self._params))

    def _gathered(self, name: str, state: Mapping[Tensor, Any]) -> Tensor:
        """Lay out one memory as a vector, and let the state see it there."""
        parts = [local(state[p][name]) for p in self._params]
        vector = torch.cat([t.reshape(-1) for t in parts])
        for part, view in zip(parts, _views(vector, parts), strict=True):
            part.set_(view)  # type: ignore[call-overload]  # the state's own tensor, over this memory
        return vector

    def step(self, group: Group) -> None:
        """Take one step."""
        params = [local(p) for p in self._params]
        gradients = [local(p.grad) for p in self._params]  # type: ignore[arg-type]
        gradient = _joined(gradients, self._gradient)
        present = _joined(params, self._present) if group["weight_decay"] else gradient
        settings = {k: v for k, v in group.items() if k not in ("params", "lr")}
        lr = torch.as_tensor(group["lr"], dtype=self._step.dtype)
        given = present, gradient, self._memory
        self._kernel(self._kind, settings, given, lr, self._step)
        torch._foreach_sub_(params, self._steps)


def _same(one: Tensor, other: Tensor) -> bool:
    return one is other


def _joined(tensors: Sequence[Tensor], into: Tensor) -> Tensor:
    """Give one vector: the tensor itself where there is one, else a copy of all of them."""
    if len(tensors) == 1 and tensors[0].is_contiguous():
        return tensors[0].view(-1)
    return torch.cat([t.reshape(-1) for t in tensors], out=into)


def _views(vector: Tensor, like: Sequence[Tensor]) -> list[Tensor]:
    pieces = torch.split(vector, [t.numel() for t in like])
    return [piece.view(t.shape) for piece, t in zip(pieces, like, strict=True)]


def _kernel(
    kind: Formula,
    group: Mapping[str, Any],
    given: tuple[Tensor, Tensor, Mapping[str, Tensor]],
    lr: Tensor,
    step: Tensor,
) -> None:
    present, gradient, memory = given
    own, *rooms = ([torch.empty_like(step)] for _ in range(kind.rooms + 1))
    lists = {name: [vector] for name, vector in memory.items()}
    [found] = step_of(kind, group, ([present], [gradient], lists), (own, rooms))
    torch.mul(found, lr, out=step)
