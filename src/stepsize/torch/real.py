"""Telling real optimizer steps from calls of `optimizer.step` that are none.

1. A fused optimizer under a GradScaler is called for a skipped step too, with `found_inf` set.
2. torch.distributed.checkpoint calls `step(closure=None)` with zero gradients and rate 0 to make
   the state of a fresh optimizer.
3. DeepSpeed ZeRO 1 and 2 step once per group, with `param_groups` replaced by a list of one of
   them; ZeRO 3 once per sub-group, with the `params` of the group replaced.
4. While a CUDA graph is captured nothing runs, and when it is replayed no Python does.

In the last two, steps cannot be counted here: calls of `step()` are.
"""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from stepsize.torch import ranks
from stepsize.torch.cell import ALARM, FIRED, KNOWN, STEPS, Cell


class Reality:
    """Decides whether a call was a step; asked by the hook where that is in doubt."""

    def __init__(self, cell: Cell, gives_up: Callable[[str, float], None]) -> None:
        self._cell, self._gives_up = cell, gives_up
        self._pending: Tensor | None = None
        self._groups: list[int] = []
        self._params: list[int] = []
        self._lent: Any = None  # the list of some of the groups that was last seen in a step
        self._done = 0.0  # steps before the first of the calls in doubt
        self._partial = 0.0  # calls with such a list, until it is known what they were

    def unreal(self, optimizer: Any, kwargs: Any) -> bool:
        """Tell whether a call of the optimizer's `step` was none."""
        if self._cell[KNOWN] is None:  # calls are counted
            return True
        if optimizer.param_groups is not self._cell[KNOWN] and self._is_part(optimizer):
            return True
        if _capturing():
            why = "its step is captured in a CUDA graph, whose replays run no Python"
            self._gives_up(why, self._cell[STEPS])
            return True
        if kwargs.get("closure", kwargs) is None and makes_state(optimizer):
            return True
        found = getattr(optimizer, "found_inf", None)
        return isinstance(found, Tensor) and self._skipped(found)

    def _is_part(self, optimizer: Any) -> bool:
        """Tell whether some of the groups alone were stepped, or cannot be told from that yet."""
        now = [id(group) for group in optimizer.param_groups]
        if len(now) >= len(self._groups) or not set(now) <= set(self._groups):
            return False
        if optimizer.param_groups is self._lent:  # twice the same list: it is there for good
            self.taken_up()
            return False
        if not self._partial:
            self._done = self._cell[STEPS]
        self._lent, self._partial = optimizer.param_groups, self._partial + 1.0
        self._cell[FIRED], self._cell[ALARM] = 0.0, -math.inf  # the next `step()` looks
        return True

    def taken_up(self) -> None:
        """Count as steps what was in doubt: the groups were replaced for good."""
        if self._partial:
            self._cell[STEPS], self._cell[FIRED] = self._done + self._partial, 1.0
        self._partial, self._lent = 0.0, None

    def _skipped(self, found_inf: Tensor) -> bool:
        if found_inf.device.type == "cpu":
            return bool(found_inf.item())
        # Reading it now would wait for the device; a step later the device has long passed it.
        self.settle()
        self._pending = found_inf
        return False

    def settle(self) -> None:
        """Take back the last step counted, if the device says by now that it was skipped."""
        pending, self._pending = self._pending, None
        if pending is not None and pending.item():
            self._cell[STEPS] -= 1.0

    def bound(self, groups: list[dict[str, Any]]) -> None:
        """Note the groups as they are bound."""
        self._groups = [id(group) for group in groups]
        self._params = [id(group["params"]) for group in groups]

    def check(self, groups: list[dict[str, Any]], steps: float) -> None:
        """Give up counting where groups have been lent out during a step, or their parameters.

        `steps` is how many were done if the call that looks is one.
        """
        if self._cell[KNOWN] is None:
            return
        if self._partial and groups is self._cell[KNOWN]:
            why = "it is stepped one param group at a time, as DeepSpeed ZeRO 1 and 2 do"
            self._gives_up(why, steps)
        elif [id(group["params"]) for group in groups] != self._params and self.emptied(groups):
            self._gives_up("its groups are emptied between steps, as DeepSpeed ZeRO 3 does", steps)

    @staticmethod
    def emptied(groups: list[dict[str, Any]]) -> bool:
        """Tell whether a group has no parameters, as those that are lent out."""
        return not all(group["params"] for group in groups)


def needs_care(optimizer: Any) -> bool:
    """Tell whether every call must be looked at: fused under AMP, or capturable on a GPU."""
    if getattr(optimizer, "_step_supports_amp_scaling", False):
        return True
    captured = any(group.get("capturable") for group in optimizer.param_groups)
    return captured and torch.cuda.is_available()


def _capturing() -> bool:
    return torch.cuda.is_available() and torch.cuda.is_current_stream_capturing()


def makes_state(optimizer: Any) -> bool:
    """Tell whether all rates are 0 and all gradients are zeros, as checkpointing sets them."""
    groups = optimizer.param_groups
    if any(ranks.scalar(group.get("lr", 0.0)) for group in groups):
        return False
    grads = [p.grad for group in groups for p in group["params"] if p.grad is not None]
    return not any(ranks.scalar((grad != 0).sum()) for grad in grads)
