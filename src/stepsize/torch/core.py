"""What a scheduler is made of, and how it is driven."""

import time
import weakref
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, Literal, cast

from torch.optim import Optimizer

from stepsize.errors import FieldError
from stepsize.feedback import Controller
from stepsize.horizon import Horizon
from stepsize.schedules.plan import Plan
from stepsize.schedules.schedule import Schedule
from stepsize.torch import guards, hooks
from stepsize.torch.arguments import (
    Bases,
    OnMismatch,
    Schedules,
    bases_of,
    check_way,
    merged,
    optimizers_of,
    plan_of,
    special_of,
)
from stepsize.torch.binding import Binding
from stepsize.torch.cell import ALARM, FIRED, KNOWN, LIMIT, START, STEPS, WRITE, new_cell
from stepsize.torch.claims import announce, claim, release, rivals
from stepsize.torch.clock import Clock
from stepsize.torch.controlled import Controlled, controllers_of
from stepsize.torch.groups import Group, check_group_names
from stepsize.torch.hot import Calls, hot_path
from stepsize.torch.real import Reality, needs_care
from stepsize.torch.told import Place, Special, Told

if TYPE_CHECKING:
    from torch.utils.hooks import RemovableHandle

Feedback = Controller | Iterable[Controller]


class Core:
    """Binds schedules to optimizers, counts their steps and writes the values."""

    _first: list[Callable[[], None]]  # hooks before the first step

    def __init__(
        self,
        optimizer: Optimizer | Iterable[Optimizer],
        plan: Plan | None = None,
        *,
        groups: Mapping[str | int, Schedules] | None = None,
        extra: Schedules | None = None,
        horizon: Horizon | Callable[[], Horizon] | None = None,
        base: Bases | None = None,
        floor: Bases | None = None,
        feedback: Feedback | None = None,
        counts: Literal["steps", "calls"] = "steps",
        follow: bool | None = None,
        reach: Literal["end", "last"] = "end",
        take_over: bool = False,
        on_mismatch: OnMismatch = "error",
        clock: Callable[[], float] = time.monotonic,
        **schedules: Schedule,
    ) -> None:
        self.optimizers = optimizers_of(optimizer)
        self.optimizer = self.optimizers[0]
        for name, given, known in (("counts", counts, _COUNTS), ("reach", reach, _REACHES)):
            if given not in known:
                rule = " or ".join(map(repr, known))
                raise FieldError.of(f"Scheduler.{name}", rule, given)
        common = merged(plan, schedules, groups, extra)
        others = dict(plan_of("extra", extra)) if extra else {}
        self._given = (common, special_of(groups), others, horizon, reach, take_over)
        self._counts, self._bases, self._floors = counts, bases_of(base), bases_of(floor, "floor")
        self._controllers = controllers_of(feedback)
        self._clock, self._on_mismatch = Clock(clock), check_way(on_mismatch)
        self._blank()
        sees_metrics = any(each.sees == "metric" for each in self._controllers)
        self._follows = sees_metrics if follow is None else bool(follow)
        if not callable(horizon):
            self._build()
        else:
            self._first = hooks.before_steps(self.optimizer, hooks.calling(self, "_ready"))
            self._removers += self._first
            announce(self, self.optimizers)
        self._attach()
        self._watch_first()
        for each in self.optimizers:
            self._removers += hooks.after_loading(each, hooks.calling(self, "_loaded"))
        weakref.finalize(self, _end, self._removers, self._cell).atexit = False

    def _blank(self) -> None:
        """Give every field of a scheduler that is bound to nothing yet."""
        self._cell = new_cell()
        self._reality = Reality(self._cell, hooks.weakly(self, "_count_calls"))
        self._removers: list[Callable[[], None]] = []
        self._counting: list[RemovableHandle] = []
        self._first = []
        self._watching = False
        self._alarms = guards.Alarms(self, self._cell)
        self._journal: list[dict[str, Any]] = []
        self._bound: Binding | None = None
        self._detached = False
        self._armed = 0
        self._last_metric: tuple[float, float] | None = None
        self._said: set[str] = set()  # by the guards
        self._shown: set[str] = set()  # what kinds of things were observed

    # Construction -------------------------------------------------------------------------------

    def _build(self) -> None:
        """Bind to the groups; where that fails, nothing has been written, claimed or taken over."""
        common, special, extra, given, reach, take_over = self._given
        horizon = given() if callable(given) else given
        if horizon is not None and not isinstance(horizon, Horizon):
            raise FieldError.of("Scheduler.horizon", "a Horizon", horizon, "give Horizon(total)")
        groups = [
            (o, g, group)
            for o, each in enumerate(self.optimizers)
            for g, group in enumerate(each.param_groups)
        ]
        check_group_names([group for _, _, group in groups], special)
        # a number means the group it means now, whatever groups are added to other optimizers
        at: Special = {groups[k][:2] if isinstance(k, int) else k: s for k, s in special.items()}
        told = Told(common, at, extra, horizon, reach)
        controlled = Controlled(self._controllers, horizon)
        names = {*range(len(groups)), *(g["name"] for _, _, g in groups if "name" in g)}
        controlled.check_groups(names)
        controlled.check_keys({key for own in (common, *at.values(), extra) for key in own})
        bound = Binding(self.optimizers, told, controlled, self._floors, self._clock)
        places = bound.places()
        others = rivals(self, places, take_over=take_over)
        bound.bind(self._bases)
        for other in others:
            other.detach()
        claim(self, places)
        self._bound, self._began = bound, told  # what was told first is what a state is held to
        self._arm()
        guards.set_up(self)

    @property
    def _binding(self) -> Binding:
        """What is bound; a horizon that is given as a function is asked for now."""
        self._ready()
        return cast("Binding", self._bound)

    def _ready(self) -> None:
        if self._bound is None:
            self._build()

    def _attach(self) -> None:
        """Count the driver's steps; say so where it cannot be done."""
        if self._counts == "calls":
            watching = hooks.attach(self.optimizer, hooks.watching_hook(self._cell))
            self._removers += [handle.remove for handle in watching]
            return
        if self._follows:
            hook = hooks.forwarding_hook(self._cell)
        else:
            late, careful = hooks.calling(self, "_late"), needs_care(self.optimizer)
            hook = hooks.counting_hook(self._cell, self._reality.unreal, late, careful=careful)
        self._counting = hooks.attach(self.optimizer, hook)
        if self._follows and self._bound is not None:
            hooks.put_in_place(self._counting, self._cell[WRITE])
        self._removers += [handle.remove for handle in self._counting]
        if not self._counting:
            self._counts = "calls"
            guards.warn(
                f"{type(self.optimizer).__name__} has no step hooks (it never ran "
                "Optimizer.__init__), so calls of step() are counted: call it once per optimizer "
                'step, or say so with counts="calls"'
            )

    def _count_calls(self, why: str, steps: float) -> None:
        """Count calls from now on, where steps cannot be counted; `steps` are done by now.

        The hook stays, because torch may be going through its hooks right now; it asks `Reality`.
        """
        if self._counts == "calls":
            return
        self._counts, self._follows = "calls", False
        self._cell[STEPS], self._cell[FIRED], self._cell[KNOWN] = steps, 0.0, None
        guards.warn(
            f"steps of {type(self.optimizer).__name__} cannot be counted by its hook: "
            f"{why}; calls of step() are counted from now on, one per optimizer step"
        )

    def _check_attached(self, what: str) -> None:
        if self._detached:
            raise FieldError.of(what, "of a scheduler that is attached", "one after detach()")

    def follow(self) -> None:
        """Write the new values after every optimizer step, so that nobody has to call `step()`."""
        self._check_attached("follow")
        if self._counts == "calls":
            raise FieldError.of("follow()", "for a scheduler that counts steps", self._counts)
        if not self._follows:
            self._follows = True
            self._no_longer([handle.remove for handle in self._counting])
            self._attach()

    # Driving ------------------------------------------------------------------------------------

    def _arm(self) -> None:
        """Build the hot path, one closure that holds all it needs, and write the present values."""
        bound, cell = self._binding, self._cell
        others = [(o, o.param_groups, len(o.param_groups)) for o in self.optimizers[1:]]
        calls = Calls(
            stale=hooks.untraced(hooks.calling(self, "rebind")),
            look=hooks.untraced(hooks.weakly(self, "_look", gone=_GONE)),
            observe=hooks.weakly(self, "_given_metric", gone=_GONE),
            others=(lambda: _changed(others)) if others else None,
            tick=self._clock.tick if bound.told.timed else None,
            unreal=self._reality.unreal,
            late=hooks.untraced(hooks.calling(self, "_late")),
            careful=needs_care(self.optimizer),
        )
        advance, self._renew, cell[WRITE] = hot_path(bound.lanes(), cell, self.optimizer, calls)
        cell[KNOWN] = self.optimizer.param_groups if self._counts == "steps" else None
        if self._follows:
            hooks.put_in_place(self._counting, cell[WRITE])
        self._reality.bound(self.optimizer.param_groups)
        if type(self).step is Core.step:  # and not a subclass's own
            self.__dict__["step"] = advance
        self._advance = advance
        self._armed += 1
        self._renew()

    def step(self, metrics: Any = None, epoch: int | None = None) -> None:
        """Bring every value up to the optimizer's position; a metric is shown to the controllers.

        A metric never moves time: see `observe`. `epoch` is there because torch's has it.
        """
        self._ready()
        self._advance(metrics, epoch)

    def _look(self, t: float) -> bool:
        """Do what is due; tell whether the values were written anew meanwhile."""
        if self._detached:
            return True
        armed = self._armed
        if self._cell[FIRED] and t > self._cell[START]:
            self._no_longer(self._first)
            self._watching = False
        done = self._cell[START] + 1.0 if self._cell[FIRED] else t
        self._reality.check(self.optimizer.param_groups, done)
        guards.remark(self)
        self._alarms.ring(t)
        if self._armed == armed and self._cell[STEPS] == t:
            return False
        self._renew()
        return True

    def _watch_first(self) -> None:
        """Look before the next step, once; the hook is taken off when that has been made."""
        if self._counts == "steps" and not self._watching:
            first = hooks.before_steps(self.optimizer, hooks.weakly(self, "_before_first"))
            self._first += first
            self._removers += first
            self._watching = True

    def _before_first(self, optimizer: Any, *_: Any) -> None:
        """Let the first step have the first value, however often `step()` was called before it."""
        cell = self._cell
        if optimizer.param_groups is not cell[KNOWN]:
            return
        done = cell[STEPS] if cell[FIRED] else cell[START]
        if self._reality.emptied(optimizer.param_groups):
            why = "its groups are empty before a step, as DeepSpeed ZeRO 3 leaves them"
            self._count_calls(why, done)
            self._renew()
        elif cell[STEPS] != done:
            cell[STEPS] = cell[START]
            self._renew()

    def _no_longer(self, some: list[Callable[[], None]]) -> None:
        """Take some hooks off."""
        for remove in some:
            self._removers.remove(remove)
        hooks.remove_all(some)

    def _late(self) -> None:
        """Start counting from the first step on; later ask whether anybody drives."""
        cell = self._cell
        if not cell[FIRED]:
            cell[STEPS], cell[FIRED] = cell[START] + 1.0, 1.0
            cell[LIMIT] = guards.limit(self)
        elif not self._follows:
            guards.undriven(self)

    def rebind(self) -> None:
        """Look at the param groups again and write the present values.

        Happens by itself after `optimizer.load_state_dict`, and at the next `step()` when groups
        were added, taken away or replaced; call it after `add_param_group` if the group is to take
        its very next update at the schedule's value.
        """
        if self._detached or self._bound is None:
            return
        bound = self._bound
        self._reality.taken_up()
        moves = bound.moves()
        rivals(self, bound.places(), take_over=False)
        bound.bind(self._bases)
        if moves is not None:
            self._began = self._began.moved(moves)
            self._journal = [moved for each in self._journal for moved in _moved(each, moves)]
        claim(self, bound.places())
        self._arm()

    def _loaded(self) -> None:
        self.rebind()

    def detach(self) -> None:
        """Stop counting and writing, for good; the values stay as they are."""
        _end(self._removers, self._cell)
        self._detached, self._advance, self._renew = True, _nothing, _nothing
        self.__dict__["step"] = _nothing
        release(self, self.optimizers)


_GONE = (
    "the Scheduler whose step() this is does not exist any more: keep the object itself "
    "(scheduler = Scheduler(...)), not only its step"
)
_COUNTS, _REACHES = ("steps", "calls"), ("end", "last")


def _moved(record: dict[str, Any], moves: Mapping[Place, Place]) -> list[dict[str, Any]]:
    """Give a journal's record with the place that its group has now; nothing if that is gone."""
    if "place" not in record:
        return [record]
    now = moves.get((int(record["place"][0]), int(record["place"][1])))
    return [] if now is None else [{**record, "place": list(now)}]


def _end(removers: list[Callable[[], None]], cell: list[Any]) -> None:
    """Take all hooks off, and let a hot path that somebody still holds write no more."""
    hooks.remove_all(removers)
    cell[ALARM], cell[KNOWN], cell[WRITE] = -1.0, None, None


def _nothing(metrics: Any = None, epoch: Any = None) -> None:
    """What a detached scheduler does."""


def _changed(sizes: list[tuple[Optimizer, list[Group], int]]) -> bool:
    return any(o.param_groups is not known or len(known) != size for o, known, size in sizes)
