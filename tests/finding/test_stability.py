"""Courses of rates and limits, and the warmup that they ask for, by hand and against searches."""

import json
import math

import numpy as np
import pytest

from stepsize import FieldError, SpecError, Warmup
from stepsize.finding.stability import Moment, StabilityCourse, stable_rate
from stepsize.finding.studies import Trained, WarmupStudy
from stepsize.finding.warmup import recommend_warmup


def course_of(limits, rate=0.1, first=0, **more):
    return StabilityCourse(
        tuple(Moment(first + t, rate, limit=x, **more) for t, x in enumerate(limits))
    )


def rising(steps=40, start=0.1, stop=4.0):
    """Give limits that rise and stay up."""
    return [min(start + t * (stop - start) / 20, stop) for t in range(steps)]


# The limit itself -------------------------------------------------------------------------------


def radius(x, momentum, dampening, nesterov):
    """Give the largest root of the two-step recurrence of (place, buffer) in size."""
    g = (1 - dampening) * x
    buffer = np.array([g, momentum])  # of the new buffer: part of the place, of the old buffer
    step = np.array([g, 0.0]) + momentum * buffer if nesterov else buffer
    return max(abs(np.linalg.eigvals(np.array([np.array([1.0, 0.0]) - step, buffer]))))


@pytest.mark.parametrize("momentum", [0.0, 0.3, 0.9, 0.99])
@pytest.mark.parametrize("dampening", [0.0, 0.5, 0.9])
@pytest.mark.parametrize("nesterov", [False, True])
def test_the_limit_is_where_a_root_leaves_the_unit_circle(momentum, dampening, nesterov):
    limit = stable_rate(3.0, momentum, dampening, nesterov=nesterov)
    radii = [radius(3.0 * part * limit, momentum, dampening, nesterov) for part in (0.9999, 1.0001)]
    assert radii[0] < 1 < radii[1]
    for part in (0.1, 0.5, 0.9):
        assert radius(3.0 * part * limit, momentum, dampening, nesterov) < 1


def test_without_curvature_there_is_no_limit():
    assert stable_rate(0.0) == stable_rate(-2.0, 0.9) == math.inf
    with pytest.raises(FieldError, match="sharpness must be a number"):
        stable_rate(math.nan)


# Courses ----------------------------------------------------------------------------------------


def test_a_course_tells_where_the_rate_was_too_large():
    course = course_of([None, 0.05, 0.2, 0.08, math.inf])
    assert [m.step for m in course.known] == [1, 2, 3, 4]
    assert [m.step for m in course.violations] == [1, 3]
    assert course.worst == 2.0
    assert course[0].share is None
    assert course[4].share == 0.0
    assert "above the stability limit at 2 of 4 moments, by a factor of 2 at worst" in str(course)
    assert "at steps 1, 3" in str(course)


def test_a_course_without_limits_says_so():
    course = course_of([None, None])
    assert course.worst is None
    assert str(course).startswith("no stability limit is known")
    assert str(course_of([1.0])).startswith("the rate stayed below the stability limit at all 1")
    assert "0, 1, 2, 3, 4, 5 ... 9" in str(course_of([0.01] * 10))


def test_a_course_goes_through_json():
    course = course_of([None, math.inf, 0.1], sharpness=2.0, loss=math.nan, update=0.5)
    told = json.loads(json.dumps(course.to_dict(), allow_nan=False))
    back = StabilityCourse.from_dict(told)
    assert math.isnan(back[0].loss)
    assert back.to_dict() == course.to_dict()
    assert [m.limit for m in back] == [None, math.inf, 0.1]
    for wrong in ({}, {"format": "other"}, []):
        with pytest.raises(SpecError, match="a course of stability has 'format'"):
            StabilityCourse.from_dict(wrong)


def test_a_course_is_in_order():
    with pytest.raises(FieldError, match="in the order of their steps"):
        StabilityCourse((Moment(1, 0.1), Moment(0, 0.1)))


def test_a_long_table_shows_some_rows():
    assert len(course_of([1.0] * 100).table(most=10).splitlines()) == 11
    assert "not" not in course_of([1.0]).table()


# Advice -----------------------------------------------------------------------------------------


def least_by_search(limits, rate, margin):
    """Try every length on the schedule itself."""
    for steps in range(1000):
        factor = Warmup(steps) if steps else lambda t: 1.0
        if all(rate * factor(t) <= margin * limit for t, limit in enumerate(limits)):
            return steps
    return None


