"""matplotlib draws what the preview holds: axes, extents, series; light and dark."""

import xml.etree.ElementTree as ET

import matplotlib as mpl
import numpy as np
import pytest
from matplotlib.figure import Figure
from tests.look.test_preview import PICTURES

from stepsize import Cosine, FieldError, Horizon, Linear, SpecError, Warmup, one_cycle, preview
from stepsize.plot import draw, plot, save


@pytest.mark.parametrize("name", PICTURES)
def test_a_figure_shows_what_the_preview_holds(name):
    found = PICTURES[name]()
    figure = plot(found)
    assert len(figure.axes) == len(found.panels)
    for axes, panel in zip(figure.axes, found.panels, strict=True):
        assert axes.get_xlim() == pytest.approx((panel.x.low, panel.x.high))
        low, high = axes.get_ylim()
        assert low <= panel.y.low
        assert high >= panel.y.high
        assert axes.get_xlabel() == panel.x.name
        assert (axes.get_xscale(), axes.get_yscale()) == tuple(
            "log" if a.log else "linear" for a in (panel.x, panel.y)
        )
        curves = [line for line in axes.lines if len(line.get_xdata()) > 2]
        assert len(curves) == len(panel.series)
        for line, series in zip(curves, panel.series, strict=True):
            assert np.array_equal(line.get_xydata(), np.array(series.points))
        names = [text.get_text() for text in axes.get_legend().texts] if axes.get_legend() else []
        assert names == [series.name for series in panel.series if series.name]


def test_parts_are_named_where_they_begin():
    (axes,) = plot(Warmup(10) >> Cosine(90)).axes
    assert [text.get_text() for text in axes.texts] == ["Warmup", "Cosine"]
    assert axes.texts[1].xy[0] == pytest.approx(0.1)


def test_labels_say_what_is_drawn():
    labels = [axes.get_ylabel() for axes in plot(one_cycle(), Horizon(100)).axes]
    assert labels == ["lr factor", "momentum"]
    assert plot(Cosine(10), base=0.1).axes[0].get_ylabel() == "value"


def luminance(colour):
    return sum(mpl.colors.to_rgb(colour)) / 3


def test_dark_is_dark_and_lines_stand_out_on_both():
    for dark in (False, True):
        figure = plot({"a": Cosine(10), "b": Linear(10)}, dark=dark)
        paper = luminance(figure.get_facecolor())
        assert (paper < 0.2) is dark
        for axes in figure.axes:
            inks = [line.get_color() for line in axes.lines]
            inks += [text.get_color() for text in axes.get_xticklabels()] + [
                axes.xaxis.label.get_color()
            ]
            assert all(abs(luminance(ink) - paper) > 0.25 for ink in inks)


def test_many_groups_get_shades_and_a_short_legend():
    figure = plot({f"layer {i}": 0.9**i * Cosine(10) for i in range(30)})
    (axes,) = figure.axes
    assert len({line.get_color() for line in axes.lines}) == 30
    assert len(axes.get_legend().texts) <= 12


@pytest.mark.parametrize("ending", [".png", ".svg", ".pdf"])
def test_files_are_written_and_the_same_each_time(ending, tmp_path):
    one, two = tmp_path / f"one{ending}", tmp_path / f"two{ending}"
    for path in (one, two):
        save(Warmup(10) >> Cosine(90), path)
    assert one.read_bytes() == two.read_bytes()
    if ending == ".svg":
        tree = ET.fromstring(one.read_text())  # noqa: S314 (our own text)
        words = [text.text for text in tree.iter() if text.tag.endswith("text")]
        assert "Warmup" in words


def test_what_is_asked_wrongly(tmp_path):
    with pytest.raises(SpecError, match="a picture ends in .png, .svg or .pdf"):
        save(Cosine(10), tmp_path / "lr.bmp")
    with pytest.raises(SpecError, match="there is no folder"):
        save(Cosine(10), tmp_path / "nowhere" / "lr.png")
    with pytest.raises(FieldError, match="axes must be matplotlib axes"):
        draw(None, preview(Cosine(10)).panels[0])


def test_axes_of_your_own():
    axes = Figure().subplots()
    draw(axes, preview(Cosine(10)).panels[0])
    assert axes.get_xlim() == (0.0, 10.0)
