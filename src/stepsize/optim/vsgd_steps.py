"""What vSGD does in a step: who is in the slow start, who moves, and what is taken up."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar, cast

import torch
from torch import Tensor

from stepsize.errors import FieldError
from stepsize.optim.again import Closure, Repeatable
from stepsize.optim.base import wide, with_gradients
from stepsize.optim.blocks import Rooms, batches
from stepsize.optim.elementwise import Elementwise
from stepsize.optim.formula import Formula, Tensors, evidence_of
from stepsize.optim.told import told
from stepsize.optim.vsgd_blocks import Blocks, whole
from stepsize.optim.vsgd_observed import take_up
from stepsize.optim.vsgd_probe import Part, probe
from stepsize.optim.vsgd_rules import Observed, Probed, average
from stepsize.optim.whole import local
from stepsize.torch.groups import Group

_UNOBSERVED = (
    "VSGD(curvature='observed') has observed nothing yet of a parameter that has a gradient: call "
    "optimizer.observe(diagonals) before the first step, or take curvature='fd'"
)


class VarianceSteps(Elementwise):
    """The steps of vSGD, whose settings stand in the groups.

    In `state`, beside the averages: `seen`, how many gradients there were (up to one more than the
    slow start takes), and `looked`, whether a curvature was observed.
    """

    memory: ClassVar[tuple[str, ...]] = Observed.memory
    rooms: ClassVar[int] = Observed.rooms

    @property
    def needs_closure(self) -> bool:  # type: ignore[override]
        """Whether each minibatch is evaluated twice."""
        return any(group["curvature"] == "fd" for group in self.param_groups)

    @property
    def _formula(self) -> Formula:
        return cast("Formula", Probed if self.needs_closure else Observed)

    @classmethod
    def begin(cls, group: Group, name: str) -> Any:
        """Give the first length of the memory; the averages begin at 0."""
        return max(group["initial_tau"], group["least_tau"]) if name == "tau" else 0.0

    @classmethod
    def rates(
        cls,
        group: Mapping[str, Any],
        gradients: Tensors,
        memory: Mapping[str, Tensors],
        rooms: Sequence[Tensors],
    ) -> Tensors:
        """Apply the rule of the element form with curvatures that were given."""
        return Observed.rates(group, gradients, memory, rooms)

    def observe(self, diagonals: Sequence[Tensor | None], *, reduce: bool = True) -> None:
        """Take up curvatures before `step`, one tensor for each parameter in the order of groups.

        Their absolute values are averaged as the gradients of the coming step will be. A step
        without new ones goes by the average.

        Args:
            diagonals: what `stepsize.torch.curvature.bbprop` gives, for one; None for a parameter
                about which nothing is known.
            reduce: under torch.distributed take the mean over the ranks (collective), of what is
                whole on each; False for what is already the same on every rank.

        Raises:
            FieldError: for other numbers of tensors or shapes, and with `curvature="fd"`.
        """
        if self.needs_closure:
            cure = "build the optimizer with curvature='observed'"
            raise FieldError.of("curvature", "'observed' for observe()", "fd", cure)
        left = iter(told(diagonals, self.everything(), reduce=reduce))
        with torch.no_grad():
            for group in self.param_groups:
                both = zip(group["params"], left, strict=False)
                take_up(group, {p: d for p, d in both if d is not None}, self.state, self._room)

    def sizes_of(self, parameter: Tensor) -> Tensor | float | None:
        """Give the step size of every element, or of the tensor; None before the first step.

        It follows from the averages of the last step, and from what was observed since. 0 during
        the slow start.
        """
        own = self.state.get(parameter, {})
        group = next(g for g in self.param_groups if any(p is parameter for p in g["params"]))
        if not own.get("seen", 0):
            return None
        if own["seen"] <= group["slow_start"]:
            return 0.0
        if "rate" in own:
            return cast("Tensor", own["rate"])
        kind = Probed if self.needs_closure else Observed
        found = torch.empty_like(own["g"])
        memory = {name: [local(own[name])] for name in kind.memory}
        local(found).copy_(kind.sizes(group, memory)[0])
        return found

    @property
    def _room(self) -> Rooms:
        if self._scratch is None:
            self._scratch = Rooms()
        return self._scratch

    def _remember(self, group: Group, params: Tensors) -> None:
        for p in params:
            state = self.state[p]
            if "seen" in state:
                continue
            for name in self._formula.memory if group["variant"] == "l" else ("g", "h"):
                if name not in state:  # an observation comes before the first gradient
                    state[name] = torch.full_like(p, self.begin(group, name), dtype=wide(p))
            for name in () if group["variant"] == "l" else ("l", "tau", "rate"):
                state[name] = local(state["g"]).new_tensor(self.begin(group, name))
            state["seen"] = 0
            state.setdefault("looked", 0)

    def _advance(self, closure: Closure | None) -> Any:
        repeat = None if closure is None else Repeatable(closure, self.everything())
        loss = None if repeat is None else repeat.first()
        parts = list(self._parts())
        if repeat is not None and self.needs_closure:
            probe(repeat, parts, self.state, self._room)
        for part in parts:
            if part.group["variant"] == "l":
                self._take_elements(part)
        self._take_blocks([part for part in parts if part.group["variant"] != "l"])
        for part in parts:
            self._count(part)
        return loss

    def _parts(self) -> Iterator[Part]:
        """Give the parameters with gradients, by how many they have had."""
        for number, group in enumerate(self.param_groups):
            params = with_gradients(group["params"])
            self._remember(group, params)
            alike: dict[int, Tensors] = {}
            for p in params:
                own = self.state[p]
                if not (own["looked"] or self.needs_closure):
                    raise FieldError(_UNOBSERVED)
                alike.setdefault(min(own["seen"], group["slow_start"]), []).append(p)
            for seen, some in alike.items():
                weight = 1 / (seen + 1) if seen < group["slow_start"] else None
                yield Part(number, group, some, weight)

    def _take_elements(self, part: Part) -> None:
        group = part.group
        if part.weight is None:
            self._take(part.number, group, part.params)
            return
        names = ("g", "v")
        rows = [
            (local(p), local(p.grad), *(local(self.state[p][name]) for name in names))  # type: ignore[arg-type]
            for p in part.params
        ]
        for params, gradients, *memory in batches(rows, together=group["foreach"]):
            own, room = self._room.like(params, 2, wide(params[0]))
            evidence = evidence_of(group, params, gradients, own)
            average(dict(zip(names, memory, strict=True)), evidence, part.weight, room)

    def _take_blocks(self, parts: Sequence[Part]) -> None:
        moving = []
        for part in parts:
            blocks = Blocks(part.group, part.params, self.state)
            blocks.average(part.weight)
            if part.weight is None:
                moving.append(blocks)
        if moving and moving[0].group["variant"] == "g":
            numbers = whole(moving)
            for blocks in moving:
                blocks.take(numbers)
        else:
            for blocks in moving:
                blocks.take(blocks.numbers())

    def _count(self, part: Part) -> None:
        """Count the gradient; at the end of the slow start make the averages careful."""
        limit = part.group["slow_start"]
        ending = []
        for p in part.params:
            own = self.state[p]
            own["seen"] = min(own["seen"], limit) + 1
            if part.weight is not None and own["seen"] == limit:
                ending.append(own)
        factor = part.group["slow_constant"]
        scaled = {"v": factor, "l": factor}
        if part.group["scale_curvature"]:
            scaled |= {"h": factor, "vh": factor**2}
        for own in ending:
            for name in scaled.keys() & own.keys():
                local(own[name]).mul_(scaled[name])
