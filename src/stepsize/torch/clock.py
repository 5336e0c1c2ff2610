"""Training time in seconds, for schedules over wall-clock time.

It runs from the scheduler's construction (a job's time does), stands still between a save and its
load, and is held between readings. Under torch.distributed rank 0 reads it and tells the others,
so seldom that it costs less than one percent of the time.
"""

import time
from collections.abc import Callable

from stepsize.torch import ranks

_SHARE = 0.01  # of the time that agreeing may cost


class Clock:
    """Seconds of training, the same on every rank."""

    def __init__(self, read: Callable[[], float] = time.monotonic) -> None:
        self.read = read
        self.seconds = 0.0
        self._zero = read()
        self._next = 0.0  # the step of the next reading that is shared
        self._last = (0.0, 0.0)
        self._cost = 0.0

    def tick(self, step: float) -> None:
        """Read the time at a step."""
        if ranks.ranks() == 1:
            self.seconds = max(self.seconds, self.read() - self._zero)
        elif step >= self._next:
            began = self.read()
            self.seconds, every = ranks.from_first(lambda: self._shared(step))
            self._cost = max(self.read() - began, 0.0)
            self._next = step + every

    def _shared(self, step: float) -> tuple[float, float]:
        seconds = max(self.seconds, self.read() - self._zero)
        before, at = self._last
        pace = (seconds - before) / max(step - at, 1.0)
        self._last = (seconds, step)
        seldom = min(self._cost / (_SHARE * pace), 1000.0) if pace > 0 else 0.0
        return seconds, 1.0 + float(int(seldom))

    def go_to(self, seconds: float, step: float) -> None:
        """Go on from a saved time."""
        self.seconds, self._zero = seconds, self.read() - seconds
        self._next, self._last = 0.0, (seconds, step)
