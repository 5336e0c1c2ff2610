"""The steps of AdGD: what is kept between them, measured, and moved."""

import math
from collections.abc import Sequence
from itertools import chain
from typing import Any

import torch
from torch import Tensor

from stepsize.errors import FieldError
from stepsize.optim.adgd_norms import sign_of
from stepsize.optim.adgd_past import Past
from stepsize.optim.adgd_rules import Seen, momentum, next_numbers
from stepsize.optim.again import Closure, Repeatable
from stepsize.optim.base import with_gradients
from stepsize.optim.blocks import Row, batches
from stepsize.optim.formula import Tensors
from stepsize.optim.whole import local
from stepsize.torch.groups import Group

Read = dict[str, float]
SEARCHES, STEEPEST, MOST = 100, 2, 10.0  # of the authors' search for a first step size


class SecantSteps(Past):
    """An optimizer whose step size comes from two gradients and the way between their places."""

    def _advance(self, closure: Closure | None) -> Any:
        again = None
        if closure is not None and self.needs_closure:
            again = Repeatable(closure, self.everything())
            loss = again.first()
        else:
            loss = self._first_gradients(closure)
        params = [with_gradients(group["params"]) for group in self.param_groups]
        if any(params):
            self._agree()
            if self.param_groups[0]["search_initial"] and self._is_first():
                self._search(params, again)
            self._take(params, again)
        return loss

    def _take(self, params: Sequence[Tensors], again: Repeatable | None) -> None:
        """Measure, choose the step sizes, move."""
        if self.param_groups[0]["stochastic"]:
            older, places = self._evaluated(again)
        else:
            older, places = self._remembered()
        read = self._read(params, older, places)
        for name, value in read.items():
            if not math.isfinite(value) and not name.startswith("lr"):
                cure = "nothing was changed: find what made it so, or catch this and go on"
                raise FieldError.of("the norm of the gradients", "finite", value, cure)
        for unit in self._units(params):
            groups = [self.param_groups[number] for number in unit]
            found = next_numbers(groups[0], self._seen(unit, read))
            for group in groups:
                group.update(found)
            self._move(unit, params, read)

    def _read(
        self, params: Sequence[Tensors], older: dict[Tensor, Tensor], places: dict[Tensor, Tensor]
    ) -> Read:
        return self._lengths.read(self.param_groups, params, older, places)

    def _units(self, params: Sequence[Tensors]) -> list[list[int]]:
        """Give the numbers of the groups that have one step size together."""
        numbers = range(len(params))
        if self.param_groups[0]["norms"] == "global":
            return [list(numbers)]
        return [[number] for number in numbers if params[number]]

    def _seen(self, unit: Sequence[int], read: Read) -> Seen:
        distances = [self.param_groups[n]["distance"] for n in unit]
        taken = _length(d * d for d in distances)  # ** would raise where this gives inf

        def over(name: str) -> float:
            return _length(read.get(f"{name}{n}", math.nan) for n in unit)

        change = over("change")
        moved = over("moved") if self.param_groups[0]["exact_displacement"] else taken
        product = sum(read.get(f"product{n}", 0.0) for n in unit)
        square = sum(read.get(f"own{n}", 0.0) for n in unit)
        return Seen(taken, math.nan if math.isnan(change) else moved, change, square, product)

    def _move(self, unit: Sequence[int], params: Sequence[Tensors], read: Read) -> None:
        """Take the step of the groups that have one step size together."""
        length = _length(read.get(f"square{n}", 0.0) for n in unit)
        for n in unit:
            group = self.param_groups[n]
            most: float = group["max_norm"]
            size = group["step_size"] * (most / length if length > most else 1.0)
            lr: float = read.get(f"lr{n}", group["lr"])
            self._keep_places(params[n])
            if params[n]:
                self._move_group(group, params[n], lr, size)
            if params[n] or not math.isnan(group["distance"]):
                group["distance"] = lr * size * math.sqrt(read.get(f"square{n}", 0.0))
            self._keep_gradients(params[n])

    def _move_group(self, group: Group, params: Tensors, lr: float, size: float) -> None:
        if group["foreach"] and not group["weight_decay"] and not group["accelerated"]:
            gradients: list[Any] = [local(p.grad) for p in params]  # type: ignore[arg-type]
            alpha = -sign_of(group) * lr * size
            torch._foreach_add_([local(p) for p in params], gradients, alpha=alpha)
            return
        for rows in self._rows(group, params):
            for columns in batches(rows, together=group["foreach"]):
                self._move_batch(group, columns, lr, size)

    def _rows(self, group: Group, params: Tensors) -> list[list[Row]]:
        """Give parameters and gradients, those apart that have where the last step led."""
        plain: list[Row] = []
        moving: list[Row] = []
        goes_on = group["accelerated"] and not math.isnan(group["distance"])
        for p in params:
            gradient: Any = p.grad
            row = local(p), local(gradient)
            ahead = self.state[p].get("descended") if goes_on else None
            if ahead is not None:
                moving.append((*row, local(ahead)))
                continue
            if group["accelerated"]:
                self.state[p]["descended"] = p.detach().clone()
            plain.append(row)
        return [plain, moving]

    def _move_batch(self, group: Group, columns: list[Tensors], lr: float, size: float) -> None:
        directions, (one, two) = self._lengths.directions(group, columns)
        present, _, *ahead = columns
        if not ahead:
            torch._foreach_add_(present, directions, alpha=-sign_of(group) * lr * size)
            return
        before = ahead[0]
        torch._foreach_copy_(one, present)
        torch._foreach_add_(one, directions, alpha=-sign_of(group) * size)
        torch._foreach_copy_(two, one)
        torch._foreach_sub_(two, before)
        torch._foreach_copy_(before, one)
        torch._foreach_mul_(two, momentum(group))
        torch._foreach_add_(two, one)
        torch._foreach_sub_(two, present)
        torch._foreach_add_(present, two, alpha=lr)  # lr multiplies the momentum, too

    def _search(self, params: Sequence[Tensors], again: Repeatable | None) -> None:
        """Find a first step size that is about as long as the curvature allows."""
        size: float = self.param_groups[0]["initial_step"]
        larger = True
        for _ in range(SEARCHES):
            steepness = self._steepness(params, again, size)
            if math.isnan(steepness):  # the gradient is 0
                break
            if not steepness <= STEEPEST:
                larger = False
                size /= 2
            elif larger and 10 * size <= MOST:
                size *= 10
            else:
                break
        for group in self.param_groups:
            group["step_size"] = size

    def _steepness(self, params: Sequence[Tensors], again: Any, size: float) -> float:
        """Give step size * L for a trial; NaN where nothing moves at any step size."""
        places = self._trial(params, size)
        older = self._gradients_at(again, places)
        read = self._read(params, older, places)
        square, moved, change = (
            sum(read.get(f"{name}{n}", 0.0) for n in range(len(params)))
            for name in ("square", "moved", "change")
        )
        if square == 0:
            return math.nan
        if not math.isfinite(moved) or not math.isfinite(change):
            return math.inf
        return size * math.sqrt(change / moved) if moved else 0.0

    def _trial(self, params: Sequence[Tensors], size: float) -> dict[Tensor, Tensor]:
        """Give copies of the parameters, one step on."""
        places = {p: p.detach().clone() for p in chain.from_iterable(params)}
        for group, held in zip(self.param_groups, params, strict=True):
            rows: list[Row] = [(local(places[p]), local(p.grad)) for p in held]  # type: ignore[arg-type]
            for columns in batches(rows, together=group["foreach"]):
                directions, _ = self._lengths.directions(group, columns)
                torch._foreach_add_(columns[0], directions, alpha=-sign_of(group) * size)
        return places


def _length(squares: Any) -> float:
    """Give the root of a sum, without what is not known; NaN where nothing is."""
    known = [square for square in squares if not math.isnan(square)]
    return math.sqrt(sum(known)) if known else math.nan
