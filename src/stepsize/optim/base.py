"""What every optimizer of this room shares: checked groups, gradients, states that come back."""

import abc
import copy
from collections.abc import Iterable, Mapping
from itertools import chain
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.optim import Optimizer

from stepsize.errors import FieldError
from stepsize.optim.again import Closure
from stepsize.optim.whole import is_rehearsal, split_as
from stepsize.schedules.fields import Bounds
from stepsize.torch.groups import Group

POSITIVE = Bounds(gt=0)
NOT_NEGATIVE = Bounds(ge=0)
SHARE = Bounds(ge=0, lt=1)
"""A share of the past that an average keeps: 0 forgets at once."""


class Flag:
    """True or False."""

    def admit(self, field: str, value: object) -> bool:
        """Check that it is one."""
        if not isinstance(value, bool):
            raise FieldError.of(field, "True or False", value)
        return value


class Choice:
    """One of some words."""

    def __init__(self, *words: str) -> None:
        self.words = words

    def admit(self, field: str, value: object) -> str:
        """Check that it is one of them."""
        if value not in self.words:
            raise FieldError.of(field, "one of " + ", ".join(map(repr, self.words)), value)
        return str(value)


class Optional:
    """None, or what another rule admits."""

    def __init__(self, rule: Any) -> None:
        self.rule = rule

    def admit(self, field: str, value: object) -> object:
        """Check what is not None."""
        return None if value is None else self.rule.admit(field, value)


class Rate:
    """What multiplies the step size: a number >= 0, or a tensor with one, as torch takes them."""

    def admit(self, field: str, value: object) -> object:
        """Check a number; a tensor's value is left on its device, unread."""
        if isinstance(value, Tensor):
            if value.numel() != 1 or not value.is_floating_point():
                raise FieldError.of(field, "a number >= 0, or a tensor with one number", value)
            return value
        return NOT_NEGATIVE.admit(field, value)


COMMON: Mapping[str, Any] = {
    "lr": Rate(),
    "weight_decay": NOT_NEGATIVE,
    "decoupled_weight_decay": Flag(),
    "maximize": Flag(),
}


class SelfSizing(Optimizer, abc.ABC):
    """An optimizer that finds its own step size; `lr` multiplies what it finds.

    So a schedule of `lr` goes on top: `Scheduler(optimizer, lr=Cosine(...))` with base value 1.

    A subclass states the rules of its fields and one step, `_advance`. All that it remembers stands
    in `state` (by parameter) and in `param_groups` (numbers of a group or of the whole), so that
    `state_dict`, a copy and torch.distributed.checkpoint have it without further code.
    """

    rules: ClassVar[Mapping[str, Any]] = {}
    """What each field of a group must be, beside `COMMON`."""

    needs_closure: bool = False
    """Whether `step` must be given a closure; true of some only with some options."""

    def __init__(self, params: Any, defaults: dict[str, Any]) -> None:
        super().__init__(params, self._admitted(defaults))

    @classmethod
    def _admitted(cls, fields: Mapping[str, Any]) -> dict[str, Any]:
        rules = {**COMMON, **cls.rules}
        return {n: rules[n].admit(n, v) if n in rules else v for n, v in fields.items()}

    def add_param_group(self, param_group: Group) -> None:
        """Add a group; its own fields obey the same rules. Raises `FieldError`."""
        super().add_param_group(self._admitted(param_group))
        for p in self.param_groups[-1]["params"]:
            if not p.is_floating_point():
                self.param_groups.pop()
                cure = "give complex parameters as torch.view_as_real(p)"
                raise FieldError.of(
                    "params", "tensors of real floating-point numbers", p.dtype, cure
                )

    @torch.no_grad()
    def step(self, closure: Closure | None = None) -> Any:
        """Take one step; give what the closure gave (None without one).

        Args:
            closure: evaluates the model on the minibatch of this step: zeroes the gradients, gives
                the loss, and calls `backward()` on it. Required where `needs_closure` is true.

        Raises:
            FieldError: for a missing closure, and for sparse gradients.
        """
        return self._taken(closure)

    def _taken(self, closure: Closure | None, **more: Any) -> Any:
        """Take a step, with what else a subclass's `step` was given.

        Such a `step` cannot call this class's: torch would call the hooks of a step twice.
        """
        if closure is None and is_rehearsal(self.param_groups):
            self._lay_out()
            return None
        self._require(closure)
        return self._advance(closure, **more)

    def _lay_out(self) -> None:
        """Make the state that the first step would make, of every parameter with a gradient.

        torch.distributed.checkpoint asks for it: it loads into what is there. Nothing else may
        change, for it asks in the middle of a training, too, where there is no state by parameter.
        """

    def _require(self, closure: Closure | None) -> None:
        """Refuse a missing closure where one is needed."""
        if closure is None and self.needs_closure:
            raise FieldError(
                f"{type(self).__name__}.step needs a closure: it reads the loss, or evaluates the "
                "same minibatch more than once. Write `def closure(): optimizer.zero_grad(); "
                "loss = ...; loss.backward(); return loss` and call optimizer.step(closure). "
                "GradScaler passes none: use bfloat16, or scale nothing"
            )

    @abc.abstractmethod
    def _advance(self, closure: Closure | None) -> Any:
        """Take the step itself; give what the closure gave."""

    @abc.abstractmethod
    def sizes_of(self, parameter: Tensor) -> Tensor | float | None:
        """Give the step size that the last step had, without `lr`; None before the first.

        One number, or a tensor of the parameter's shape, in float32 or wider (it may be the memory
        itself). `stepsize.torch.step_sizes` reads it.
        """

    def everything(self) -> list[Tensor]:
        """Give all parameters, group after group."""
        return list(chain.from_iterable(group["params"] for group in self.param_groups))

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take up a state, to the bit: torch would round it to the dtype of the parameters."""
        super().load_state_dict(state_dict)
        numbers = chain.from_iterable(group["params"] for group in state_dict["param_groups"])
        for number, p in zip(numbers, self.everything(), strict=True):
            for name, value in state_dict["state"].get(number, {}).items():
                if isinstance(value, Tensor) and value.dtype != self.state[p][name].dtype:
                    self.state[p][name] = copy.deepcopy(value).to(p.device)

    def _first_gradients(self, closure: Closure | None) -> Any:
        """Evaluate a closure, if there is one, with gradients."""
        if closure is None:
            return None
        with torch.enable_grad():
            return closure()


def settings(names: Mapping[str, Any]) -> dict[str, Any]:
    """Give what a constructor was given, from its `locals()`."""
    return {n: v for n, v in names.items() if n not in ("self", "params", "__class__")}


def with_gradients(params: Iterable[Tensor]) -> list[Tensor]:
    """Give the parameters that have a gradient, split as they are; refuse a sparse one."""
    found = [p for p in params if p.grad is not None]
    for p in found:
        if p.grad.is_sparse:  # type: ignore[union-attr]
            cure = "build the embedding with sparse=False, or give it to torch.optim.SparseAdam"
            raise FieldError.of("gradients", "dense", p.grad.layout, cure)  # type: ignore[union-attr]
        p.grad = split_as(p.grad, p)  # type: ignore[arg-type]
    return found


def wide(tensor: Tensor) -> torch.dtype:
    """Give the dtype of what is remembered about a parameter: float32 for narrower ones."""
    narrow = tensor.dtype in (torch.float16, torch.bfloat16)
    return torch.float32 if narrow else tensor.dtype
