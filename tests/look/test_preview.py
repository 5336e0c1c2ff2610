"""Pictures show what they must: axes, extents, series. Never pixels of a font."""

import json
import math
import re
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.laws.examples import trees

from stepsize import (
    Constant,
    Cosine,
    FieldError,
    Horizon,
    Linear,
    OneMinusSqrt,
    Plan,
    PowerLaw,
    Preview,
    Step,
    UnitError,
    Warmup,
    cyclic,
    difference,
    inverse_sqrt,
    one_cycle,
    preview,
    sgdr,
    wsd,
)
from stepsize.drawing.series import Axis, spoken, survey, thinned

STORED = Path(__file__).with_name("pictures")
IMAGENET = Horizon("90ep", batches_per_epoch=391)
RAMP = Horizon("2e7 tok", batch_size=Linear(500, start=16, stop=128), tokens_per_sample=256)
PICTURES = {
    "warmup_cosine": lambda: preview(Warmup("5%") >> Cosine(stop=0.1), IMAGENET, unit="epochs"),
    "several": lambda: preview(
        {
            "cosine": Warmup("5%") >> Cosine(),
            "wsd": wsd(along=OneMinusSqrt),
            "step": Step("30ep"),
            "restarts": sgdr("12.857143ep", growth=2),
        },
        IMAGENET,
    ),
    "plan": lambda: preview(one_cycle(), IMAGENET, unit="%", base=0.1),
    "tokens": lambda: preview(
        Warmup("1e6 tok") >> Constant("rest") >> OneMinusSqrt("4e6 tok"), RAMP, unit="tokens"
    ),
    "wall_clock": lambda: preview(Warmup("1h") >> Cosine(), Horizon("12h")),
    "log": lambda: preview(inverse_sqrt(4000), Horizon(10_000_000), log_x=True, log_y=True),
    "difference": lambda: difference(Cosine(), Linear(stop=0.1), IMAGENET).picture,
}


def told(found: Preview):
    """What a picture must show, as plain data: every axis, every series at eleven places."""
    return [
        {
            "title": panel.title,
            "axes": [[a.name, float(f"{a.low:.9g}"), float(f"{a.high:.9g}"), a.log] for a in (panel.x, panel.y)],
            "series": {
                s.name or "-": {
                    "parts": [[round(at, 6), name] for at, name in s.parts],
                    "values": [float(f"{level(s, panel.x.at(i / 10)):.4g}") for i in range(11)],
                }
                for s in panel.series
            },
        }
        for panel in found.panels
    ]  # fmt: skip


def level(series, x):
    """The value of a drawn line at a place of the axis."""
    before = [p for p in series.points if p[0] <= x * (1 + 1e-12)] or [series.points[0]]
    after = [p for p in series.points if p[0] >= x] or [series.points[-1]]
    (x0, y0), (x1, y1) = before[-1], after[0]
    return y0 if x1 <= x0 else y0 + (y1 - y0) * (x - x0) / (x1 - x0)


@pytest.mark.parametrize("name", PICTURES)
def test_a_picture_shows_what_the_stored_one_shows(name):
    found = told(PICTURES[name]())
    stored = json.loads((STORED / f"{name}.json").read_text())
    assert [panel["title"] for panel in found] == [panel["title"] for panel in stored]
    for panel, old in zip(found, stored, strict=True):
        assert panel["axes"] == old["axes"]
        assert list(panel["series"]) == list(old["series"])
        for series, was in zip(panel["series"].values(), old["series"].values(), strict=True):
            assert series["parts"] == was["parts"]
            assert series["values"] == pytest.approx(was["values"], rel=2e-3, abs=1e-9)


def test_no_stored_picture_is_forgotten():
    assert {p.stem for p in STORED.glob("*.json")} == set(PICTURES)


