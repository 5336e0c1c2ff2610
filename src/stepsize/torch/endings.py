"""When the job ends: lengths of wall-clock time, deadlines, signals, and how fast steps are."""

import os
import re
import signal
import threading
from collections import deque
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any

from stepsize.errors import FieldError
from stepsize.schedules.fields import Bounds
from stepsize.units import SECONDS, Time, parse

_PART = r"\d[\d._]*\s*[A-Za-z]+"
_EPOCH = re.compile(
    r"\d{9,}(?:\.\d+)?"
)  # what a cluster's scheduler has in an environment variable
_LOOKS = 100  # looks over which the pace is measured


def seconds(field: str, given: object) -> float:
    """Read a length of wall-clock time: seconds, or a text such as "10min" or "1h30min"."""
    if isinstance(given, Time | str):
        texts = re.findall(_PART, given) if isinstance(given, str) else []
        whole = isinstance(given, str) and re.fullmatch(rf"\s*(?:{_PART}\s*)+", given)
        parts: list[Any] = texts if whole else [given]
        rule, cure = "a length of wall-clock time", "write 600, '10min' or '1h30min'"
        try:
            times = [parse(part, field) for part in parts]
        except FieldError:
            raise FieldError.of(field, rule, given, cure) from None
        read = [
            t.amount * SECONDS[t.unit] for t in times if isinstance(t, Time) and t.unit in _WALL
        ]
        if len(read) < len(times):
            raise FieldError.of(field, rule, str(given), cure)
        given = sum(read)
    return float(Bounds(gt=0).admit(field, given))


_WALL = frozenset(SECONDS)


def time_left(given: object, now: float) -> float:
    """Give the seconds until a deadline.

    Args:
        given: seconds since the epoch, as a number or a text of digits; a datetime; or a text from
            now, such as "11h50min".
        now: seconds since the epoch.
    """
    if isinstance(given, datetime):
        left = given.timestamp() - now
    elif isinstance(given, str) and not _EPOCH.fullmatch(given.strip()):
        left = seconds("watch: deadline", given)
    else:
        number = float(given) if isinstance(given, str) else given
        left = Bounds().admit("watch: deadline", number) - now
    if left <= 0:
        cure = "give seconds since the epoch, a datetime, or a text from now such as '11h50min'"
        raise FieldError.of("watch: deadline", "later than now", str(given), cure)
    return left


class Pace:
    """Seconds per step, over the last looks: with the evaluations and checkpoints between steps.

    It is a mean, because a cooldown has to pay for all that; where the position jumps (a state was
    loaded) it begins anew.
    """

    def __init__(self) -> None:
        self._marks: deque[tuple[float, float]] = deque(maxlen=_LOOKS + 1)
        self._start: float | None = None

    def note(self, step: float, now: float, start: float) -> bool:
        """Take in where training is at a time; tell whether it has jumped there."""
        jumped = start != self._start or bool(self._marks and step < self._marks[-1][0])
        if jumped:
            self._marks.clear()
        self._start = start
        self._marks.append((step, now))
        return jumped

    @property
    def seconds(self) -> float | None:
        """Seconds per step; None until there were two looks."""
        if not self._marks:
            return None
        (first, began), (last, now) = self._marks[0], self._marks[-1]
        return max(now - began, 0.0) / (last - first) if last > first else None


class Signals:
    """Notes when signals arrive; everything else happens at the next look."""

    def __init__(self, lives: Mapping[Any, Any], read: Callable[[], float]) -> None:
        self.arrived: dict[int, float] = {}
        if not isinstance(lives, Mapping):
            raise FieldError.of("watch: signals", _RULE, lives, _CURE)
        self.lives = {_number(key): seconds("watch: signals", v) for key, v in lives.items()}
        self._read, self._process, self._ended = read, os.getpid(), False
        self._before: dict[int, Any] = {}
        for number in self.lives:
            if signal.getsignal(number) is None:
                rule = "of signals whose handler Python knows"
                cure = "another library handles this one itself: take another signal"
                raise FieldError.of("watch: signals", rule, name_of(number), cure)
        if self.lives and threading.current_thread() is not threading.main_thread():
            rule = "set in the main thread, where Python handles signals"
            cure = "call scheduler.watch(signals=...) before training is started in another thread"
            raise FieldError.of("watch: signals", rule, threading.current_thread().name, cure)

    def install(self) -> None:
        """Take the signals; the handlers that were there are called as before."""
        handle = self._handle
        for number in self.lives:
            self._before[number] = signal.signal(number, handle)

    def _handle(self, number: int, frame: Any) -> None:
        before = self._before.get(number, signal.SIG_DFL)
        ended = self._ended or os.getpid() != self._process  # a forked worker dies as ever
        if ended and signal.getsignal(number) == self._handle:
            signal.signal(number, before)
            signal.raise_signal(number)
            return
        if not ended:
            self.arrived.setdefault(number, self._read())
        if callable(before) and before is not signal.default_int_handler:
            before(number, frame)

    def restore(self) -> None:
        """Give the signals back, as far as nobody else has taken them since."""
        self._ended = True
        if threading.current_thread() is not threading.main_thread():
            return  # the handler gives them back when one arrives
        for number, before in self._before.items():
            if signal.getsignal(number) == self._handle:
                signal.signal(number, before)


def name_of(number: int) -> str:
    """Give the name of a signal."""
    return signal.Signals(number).name


def _number(given: object) -> int:
    if isinstance(given, int) and not isinstance(given, bool) and given in set(signal.Signals):
        number = int(given)
        if name_of(number) not in ("SIGKILL", "SIGSTOP"):
            return number
    raise FieldError.of("watch: signals", _RULE, given, _CURE)


_RULE = "a mapping from signals that can be handled to lengths of time"
_CURE = 'such as {signal.SIGUSR1: "10min"}'
