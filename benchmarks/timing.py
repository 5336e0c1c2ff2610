"""Timing on a shared machine: CPU time of this thread, shuffled rounds, the minimum of them.

Wall clock on a busy machine is off by a factor; CPU time of the thread is not, and the minimum
over many short batches leaves out what neighbours did to the caches. Candidates take turns in a
new random order each round, so none always follows the same other one. Every table of steps has
the floor twice: what the two differ by is noise.
"""

import gc
import random
import time
from collections.abc import Callable, Mapping
from itertools import repeat
from typing import Any, TypeVar

Name = TypeVar("Name")
Loop = Callable[[int], None]
"""Does the measured thing n times."""

_WARM_NS = 3_000_000
_MOST_CALLS = 1 << 20


def calling(function: Callable[[], Any]) -> Loop:
    """Call a function n times; the call itself is part of the time (about 25 ns)."""

    def loop(n: int) -> None:
        for _ in repeat(None, n):
            function()

    return loop


def stepping(scheduler: Any) -> Loop:
    """Write `scheduler.step()` n times, as a training loop does, look-up included."""

    def loop(n: int) -> None:
        for _ in repeat(None, n):
            scheduler.step()

    return loop


def cpu(loop: Loop, n: int = 1) -> int:
    """Give the CPU time of this thread for n times, in ns."""
    begin = time.thread_time_ns()
    loop(n)
    return time.thread_time_ns() - begin


def compare(loops: Mapping[Name, Loop], rounds: int, batch_ms: float = 1.5) -> dict[Name, float]:
    """Give the least ns per time of each loop over the rounds."""
    sizes = {name: _batch(loop, batch_ms * 1e6) for name, loop in loops.items()}
    best = dict.fromkeys(loops, float("inf"))
    gc.collect()
    gc.disable()
    try:
        for _ in range(rounds):
            for name in random.sample(list(loops), len(loops)):
                best[name] = min(best[name], cpu(loops[name], sizes[name]) / sizes[name])
    finally:
        gc.enable()
    return best


def compare_built(
    builds: int, make: Callable[[], Mapping[str, Loop]], *, rounds: int
) -> dict[str, float]:
    """Compare loops that are made anew several times: where objects lie in memory matters too."""
    runs = [compare(make(), rounds=rounds) for _ in range(builds)]
    return {name: min(run[name] for run in runs) for name in runs[0]}


def _batch(loop: Loop, wanted_ns: float) -> int:
    """Find how many times fill a batch, after warming up: a first call is far too slow to tell."""
    n, spent = 1, cpu(loop)
    warm = spent
    while warm < _WARM_NS or (spent < wanted_ns / 2 and n < _MOST_CALLS):
        if spent < wanted_ns / 2:
            n *= 2
        spent = cpu(loop, n)
        warm += spent
    return max(1, round(n * wanted_ns / max(spent, 1)))
