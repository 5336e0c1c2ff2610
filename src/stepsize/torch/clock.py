"""Training time in seconds, for schedules over wall-clock time.

It runs from the scheduler's construction (a job's time does), stands still between a save and its
load, and is held between readings. Under torch.distributed rank 0 reads it and tells the others,
so seldom that it costs less than one percent of the time. How seldom at most doubles from one time
to the next: the first collective of a run takes seconds, and a pace may change.
"""

import time
from collections.abc import Callable

from stepsize.torch import ranks

_SHARE = 0.01  # of the time that agreeing may cost
_SELDOM = 1000.0  # steps between two readings, at most


class Clock:
    """Seconds of training, the same on every rank."""

    def __init__(self, read: Callable[[], float] = time.monotonic) -> None:
        self.read = read
        self.seconds = 0.0
        self._zero = read()
        self._start_sharing((0.0, 0.0))

    def _start_sharing(self, last: tuple[float, float]) -> None:
        self._last = last  # the time and the step of the last reading, on rank 0
        self._at, self._every = 0.0, 0.0  # the step of the last agreement, and how long it holds
        self._cost = 0.0

    def tick(self, step: float) -> None:
        """Read the time at a step."""
        if ranks.ranks() == 1:
            self.seconds = max(self.seconds, self.read() - self._zero)
        elif not self._at <= step < self._at + self._every:
            began = self.read()
            self.seconds, self._every = ranks.numbers_from_first(lambda: self._shared(step), 2)
            self._cost, self._at = max(self.read() - began, 0.0), step

    def _shared(self, step: float) -> tuple[float, float]:
        seconds = max(self.seconds, self.read() - self._zero)
        before, at = self._last
        pace = (seconds - before) / max(step - at, 1.0)
        self._last = (seconds, step)
        wanted = self._cost / (_SHARE * pace) if pace > 0 else 0.0
        return seconds, float(int(min(1.0 + wanted, max(2.0 * self._every, 1.0), _SELDOM)))

    def go_to(self, seconds: float, step: float) -> None:
        """Go on from a saved time."""
        self.seconds, self._zero = seconds, self.read() - seconds
        self._start_sharing((seconds, step))