@pytest.mark.parametrize("name", PICTURES)
def test_svg_shows_the_same_extents(name):
    found = PICTURES[name]()
    tree = ET.fromstring(found.svg())  # noqa: S314 (our own text)
    groups = tree.findall("{*}g")
    assert len(groups) == len(found.panels)
    for group, panel in zip(groups, found.panels, strict=True):
        paths = group.findall("{*}path")
        assert len(paths) == len(panel.series)
        for path in paths:
            xs, ys = zip(*re.findall(r"([\d.]+) ([\d.]+)", path.get("d")), strict=True)
            assert float(min(xs, key=float)) == pytest.approx(56, abs=1)
            assert float(max(xs, key=float)) == pytest.approx(626, abs=2)
            assert min(map(float, ys)) >= 13
            assert max(map(float, ys)) <= 211
        words = [text.text for text in group.findall("{*}text")]
        assert f"{spoken(panel.x.high)} {panel.x.name}" in words


def test_text_names_axes_parts_and_curves():
    text = preview(Warmup("5ep") >> Cosine(), IMAGENET, unit="epochs", base=0.1).text(height=5)
    assert "90 epochs" in text
    assert "Warmup from 0, Cosine from 5" in text
    assert text.startswith("      0.1 ┤")
    several = preview({"one": Linear(10), "two": Cosine(10)}).text(width=30)
    assert re.search(r"a one\n\s*b two", several)
    assert {"a", "b"} <= set(several)


def test_colours_are_written_where_they_are_asked_for():
    found = preview({"one": Linear(10), "two": Cosine(10)})
    assert "\x1b[" not in found.text()
    painted = found.text(paint=True)
    assert "\x1b[34m" in painted
    assert "\x1b[33m" in painted
    # the two are told apart by colour, so both are drawn as dots
    assert re.sub(r"\x1b\[\d+m", "", painted).count("━━") == 2


def test_a_curve_is_drawn_over_the_steps_that_training_takes():
    restarts = sgdr(10, growth=2)
    points = preview(restarts, Horizon(30)).panels[0].series[0].points
    # each step's value until the next step; the restart at step 30 is no step of the run
    assert points == tuple((t + i, restarts(t)) for t in range(30) for i in (0.0, 1.0))
    assert preview(Cosine(100)).panels[0].series[0].points[-1] == (99.0, Cosine(100)(99))
    long = preview(Cosine(), Horizon(10_000_000)).panels[0].series[0].points
    assert long[-1] == (9_999_999.0, Cosine(1e7)(9_999_999))


@pytest.mark.parametrize("period", [2, 7, 100, 1000, 9973])
def test_no_period_hides_from_a_long_picture(period):
    points = preview(cyclic(period, low=0.0), Horizon(10_000_000)).panels[0].series[0].points
    for begin in (0, 3_000_000, 9_900_000):
        seen = [v for t, v in points if begin <= t < begin + 100_000]
        assert min(seen) < 0.2
        assert max(seen) > 0.8


def test_a_spike_between_parts_is_seen():
    spike = Constant(4_999_999, 0.1) >> Constant(1, 1.0) >> Constant(value=0.1)
    assert max(v for _, v in preview(spike, Horizon(10_000_000)).panels[0].series[0].points) == 1.0


def test_units_of_time():
    recipe = Warmup("5%") >> Cosine()
    ends = {
        unit: preview(recipe, Horizon("9ep", batches_per_epoch=50, batch_size=8, tokens_per_sample=4),
                      unit=unit).panels[0].x.high
        for unit in ("steps", "st", "epochs", "samples", "tokens", "%")
    }  # fmt: skip
    assert ends == {
        "steps": 450,
        "st": 450,
        "epochs": 9,
        "samples": 3600,
        "tokens": 14400,
        "%": 100,
    }
    hours = preview(recipe, Horizon(7200), unit="time", seconds_per_step=2.0).panels[0].x
    assert (hours.name, hours.high) == ("hours", 4.0)
    both = preview(
        {"clock": Warmup("1h") >> Cosine(), "steps": Linear(3600)},
        Horizon("2h"),
        seconds_per_step=2.0,
    )
    assert both.panels[0].x.high == 3600
    at = {s.name: dict(s.points)[1800.0] for s in both.panels[0].series}
    assert at == {"clock": 1.0, "steps": 0.5}


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: preview(Cosine()), "which need a horizon to become numbers: give Horizon"),
        (lambda: preview(Cosine(10), unit="parsecs"), "unit must be one of steps, epochs"),
        (lambda: preview(Cosine(10), unit="epochs"), "give Horizon\\(batches_per_epoch="),
        (lambda: preview(Cosine(10), unit="hours"), "give seconds_per_step="),
        (lambda: preview([Cosine("2h"), Linear(9)], Horizon("3h")), "cannot be shown together"),
        (lambda: preview(Cosine("2h"), Horizon("3h"), unit="steps"), "wall-clock time cannot be"),
        (lambda: preview(Cosine(9), Horizon("3h")), "has no steps: give seconds_per_step="),
        (lambda: preview(Cosine("2h"), Horizon(100)), "wall-clock time cannot be mixed"),
        (lambda: preview(3e-4), "what to look at must be a schedule, a plan, or several"),
        (lambda: preview({}), "what to look at must be a schedule"),
        (lambda: preview({"a": 0.1}), "'a' must be a schedule or a plan, got 0.1"),
        (lambda: preview(Cosine(9), horizon=9), "horizon must be a Horizon, got 9"),
        (lambda: preview(Cosine(9), base=-1.0), "base\\['lr'\\] must be a finite number > 0"),
        (lambda: preview(Cosine(9), base={"wd": 1.0}), "base: a key must be one of lr, got 'wd'"),
        (lambda: preview(Cosine(9), seconds_per_step=0), "seconds_per_step must be a finite"),
        (lambda: preview(Cosine(9)).text(width=1), "Preview.text: width must be a whole number"),
    ],
)
def test_wrong_questions_are_told_at_once(call, message):
    with pytest.raises((FieldError, UnitError), match=message):
        call()


