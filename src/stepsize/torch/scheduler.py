"""The torch binding: follows an optimizer and writes schedules into its param groups."""

from typing import TYPE_CHECKING, Any, Self, cast

from torch import Tensor
from torch.optim.lr_scheduler import LRScheduler, ReduceLROnPlateau

from stepsize.errors import FieldError, UnitError
from stepsize.horizon import Horizon
from stepsize.schedules.fields import Bounds
from stepsize.schedules.plan import Plan
from stepsize.torch.cell import FIRED, STEPS
from stepsize.torch.controlled import controllers_of
from stepsize.torch.groups import number
from stepsize.torch.saved import Savable
from stepsize.torch.shown import logged, tracks

if TYPE_CHECKING:
    from collections.abc import Iterator

    from stepsize.look.entries import Entry


class Scheduler(Savable, LRScheduler):  # type: ignore[misc]  # step() needs no metric
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
        horizon: how long training is; needed where a schedule is written in units. A function
            without arguments is asked for it at the first step.
        base: base values: a number for lr, or a mapping from key to a number, a list by group, or
            a mapping by the groups' names. Default: `initial_<key>` in the group, else the group's
            present value.
        floor: values that no schedule takes a key below, given as `base` is. (A floor as a ratio is
            part of a schedule: `Cosine(stop=0.1)`, `schedule.between(0.1)`.)
        feedback: a controller or several, such as `Plateau(...)`, that react to what is seen.
        counts: "steps" of the optimizer, or "calls" of `step()`.
        follow: write the values right after every optimizer step, so that nobody has to call
            `step()`. Default: where a controller sees metrics, because frameworks then call
            `step(metric)` alone.
        reach: whether schedules reach their end at the horizon's "end", one step after the last, or
            at the "last" step.
        take_over: detach a scheduler that writes the same keys instead of raising.
        on_mismatch: what `load_state_dict` does with a state of something else, where it is not
            told: frameworks load without asking.
        clock: what gives the seconds for schedules over wall-clock time.

    Raises `FieldError` for unknown keys and groups, a factor that is a rate in disguise (peak
    outside [0.01, 100]), or a key that another scheduler writes; `UnitError` where a horizon is
    missing. It never patches `optimizer.step` and never calls the parent's constructor.
    """

    def __new__(cls, *args: Any, feedback: Any = None, **kwargs: Any) -> Self:
        """Give one that is also torch's `ReduceLROnPlateau` where a controller sees a metric.

        Frameworks route metrics to that class alone.
        """
        del args, kwargs
        chosen: type[Any] = cls
        metered = any(each.sees == "metric" for each in controllers_of(feedback))
        if metered and not issubclass(cls, ReduceLROnPlateau):
            if cls is not Scheduler:
                cure = f"class {cls.__name__}(Scheduler, ReduceLROnPlateau)"
                rule = "also torch's ReduceLROnPlateau, because a controller sees a metric"
                raise FieldError.of("Scheduler: the subclass", rule, cls.__name__, cure)
            chosen = Metered
        made: Self = object.__new__(chosen)
        return made

    @property
    def horizon(self) -> Horizon | None:
        """How long training is, as it is known now."""
        return self._binding.told.horizon

    # Reading -------------------------------------------------------------------------------------

    @property
    def last_epoch(self) -> int:
        """Optimizer steps completed (torch's name for it); may be set."""
        return int(self._cell[STEPS])

    @last_epoch.setter
    def last_epoch(self, steps: int) -> None:
        if steps == -1:
            cure = "a scheduler cannot be a part of torch's: compose schedules with >> and *"
            raise FieldError.of("Scheduler.last_epoch", "a whole number >= 0", steps, cure)
        step = Bounds(ge=0, whole=True).admit("Scheduler.last_epoch", steps)
        self._ready()
        if self._was_read:  # by ignite, which has written the values itself
            self._was_read = False
            if not self._cell[FIRED]:
                self._cell[STEPS] = float(step)
            return
        self._go_to(step, counted=False)

    _was_read = False

    @property
    def _get_lr_called_within_step(self) -> bool:
        """Whether torch's own machinery is reading: ignite sets it around `get_lr()`."""
        return False

    @_get_lr_called_within_step.setter
    def _get_lr_called_within_step(self, within: bool) -> None:
        self._was_read = not within

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

    def logs(self) -> dict[str, float]:
        """Give every value now by name, as plain numbers for any logger.

        `lr`, or `lr/name` for each of several groups, the same for every scheduled key; extras by
        name; `factor/plateau` and the like for controllers; `effective_lr`, which is `d * lr`, for
        parameter-free optimizers that keep a `d` in their groups.
        """
        return logged(self._binding, self.last_epoch)

    def at(self, step: float) -> dict[str, Any]:
        """Give what every scheduled value is at an optimizer step, before paying for it."""
        given = Bounds(ge=0).admit("Scheduler.at: the step", step)
        bound = self._binding
        if bound.told.timed and given != self._cell[STEPS]:
            raise UnitError(
                "Scheduler.at: a schedule over wall-clock time has a value at the present step "
                "only; preview(scheduler, seconds_per_step=...) draws it over time"
            )
        return bound.at(given)

    def tracks(self) -> "Iterator[Entry]":
        """Give every scheduled value: key, groups, schedule, scale.

        It is what `preview(scheduler)`, `describe(scheduler)`, `check(scheduler)` and
        `table(scheduler)` show what every group's values will be from.
        """
        return tracks(self._binding)

    def __repr__(self) -> str:
        told = self._binding.told
        special = {f"groups[{_shown(k)}]": Plan(**v) for k, v in told.special.items()}
        named = {**told.common, **special, **told.extra}
        inner = [f"{name}={each!r}" for name, each in named.items()]
        inner += [repr(each) for each in self._controllers]
        return f"Scheduler({', '.join(inner)}, at step {self.last_epoch})"


def _shown(place: str | tuple[int, int]) -> str:
    if isinstance(place, str):
        return repr(place)
    return f"{place[1]}" + (f" of optimizer {place[0]}" if place[0] else "")


class Metered(Scheduler, ReduceLROnPlateau):  # type: ignore[misc]  # as above
    """A scheduler to which frameworks route metrics; `Scheduler(...)` gives it where it is due."""
