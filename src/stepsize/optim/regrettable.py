"""Regrettable Delta-Bar-Delta: any optimizer with a step size that agreeing gradients raise."""

from dataclasses import fields
from itertools import chain
from typing import Any, TypeAlias

import torch
from torch import Tensor
from torch.optim import Optimizer

from stepsize.optim.again import Closure
from stepsize.optim.base import NOT_NEGATIVE, Choice, Flag, wide, with_gradients
from stepsize.optim.gain import Gain, Rule, limits
from stepsize.optim.whole import Totals, local, split_of
from stepsize.optim.wrapper import Wrapper, multiplied
from stepsize.schedules.fields import Bounds
from stepsize.torch.groups import Group

Evidence: TypeAlias = dict[Tensor, Tensor]
"""What is compared, by parameter: gradients or updates."""

EVIDENCE, PARAMETERS = "rdbd_evidence", "rdbd_parameters"
"""What is remembered in the state of the optimizer inside: of the step before, and before it."""


RULES: dict[str, Any] = {
    "delta": NOT_NEGATIVE,
    "epsilon": Bounds(ge=0, lt=1),
    "evidence": Choice("gradients", "updates"),
    "per": Choice("global", "group"),
    "undo": Choice("rate", "rate and parameters"),
    "apply_after_undo": Flag(),
    "forget_after_undo": Flag(),
    "increase": Choice("add", "multiply"),
}


