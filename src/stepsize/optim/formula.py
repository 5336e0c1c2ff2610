"""What an elementwise method says, and the step that follows from it."""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Protocol, TypeAlias

import torch
from torch import Tensor

Tensors: TypeAlias = list[Tensor]


class Formula(Protocol):
    """A method: what it remembers of every element, and the step size that follows."""

    memory: ClassVar[tuple[str, ...]]
    rooms: ClassVar[int]

    def rates(
        self,
        group: Mapping[str, Any],
        gradients: Tensors,
        memory: Mapping[str, Tensors],
        rooms: Sequence[Tensors],
    ) -> Tensors:
        """Bring the memory up to date with the gradients; give the step size of every element.

        The lists are parallel, all tensors in float32 or wider; the gradients are only read. The
        result may be a memory or a room, never a gradient.
        """
        ...


def step_of(
    kind: Formula,
    group: Mapping[str, Any],
    given: tuple[Tensors, Tensors, Mapping[str, Tensors]],
    rooms: tuple[Tensors, Sequence[Tensors]],
) -> Tensors:
    """Give rate * gradient of every element, written into the first room.

    `given` are parameters, gradients and memory.

    Decoupled weight decay takes part in the step alone.
    """
    (params, gradients, memory), (own, others) = given, rooms
    evidence = evidence_of(group, params, gradients, own)
    found = kind.rates(group, evidence, memory, others)
    if evidence is not own:
        torch._foreach_copy_(own, evidence)
    if group["decoupled_weight_decay"] and _decays(group):
        _add_scaled(own, params, group["weight_decay"])
    torch._foreach_mul_(own, found)
    return own


def evidence_of(
    group: Mapping[str, Any], params: Tensors, gradients: Tensors, own: Tensors
) -> Tensors:
    """Give what is measured: the gradient, negated if `maximize`, plus the coupled weight decay.

    The gradients themselves where that changes nothing, else written into the room.
    """
    coupled = _decays(group) and not group["decoupled_weight_decay"]
    if not (group["maximize"] or coupled or gradients[0].dtype != own[0].dtype):
        return gradients
    torch._foreach_copy_(own, gradients)
    if group["maximize"]:
        torch._foreach_neg_(own)
    if coupled:
        _add_scaled(own, params, group["weight_decay"])
    return own


def _decays(group: Mapping[str, Any]) -> bool:
    decay = group["weight_decay"]
    return isinstance(decay, Tensor) or decay > 0


def _add_scaled(own: Tensors, others: Tensors, factor: Any) -> None:
    if isinstance(factor, Tensor):  # in the compiled form, which a new number would compile anew
        torch._foreach_addcmul_(own, others, [factor] * len(own))
    else:
        torch._foreach_add_(own, others, alpha=factor)
