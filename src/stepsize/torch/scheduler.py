"""The torch binding: follows an optimizer and writes schedules into its param groups."""

import warnings
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, Literal, cast

from torch import Tensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from stepsize.errors import FieldError, MismatchError
from stepsize.schedules.fields import Bounds
from stepsize.schedules.plan import Plan
from stepsize.schedules.schedule import Schedule
from stepsize.time import Horizon
from stepsize.torch import hooks
from stepsize.torch.arguments import (
    Bases,
    Schedules,
    bases_of,
    merged,
    optimizers_of,
    plan_of,
    special_of,
)
from stepsize.torch.binding import Binding
from stepsize.torch.claims import claim, release, rivals
from stepsize.torch.groups import Group, number
from stepsize.torch.hot import advancer
from stepsize.torch.state import differences, pack, unpack

if TYPE_CHECKING:
    from stepsize.look.entries import Entry

OnMismatch = Literal["error", "keep", "adopt"]


class Scheduler(LRScheduler):
    """Writes schedules into an optimizer's param groups; a torch `LRScheduler` to every framework.

    ```python
    horizon = Horizon.from_loader(loader, epochs=90)
    scheduler = Scheduler(optimizer, lr=Warmup("5%") >> Cosine(), horizon=horizon)
    for batch in ...:
        loss.backward()
        optimizer.step()
        scheduler.step()
    ```

    **Position follows the optimizer.** Time is the number of real steps of the first optimizer,
    counted by its own post-step hook. `step()` brings the values up to that count: calling it twice
    for one step, once per epoch, or before `optimizer.step()` cannot shift the schedule. Until the
    hook has fired once, a call counts one, so that a dry loop works. `counts="calls"` counts calls
    instead.

    Args:
        optimizer: one optimizer or several; the first is the driver whose steps are counted.
        plan: schedules by hyper-parameter name, as one value; or give them by keyword.
        lr, ...: a schedule for any key of the param groups: `lr`, `momentum`, `beta1`, `beta2`,
            `weight_decay`, ...; a factor multiplies each group's base value, an absolute
            schedule is written as it is.
        groups: schedules of single groups, by name or index, in place of the common ones.
        extra: schedules of values that live elsewhere (EMA decay, loss weight): read `values()`.
        horizon: how long training is; needed where a schedule is written in units.
        base: base values, a number for lr or a mapping from key to a number or a list by group.
            Default: `initial_<key>` in the group, else the group's present value.
        counts: "steps" of the optimizer, or "calls" of `step()`.
        take_over: detach a scheduler that writes the same keys instead of raising.

    Raises `FieldError` for unknown keys and groups, a factor that is a rate in disguise (peak
    outside [0.01, 100]), or a key that another scheduler writes; `UnitError` where a horizon is
    missing. It never patches `optimizer.step` and never calls the parent's constructor.
    """

    def __init__(
        self,
        optimizer: Optimizer | Iterable[Optimizer],
        plan: Plan | None = None,
        *,
        groups: Mapping[str | int, Schedules] | None = None,
        extra: Schedules | None = None,
        horizon: Horizon | None = None,
        base: Bases | None = None,
        counts: Literal["steps", "calls"] = "steps",
        take_over: bool = False,
        **schedules: Schedule,
    ) -> None:
        self.optimizers = optimizers_of(optimizer)
        self.optimizer = self.optimizers[0]
        if counts not in ("steps", "calls"):
            raise FieldError.of("Scheduler.counts", "'steps' or 'calls'", counts)
        self._counts = counts
        common = merged(plan, schedules, groups, extra)
        special = special_of(groups)
        others = dict(plan_of("extra", extra)) if extra else {}
        if horizon is not None and not isinstance(horizon, Horizon):
            raise FieldError.of("Scheduler.horizon", "a Horizon", horizon, "give Horizon(total)")
        self._binding = Binding(self.optimizers, common, special, others, horizon)
        self._bases = bases_of(base)
        self._bind(take_over=take_over)
        # steps now, whether a hook has given them, steps at the start: the only counter
        self._count: list[float] = [0.0, 0.0, 0.0]
        self._removers: list[Callable[[], None]] = []
        self._follows = counts == "steps" and self._follow()
        for each in self.optimizers:
            self._removers += hooks.after_loading(each, self)
        weakref.finalize(self, hooks.remove_all, self._removers).atexit = False
        self._detached = False
        self._arm()

    def _bind(self, *, take_over: bool) -> None:
        """Bind to the groups; where that fails, nothing has been written, claimed or taken over."""
        places = self._binding.places()
        others = rivals(self, places, take_over=take_over)
        self._binding.bind(self._bases)
        for other in others:
            other.detach()
        claim(self, places)

    def _follow(self) -> bool:
        """Count the driver's steps; say so where it cannot be done."""
        found = hooks.attach(self.optimizer, self._count)
        self._removers += found
        if not found:
            warnings.warn(
                f"Scheduler: {type(self.optimizer).__name__} has no step hooks (it never ran "
                "Optimizer.__init__), so calls of step() are counted: call it once per optimizer "
                'step, or say so with counts="calls"',
                stacklevel=3,
            )
        return bool(found)

    @property
    def horizon(self) -> Horizon | None:
        """How long training is, as given."""
        return self._binding.horizon

    # Driving -------------------------------------------------------------------------------------

    def _arm(self) -> None:
        """Build the hot path, one closure that holds all it needs, and write the present values."""
        alive = weakref.ref(self)

        def stale() -> None:
            found = alive()
            if found is not None:
                found.rebind()

        others = [(o, o.param_groups, len(o.param_groups)) for o in self.optimizers[1:]]
        changed = (lambda: _changed(others)) if others else None
        lanes = self._binding.lanes()
        advance, self._renew = advancer(lanes, self._count, self.optimizer, stale, changed)
        if type(self).step is Scheduler.step:  # and not a subclass's own
            self.__dict__["step"] = advance
        self._advance = advance
        self._renew()

    def step(self) -> None:  # type: ignore[override]  # without torch's deprecated `epoch`
        """Bring every value up to the optimizer's position.

        The instance holds the closure that does it: see `_arm`.
        """
        self._advance()

    def rebind(self) -> None:
        """Look at the param groups again and write the present values.

        Happens by itself after `optimizer.load_state_dict`, and at the next `step()` when groups
        were added or replaced; call it after `add_param_group` if the group is to take its very
        next update at the schedule's value.
        """
        if not self._detached:
            self._bind(take_over=False)
            self._arm()

    def detach(self) -> None:
        """Stop counting and writing, for good; the values stay as they are."""
        hooks.remove_all(self._removers)
        self._detached, self._advance, self._renew = True, _nothing, _nothing
        self.__dict__["step"] = _nothing
        release(self, self.optimizers)

    # Reading -------------------------------------------------------------------------------------

    @property
    def last_epoch(self) -> int:
        """Optimizer steps completed (torch's name for it); may be set."""
        return int(self._count[0])

    @last_epoch.setter
    def last_epoch(self, steps: int) -> None:
        step = Bounds(ge=0, whole=True).admit("Scheduler.last_epoch", steps)
        self._go_to(step, counted=False)

    def _go_to(self, step: float, *, counted: bool) -> None:
        self._count[:] = float(step), float(counted), float(step)
        self._renew()

    @property
    def _step_count(self) -> int:
        return self.last_epoch + 1

    @_step_count.setter
    def _step_count(self, count: int) -> None:
        """Ignore what frameworks store: the optimizer's steps are counted."""

    @property
    def base_lrs(self) -> list[float | Tensor]:
        """The base value of every group's lr."""
        bases = {(s.optimizer, s.group): s.base for s in self._binding.slots if s.key == "lr"}
        groups = self._binding.groups()
        return [bases.get((o, g), number(group["lr"])) for o, g, group in groups]

    @base_lrs.setter
    def base_lrs(self, bases: list[float | Tensor]) -> None:
        rows = [
            (o, g, "lr", number(b))
            for (o, g, _), b in zip(self._binding.groups(), bases, strict=True)
        ]
        self._binding.rebase(rows)
        self.rebind()

    def get_last_lr(self) -> list[float | Tensor]:
        """Give every group's present rate, as the groups hold it."""
        return [group["lr"] for _, _, group in self._binding.groups()]

    def get_lr(self) -> list[float | Tensor]:
        """Give every group's rate at `last_epoch`, without writing it."""
        return cast("list[float | Tensor]", self.at(self.last_epoch)["lr"])

    def values(self) -> dict[str, Any]:
        """Give every scheduled value now: a list by group for each key, a number for each extra."""
        return self.at(self.last_epoch)

    def at(self, step: float) -> dict[str, Any]:
        """Give what every scheduled value is at an optimizer step, before paying for it."""
        return self._binding.at(Bounds(ge=0).admit("Scheduler.at: the step", step))

    def tracks(self) -> "Iterator[Entry]":
        """Give every scheduled value: key, groups, schedule, scale.

        It is what `preview(scheduler)`, `describe(scheduler)`, `check(scheduler)` and
        `table(scheduler)` show what every group's values will be from.
        """
        return self._binding.tracks()

    # Saving --------------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """Give the state as a fixed set of keys with numbers and strings.

        Safe for `torch.load(weights_only=True)` and for torch.distributed.checkpoint, which loads
        only keys that the receiver already has: what varies in shape is one JSON string.
        """
        bound, step = self._binding, self.last_epoch
        if bound.outdated():
            self.rebind()
        return pack(
            step,
            bound.position(step),
            bound.unit,
            bound.described(),
            bound.rows(),
            counted=int(self._count[1]),
        )

    def load_state_dict(
        self, state_dict: dict[str, Any], *, on_mismatch: OnMismatch = "error"
    ) -> None:
        """Take up the saved position and base values, and write the values there.

        A state of another schedule, horizon, unit or number of groups is a `MismatchError` that
        shows the difference. `on_mismatch="keep"` keeps the present description at the saved
        number of steps, `"adopt"` takes the saved schedules.
        """
        if on_mismatch not in ("error", "keep", "adopt"):
            raise FieldError.of("on_mismatch", "'error', 'keep' or 'adopt'", on_mismatch)
        bound, saved = self._binding, unpack(state_dict)
        found = differences(saved, unpack(self.state_dict()))
        if found and on_mismatch == "error":
            raise MismatchError(
                f"the saved state belongs to something else: {'; '.join(found)}. "
                "load_state_dict(..., on_mismatch='keep') keeps the present description at the "
                "saved step, 'adopt' takes the saved schedules"
            )
        if found and on_mismatch == "adopt":
            bound = self._binding = bound.adopted(saved.description)
        if not found or on_mismatch == "adopt":
            bound.rebase(saved.rows)
        bound.move(saved.step, saved.position, saved.unit)
        self.rebind()
        self._go_to(saved.step, counted=saved.counted and self._follows)

    def __getstate__(self) -> dict[str, Any]:
        bound = self._binding
        size, index = len(bound.groups()), {p[:2]: i for i, p in enumerate(bound.groups())}
        bases: dict[str, list[float | None]] = {}
        for o, g, key, base in bound.rows():
            bases.setdefault(key, [None] * size)[index[o, g]] = base
        given: dict[str, Any] = {"base": bases, "counts": self._counts, **bound.common}
        given |= {"groups": bound.special, "extra": bound.extra, "horizon": bound.horizon}
        return {"optimizers": self.optimizers, "given": given, "state": self.state_dict()}

    def __setstate__(self, saved: dict[str, Any]) -> None:
        # hooks do not travel with a copy: it is built anew
        self.__init__(saved["optimizers"], **saved["given"])  # type: ignore[misc]
        self.load_state_dict(saved["state"])
        self._bases = {}  # said once; groups added to the copy have bases of their own

    def __repr__(self) -> str:
        bound = self._binding
        special = {f"groups[{k!r}]": Plan(**v) for k, v in bound.special.items()}
        told = {**bound.common, **special, **bound.extra}
        inner = ", ".join(f"{name}={each!r}" for name, each in told.items())
        return f"Scheduler({inner}, at step {self.last_epoch})"


def _nothing() -> None:
    """What a detached scheduler does."""


def _changed(sizes: list[tuple[Optimizer, list[Group], int]]) -> bool:
    return any(o.param_groups is not known or len(known) != size for o, known, size in sizes)
