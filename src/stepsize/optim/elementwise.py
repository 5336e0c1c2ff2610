"""A step size for every parameter element: what Delta-Bar-Delta, vSGD and diagonal Newton share."""

import abc
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, cast

import torch
from torch import Tensor

from stepsize.optim.again import Closure
from stepsize.optim.base import SelfSizing, wide, with_gradients
from stepsize.optim.blocks import Rooms, batches
from stepsize.optim.flat import Flat, Kernel, compiled_kernel
from stepsize.optim.formula import Formula, Tensors, step_of
from stepsize.optim.whole import local
from stepsize.torch.groups import Group


class Elementwise(SelfSizing):
    """An optimizer with a step size for every element: theta -= lr * rate * gradient.

    A subclass names what it remembers of each element, how that begins, and writes one formula,
    `rates`, over lists of tensors. Here it is applied: to slices and batches that stay in the
    cache, or, with `compiled=True`, as one kernel over one flat vector.
    """

    memory: ClassVar[tuple[str, ...]]
    """Names of what is remembered of each element, in `state` by parameter."""

    rooms: ClassVar[int] = 1
    """How many scratch lists `rates` is given."""

    _scratch: Rooms | None = None
    _flat: dict[int, Flat] | None = None
    _kernel: Kernel | None = None

    @classmethod
    @abc.abstractmethod
    def begin(cls, group: Group, name: str) -> Any:
        """Give the number that every element of a memory is at first."""

    @classmethod
    @abc.abstractmethod
    def rates(
        cls,
        group: Mapping[str, Any],
        gradients: Tensors,
        memory: Mapping[str, Tensors],
        rooms: Sequence[Tensors],
    ) -> Tensors:
        """Apply the method to lists of tensors; what it may do is said at `Formula.rates`."""

    @property
    def _formula(self) -> Formula:
        """What is applied: the class itself, unless its settings choose among several."""
        return cast("Formula", type(self))

    def sizes_of(self, parameter: Tensor) -> Tensor | float | None:
        """Give the present step size of every element, without `lr`; None before the first step.

        A tensor of the parameter's shape, in float32 or wider; it may be what is remembered itself.
        """
        return cast("Tensor | None", self.state.get(parameter, {}).get("rate"))

    def _advance(self, closure: Closure | None) -> Any:
        loss = self._first_gradients(closure)
        for number, group in enumerate(self.param_groups):
            self._advance_group(number, group)
        return loss

    def _advance_group(self, number: int, group: Group) -> None:
        params = with_gradients(group["params"])
        if params:
            self._take(number, group, params)

    def _take(self, number: int, group: Group, params: Tensors) -> None:
        """Take the step of parameters that have gradients."""
        if group["compiled"]:
            self._compiled_step(number, group, params)
            return
        self._remember(group, params)
        names = self._formula.memory
        rows = [(local(p), local(p.grad), *self._memory(p)) for p in params]  # type: ignore[arg-type]
        for present, gradients, *memory in batches(rows, together=group["foreach"]):
            self._move(group, present, gradients, dict(zip(names, memory, strict=True)))

    def _lay_out(self) -> None:
        for group in self.param_groups:
            self._remember(group, with_gradients(group["params"]))

    def _remember(self, group: Group, params: Tensors) -> None:
        """Begin what is not remembered yet."""
        for p in params:
            state = self.state[p]
            for name in self._formula.memory:
                if name not in state:
                    state[name] = torch.full_like(p, self.begin(group, name), dtype=wide(p))

    def _memory(self, p: Tensor) -> tuple[Tensor, ...]:
        return tuple(local(self.state[p][name]) for name in self._formula.memory)

    def _move(
        self, group: Group, params: Tensors, gradients: Tensors, memory: dict[str, Tensors]
    ) -> None:
        if self._scratch is None:
            self._scratch = Rooms()
        dtype = wide(params[0])
        own, *rooms = self._scratch.like(params, self._formula.rooms + 1, dtype)
        lr = group["lr"]
        steps = step_of(self._formula, group, (params, gradients, memory), (own, rooms))
        if isinstance(lr, Tensor):
            torch._foreach_mul_(steps, lr.to(steps[0].device))
            lr = 1.0
        torch._foreach_sub_(params, steps, alpha=lr)

    def _compiled_step(self, number: int, group: Group, params: Tensors) -> None:
        if self._flat is None:
            self._flat = {}
        if self._kernel is None:
            self._kernel = compiled_kernel()
        flat = self._flat.get(number)
        if flat is None or not flat.holds(params):
            self._remember(group, params)
            flat = self._flat[number] = Flat(self._formula, self._kernel, params, self.state)
        flat.step(group)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take up a state; what is kept flat is laid out anew at the next step."""
        super().load_state_dict(state_dict)
        self._flat = None