def test_a_base_scales_factors_and_leaves_values():
    plan = Plan(lr=Linear(10), momentum=Constant(value=0.9).absolute())
    panels = preview(plan, base={"lr": 0.3, "momentum": 0.5}).panels
    assert panels[0].series[0].points[0] == (0.0, 0.3)
    assert panels[1].series[0].points[0] == (0.0, 0.9)
    assert [panel.y.name for panel in panels] == ["value", "value"]


@settings(max_examples=150)
@given(tree=trees(), total=st.sampled_from([1, 2, 17, 801, 30_000, 10_000_000]), log=st.booleans())
def test_every_schedule_can_be_drawn(tree, total, log):
    found = preview(tree, Horizon(total), log_x=log, log_y=log)
    panel = found.panels[0]
    assert panel.x.high == total
    assert all(0 <= x <= total and math.isfinite(y) for x, y in panel.series[0].points)
    exact = {tree(t) for t in range(total)} if total < 1000 else None
    assert exact is None or {y for _, y in panel.series[0].points} <= exact
    assert found.text(width=20, height=4).count("\n") >= 5
    ET.fromstring(found.svg())  # noqa: S314 (our own text)


def test_thinning_keeps_first_lowest_highest_and_last():
    axis = Axis("steps", 0.0, 1000.0)
    points = survey(lambda t: math.sin(t), 0.0, 1000.0, whole=True, columns=10)
    kept = thinned(points, axis, 10)
    assert len(kept) <= 40
    assert set(kept) <= set(points)
    assert max(v for _, v in kept) == max(v for _, v in points)
    assert (kept[0], kept[-1]) == (points[0], points[-1])


@pytest.mark.parametrize(
    ("axis", "ticks"),
    [
        (Axis("", 0.0, 1.0), [0, 0.2, 0.4, 0.6, 0.8, 1]),
        (Axis("", 0.0, 35190.0), [0, 10_000, 20_000, 30_000]),
        (Axis("", 0.85, 0.95), [0.86, 0.88, 0.9, 0.92, 0.94]),
        (Axis("", 1.0, 1e7, log=True), [1, 100, 1e4, 1e6]),
        (Axis("", 2.0, 5.0, log=True), [2, 5]),
    ],
)
def test_ticks_are_round(axis, ticks):
    assert axis.ticks() == pytest.approx(ticks)
    assert all(axis.at(axis.place(t)) == pytest.approx(t) for t in ticks)


def test_an_endless_schedule_without_a_horizon_shows_its_scale():
    assert preview(PowerLaw(0.5, 100)).panels[0].x.high >= 400


if __name__ == "__main__":  # writes the stored pictures anew: look at them before committing
    for name, make in PICTURES.items():
        (STORED / f"{name}.json").write_text(json.dumps(told(make()), indent=1) + "\n")
