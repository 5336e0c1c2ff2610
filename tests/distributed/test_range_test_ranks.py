"""A range test on several ranks: one result, one end, and nothing has changed on any of them."""

import math

import pytest
from tests.distributed import ranges

pytestmark = pytest.mark.slow
WRAPS = ["ddp", "fsdp"]


@pytest.mark.parametrize("wrap", WRAPS)
def test_every_rank_has_the_same_result_and_goes_on_as_if_nothing_had_been_tested(world_of, wrap):
    ranks = world_of(2).run(ranges.found, wrap=wrap)
    assert ranks[0] == ranks[1]
    curve, ended, ratios, seconds = ranks[0]
    assert ratios == (("group 0", 1.0),)
    assert len(ended) == len({tuple(row) for row in curve["losses"]}) == 3
    assert all(math.isfinite(loss) for row in curve["losses"] for loss in row)
    assert curve["losses"][0][0] == pytest.approx(math.log(3), abs=0.3)
    assert seconds > 0


def test_split_and_copied_parameters_have_the_same_curve(world_of):
    found = [world_of(2).run(ranges.found, wrap=wrap, steps=20, stop=0.01)[0][0] for wrap in WRAPS]
    for rows in zip(*(curve["losses"] for curve in found), strict=True):
        assert rows[0] == pytest.approx(rows[1], rel=1e-4)


@pytest.mark.parametrize("wrap", WRAPS)
def test_all_ranks_stop_when_one_of_them_goes_off(world_of, wrap):
    ranks = world_of(2).run(ranges.apart, wrap=wrap)
    assert ranks[0] == ranks[1]
    (diverged, steps, _), (not_finite, fewer, _) = ranks[0]
    assert diverged == ("diverged",)
    assert not_finite == ("not finite",)
    assert fewer < steps < 40


def test_a_loss_that_is_missing_on_one_rank_is_an_error_on_all(world_of):
    first, second = world_of(2).run(ranges.refused, wrap="ddp")
    assert first == "step must be what gives one number as loss, got None; return it"
    assert second == ("range_test: what was seen must be a number on every rank; on one it was not")