class RegrettableDBD(Wrapper):
    r"""Any optimizer, its step size multiplied by a gain that agreeing gradients raise.

    With $s_t = \langle g_t, g_{t-1}\rangle$ over the whole model, before the step with $g_t$:

    $$\lambda \leftarrow \begin{cases} \lambda + \delta & s_t s_{t-1} \ge 0,\ s_t > 0 \\
    (1-\varepsilon)\lambda & s_t s_{t-1} \ge 0,\ s_t < 0 \\
    \text{what it was before its last change} & s_t s_{t-1} < 0 \end{cases}$$

    and the optimizer steps with `lr` times the gain $\lambda$, which is 1 at first. A change that
    the next inner product contradicts is regretted; to regret twice in a row changes nothing. Where
    noise alone decides the signs, the gain wanders around $\delta/\varepsilon$: `lr` itself as the
    settings are ("multiply" has no such place, and goes to its bounds). `lr` stays the user's: a
    scheduler on this optimizer or on the one inside multiplies.

    It is for a step size that was chosen too small, or that is right only at first. It does not
    cool down at the end of training: put a schedule on top. Gradients alone are compared, not
    the optimizer's own weight decay.

    Args:
        optimizer: any torch optimizer that takes a step without a closure.
        delta: $\delta$, added to the gain: it has no unit, so one value serves whatever `lr` is.
        epsilon: $\varepsilon$, the share of the gain that is taken away.
        bounds: the least and the greatest gain, around 1.
        evidence: "gradients" or "updates": compares the last two changes of the parameters, after
            the step; momentum makes those agree whatever the step size.
        per: "global": one gain, from inner products over the whole model; "group": one for each.
        undo: "rate", or "rate and parameters": where a change is regretted the parameters move to
            where the last step would have led without it. Keeps a copy of the parameters.
        apply_after_undo: at once change the gain as the new inner product says.
        forget_after_undo: the inner product that was regretted with is not compared with the next.
        increase: "add" $\delta$, or "multiply" by $1+\delta$.

    Raises:
        FieldError: for a value outside its limits, an optimizer that needs a closure (it is
            evaluated once, before the decision), and sparse gradients as evidence.

    The previous gradients are kept: memory for one model. They and the gain stand in the state and
    the groups of the optimizer inside, whose own `state_dict` loads too. Settings do not: they are
    those of the constructor.

    Source: after the abstract of Song & Yang 2023, An automatic learning rate schedule algorithm
    for achieving faster convergence and steeper descent, arXiv 2310.11291 (which changes are
    corrected promptly, and any algorithm can be wrapped) and the condition that the notes cite,
    $\langle g_t,g_{t-1}\rangle\langle g_{t+1},g_t\rangle\ge 0$. The algorithm itself could not be
    read: what is undone, and what follows, are options; to undo the gain alone did best under noise
    of those that add (`benchmarks/papers/delta_bar_delta.py`), and is the default.

    >>> import torch
    >>> w = torch.ones(1, dtype=torch.float64, requires_grad=True)
    >>> inner = torch.optim.SGD([w], lr=0.1)
    >>> optimizer = RegrettableDBD(inner, delta=0.5)
    >>> for _ in range(3):
    ...     optimizer.zero_grad()
    ...     (0.5 * w.square()).sum().backward()
    ...     optimizer.step()
    >>> optimizer.sizes_of(w), inner.param_groups[0]["lr"]
    (2.0, 0.1)
    """

    rule: Rule
    evidence: str
    per: str
    undo: str

    def __init__(
        self,
        optimizer: Optimizer,
        *,
        delta: float = 0.1,
        epsilon: float = 0.1,
        bounds: tuple[float, float] = (0.01, 100.0),
        evidence: str = "gradients",
        per: str = "global",
        undo: str = "rate",
        apply_after_undo: bool = False,
        forget_after_undo: bool = False,
        increase: str = "add",
    ) -> None:
        given = {name: value for name, value in locals().items() if name in RULES}
        found = {name: rule.admit(name, given[name]) for name, rule in RULES.items()}
        found["bounds"] = limits(bounds)
        rule = Rule(**{field.name: found.pop(field.name) for field in fields(Rule)})
        super().__init__(optimizer, rule=rule, **found)

    @torch.no_grad()
    def step(self, closure: Closure | None = None) -> Any:
        """Take one step; give what the closure gave, which is evaluated once, beforehand."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        self._complete()
        if self.evidence == "gradients":
            self._step_by_gradients()
        else:
            self._step_by_updates()
        return loss

    def _step_by_gradients(self) -> None:
        found: list[Evidence] = [
            {p: p.grad for p in with_gradients(group["params"])}  # type: ignore[misc]
            for group in self.param_groups
        ]
        self._judge(found)
        new = self._kept(EVIDENCE, found)
        if self.undo != "rate":
            present = [{p: p for p in g["params"] if self._moves(p)} for g in self.param_groups]
            new += self._kept(PARAMETERS, present)
        self._inner_step()
        for p, name, value in new:  # only now: to many an optimizer an empty state is a beginning
            self.state[p][name] = value

    def _step_by_updates(self) -> None:
        groups = self.param_groups
        before = [{p: p.detach().clone() for p in g["params"] if self._moves(p)} for g in groups]
        self._inner_step()
        found = [{p: p.detach() - old for p, old in each.items()} for each in before]
        self._judge(found, before)
        for p, name, value in self._kept(EVIDENCE, found):
            self.state[p][name] = value

    def _moves(self, p: Tensor) -> bool:
        return p.grad is not None or PARAMETERS in self.state.get(p, {})

    def _judge(self, found: list[Evidence], before: list[Evidence] | None = None) -> None:
        """Change the gains as the evidence says, and take back what is regretted.

        `before`: the parameters before the last step, unless the state has them.
        """
        signs = self._signs(found)
        for number, group in enumerate(self.param_groups):
            key = self._key(number)
            held = Gain(*(group[name] for name in Gain._fields))
            if key not in signs:
                continue
            if held.agreement * signs[key] < 0 and self.undo != "rate":
                old = self._before(group) if before is None else before[number]
                _take_back(old, 1 - held.gain_before / held.gain)
            group.update(self.rule.after(held, signs[key])._asdict())

    def _signs(self, found: list[Evidence]) -> dict[str, float]:
        """Give the sign of the inner product with the previous evidence, by group or of all."""
        totals = Totals()
        for number, each in enumerate(found):
            lr = self.param_groups[number]["lr"]
            for p, value in each.items():
                previous = self.state.get(p, {}).get(EVIDENCE)
                if previous is not None:
                    product = _product(value, previous) * (lr != 0)  # at rest nothing is learnt
                    totals.add(self._key(number), [product], split_of(p))
        return {key: 1.0 if s > 0 else -1.0 if s < 0 else 0.0 for key, s in totals.read().items()}

    def _key(self, number: int) -> str:
        return "all" if self.per == "global" else str(number)

    def _before(self, group: Group) -> Evidence:
        held = [p for p in group["params"] if PARAMETERS in self.state.get(p, {})]
        return {p: self.state[p][PARAMETERS] for p in held}

    def _kept(self, name: str, found: list[Evidence]) -> list[tuple[Tensor, str, Tensor]]:
        """Copy into the state; give copies of what has no place there yet."""
        new, places, values = [], [], []
        for p, value in chain.from_iterable(each.items() for each in found):
            place = self.state.get(p, {}).get(name)
            if place is None:
                new.append((p, name, value.detach().clone()))
            else:
                places.append(local(place))
                values.append(local(value.detach()))
        if places:
            torch._foreach_copy_(places, values)
        return new

    def _inner_step(self) -> None:
        for group in self.param_groups:
            group["gain_used"] = group["gain"]
        with multiplied(self.param_groups, by="gain"):
            self.optimizer.step()

    def sizes_of(self, parameter: Tensor) -> Any:
        """Give the gain that the last step had, without `lr`; None before the first.

        Times what the optimizer inside has as step size, where it has a `sizes_of`, too; around
        others `stepsize.torch.step_sizes` multiplies.
        """
        if EVIDENCE not in self.state.get(parameter, {}):
            return None
        groups = (g for g in self.param_groups if any(p is parameter for p in g["params"]))
        gain = next(groups)["gain_used"]
        inner = getattr(self.optimizer, "sizes_of", None)
        return gain if inner is None else gain * inner(parameter)

    def _complete(self) -> None:
        """Give a gain to groups that have none: new ones, or those of a state without."""
        first = self.param_groups[0] if self.per == "global" else {}
        for group in self.param_groups:
            for name, value in Gain()._asdict().items():
                group.setdefault(name, first.get(name, value))


def _product(one: Tensor, other: Tensor) -> Tensor:
    flat = [local(t).to(wide(t)).reshape(-1) for t in (one, other)]
    return torch.dot(*flat)


def _take_back(before: Evidence, share: float) -> None:
    """Move parameters back by a share of the way that they have come since."""
    if before:
        present = [local(p.detach()) for p in before]
        torch._foreach_lerp_(present, [local(old) for old in before.values()], share)
