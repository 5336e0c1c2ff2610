"""The result of a range test: what it prints, draws and keeps."""

import math

import numpy as np
import pytest

from stepsize.finding import RangeCurve, RangeTest

RATES = [1e-6 * 10 ** (i * 7 / 99) for i in range(100)]


def found(repeats=3, scores=False, ratios=(("0", 1.0),)):
    draw = np.random.default_rng(1)
    rows = [
        [2.3 - 1.5 / (1 + (3e-3 / r) ** 1.5) + 300 * r**2 + draw.normal(0, 0.03) for r in RATES]
        for _ in range(repeats)
    ]
    told = [[1 - loss / 3 for loss in row] for row in rows] if scores else ()
    return RangeTest(RangeCurve(RATES, rows, told), steps=100, ratios=ratios)


def test_the_text_has_the_curve_the_rate_and_what_others_say():
    test = found()
    text = test.text(width=40, height=6)
    assert "learning rate" in text
    assert f"{test.rate:.2g} (" in text
    for name in ("steepest", "valley", "slide", "minimum / 10"):
        assert name in text
    assert str(test) == test.text()


def test_every_group_has_its_rate():
    test = found(ratios=(("body", 1.0), ("head", 0.1)))
    assert test.rates == {"body": test.rate, "head": 0.1 * test.rate}
    assert "of each group: body" in test.text()


def test_there_are_no_rates_where_there_is_none():
    flat = RangeTest(RangeCurve(RATES, [[1.0] * 100]), ratios=(("0", 1.0),))
    assert (flat.rate, flat.rates) == (None, {})
    assert "no rate: " in flat.text()


def test_the_picture_is_cut_where_the_loss_rises_far():
    panel = found().panel()
    assert panel.y.high < 4.0
    assert all(y <= panel.y.high for series in panel.series for _, y in series.points)
    assert found()._repr_svg_().startswith("<svg")


def test_smiths_bounds_are_given_with_accuracies_alone():
    assert found().smith is None
    test = found(scores=True)
    assert 1e-4 < test.smith.base < test.smith.most
    assert "Smith's bounds" in test.text()


def test_what_is_kept_can_be_read_by_people():
    told = found().to_dict()
    assert told["format"] == 1
    assert told["suggestion"]["rate"] == found().rate
    assert math.isfinite(told["rules"]["steepest"])


def test_losses_that_are_never_finite_have_a_text_and_a_picture():
    test = RangeTest(RangeCurve(RATES, [[math.nan] * 100]))
    assert "no rate: the loss diverged" in test.text()
    assert test._repr_svg_().startswith("<svg")


@pytest.mark.parametrize(("rate", "ramp"), [(0.1, "geometric"), (0.0, "linear")])
def test_a_curve_of_one_step_has_a_text_and_a_picture(rate, ramp):
    test = RangeTest(RangeCurve([rate], [[1.0]]), ramp=ramp)
    assert "too short" in test.text()
    assert test._repr_svg_().startswith("<svg")
