"""Looking at the step sizes of all parameters of optimizers: what `step_sizes` does."""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from stepsize.look.spreads import Spread, Spreads
from stepsize.torch.binding import group_names
from stepsize.torch.groups import Group
from stepsize.torch.known_rates import Found, held_by, inside, rule_of, scalar_of
from stepsize.torch.ranks import Split, local, split_of
from stepsize.torch.samples import Values, columns_of, quantiles_of, sampled, stride_for

Rates = Callable[[Group], Any]


def present(group: Group) -> Any:
    """Give a group's lr; 1 where it has none."""
    return group.get("lr", 1.0)


class Place(NamedTuple):
    """A parameter: whose it is, and the number of the entry that it belongs to."""

    optimizer: Any
    group: Group
    parameter: Tensor
    entry: int


@dataclass(frozen=True, slots=True)
class Look:
    """What is looked at, and how."""

    optimizers: tuple[Any, ...]
    model: nn.Module | None
    per: str
    shares: tuple[float, ...]
    samples: int | None
    scheduled: bool

    def now(self, lr_of: Rates) -> Spreads:
        """Look, with what `lr_of` says of a group as its lr."""
        names, places = self._places()
        groups = {id(place.group): place.group for place in places}
        with torch.no_grad():
            found = self._found(places, len(names), lr_of if self.scheduled else _base)
            factors = [_factor(group, lr_of, found) for group in groups.values()]
            numbers = iter(torch.cat([found.reshape(-1), *factors]).tolist())  # the only reading
        rows = [[next(numbers) for _ in range(1 + len(self.shares))] for _ in names]
        factor = dict(zip(groups, numbers, strict=True))
        own: list[list[Place]] = [[] for _ in names]
        for place in places:
            own[place.entry].append(place)
        told = zip(names, rows, own, strict=True)
        return Spreads({name: self._spread(row, held, factor) for name, row, held in told})

    def _spread(self, row: list[float], own: list[Place], factor: dict[int, float]) -> Spread:
        elements = sum(_count(place.parameter) for place in own)
        known = dict(zip(self.shares, row[1:], strict=True)) if row[0] else {}
        factors = {factor[id(place.group)] for place in own}
        common = factors.pop() if len(factors) == 1 else math.nan
        return Spread(known, int(row[0]), elements, common if math.isfinite(common) else None)

    # Names -------------------------------------------------------------------------------------

    def _places(self) -> tuple[list[str], list[Place]]:
        """Give the names of the entries, and every parameter."""
        own = {id(p): name for name, p in self.model.named_parameters()} if self.model else {}
        names: dict[str, int] = {}
        places = []
        for title, optimizer, group in self._groups():
            for i, p in enumerate(group["params"]):
                name = self._name(title, own.get(id(p), f"{title}.{i}"))
                entry = names.setdefault(name, len(names))
                places.append(Place(optimizer, group, p, entry))
        return list(names), places

    def _groups(self) -> Iterator[tuple[str, Any, Group]]:
        """Give every group with its name, and its number where another is called so too."""
        each = [(o, g, x) for o, own in enumerate(self.optimizers) for g, x in _numbered(own)]
        names = list(group_names(each, len(self.optimizers)))
        for i, (o, _, group) in enumerate(each):
            title = f"{names[i]} {i}" if names[i] in names[:i] else names[i]
            yield title, self.optimizers[o], group

    def _name(self, title: str, own: str) -> str:
        if self.per == "layer":
            return own.rpartition(".")[0] or type(self.model).__name__
        return title if self.per == "group" else own

    # Numbers -----------------------------------------------------------------------------------

    def _found(self, places: list[Place], entries: int, lr_of: Rates) -> Tensor:
        """Give for each entry of how many elements the step size is known, and the quantiles."""
        held: dict[Split, list[Values]] = {None: []}
        for place in places:
            split = split_of(place.parameter)
            held.setdefault(split, [])  # on every rank, whatever it has
            rate = self.rate(place.optimizer, place.group, place.parameter, lr_of)
            values = None if rate is None else self._values(place, rate)
            if values is not None:
                held[split if isinstance(rate, Tensor) and rate.dim() else None].append(values)
        device = next((place.parameter.device for place in places), torch.device("cpu"))
        columns = [columns_of(values, split, device) for split, values in held.items()]
        return quantiles_of(torch.cat(columns, 1), entries, self.shares)

    def _values(self, place: Place, rate: Tensor | float) -> Values | None:
        if not isinstance(rate, Tensor) or not rate.dim():  # one number for all, on all ranks
            every = _count(place.parameter)
            number = rate if isinstance(rate, Tensor) else torch.tensor(rate, dtype=torch.float64)
            return Values(place.entry, number, every, every)
        part = _count(local(place.parameter))
        return Values(place.entry, rate, stride_for(part, self.samples), part) if part else None

    def rate(self, optimizer: Any, group: Group, p: Tensor, lr_of: Rates) -> Found:
        """Give the step size of some elements, or one number for all; None where none is known."""
        if not p.requires_grad:
            return None
        if not hasattr(optimizer, "sizes_of"):
            return self._by_rule(optimizer, {**group, "lr": lr_of(group)}, p)
        own, held = optimizer.sizes_of(p), held_by(optimizer)
        if own is None:
            return None
        if held is None or hasattr(held, "sizes_of"):  # which is in the wrapper's then
            rate: Found = scalar_of(lr_of(group)) * self._sample(own, p)
            return rate
        rate = self._by_rule(inside(held), {**group, "lr": lr_of(group)}, p)
        return None if rate is None else rate * self._sample(own, p)

    def _by_rule(self, optimizer: Any, group: Group, p: Tensor) -> Found:
        rule, state = rule_of(optimizer), optimizer.state.get(p, {})
        if rule is None or not rule.elementwise:  # one without is not looked at
            return None if rule is None else self._sample(rule.formula(p, state, group), p)
        some = {name: self._alike(value, p) for name, value in state.items()}
        found: Found = rule.formula(p, some, group)
        return found

    def _alike(self, value: Any, p: Tensor) -> Any:
        """Give some elements of what has the parameter's shape; anything else as it is."""
        return sampled(value, self.samples) if getattr(value, "shape", None) == p.shape else value

    def _sample(self, value: Any, p: Tensor) -> Any:
        """Give some elements of what is a number for every element, or for rows of them."""
        if not isinstance(value, Tensor) or not value.dim():
            return local(value) if isinstance(value, Tensor) else value
        return sampled(value if value.shape == p.shape else value.expand_as(p), self.samples)


def _count(p: Tensor) -> int:
    """Give the number of elements on all ranks; a complex number is two."""
    return p.numel() * (2 if p.is_complex() else 1)


def _numbered(optimizer: Any) -> list[tuple[int, Group]]:
    return list(enumerate(optimizer.param_groups))


def _base(group: Group) -> Any:
    """Give the base value of a group's lr: what schedulers keep, else the present one."""
    return group.get("initial_lr", present(group))


def _factor(group: Group, lr_of: Rates, like: Tensor) -> Tensor:
    """Give lr over its base value, where the result is read; NaN without a base value."""
    both = lr_of(group), group.get("initial_lr", math.nan)
    lr, base = (torch.as_tensor(x, dtype=like.dtype, device=like.device) for x in both)
    return (lr / base).detach().reshape(1)
