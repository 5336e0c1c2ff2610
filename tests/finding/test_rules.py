"""Other people's rules, beside the numbers that their own code gives."""

import math

import numpy as np
import pytest

from stepsize.finding import RULES, RangeCurve, averaged, smith, steepest

BOTTOMS = (0.02, 0.3, 0.005)
# fastai 2.8.12's own `steep`, `valley`, `slide` and `minimum`, of `ramp(k)` smoothed as its
# Recorder does, stopped at four times the least, without the first tenth and the last five.
FASTAI = (
    (0.04534878508128582, 0.0027825594022071257, 0.00020565123083486514, 0.009545484566618346),
    (0.42292428743894983, 0.037649358067924715, 0.09545484566618347, 0.15556761439304723),
    (0.010235310218990268, 0.0013219411484660286, 0.0015922827933410938, 0.002595024211399737),
)


def ramp(k, count=100):
    rates = [1e-7 * (10 / 1e-7) ** (i / (count - 1)) for i in range(count)]
    bottom = BOTTOMS[k]
    losses = [
        2.3 - 1.9 / (1 + (bottom / r) ** 1.5) + 3 * (r / (8 * bottom)) ** 2
        + 0.15 * math.sin(7.3 * i * i + k)
        for i, r in enumerate(rates)
    ]  # fmt: skip
    return rates, losses


@pytest.mark.parametrize("k", range(3))
def test_fastais_four_rules_give_what_fastai_gives(k):
    found = [rule(*ramp(k)) for rule in RULES.values()]
    assert found == pytest.approx(FASTAI[k], rel=1e-12)


@pytest.mark.parametrize("name", sorted(RULES))
def test_a_rule_has_no_answer_for_a_few_points(name):
    assert RULES[name]([0.1, 0.2, 0.3], [3.0, 2.0, 1.0]) is None


@pytest.mark.parametrize("name", sorted(RULES))
def test_a_rule_does_not_see_losses_that_are_not_finite(name):
    rates, losses = ramp(0)
    found = RULES[name](rates, losses[:70] + [math.nan] * 30)
    assert found == RULES[name](rates, losses[:70] + [math.inf] + [1.0] * 29)
    assert 1e-4 < found < 1.0


def test_the_average_is_without_bias():
    assert averaged([2.0] * 50) == pytest.approx([2.0] * 50)


def test_the_steepest_slope_is_over_the_logarithm_of_the_rate():
    rates, losses = ramp(1)
    smooth = averaged(losses)
    per_rate = np.diff(smooth[10:80]) / np.diff(rates[10:80])
    lightnings = rates[10 + int(per_rate.argmin())]
    assert steepest(rates, losses) > 1e4 * lightnings  # what Lightning 2.6 looks at


def test_smiths_bounds_are_where_an_accuracy_begins_and_ends_to_rise():
    rates = [i / 100 for i in range(101)]
    scores = [0.1 + 0.8 * min(max(r - 0.2, 0) / 0.4, 1) + 0.01 * math.sin(i * i) for i, r in
              enumerate(rates)]  # fmt: skip
    found = smith(RangeCurve(rates, [[1.0] * 101], [scores]))
    assert 0.18 < found.base < 0.27
    assert 0.55 < found.most < 0.7


def test_smiths_upper_bound_is_before_a_fall():
    rates = [i / 100 for i in range(101)]
    scores = [min(r, 0.5) if r < 0.7 else 0.1 for r in rates]
    found = smith(RangeCurve(rates, [[1.0] * 101], [scores]))
    assert 0.45 < found.most < 0.6


def test_smith_gives_nothing_for_an_accuracy_that_stays():
    scores = [0.1 + 0.01 * math.sin(i * i) for i in range(101)]
    curve = RangeCurve([i / 100 for i in range(101)], [[1.0] * 101], [[0.1] * 101])
    assert smith(curve) is None
    noisy = RangeCurve(curve.rates, curve.losses, [scores])
    assert smith(noisy) is None


def test_smith_takes_losses_turned_over_where_there_are_no_accuracies():
    rates = [i / 100 for i in range(101)]
    losses = [2 - min(max(r - 0.2, 0) / 0.4, 1) for r in rates]
    found = smith(RangeCurve(rates, [losses]))
    assert 0.18 < found.base < 0.25
