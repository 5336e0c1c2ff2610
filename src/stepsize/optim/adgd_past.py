"""What AdGD keeps of the last step, and whether it may be trusted."""

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from stepsize.optim.adgd_norms import Norms
from stepsize.optim.adgd_watch import Watch, is_distributed, is_part, same_memory
from stepsize.optim.again import Repeatable
from stepsize.optim.base import wide, with_gradients
from stepsize.optim.formula import Tensors
from stepsize.optim.ray import OneForAll
from stepsize.optim.whole import local

Held = dict[Tensor, Tensor]
_SHARED = "step_size", "ratio", "measured", "convexity", "convexity_ratio"


class Past(OneForAll):
    """Keeps the gradients of the last step, and the places where they were taken.

    `gradients`, in `param_groups`: "fresh" where every step brings new tensors, so that the old
    ones are kept as they are; else copies are made. One for all groups, as is
    `exact_displacement`: whether the places are kept, and not only how far the step went.
    """

    _watch: Watch | None = None
    _norms: Norms | None = None

    @property
    def _lengths(self) -> Norms:
        if self._norms is None:
            self._norms = Norms()
        return self._norms

    def _say(self, **words: Any) -> None:
        """Write what holds for the whole into every group."""
        for group in self.param_groups:
            group.update(words)

    def _agree(self) -> None:
        """Let groups that have joined take part, and see what has to be kept."""
        first = self.param_groups[0]
        names = ("gradients", *(_SHARED if first["norms"] == "global" else ()))
        self._say(**{name: first[name] for name in names})
        if first["exact_displacement"] or self._needs_places():
            self._say(exact_displacement=True)
        if is_distributed():  # ranks must decide alike, and memory lies otherwise on each
            self._distrust()

    def _needs_places(self) -> bool:
        """Say whether lr * step size * |direction| is not the way, or not enough to know."""
        return any(
            group["accelerated"]
            or group["stochastic"]
            or (group["weight_decay"] and not group["decoupled_weight_decay"])
            or any(wide(p) != p.dtype for p in group["params"])
            for group in self.param_groups
        )

    def _is_first(self) -> bool:
        return all(math.isnan(group["distance"]) for group in self.param_groups)

    def _remembered(self) -> tuple[Held, Held]:
        """Give the gradients of the last step, and the places where they were taken."""
        self._judge()
        if self.param_groups[0]["exact_displacement"]:
            places = self._held("previous_parameter")
            older = self._held("previous_gradient")
            return {p: older[p] for p in places if p in older}, places
        return self._held("previous_gradient"), {}

    def _held(self, name: str) -> Held:
        if self._is_first():  # it was only laid out, for a checkpoint
            return {}
        every = [(p, self.state.get(p, {}).get(name)) for p in self.everything()]
        return {p: kept for p, kept in every if kept is not None and p.grad is not None}

    def _judge(self) -> None:
        """See what happened since the last step."""
        self._notice()
        watch, every = self._watch, self.everything()
        if watch is not None and self.param_groups[0]["gradients"] == "unknown":
            told = [watch.renewed(p) for p in every]
            if False in told:
                self._say(gradients="reused")
            elif True in told:
                self._say(gradients="fresh")
        if any(p.grad is None and "previous_gradient" in self.state.get(p, {}) for p in every):
            self._say(exact_displacement=True)

    def _notice(self) -> None:
        """Forget what somebody has written to."""
        if self._watch is None:
            return
        if not self.param_groups[0]["exact_displacement"] and self._watch.moved(self.everything()):
            self._say(exact_displacement=True)
        if self.param_groups[0]["gradients"] == "fresh":
            kept = [(p, self.state.get(p, {}).get("previous_gradient")) for p in self.everything()]
            if any(k is not None and self._watch.overwritten(p, k) for p, k in kept):
                self._distrust()

    def _distrust(self) -> None:
        """Copy gradients from now on."""
        if self.param_groups[0]["gradients"] == "fresh":
            for p in self.everything():
                self.state.get(p, {}).pop("previous_gradient", None)
        self._say(gradients="reused")

    def _keep_places(self, params: Tensors) -> None:
        if self.param_groups[0]["exact_displacement"]:
            self._copy("previous_parameter", params, [p.detach() for p in params])

    def _keep_gradients(self, params: Tensors) -> None:
        """Keep them, and note what was written so far."""
        if self.param_groups[0]["stochastic"]:
            return
        gradients: list[Any] = [p.grad for p in params]
        if self.param_groups[0]["gradients"] == "fresh":
            for p, gradient in zip(params, gradients, strict=True):
                kept = gradient.detach() if gradient.requires_grad else gradient
                self.state[p]["previous_gradient"] = kept
        else:
            self._copy("previous_gradient", params, [g.detach() for g in gradients])
        if self._watch is None:
            self._watch = Watch()
        for p in params:
            self._watch.note(p, self.state[p]["previous_gradient"])

    def _copy(self, name: str, params: Tensors, values: Sequence[Tensor]) -> None:
        into, new = [], []
        for p, value in zip(params, values, strict=True):
            if name in self.state[p]:
                into.append(local(self.state[p][name]))
                new.append(local(value))
            else:
                self.state[p][name] = value.clone()
        if into:
            torch._foreach_copy_(into, new)

    def _evaluated(self, again: Repeatable | None) -> tuple[Held, Held]:
        """Give the gradients of this minibatch at the places of the last step."""
        places = {} if self._is_first() else self._held("previous_parameter")
        return (self._gradients_at(again, places), places) if places else ({}, {})

    def _gradients_at(self, again: Any, places: Held) -> Held:
        """Evaluate once more, elsewhere; afterwards everything is as it was, to the bit."""
        every = self.everything()
        first = {p: p.grad for p in every if p.grad is not None}
        trusted = self.param_groups[0]["gradients"] == "fresh"
        kept = first if trusted else {p: g.clone() for p, g in first.items()}
        _put(every, {})
        self._lengths.exchange(places)
        try:
            again.again()
            found = {p: p.grad for p in with_gradients(places)}
        finally:
            self._lengths.exchange(places)
            _put(every, kept)
        self._compare(first, found)  # type: ignore[arg-type]
        if trusted and self.param_groups[0]["gradients"] != "fresh":
            _put(every, {})
            again.again()  # the first gradients were written over: evaluate them anew
            return {}
        return found  # type: ignore[return-value]

    def _compare(self, first: Held, found: Held) -> None:
        """See whether both evaluations write their gradients to the same memory."""
        if self.param_groups[0]["gradients"] == "reused":
            return
        overlap = any(same_memory(first[p], g) for p, g in found.items() if p in first)
        shared = overlap or any(map(is_part, first.values()))
        self._say(gradients="reused" if shared else "fresh")

    def _lay_out(self) -> None:
        exact = self.param_groups[0]["exact_displacement"] or self._needs_places()
        for group in self.param_groups:
            for p in with_gradients(group["params"]):
                state = self.state[p]
                if not group["stochastic"]:
                    state.setdefault("previous_gradient", torch.zeros_like(p))
                if exact:
                    state.setdefault("previous_parameter", p.detach().clone())
                if group["accelerated"]:
                    state.setdefault("descended", p.detach().clone())

    def state_dict(self) -> dict[str, Any]:
        """Give the state, without what somebody has written to since the step."""
        self._notice()
        return super().state_dict()

    def __getstate__(self) -> dict[str, Any]:
        self._notice()
        found: dict[str, Any] = super().__getstate__()
        return found

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take up a state, to the bit; what was noted of the last step is forgotten."""
        super().load_state_dict(state_dict)
        self._watch = None

    def sizes_of(self, parameter: Tensor) -> float | None:
        """Give the step size that the last step had, without `lr`; None before the first."""
        for group in self.param_groups:
            if any(p is parameter for p in group["params"]):
                found: float = group["step_size"]
                return None if math.isnan(group["distance"]) else found
        return None


def _put(params: Tensors, gradients: Held) -> None:
    for p in params:
        p.grad = gradients.get(p)
