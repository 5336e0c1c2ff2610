"""Controllers at work on a run: what they have seen, what they remember, what they pull."""

import dataclasses
import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from stepsize.errors import FieldError, MismatchError
from stepsize.feedback import Controller, Seen, controller_data
from stepsize.horizon import Horizon
from stepsize.time import HorizonClock
from stepsize.torch.groups import Group
from stepsize.units import Time

if TYPE_CHECKING:
    from stepsize.feedback.base import State

_LONGEST = 4096  # entries of a history: pictures need no more


class Reaction(NamedTuple):
    """What a controller has decided: which one, and its answer."""

    controller: Controller
    update: Any


def controllers_of(given: Any) -> tuple[Controller, ...]:
    """Give one controller or several as a tuple."""
    if given is None:
        return ()
    found = (given,) if isinstance(given, Controller) else given
    if not isinstance(found, tuple | list) or not all(isinstance(x, Controller) for x in found):
        cure = "give Plateau(...) or several"
        raise FieldError.of("Scheduler.feedback", "a controller or a list of them", given, cure)
    return tuple(found)


class Controlled:
    """Several controllers with their states; their factors multiply."""

    def __init__(self, controllers: tuple[Controller, ...], horizon: Horizon | None) -> None:
        self.given = controllers
        self.controllers = [_in_steps(each, horizon) for each in controllers]
        self.states: list[State] = [each.init() for each in controllers]
        self.history: list[list[Any]] = []  # [step, key, factor, why, seconds]

    def sees(self, what: str) -> bool:
        """Tell whether a controller looks at the "metric" or the "loss"."""
        return any(each.sees == what for each in self.controllers)

    def resolve(self, horizon: Horizon | None, now: float) -> None:
        """Take the moments from when on they look from another horizon; those passed stay."""
        made = [_in_steps(each, horizon) for each in self.given]
        both = zip(self.controllers, made, strict=True)
        self.controllers = [_passed(new, was.after, was.until, now) for was, new in both]

    def see(self, seen: Seen, step: float, seconds: float) -> list[Reaction]:
        """Show all of them something; give the answers by which something changes."""
        found = []
        for i, each in enumerate(self.controllers):
            before = self.states[i]
            update = each.update(before, seen)
            self.states[i] = update.state
            if update.edit is not None or update.factor != before["factor"]:
                found.append(Reaction(each, update))
        for made in found:
            why = f"{made.controller.kind}: {made.update.note}"
            self.history += [[step, k, self.factor(k), why, seconds] for k in made.controller.keys]
        if len(self.history) > _LONGEST:  # every second one of the older half goes
            half = _LONGEST // 2
            times = dict.fromkeys(row[0] for row in self.history[:half])
            kept = set(list(times)[::2])
            older = [row for row in self.history[:half] if row[0] in kept]
            self.history = older + self.history[half:]
        return found

    def reaching(self, key: str) -> list[tuple[Controller, float]]:
        """Give the controllers of a key with their factors."""
        pairs = zip(self.controllers, self.states, strict=True)
        return [(each, state["factor"]) for each, state in pairs if key in each.keys]

    def factor(self, key: str) -> float:
        """Give what a key's schedule is multiplied with, but for floors of single groups."""
        return math.prod(factor for _, factor in self.reaching(key))

    def pull(self, key: str, group: Group, index: int) -> float:
        """Give what a key's schedule is multiplied with in a group."""
        return math.prod(
            max(factor, _own(each.floor, group, index, each.lowest))
            for each, factor in self.reaching(key)
        )

    def low(self, key: str, group: Group, index: int) -> float:
        """Give the value that no controller takes a key of a group below."""
        floors = (_own(each.floor_value, group, index, 0.0) for each, _ in self.reaching(key))
        return max(floors, default=0.0)

    def floors(self, key: str, group: Group, index: int) -> tuple[float, float]:
        """Give the lowest factor and the lowest value that a key of a group may get."""
        lowest = (_own(each.floor, group, index, each.lowest) for each, _ in self.reaching(key))
        return math.prod(lowest), self.low(key, group, index)

    def floored(self, key: str) -> bool:
        """Tell whether a controller of a key has floors by value."""
        return any(each.floor_value != 0.0 for each, _ in self.reaching(key))

    def check_keys(self, known: set[str]) -> None:
        """Raise `FieldError` for a key that is not scheduled."""
        for each in self.given:
            for key in each.keys:
                if key not in known:
                    where, shown = f"{type(each).__name__}.keys: a key", ", ".join(sorted(known))
                    raise FieldError.of(where, f"one that is scheduled ({shown})", key)

    def check_groups(self, names: set[str | int]) -> None:
        """Raise `FieldError` for a floor of a group that is not there."""
        for each in self.given:
            for field in ("floor", "floor_value"):
                floor = getattr(each, field)
                for name in set(floor if isinstance(floor, Mapping) else ()) - names:
                    where = f"{type(each).__name__}.{field}: a group"
                    shown = ", ".join(map(repr, sorted(names, key=str)))
                    raise FieldError.of(where, f"one of {shown}", name)

    # For a state ------------------------------------------------------------------------------

    def described(self) -> list[dict[str, Any]]:
        """Give the controllers as plain data."""
        return [controller_data(each) for each in self.given]

    def saved(self) -> dict[str, Any]:
        """Give what they remember, as plain data."""
        moments = [[each.after, each.until] for each in self.controllers]
        return {"states": self.states, "history": self.history, "moments": moments}

    def load(self, saved: Any, now: float) -> None:
        """Take up what they remembered by a step; `MismatchError` for that of other controllers."""
        states, history = saved["states"], saved["history"]
        fresh = [each.init() for each in self.controllers]
        known = [sorted(s) for s in states] == [sorted(s) for s in fresh]
        if not known or not all(math.isfinite(s["factor"]) for s in states):
            raise MismatchError("the state is damaged: what its controllers remember is not theirs")
        self.states, self.history = states, [list(row) for row in history]
        both = zip(self.controllers, saved["moments"], strict=True)
        self.controllers = [_passed(new, after, until, now) for new, (after, until) in both]


def _own(floor: Any, group: Group, index: int, otherwise: float) -> float:
    if not isinstance(floor, Mapping):
        return float(floor)
    return float(floor.get(group.get("name"), floor.get(index, otherwise)))


def _passed(now: Controller, after: Any, until: Any, t: float) -> Controller:
    """Give a controller whose moments before t are as they were."""
    old = {"after": after, "until": until}
    found: dict[str, Any] = {n: x for n, x in old.items() if isinstance(x, float) and 0 < x <= t}
    return dataclasses.replace(now, **found) if found else now


def _in_steps(controller: Controller, horizon: Horizon | None) -> Controller:
    """Give a controller whose moments are plain numbers of steps."""
    found: dict[str, Any] = {}
    for name in ("after", "until"):
        moment = getattr(controller, name)
        if isinstance(moment, Time):
            clock = HorizonClock(Horizon() if horizon is None else horizon, "st")
            found[name] = clock.number(moment, f"{type(controller).__name__}.{name}", 0.0)
    return dataclasses.replace(controller, **found) if found else controller
