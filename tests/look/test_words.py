"""Words and numbers about schedules: each against a plain sum over every step."""

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.laws.examples import trees

from stepsize import (
    Constant,
    Cosine,
    Horizon,
    Linear,
    Plan,
    Warmup,
    describe,
    noam,
    one_cycle,
    sgdr,
)

RUN = Horizon("90ep", batches_per_epoch=391)


def test_the_facts_are_those_of_every_step():
    (facts,) = describe(Warmup("5ep") >> Cosine(stop=0.1), RUN, base=0.5).facts
    value = (0.5 * (Warmup(1955) >> Cosine(33_235, stop=0.1))).compile()
    every = [value(float(t)) for t in range(35_190)]
    assert (facts.first, facts.last, facts.peak) == (every[0], every[-1], max(every))
    assert facts.peak_at == every.index(max(every)) == 1955
    assert facts.half_at == next(t for t in range(1955, 35_190) if every[t] <= 0.25)
    assert facts.quarters == {25: every[8797], 50: every[17_595], 75: every[26_392], 100: every[-1]}
    assert facts.area == pytest.approx(math.fsum(every), rel=1e-12)
    assert facts.is_value
    assert facts.parts == ((0.0, "Warmup"), (1955.0, "Cosine"))


def test_a_long_run_is_summed_from_evenly_spread_steps():
    (facts,) = describe(Cosine(10_000_000)).facts
    assert facts.mean == pytest.approx(0.5, rel=1e-6)
    (waves,) = describe(sgdr(1000), Horizon(10_000_000)).facts
    assert waves.mean == pytest.approx(0.5, rel=1e-2)
    assert waves.peak == 1.0


def test_words():
    text = str(describe(one_cycle(), RUN, base=0.4))
    assert text.startswith("lr: 0.4 * (Cosine(10557, start=0.04, stop=1) >> Cosine(24633")
    assert (
        "peaks at 0.4 at step 10,557 (30 %), is down to half of that at step 22,874 (65 %)" in text
    )
    assert "\nmomentum: Absolute(" in text
    assert "travels as far as" in text.partition("momentum")[0]
    assert "travels as far as" not in text.partition("momentum")[2]
    assert "never falls to half of that" in str(describe(Linear(10, stop=0.8)))
    assert "Zero throughout." in str(describe(Constant(10, 0.0)))
    assert "12 hours" in str(describe(Warmup("1h") >> Cosine(), Horizon("12h")))


def test_a_peak_inside_a_part_is_found():
    humped = Linear(100_000, start=0.0, stop=1.0) * Linear(100_000, start=1.0, stop=0.0)
    (facts,) = describe(humped).facts
    assert (facts.peak, facts.peak_at) == (0.25, 50_000.0)
    (facts,) = describe(noam(512, 4000), Horizon(100_000)).facts
    assert facts.peak_at == 3999.0


@settings(max_examples=80)
@given(tree=trees(), total=st.sampled_from([1, 3, 100, 5000]))
def test_every_schedule_can_be_described(tree, total):
    (facts,) = describe(tree, Horizon(total)).facts
    every = [tree(t) for t in range(total)]
    assert facts.mean == pytest.approx(math.fsum(every) / total, rel=1e-9, abs=1e-300)
    assert facts.peak <= max(every) * (1 + 1e-12)
    assert facts.peak >= max(every) * (1 - 1e-3) or total > 1000
    assert facts.first == every[0]
    assert facts.last == every[-1]
    assert "\n" in str(facts)


def test_plans_and_several_are_described_one_by_one():
    plan = Plan(lr=Cosine(10), momentum=Constant(value=0.9).absolute())
    assert [f.title for f in describe(plan).facts] == ["lr", "momentum"]
    assert [f.title for f in describe({"a": plan, "b": plan}).facts] == [
        "lr, a", "momentum, a", "lr, b", "momentum, b",
    ]  # fmt: skip
