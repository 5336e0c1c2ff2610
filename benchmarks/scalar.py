"""One value: at a far step, of one compiled function, and what compiling costs."""

import warnings
from collections.abc import Callable
from itertools import repeat

import families
from floors import optimizer, warmup_cosine
from report import Table, against, ns
from timing import Loop, calling, compare
from torch.optim.lr_scheduler import CosineAnnealingLR

STEP, TOTAL, WARMUP = 10_000_000.0, 20_000_000, 1000
FLOOR = "floor: handwritten function"
COMPILE = "stepsize, `schedule.compile()` itself"


def tables(*, quick: bool) -> list[Table]:
    """Give the tables of this section."""
    rounds = 9 if quick else 51
    return [_values(rounds), _families(rounds)]


def _at(function: Callable[[float], float], t: float = STEP) -> Loop:
    def loop(n: int) -> None:
        for _ in repeat(None, n):
            function(t)

    return loop


def _values(rounds: int) -> Table:
    ours, by_hand = families.warmup_cosine(WARMUP, TOTAL), warmup_cosine(WARMUP, TOTAL)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that optimizer.step() was not called
        torchs = CosineAnnealingLR(optimizer(1), TOTAL)
        loops = {
            FLOOR: _at(by_hand),
            "floor again (its twin)": _at(by_hand),
            "stepsize, `value = schedule.compile()`": _at(ours.compile()),
            "the same, `compile(lowest=0.0)`": _at(ours.compile(lowest=0.0)),
            "stepsize, `schedule(t)`": _at(ours),
            "torch CosineAnnealingLR.step()": calling(torchs.step),
            COMPILE: calling(ours.compile),
        }
        found = compare(loops, rounds=rounds)
    stepped = found.pop("torch CosineAnnealingLR.step()")
    compiling = found.pop(COMPILE)
    rows = [[name, against(time, found[FLOOR])] for name, time in found.items()]
    rows.append([COMPILE, ns(compiling)])
    rows.append(["torch CosineAnnealingLR, so many steps (extrapolated)", ns(stepped * STEP)])
    shown = f"The compiled function is this text:\n\n```python\n{ours.source().strip()}\n```"
    return Table("Warmup and cosine at step 10,000,000", ["what", "CPU time"], rows, shown)


def _families(rounds: int) -> Table:
    found = families.families(TOTAL)
    values = compare({n: _at(each.compile()) for n, each in found.items()}, rounds=rounds)
    compiled = compare({n: calling(each.compile) for n, each in found.items()}, rounds=rounds)
    rows = [[name, ns(values[name]), ns(compiled[name])] for name in found]
    return Table("Other schedules", ["schedule", "value at that step", "`compile()`"], rows)
