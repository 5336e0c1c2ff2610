"""What each rank sees differs; what all of them do is the same, as one process would do it."""

import functools
import math

import pytest
from tests.distributed import cases

pytestmark = pytest.mark.slow

STEPS = 24


def feeds_of(ranks, *, broken=()):
    """Numbers that differ by rank and would lead each to other decisions; their means are exact."""
    base = [8 - min(t, 9) / 4 for t in range(STEPS)]
    found = []
    for rank in range(ranks):
        sign = 1 if rank % 2 else -1
        found.append([x + sign * (rank // 2 + 1) * t / 32 for t, x in enumerate(base)])
    for t in (12, 18):
        found[-1][t] += 256  # a spike of one rank
    for t in broken:
        found[t % ranks][t] = math.nan
    return found


def means_of(feeds):
    return [sum(column) / len(feeds) for column in zip(*feeds, strict=True)]


def alone(kind, feed, sees="observe"):
    return _alone(kind, tuple(feed), sees)


@functools.cache
def _alone(kind, feed, sees):
    return cases.fed(kind, "none", [feed], sees)


@pytest.mark.parametrize("broken", [(), (11, 16)], ids=["finite", "nan_on_one_rank"])
@pytest.mark.parametrize("wrap", ["ddp", "fsdp"])
@pytest.mark.parametrize("kind", cases.CONTROLLERS)
def test_all_ranks_do_at_every_step_what_one_process_does_with_the_mean(world, kind, wrap, broken):
    feeds = feeds_of(world.size, broken=broken)
    sees = "both" if kind == "both" else "observe"
    ranks = world.run(cases.fed, kind=kind, wrap=wrap, feeds=feeds, sees=sees)
    mean = alone(kind, means_of(feeds), sees)
    assert len(mean) == STEPS
    assert ranks == [mean] * world.size
    assert any(row["factors"] != [1.0] * len(row["factors"]) for row in mean) or kind == "stop"
    assert any(row["journal"] != "[]" for row in mean) == (kind == "stop")
    own = [alone(kind, feed, sees) for feed in feeds]  # what each rank would have done by itself
    rates = [[row["rates"] for row in each] for each in own]
    assert any(each != rates[0] for each in rates)


@pytest.mark.parametrize("kind", ["plateau", "guard"])
def test_what_is_equal_already_is_taken_without_a_collective(world, kind):
    (feed,) = feeds_of(1)
    found = world.run(cases.counted, kind=kind, feed=feed, reduce=False)
    assert found == [(0, alone(kind, feed))] * world.size
    found = world.run(cases.counted, kind=kind, feed=feed, reduce=True)
    assert found == [(STEPS, alone(kind, feed))] * world.size


def test_without_reduction_every_rank_goes_by_what_it_saw(world):
    feeds = feeds_of(world.size)
    ranks = world.run(cases.fed, kind="guard", wrap="ddp", feeds=feeds, reduce=False)
    assert ranks == [alone("guard", feed) for feed in feeds]
    assert ranks[0] != ranks[-1]


def test_one_collective_shows_it_all(world):
    assert world.run(cases.shown_at_once) == [1] * world.size


def test_ranks_that_show_different_things_are_told_so(world):
    """Else one rank's loss would be averaged with another's norm, one call later."""
    for told in world.run(cases.shown_differently):
        assert "grad_norm" in told["error"]
        assert f"1 of {world.size} ranks" in told["error"]
        assert told["then"] == 2.5


def test_torchs_own_plateau_lets_the_ranks_drift_apart(world):
    """The rates of its ranks differ, so their weights do; ours are one model still."""
    rates, weights = zip(*world.run(cases.plateaus, theirs=True), strict=True)
    assert len(set(rates)) > 1
    assert len(set(weights)) > 1
    rates, weights = zip(*world.run(cases.plateaus, theirs=False), strict=True)
    assert len(set(rates)) == len(set(weights)) == 1
    assert rates[0] < 0.125
