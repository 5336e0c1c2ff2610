# ruff: noqa: SLF001 (a watch is a part of the scheduler that stands in a file of its own)
"""Cooling down in time when the job is about to end, and doing what is asked from outside.

Every rank looks at the same steps. Rank 0 decides, tells the others, and all change their plan
together; a signal counts wherever it arrived.
"""

import contextlib
import dataclasses
import math
import time
import weakref
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from stepsize.control.inbox import Inbox, Order, tagged
from stepsize.control.mailbox import Answer, Mailbox
from stepsize.edits.kinds import CoolDown, edit_data
from stepsize.errors import FieldError, SpecError, StepsizeError
from stepsize.schedules.fields import Bounds
from stepsize.torch import ranks
from stepsize.torch.cell import START, STEPS
from stepsize.torch.endings import Pace, Signals, name_of, time_left
from stepsize.torch.guards import length, warn
from stepsize.torch.report import report
from stepsize.torch.shorten import Course, Ending, Left, shortened

if TYPE_CHECKING:
    import os

    from stepsize.torch.edited import Edited

_SOON = (
    5.0  # seconds between looks, where steps are so slow; and between two writings of the status
)
_READ = 1.0  # seconds between two readings of the folder
_DEADLINE = "the deadline"


class Decision(NamedTuple):
    """What rank 0 has decided: edits that were asked for, a cooldown, the next look."""

    orders: list[Order]
    cooldown: CoolDown | None
    cause: str
    short: bool
    due: float
    gap: float


