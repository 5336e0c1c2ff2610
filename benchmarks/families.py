"""Schedules of every kind, for the tables that go beyond warmup and cosine."""

from stepsize import (
    Cosine,
    Exponential,
    Horizon,
    Piecewise,
    Schedule,
    Step,
    Warmup,
    one_cycle,
    resolve,
    sgdr,
    wsd,
)


def warmup_cosine(warmup: int, total: int) -> Schedule:
    """Give the schedule that most tables measure."""
    return Warmup(warmup) >> Cosine(total - warmup)


def families(total: int) -> dict[str, Schedule]:
    """Give schedules over so many steps, resolved."""
    every = total // 4095  # 12 cycles, each twice as long as the one before
    return {
        "Warmup >> Cosine": warmup_cosine(1000, total),
        "one_cycle, the rate": one_cycle(total)["lr"],
        "wsd": resolve(wsd(), Horizon(total=total)),
        "sgdr, 12 growing cycles": sgdr(every, growth=2),
        "Cosine repeated 1,000 times": Cosine(total // 1000).repeated(),
        "Step, 10 stairs": Step(total // 10, 0.5),
        "Exponential": Exponential(1 - 1 / total),
        "Piecewise, 3 points": Piecewise({0: 0.1, total // 2: 1.0, total: 0.0}, linear=True),
    }
