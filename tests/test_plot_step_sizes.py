"""The picture of step sizes: what is drawn, on which axes. Never pixels of a font."""

import math

import numpy as np
import pytest

from stepsize import FieldError
from stepsize.look.spreads import Spread, Spreads, StepSizeHistory
from stepsize.plot import save, step_sizes

SHARES = (0.0, 0.05, 0.25, 0.5, 0.75, 1.0)


def history(names=("body", "head"), steps=(1, 10, 20), schedule=0.5, shares=SHARES):
    def spread(i, step):
        middle = 10.0**-i / step
        return Spread({q: middle * 10 ** (q - 0.5) for q in shares}, 9, 9, schedule)

    rows = [(t, Spreads({name: spread(i, t) for i, name in enumerate(names)})) for t in steps]
    return StepSizeHistory(rows)


def thick(axes):
    return [line for line in axes.lines if line.get_linewidth() > 1.5]


def test_medians_are_drawn_on_a_log_axis_with_a_colour_for_each_group():
    found = history()
    top, below = step_sizes(found).axes
    assert (top.get_yscale(), top.get_ylabel(), top.get_xlabel()) == ("log", "step size", "")
    assert (below.get_yscale(), below.get_ylabel(), below.get_xlabel()) == (
        "linear",
        "schedule",
        "steps",
    )
    for line, name in zip(thick(top), ("body", "head"), strict=True):
        assert np.allclose(line.get_xydata(), [(t, s.median) for t, s in found.of(name)])
    assert [text.get_text() for text in top.get_legend().texts] == ["body", "head"]
    assert len({line.get_color() for line in top.lines}) == 2
    assert top.get_xlim() == below.get_xlim() == (1, 20)


def test_bands_pair_the_quantiles_and_thin_lines_are_the_extremes():
    top, _ = step_sizes(history()).axes
    assert len(top.collections) == 2  # the quartiles of each; p5 has no partner
    corners = top.collections[0].get_paths()[0].vertices[:, 1]
    assert (corners.min(), corners.max()) == pytest.approx((10**-0.25 / 20, 10**0.25))
    thin = [line.get_ydata() for line in top.lines if line.get_linewidth() < 1]
    assert len(thin) == 4
    assert thin[0] == pytest.approx([10**-0.5 / t for t in (1, 10, 20)])
    low, high = top.get_ylim()
    assert low <= min(map(min, thin))
    assert high >= max(map(max, thin))


def test_below_is_what_the_schedule_does():
    _, below = step_sizes(history()).axes
    assert all(set(line.get_ydata()) == {0.5} for line in below.lines)
    low, high = below.get_ylim()
    assert low <= 0
    assert high > 0.5
    assert len(step_sizes(history(schedule=None)).axes) == 1


def test_of_many_layers_there_are_medians_alone():
    top, _ = step_sizes(history([f"layer {i}" for i in range(9)])).axes
    assert len(thick(top)) == len({line.get_color() for line in top.lines}) == len(top.lines) == 9
    assert not top.collections


def test_pairs_of_steps_and_spreads_will_do():
    axes, *_ = step_sizes(history().rows).axes
    assert len(thick(axes)) == 2


def test_one_step_and_zeros_and_what_is_no_number_can_be_drawn():
    (axes, _) = step_sizes(history(steps=(7,))).axes
    assert axes.get_xlim() == (7, 8)
    rows = history().rows
    nothing = {0.0: 0.0, 0.25: 0.0, 0.5: math.inf, 0.75: math.inf, 1.0: math.inf}
    rows.append((30, Spreads({"body": Spread(nothing, 9, 9), "head": Spread({}, 0, 9)})))
    top, _ = step_sizes(rows).axes
    assert len(thick(top)[0].get_xdata()) == 3
    assert all(map(math.isfinite, top.get_ylim()))


def test_dark_is_dark():
    assert sum(step_sizes(history(), dark=True).get_facecolor()[:3]) < 0.6


def test_nothing_to_draw():
    for empty in ([], [(1, Spreads({"a": Spread({}, 0, 5)}))], history(shares=(0.1,))):
        with pytest.raises(FieldError, match="of medians above 0"):
            step_sizes(empty)


@pytest.mark.parametrize("ending", [".png", ".svg"])
def test_files_are_the_same_each_time(ending, tmp_path):
    one, two = tmp_path / f"one{ending}", tmp_path / f"two{ending}"
    for path in (one, two):
        save(history(), path, dark=True)
    assert one.read_bytes() == two.read_bytes()
