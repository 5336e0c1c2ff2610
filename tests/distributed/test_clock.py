"""Wall-clock time: rank 0's counts, everybody has the same, and agreeing costs next to nothing."""

import pytest
from tests.distributed import cases

from stepsize import Cosine, Horizon, Warmup

pytestmark = pytest.mark.slow

CURVE = Horizon("10 min").resolve(Warmup("10%") >> Cosine())


def right(found):
    """What the rates are by rank 0's clock."""
    return [0.125 * CURVE(seconds) for seconds in found["seconds"]]


def test_clocks_that_differ_make_no_difference(world):
    first, *others = world.run(cases.timed, steps=400, pace=1.0)
    for other in others:
        assert other["seconds"] != first["seconds"]
        assert all(other[what] == first[what] for what in ("rates", "state", "next", "collectives"))
    assert first["rates"] == right(first)  # agreeing took no time, so it was done at every step
    assert first["collectives"] == 400


def test_agreeing_becomes_seldom_where_it_takes_time(world):
    first, *others = world.run(cases.timed, steps=4000, pace=0.05, reading=0.01)
    assert all(other["rates"] == first["rates"] for other in others)
    assert all(other["collectives"] == first["collectives"] for other in others)
    assert 50 < first["collectives"] < 120
    cost = 2 * 0.01  # of one agreement: it looks again at the clock, and once more behind
    growing = 7  # they begin at every step, then at every second, fourth, ...
    assert (first["collectives"] - growing) * cost <= 0.01 * first["seconds"][-1]
    held = 100 * cost + 0.05  # how long a reading is good for, where that is to cost 1 %
    off = [abs(a - b) for a, b in zip(first["rates"], right(first), strict=True)]
    assert 0 < max(off) <= 0.125 * held / 60  # the warmup is the steepest


def test_a_first_collective_that_takes_long_does_not_stop_the_clock(world):
    """Setting up communication takes seconds; at 1 % they would be held for minutes."""
    first, *_ = world.run(cases.timed, steps=300, pace=1.0, hiccup=20.0)
    assert first["rates"][20:] == pytest.approx(right(first)[20:], abs=0.125 * 5 / 60)
    assert first["rates"][-1] == right(first)[-1]


def test_time_goes_on_from_a_saved_one_on_other_numbers_of_ranks(world_of):
    saved = world_of(4).run(cases.timed, steps=100, pace=1.0)[3]
    for size in (2, 4):
        ranks = world_of(size).run(cases.timed, steps=100, pace=1.0, resume=saved["state"])
        assert ranks[-1]["rates"] == ranks[0]["rates"] == right(ranks[0])
        assert ranks[0]["seconds"][0] == pytest.approx(101.0)
