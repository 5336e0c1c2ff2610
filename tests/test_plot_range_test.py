"""The picture of a range test: what is drawn, and that it is drawn the same each time."""

import numpy as np
import pytest

from stepsize.finding import RangeCurve, RangeTest
from stepsize.plot import range_test, save

RATES = [1e-6 * 10 ** (i * 7 / 99) for i in range(100)]


def found(repeats=3, stop=100, scores=False):
    draw = np.random.default_rng(1)
    rows = [
        [2.3 - 1.5 / (1 + (3e-3 / r) ** 1.5) + 300 * r**2 + draw.normal(0, 0.03) for r in RATES]
        for _ in range(repeats)
    ]
    told = [[1 - loss / 3 for loss in row[:stop]] for row in rows] if scores else ()
    return RangeTest(RangeCurve(RATES[:stop], [row[:stop] for row in rows], told), steps=stop)


def names(figure):
    return [text.get_text() for text in figure.axes[0].texts]


def test_there_is_a_line_for_each_repeat_one_for_all_and_one_for_the_rate():
    test = found()
    lines = range_test(test).axes[0].get_lines()
    assert len(lines) == 5
    assert list(lines[-1].get_xdata()) == [test.rate, test.rate]
    assert lines[3].get_linewidth() > lines[0].get_linewidth()


def test_the_band_is_the_spread():
    test = found()
    (band,) = range_test(test).axes[0].patches
    ends = band.get_x(), band.get_x() + band.get_width()
    assert ends == pytest.approx((test.suggestion.low, test.suggestion.high))


def test_the_band_of_a_loss_that_still_falls_goes_to_the_end():
    test = found(stop=60)
    assert test.suggestion.high is None
    (band,) = range_test(test).axes[0].patches
    assert band.get_x() + band.get_width() == pytest.approx(test.curve.rates[-1])
    assert "on)" in range_test(test).axes[0].get_title(loc="left")


def test_every_rule_on_the_axis_is_named():
    assert set(names(range_test(found()))) == {"steepest", "valley", "slide", "minimum / 10"}


def test_accuracies_have_an_axis_and_smiths_bounds():
    figure = range_test(found(scores=True))
    assert figure.axes[1].get_ylabel() == "accuracy"
    assert {"Smith, from", "Smith, to"} <= set(names(figure))


def test_a_curve_without_an_answer_says_so():
    flat = RangeTest(RangeCurve(RATES, [[1.0] * 100]))
    assert range_test(flat).axes[0].get_title(loc="left").startswith("no rate")


@pytest.mark.parametrize("ending", [".png", ".svg"])
def test_files_are_the_same_each_time(tmp_path, ending):
    for name in ("a", "b"):
        save(found(), tmp_path / f"{name}{ending}")
    assert (tmp_path / f"a{ending}").read_bytes() == (tmp_path / f"b{ending}").read_bytes()


def test_dark_is_dark():
    assert range_test(found(), dark=True).get_facecolor()[:3] < (0.2, 0.2, 0.2)
