"""The difference of two schedules."""

import pytest

from stepsize import (
    Cosine,
    FieldError,
    Horizon,
    Linear,
    Plan,
    Step,
    Warmup,
    difference,
    one_cycle,
)

RUN = Horizon("9ep", batches_per_epoch=100)


def test_where_two_schedules_differ():
    found = difference(Warmup("1ep") >> Cosine(), Warmup("1ep") >> Cosine(stop=0.1), RUN)
    (gap,) = found.gaps
    assert not found.same
    assert gap.changes == ("parts[1].stop: 0 became 0.1",)
    assert gap.first_at == 101
    assert (gap.largest_at, gap.largest) == (899, pytest.approx(0.1, rel=1e-4))
    values = [(Warmup(100) >> Cosine(800, stop=stop)).compile() for stop in (0.0, 0.1)]
    assert gap.values == tuple(value(899.0) for value in values)
    assert gap.means == pytest.approx(
        [sum(value(float(t)) for t in range(900)) / 900 for value in values]
    )
    assert "differ from step 101 on, most at step 899" in str(found)


def test_the_same_values_written_differently():
    found = difference(Step("3ep"), Step(300), RUN)
    assert found.same
    assert str(found) == "the same values though they are written differently"
    assert str(difference(Step(3), Step(3), RUN)) == "the same values"


def test_the_picture_has_both_and_their_difference():
    found = difference(Cosine(100), Linear(100), names=("cosine", "linear")).picture
    both, gap = found.panels
    assert [series.name for series in both.series] == ["cosine", "linear"]
    assert gap.title == "linear - cosine"
    assert gap.y.low == pytest.approx(-0.105, abs=1e-3)
    assert gap.y.high == pytest.approx(0.105, abs=1e-3)


def test_plans_are_compared_key_by_key():
    slow = one_cycle(form="fastai")
    found = difference(one_cycle(), slow, RUN, base=0.1)
    assert [gap.title for gap in found.gaps] == ["lr", "momentum"]
    assert len(found.picture.panels) == 4
    with pytest.raises(FieldError, match="the two must be of the same hyper-parameters"):
        difference(one_cycle(), Plan(lr=Cosine()), RUN)
    with pytest.raises(FieldError, match="names must be two different names"):
        difference(Cosine(9), Cosine(9), names=("a", "a"))


def test_units_of_the_difference():
    found = difference(Cosine("4h"), Linear("4h"), Horizon("4h"))
    assert found.gaps[0].unit == "hours"
    epochs = difference(Cosine(), Linear(), RUN, unit="epochs")
    assert epochs.gaps[0].unit == epochs.picture.panels[0].x.name == "epochs"