class Watch:
    """Looks, every so many steps, whether the job is about to end and whether anything is asked."""

    def __init__(
        self,
        core: "Edited",
        *,
        run: "str | os.PathLike[str] | None",
        signals: Mapping[Any, Any] | None,
        deadline: object,
        ending: Ending,
        every: int,
    ) -> None:
        self._core, self._read = weakref.ref(core), core._clock.read
        self._signals = Signals(signals or {}, self._read)
        now, self._began = self._read(), time.time()
        left = None if deadline is None else time_left(deadline, self._began)
        self._deadline = None if left is None else now + left
        self._deadline_at = None if left is None else self._began + left
        self._ending, self._done, self._pace = ending, set[str](), Pace()
        self._every = float(Bounds(ge=1, whole=True).admit("watch: every", every))
        self._mailbox = None if run is None else Mailbox(run)
        self._inbox = None if self._mailbox is None else Inbox(self._mailbox)
        self._waiting: list[Order] = []
        self._next_read = self._next_tell = -math.inf
        self._course: Course | None = None
        self._told: Any = None  # what the status was written for
        self._status: dict[str, Any] = {}
        self._last = math.inf  # the step at which the rates end
        self._complained: set[str] = set()  # of what
        self._gap, self.due = 1.0, core._cell[STEPS] + 1.0

    # Its life -----------------------------------------------------------------------------------

    def begin(self, core: "Edited") -> None:
        """Take the signals, make the folder, say where the run is."""
        if self._mailbox is not None:
            ranks.from_first(self._mailbox.make)
        self._signals.install()
        core._removers.append(self.end)
        core._alarms.stand(self)
        if core._bound is not None and ranks.rank() == 0:
            self._tell(core, self._read())

    def end(self) -> None:
        """Give the signals back, and say that nobody listens any more."""
        self._signals.restore()
        if self._mailbox is not None and self._status:
            core, now = self._core(), {"listening": False, "updated": time.time()}
            last = {**self._status, **({} if core is None else report(core)), **now}
            self._status = {}
            with contextlib.suppress(SpecError):
                self._mailbox.tell(last)

    def aim(self, now: float) -> None:
        """Look at the very next step where the position has jumped."""
        if not now < self.due <= now + self._gap:
            self.due = now + 1.0

    # Looking ------------------------------------------------------------------------------------

    def look(self, core: Any, t: float) -> None:
        """Decide on rank 0, and carry it out on all."""
        now = self._read()
        if self._pace.note(t, now, core._cell[START]):
            self._next_read = -math.inf
        self._hear(now)
        found: Decision = ranks.from_first(lambda: self._decide(core, t, now))
        self._gap, self.due = found.gap, found.due
        for order in found.orders:
            self._carry_out(core, order, t)
        if found.cooldown is not None:
            self._cool_down(core, found)
        if ranks.rank() == 0:
            self._tell(core, now)

    def _hear(self, now: float) -> None:
        """Let a signal that arrived on any rank count on all."""
        arrived, numbers = self._signals.arrived, {str(n): n for n in self._signals.lives}
        if not numbers:
            return
        seen = {name: float(number in arrived) for name, number in numbers.items()}
        for name, share in ranks.means(lambda: seen, tuple(numbers)).items():
            if share > 0:
                arrived.setdefault(numbers[name], now)

    def _decide(self, core: "Edited", t: float, now: float) -> Decision:
        pace = self._pace.seconds
        most = _SOON / pace if pace else self._every
        gap = 1.0 if pace is None else min(self._every, max(float(int(most)), 1.0))
        orders = self._orders(core, t, now)
        ready = [order for order in orders if order.step <= t]
        steps = [t + gap, self._last, *(float(order.step) for order in orders)]
        due = min(step for step in steps if step > t)
        cooldown, cause, short = None, "", False
        if ready:
            due = t + 1.0  # what is asked comes first, and may change what has to be done in time
        elif pace is not None and (ends := self._ends()):
            cause, end = min(ends, key=lambda each: each[1])
            if self._course is None or not self._course.holds(core):
                self._course = Course.of(core)
            left = Left(t, end - now, pace, at_once=cause != _DEADLINE)
            try:
                found = shortened(core, self._course, self._ending, left)
                if found is not None:
                    cooldown = dataclasses.replace(found[0], why=f"{cause}: {found[0].why}")
                    short = found[1]
            except StepsizeError as error:
                self._complain(f"no cooldown before {cause}: {error}")
        return Decision(ready, cooldown, cause, short, due, gap)

    def _ends(self) -> list[tuple[str, float]]:
        """Give what will end the job, and when, as far as nothing was done about it."""
        arrived, lives = self._signals.arrived, self._signals.lives
        found = [(name_of(n), at + lives[n]) for n, at in tuple(arrived.items())]
        if self._deadline is not None:
            found.append((_DEADLINE, self._deadline))
        return [(name, end) for name, end in found if name not in self._done]

    def _orders(self, core: "Edited", t: float, now: float) -> list[Order]:
        if self._inbox is not None and now >= self._next_read:
            self._waiting = self._inbox.orders(core._journal, t)
            self._next_read = now + _READ
            again = [
                f"{order.edit.kind} at step {order.step}" for order in self._waiting if order.step
            ]
            if again and not core._cell[START]:  # a run from the very beginning
                self._complain(
                    f"an earlier run of this folder was told to {', '.join(again)}: this run does "
                    "the same; remove its folder of edits if that is not wanted"
                )
        return self._waiting

    # Doing --------------------------------------------------------------------------------------

    def _carry_out(self, core: "Edited", order: Order, t: float) -> None:
        """Make an edit that was asked for, or say why not: nothing from outside ends training."""
        edit, step = tagged(order.edit, order.name), int(t)
        try:
            core._apply(edit, "")
            answer = Answer(True, step, "", edit_data(order.edit))
        except Exception as error:  # noqa: BLE001 (the plan is as it was: `_apply` sees to that)
            known = isinstance(error, StepsizeError)
            answer = Answer(False, step, str(error) if known else f"it failed: {error!r}"[:300])
        if self._inbox is not None and ranks.rank() == 0:
            self._waiting = [each for each in self._waiting if each.name != order.name]
            self._inbox.reply(order.name, answer)

    def _cool_down(self, core: "Edited", found: Decision) -> None:
        self._done.add(found.cause)
        try:
            core._apply(found.cooldown, "")
        except StepsizeError as error:
            self._complain(f"no cooldown before {found.cause}: {error}")
            return
        if found.short:
            warn(
                f"watch: not even one step fits into what is left before {found.cause}, so the "
                "rate goes to its end in one; give signals a longer time, or a smaller margin="
            )

    def _complain(self, text: str) -> None:
        what = text.partition(":")[0]
        if what not in self._complained:
            self._complained.add(what)
            warn(f"watch: {text}")

    # Telling ------------------------------------------------------------------------------------

    def _tell(self, core: "Edited", now: float) -> None:
        """Write the status, where something has changed or the last is some seconds old."""
        if self._mailbox is None:
            return
        changed = (len(core._journal), id(core._binding.told), core._cell[STEPS] >= self._last)
        if changed != self._told or now >= self._next_tell:
            self._told, self._next_tell = changed, now + _SOON
            self._last = length(core) or math.inf
            pace = self._pace.seconds
            self._status = {
                **report(core),
                "listening": True,
                "within": max(_SOON, self._gap * (pace or 0.0)),
                "seconds_per_step": pace,
                "signals": [name_of(number) for number in self._signals.lives],
                "deadline": self._deadline_at,
            }
            self._write(self._status)

    def _write(self, status: dict[str, Any]) -> None:
        try:
            if self._mailbox is not None:
                self._mailbox.tell(status)
        except SpecError as error:
            self._complain(f"the status cannot be written: {error}")


def watch(core: "Edited", ending: Ending, every: int, **causes: Any) -> None:
    """Let a scheduler watch; what it watched before is given up. See `Scheduler.watch`."""
    if core._detached:
        raise FieldError.of("watch()", "for a scheduler that is not detached", core)
    if core._bound is not None:
        ending.check(core)
    made = Watch(core, ending=ending, every=every, **causes)
    if isinstance(before := core._alarms.standing, Watch):
        core._removers.remove(before.end)
        before.end()
        core._alarms.stand(None)
    if any(each is not None for each in causes.values()):
        made.begin(core)