@pytest.mark.parametrize("rate", [0.05, 0.3, 1.0, 3.0])
@pytest.mark.parametrize("margin", [1.0, 0.5])
def test_by_steps_it_is_the_shortest_that_keeps_below_the_limit(rate, margin):
    limits = rising()
    found = recommend_warmup(course_of(limits), rate, margin=margin, along="steps")
    counted = limits[: -len(limits) // 4]
    assert found.steps == least_by_search(counted, rate, margin)


def simulated(limit_at, rate, steps, until):
    """Walk along a path with a warmup; tell whether the rate was ever above the limit there."""
    place, t = 0.0, 0
    while place < until:
        now = rate * min((t + 1) / (steps + 1), 1.0)
        if now > limit_at(place) * (1 + 1e-9):
            return False
        place, t = place + now, t + 1
    return True


@pytest.mark.parametrize("rate", [0.3, 1.0])
def test_by_path_it_keeps_below_the_limit_of_the_place_it_is_at(rate):
    def limit_at(place):
        return 0.05 + 0.5 * place

    fine = 0.001
    course = course_of([limit_at(fine * t) for t in range(8000)], rate=fine)
    found = recommend_warmup(course, rate)
    assert found.steps > 2
    until = 0.75 * 8000 * fine
    assert simulated(limit_at, rate, found.steps, until)
    assert not simulated(limit_at, rate, int(0.8 * found.steps), until)


def test_a_rate_that_is_never_too_large_needs_no_warmup():
    found = recommend_warmup(course_of(rising()), 0.1)
    assert found.steps == 0
    assert "at the start the limit is above the rate" in found.why
    assert str(found).startswith("no warmup needed to a rate of 0.1: ")


def test_what_comes_after_the_opening_is_told_and_not_counted():
    limits = [0.5, 0.8, *([2.0] * 10), 0.6, *([2.0] * 10)]
    found = recommend_warmup(course_of(limits), 1.0, along="steps")
    assert found.steps == 2
    assert found.throughout == least_by_search(limits[:-5], 1.0, 1.0) > found.steps
    assert "It falls below the rate again at 1 later moment." in found.why
    never = recommend_warmup(course_of(limits[2:]), 1.0, along="steps")
    assert (never.steps, never.throughout > 0) == (0, True)


def test_a_rate_that_is_too_large_at_the_end_has_no_warmup():
    found = recommend_warmup(course_of(rising(stop=1.0)), 2.0)
    assert found.steps is None
    assert "a warmup only puts off" in found.why
    assert str(found).startswith("no warmup helps")


def test_along_the_edge_of_stability_the_beginning_decides():
    found = recommend_warmup(course_of([0.1, 0.5, *([1.5] * 20), *([0.95] * 10)]), 1.0)
    assert found.steps is not None
    assert "edge of stability, which no warmup changes" in found.why


def test_the_advice_says_that_the_limit_depends_on_the_path():
    for rate in (0.05, 1.0, 100.0):
        assert "depends on the path" in recommend_warmup(course_of(rising()), rate).why


def test_no_length_may_be_enough():
    found = recommend_warmup(course_of([1e-9, *rising()]), 1.0, most=50)
    assert found.steps is None
    assert "one of 50 steps goes over the limit too" in found.why


def test_steps_between_the_moments_count():
    fine = course_of(rising(), rate=0.05)
    coarse = StabilityCourse(tuple(m for m in fine if m.step % 4 == 0))
    lengths = [recommend_warmup(c, 2.0).steps for c in (fine, coarse)]
    assert lengths[1] == pytest.approx(lengths[0], rel=0.2)


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"rate": 0.0}, "rate must be"),
        ({"margin": 1.5}, "margin must be"),
        ({"most": 0}, "most must be"),
        ({"along": "time"}, "along must be 'path' or 'steps'"),
    ],
    ids=str,
)
def test_advice_on_nonsense_is_refused(settings, told):
    with pytest.raises(FieldError, match=told):
        recommend_warmup(course_of(rising()), **({"rate": 1.0} | settings))
    with pytest.raises(FieldError, match="course must be of moments with a limit"):
        recommend_warmup(course_of([None]), 1.0)


# Studies ----------------------------------------------------------------------------------------


def study():
    wild = Trained(0, 0, course_of([0.1, 0.1], rate=1.0, loss=math.nan), {}, finished=False)
    calm = Trained(0, 5, course_of(rising(), loss=0.25), {"accuracy": 0.5})
    calmer = Trained(1, 5, course_of(rising(start=0.4), loss=0.75), {"accuracy": 0.75})
    return WarmupStudy(1.0, 40, (wild, calm, calmer))


def test_a_study_tells_each_run_and_its_advice():
    text = str(study())
    assert "no warmup: 1 of 1 runs went over the limit; none came to its end" in text
    assert "warmup of 5: 0 of 2 runs went over the limit; median loss 0.5" in text
    asked = [recommend_warmup(run.course, 1.0).steps for run in study().of(5)]
    assert study().advice().steps == max(asked) > min(asked)


def test_a_study_goes_through_json():
    told = json.loads(json.dumps(study().to_dict(), allow_nan=False))
    back = WarmupStudy.from_dict(told)
    assert back.to_dict() == study().to_dict()
    assert str(back) == str(study())
    with pytest.raises(SpecError, match="a warmup study has 'format'"):
        WarmupStudy.from_dict({"format": 2})


def test_a_study_whose_runs_all_failed_has_no_advice():
    assert WarmupStudy(1.0, 40, study().runs[:1]).advice().steps is None
