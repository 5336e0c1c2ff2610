"""Our own rule: what it gives, how sure it is, and when it gives nothing."""

import math

import numpy as np
import pytest

from stepsize.errors import FieldError
from stepsize.finding import RangeCurve, suggest

RATES = [1e-7 * 10 ** (i * 8 / 99) for i in range(100)]


def ramp(seed=0, noise=0.05, bottom=0.02, top=2.3, low=0.6):
    """A loss that falls to `low` around `bottom` and then blows up."""
    draw = np.random.default_rng(seed)
    losses = []
    for rate in RATES:
        fall = (top - low) / (1 + (0.15 * bottom / rate) ** 1.5)
        losses.append(top - fall + 3 * (rate / (6 * bottom)) ** 2 + draw.normal(0, noise))
    return losses


def test_the_rate_is_where_the_loss_has_made_most_of_its_fall():
    found = suggest(RangeCurve(RATES, [ramp(i) for i in range(3)]))
    assert 0.003 < found.rate < 0.03
    assert found.low <= found.rate <= found.high
    assert "diverged" in found.why


@pytest.mark.parametrize("factor", [0.01, 1.0, 100.0])
def test_the_rate_scales_with_the_rates(factor):
    curve = RangeCurve(RATES, [ramp()])
    scaled = RangeCurve([factor * rate for rate in RATES], [ramp()])
    assert suggest(scaled).rate == pytest.approx(factor * suggest(curve).rate, rel=1e-9)


@pytest.mark.parametrize(("times", "plus"), [(3.0, 0.0), (1.0, -5.0), (0.01, 100.0)])
def test_the_rate_is_the_same_for_a_loss_in_other_units(times, plus):
    losses = [ramp(i) for i in range(3)]
    other = [[times * loss + plus for loss in row] for row in losses]
    mine, theirs = suggest(RangeCurve(RATES, losses)), suggest(RangeCurve(RATES, other))
    assert theirs.rate == pytest.approx(mine.rate, rel=1e-6)
    assert theirs.high == pytest.approx(mine.high, rel=1e-6)


def test_one_spike_moves_nothing():
    losses = ramp(noise=0.0)
    spiked = [*losses[:55], 50.0, *losses[56:]]
    mine, theirs = suggest(RangeCurve(RATES, [losses])), suggest(RangeCurve(RATES, [spiked]))
    assert theirs.rate == pytest.approx(mine.rate, rel=0.05)


def test_the_order_of_repeats_does_not_matter_for_the_rate():
    rows = [ramp(i) for i in range(3)]
    assert suggest(RangeCurve(RATES, rows)).rate == suggest(RangeCurve(RATES, rows[::-1])).rate


def test_the_same_curve_gives_the_same_spread():
    curve = RangeCurve(RATES, [ramp(1), ramp(2)])
    assert suggest(curve) == suggest(curve)


def test_more_noise_is_a_wider_spread():
    quiet, loud = (suggest(RangeCurve(RATES, [ramp(3, noise)])) for noise in (0.01, 0.2))
    assert loud.high / loud.low > 1.2 * quiet.high / quiet.low


def test_the_spread_holds_what_other_repeats_give():
    found = [suggest(RangeCurve(RATES, [ramp(i, 0.1)])) for i in range(20)]
    middle = sorted(each.rate for each in found)[10]
    assert sum(each.low <= middle <= each.high for each in found) >= 14


def test_a_repeat_that_diverged_early_counts_among_three():
    early = ramp(1)[:60]
    early[-6:] = [40.0] * 6
    found = suggest(RangeCurve(RATES, [early, ramp(2), ramp(3)]))
    assert 0.003 < found.rate < 0.03


def test_a_flat_curve_has_no_answer():
    draw = np.random.default_rng(0)
    flat = [2.3 + draw.normal(0, 0.1) for _ in RATES]
    found = suggest(RangeCurve(RATES, [flat]))
    assert (found.rate, found.low, found.high) == (None, None, None)
    assert "no rate that was tried moves it" in found.why


def test_a_curve_that_only_rises_says_from_where():
    draw = np.random.default_rng(0)
    losses = [0.5 + draw.normal(0, 0.1) + 5e3 * rate**2 for rate in RATES]
    found = suggest(RangeCurve(RATES, [losses]))
    assert found.rate is None
    assert "it rises from 0.0" in found.why


def test_a_constant_loss_has_no_answer():
    assert suggest(RangeCurve(RATES, [[1.0] * 100])).rate is None


def test_a_short_curve_has_no_answer():
    found = suggest(RangeCurve(RATES[:8], [ramp()[:8]]))
    assert found.rate is None
    assert "too short" in found.why


def test_losses_that_are_not_finite_at_once_have_no_answer():
    found = suggest(RangeCurve(RATES, [[math.nan] * 100]))
    assert found.rate is None
    assert "diverged" in found.why


def test_a_loss_that_still_falls_at_the_end_has_no_upper_end():
    found = suggest(RangeCurve(RATES[:70], [ramp(bottom=1.0)[:70]]))
    assert found.rate is not None
    assert found.high is None
    assert "go on to larger rates" in found.why
    assert "at least" in str(found)


def test_a_linear_ramp_may_begin_at_zero():
    rates = [i / 500 for i in range(100)]
    losses = [2.3 - 1.5 * min(rate / 0.05, 1.0) + 50 * max(rate - 0.1, 0.0) for rate in rates]
    found = suggest(RangeCurve(rates, [losses]))
    assert 0.02 < found.rate < 0.1


@pytest.mark.parametrize("share", [0.0, 1.0, 1.5, math.nan])
def test_a_share_is_part_of_the_fall(share):
    with pytest.raises(FieldError, match="share must be in"):
        suggest(RangeCurve(RATES, [ramp()]), share=share)


def test_a_flat_bottom_to_the_end_is_no_fall():
    draw = np.random.default_rng(0)
    losses = [(2.0 if rate < 1e-3 else 1.0) + draw.normal(0, 0.02) for rate in RATES]
    found = suggest(RangeCurve(RATES, [losses]))
    assert found.high is not None
    assert "stays there to the end of the ramp" in found.why


@pytest.mark.parametrize("others", [1, 2])
def test_a_repeat_without_one_finite_loss_leaves_the_others_theirs(others):
    rows = [ramp(i) for i in range(others)]
    found = suggest(RangeCurve(RATES, [[math.nan] * 100, *rows]))
    alone = suggest(RangeCurve(RATES, rows))
    assert found.rate == alone.rate
    assert f"{others + 1} of {others + 1} repeats" in found.why


def test_most_repeats_without_one_finite_loss_are_no_answer():
    found = suggest(RangeCurve(RATES, [[math.nan] * 100, [math.inf] * 100, ramp()]))
    assert found.rate is None
    assert "diverged at once" in found.why
