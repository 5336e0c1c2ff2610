"""Curvatures that are observed now and then, and averaged for every element."""

from collections.abc import Iterable, Mapping, Sequence

import torch
from torch import Tensor

from stepsize.optim.base import wide
from stepsize.optim.elementwise import Elementwise
from stepsize.optim.told import told
from stepsize.optim.whole import local
from stepsize.torch.groups import Group


class Observing(Elementwise):
    """An elementwise optimizer with a memory "curvature" that is told from outside.

    Its groups have the fields `average`, `beta` and `every`, and count in `measured` how many
    observations there were, in `age` how many steps ago the last one was.
    """

    @property
    def due(self) -> bool:
        """Whether it is time for a measurement: `every` steps after the last one, and at first."""
        return any(map(due, self.param_groups))

    def observe(self, diagonals: Sequence[Tensor | None], *, reduce: bool = True) -> None:
        """Take up curvatures, one tensor for each parameter in the order of the groups.

        Args:
            diagonals: None for a parameter about which nothing is known.
            reduce: under torch.distributed take the mean over the ranks (collective), of what is
                whole on each; False for what is already the same on every rank.

        Raises:
            FieldError: for other numbers of tensors or shapes.
        """
        params = self.everything()
        means = told(diagonals, params, reduce=reduce)
        self._take_up(dict(zip(params, means, strict=True)), self.param_groups)

    @torch.no_grad()
    def _take_up(self, found: Mapping[Tensor, Tensor | None], groups: Iterable[Group]) -> None:
        for group in groups:
            # the first observations count alike, then the older ones are forgotten
            share = max(1 - group["beta"], 1 / (group["measured"] + 1))
            for p in group["params"]:
                seen = found.get(p)
                if seen is not None:
                    self._mix(group, p, seen, share)
            group["measured"] += 1
            group["age"] = 0

    def _mix(self, group: Group, p: Tensor, seen: Tensor, share: float) -> None:
        state = self.state[p]
        if "curvature" not in state:
            begin = self.begin(group, "curvature")
            state["curvature"] = torch.full_like(p, begin, dtype=wide(p))
        held = local(state["curvature"])
        value = local(seen.detach()).to(held.dtype)
        if group["average"] != "signed":
            value = value.square() if group["average"] == "squared" else value.abs()
        # infinite: nothing was known
        held.copy_(torch.where(held.isinf(), value, held.lerp(value, share)))


def due(group: Group) -> bool:
    """Whether it is time for a measurement in this group."""
    return not group["measured"] or group["age"] >= group["every"]
