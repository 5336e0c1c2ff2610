"""Changes of plan while training goes on: made on all ranks, kept in the journal, replayed."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Literal

from stepsize.edits.kinds import CoolDown, Edit, Extend, Replan, edit_data
from stepsize.errors import FieldError
from stepsize.files.description import plain_data
from stepsize.horizon import Horizon
from stepsize.schedules.plan import Plan
from stepsize.schedules.ramps import Ramp
from stepsize.schedules.schedule import Schedule
from stepsize.torch import guards, ranks
from stepsize.torch.cell import STEPS
from stepsize.torch.groups import Group
from stepsize.torch.journal import GROUP, Journalled, joining
from stepsize.torch.shorten import Ending
from stepsize.torch.watch import watch
from stepsize.units import Time

if TYPE_CHECKING:
    import os


class Edited(Journalled):
    """A scheduler whose plan can be changed while it runs."""

    @property
    def finished(self) -> bool:
        """Whether the rates have come to their end, as after a cooldown."""
        bound, moment = self._binding, self._moment()
        trees = {slot.schedule for slot in bound.slots if slot.key == "lr"}
        return bool(trees) and all(bound.told.tree(s).duration <= moment.at(s) for s in trees)

    def cool_down(
        self,
        over: float | str | Time = "rest",
        *,
        to: float = 0.0,
        along: type[Ramp] | str = "linear",
        keys: tuple[str, ...] = ("lr",),
        why: str = "",
    ) -> None:
        """Go from the present value to `to` times it, over a length, and stay there.

        Args:
            over: how long: steps, a text with a unit ("5%" of the horizon), or "rest".
            to: the last value, as a share of the present one.
            along: the ramp that gives the shape, a class or its name.
            keys: the hyper-parameters that cool down.
            why: a remark for the journal.

        Under torch.distributed every rank must call it; rank 0's arguments count. Raises
        `FieldError` for a length beyond the end of the run, or a key that is not scheduled.
        """
        self._edit(lambda: CoolDown(over, to, along, keys, why))

    def extend(self, horizon: float | str | Time | Horizon, *, why: str = "") -> None:
        """Make the run as long as this in all; only what lies ahead moves.

        Parts that are over stay as they were; the one that training is in is stretched from here
        on, so that its value goes on from where it is; later parts are as told. It also announces
        the end of a run whose horizon was open.

        Args:
            horizon: the new length of the whole run, or a horizon with the same rates and another
                total.
            why: a remark for the journal.

        A run that has ended may be made longer: its values stay until they are replanned.

        Collective, as `cool_down`. Raises `FieldError` for an end that lies behind, or where
        nothing would move because every schedule has a length of its own.
        """
        self._edit(lambda: Extend(self._total_of(horizon), why))

    def replan(  # noqa: D417 (schedules by keyword are described with the plan)
        self,
        plan: Plan | None = None,
        *,
        over: float | str | Time | None = None,
        since: Literal["now", "start"] = "now",
        why: str = "",
        **schedules: Schedule,
    ) -> None:
        """Follow other schedules from now on, reached by a straight line from the present value.

        Args:
            plan: the new schedules, by hyper-parameter; or give them by keyword. They are for all
                groups, also for those with schedules of their own.
            over: the length of the straight line: 1 % of the horizon unless given (100 steps where
                that is unknown); 0 jumps.
            since: whether the new schedules' time counts from "now" or from the "start".
            why: a remark for the journal.

        Collective, as `cool_down`. Raises `FieldError` for a key that is not scheduled, or where
        one is absolute and the other a factor.
        """
        self._edit(lambda: Replan(_plan(plan, schedules), over, since, why))

    def watch(
        self,
        run: "str | os.PathLike[str] | None" = None,
        *,
        signals: Mapping[int, Any] | None = None,
        deadline: Any = None,
        over: float | str | Time | None = None,
        to: float = 0.0,
        along: type[Ramp] | str = "linear",
        keys: tuple[str, ...] = ("lr",),
        margin: float | str | None = None,
        every: int = 10,
    ) -> None:
        """Cool down in time when the job is about to end, and do what is asked from outside.

        A plan that ends in time is left alone; afterwards `finished` says that training can stop.
        Whatever it does is in the journal. A second call replaces the first, and one without
        arguments ends it. It is not a part of the state: call it in every job.

        Args:
            run: a folder: `stepsize edit RUN ...` asks there, `status.json` says where training is;
                resumed in the same folder, a run makes again what its checkpoint has not got.
            signals: how long the job lives after a signal: `{signal.SIGUSR1: "10min"}`.
            deadline: when the job ends: seconds since the epoch, as a number or as the text that
                Slurm has in SLURM_JOB_END_TIME; a datetime; or a text from now ("11h50min").
            over: the wanted length of that cooldown, shortened where not all of it fits; default:
                all that fits after a signal, a fifth of the whole before a deadline.
            to: the last value, as a share of the present one.
            along: the ramp that gives the shape, a class or its name.
            keys: the hyper-parameters that cool down.
            margin: wall-clock time to be left at the end; default: a tenth of what is left.
            every: look every so many steps; sooner where that would be more than some seconds.

        Under torch.distributed every rank must call it, and calls `step()` at the same steps; what
        counts is rank 0's time and folder, and a signal on any. Raises `FieldError` for a deadline
        that is over, or signals outside the main thread.
        """
        ending = Ending.of(over, margin, to=to, along=along, keys=keys)
        watch(self, ending, every, run=run, signals=signals, deadline=deadline)

    def _total_of(self, given: float | str | Time | Horizon) -> float | str | Time:
        if not isinstance(given, Horizon):
            return given
        if given.total is None:
            raise FieldError.of("extend: the horizon", "one with a total", given)
        now = self._binding.told.horizon or Horizon()
        if dataclasses.replace(given, total=now.total, open_end=now.open_end) != now:
            cure = "give the total alone, such as extend('120ep')"
            raise FieldError.of(
                "extend: the horizon", f"as now but for its total ({now})", given, cure
            )
        return given.total

    def _edit(self, make: Callable[[], Edit]) -> None:
        self._ready()
        self._apply(ranks.from_first(make), "")

    def _apply(self, edit: Any, why: str) -> None:
        """Carry an edit out and write it down; nothing changes where it makes no sense."""
        self._check_attached(edit.kind)
        bound, moment = self._binding, self._moment()
        edit = dataclasses.replace(self._portable(edit), why=edit.why or why)
        record = edit_data(edit) | self._where()
        before, told = bound.told, bound.told.edited(edit, moment)
        bound.use(told, self._cell[STEPS] + bound.shift)
        try:
            self.rebind()
        except Exception:
            bound.use(before)
            self.rebind()
            raise
        self._journal.append(record)
        guards.set_up(self)

    def _portable(self, edit: Edit) -> Edit:
        """Give an edit whose lengths in steps are in the unit that survives another world size."""
        bound, step = self._binding, self._cell[STEPS]
        unit, here = bound.told.unit, bound.position(step)
        if unit == "st":
            return edit
        if isinstance(edit, Extend):
            steps = isinstance(edit.total, float)
            total = bound.position(float(edit.total) - bound.shift) if steps else 0.0  # type: ignore[arg-type]  # a number
            return dataclasses.replace(edit, total=Time(total, unit)) if steps else edit
        if not isinstance(edit.over, float) or not edit.over:
            return edit
        return dataclasses.replace(edit, over=Time(bound.position(step + edit.over) - here, unit))

    # Groups -------------------------------------------------------------------------------------

    def add_param_group(
        self,
        group: Group,
        *,
        optimizer: int = 0,
        clock: Literal["run", "own"] = "run",
        **schedules: Schedule,
    ) -> None:
        """Add a param group to an optimizer, and schedule it from its very next update on.

        Args:
            group: as torch's `Optimizer.add_param_group` takes it; a "name" helps.
            optimizer: which of several optimizers.
            clock: "run": the group joins the schedule where the run is; "own": its schedule begins
                now (gradual unfreezing: its own warmup).
            schedules: its own schedules by key; default: the common ones.

        It is in the journal: a resumed run adds the group to the optimizer before it loads.
        """
        if clock not in ("run", "own"):
            raise FieldError.of("add_param_group: clock", "'run' or 'own'", clock)
        rule = f"a whole number from 0 to {len(self.optimizers) - 1}"
        if optimizer not in range(len(self.optimizers)):
            raise FieldError.of("add_param_group: optimizer", rule, optimizer)
        self._ready()
        self._check_attached("add_param_group")
        own = {key: plain_data(each) for key, each in _checked(schedules).items()}
        driver = self.optimizers[optimizer]
        place = (optimizer, len(driver.param_groups))
        record = {"kind": GROUP, "place": list(place), "clock": clock, "schedules": own}
        record |= self._where()
        before = self._binding.told
        told = joining(before, place, schedules, clock, self._moment())
        driver.add_param_group(group)
        self._binding.use(told, self._cell[STEPS])
        try:
            self.rebind()
        except Exception:
            del driver.param_groups[-1]
            self._binding.use(before)
            self.rebind()
            raise
        self._journal.append(record)


def _checked(schedules: dict[str, Schedule]) -> dict[str, Schedule]:
    return dict(Plan(**schedules)) if schedules else {}


def _plan(plan: Plan | None, schedules: dict[str, Schedule]) -> Plan:
    if plan is not None and not isinstance(plan, Plan):
        raise FieldError.of("replan: the plan", "a Plan", plan, "write replan(lr=schedule)")
    return Plan(**{**(plan or {}), **schedules})
