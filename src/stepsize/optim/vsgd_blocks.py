"""The forms of vSGD with one rate for a tensor or for the whole model."""
# ruff: noqa: SLF001 (the foreach functions, which torch's own optimizers are made of)

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from stepsize.optim.base import wide
from stepsize.optim.formula import Tensors, evidence_of
from stepsize.optim.whole import local, over_ranks, split_of
from stepsize.torch.groups import Group

State = Mapping[Tensor, dict[str, Any]]


class Blocks:
    """The tensors of a group; of each, the mean gradient, E |g|^2, the curvatures and tau.

    What the whole model needs is the sum of these numbers (the greatest, of curvatures), so both
    forms remember the same: l, tau and rate are numbers of a tensor, kept on its device, unread.
    """

    def __init__(self, group: Group, params: Sequence[Tensor], state: State) -> None:
        self.group, self._state = group, state
        self._given = list(params)
        self._splits = [split_of(p) for p in params]
        self._params = [local(p) for p in params]
        gradients = [local(p.grad) for p in params]  # type: ignore[arg-type]
        rooms = [torch.empty_like(p, dtype=wide(p)) for p in self._params]
        self._evidence = [  # one by one: tensors of several dtypes may share a group
            evidence_of(group, [p], [g], [room])[0]
            for p, g, room in zip(self._params, gradients, rooms, strict=True)
        ]

    def average(self, weight: float | None) -> None:
        """Take up the gradients, by a weight or by 1 / tau."""
        taus = self._all("tau")
        weights = [1 / tau if weight is None else tau.new_tensor(weight) for tau in taus]
        torch._foreach_lerp_(self._all("g"), self._evidence, weights)
        squares = self._squares(self._evidence)
        length = self._vector("l").lerp_(squares, torch.stack(weights))
        self._put("l", length)

    def numbers(self) -> Tensor:
        """Give |E g|^2, E |g|^2 and the greatest curvature, of every tensor."""
        peaks = [h.max() if h.numel() else h.new_zeros(()) for h in self._all("h")]
        peak = self._over_ranks(peaks, greatest=True)
        return torch.stack([self._squares(self._all("g")), self._vector("l"), peak])

    def take(self, numbers: Tensor) -> None:
        """Move the parameters, given the numbers of what shares a rate."""
        mean, length, peak = numbers
        ratio = mean / length.clamp_min(torch.finfo(length.dtype).tiny)
        rate = ratio / peak.clamp_min(self.group["least_curvature"])
        tau = (1 - ratio) * self._vector("tau") + 1
        self._put("tau", tau.clamp_min_(self.group["least_tau"]))
        self._put("rate", rate.expand_as(tau))
        steps = self._evidence
        if self.group["decoupled_weight_decay"] and self.group["weight_decay"]:
            decay = self.group["weight_decay"]
            steps = list(torch._foreach_add(steps, self._params, alpha=decay))
        rates = [rate * self.group["lr"] for rate in self._all("rate")]
        torch._foreach_addcmul_(self._params, steps, rates, value=-1.0)

    def _all(self, name: str) -> Tensors:
        return [local(self._state[p][name]) for p in self._given]

    def _vector(self, name: str) -> Tensor:
        values = self._all(name)
        return torch.stack([value.to(values[0].device) for value in values])

    def _put(self, name: str, vector: Tensor) -> None:
        torch._foreach_copy_(self._all(name), list(vector.unbind()))

    def _squares(self, tensors: Tensors) -> Tensor:
        return self._over_ranks([norm.square() for norm in torch._foreach_norm(tensors)])

    def _over_ranks(self, values: Tensors, *, greatest: bool = False) -> Tensor:
        found = torch.stack([value.to(values[0].device) for value in values])
        for split in dict.fromkeys(self._splits):
            at = [i for i, other in enumerate(self._splits) if other == split]
            found[at] = over_ranks(found[at], split, greatest=greatest)
        return found


def whole(blocks: Sequence[Blocks]) -> Tensor:
    """Give the numbers of the whole model, from those of its tensors."""
    device = None
    sums, peaks = [], []
    for block in blocks:
        numbers = block.numbers()
        device = numbers.device if device is None else device
        sums.append(numbers[:2].sum(1).to(device))
        peaks.append(numbers[2].max().to(device))
    total, peak = torch.stack(sums).sum(0), torch.stack(peaks).max()
    return torch.stack([total[0], total[1], peak])
