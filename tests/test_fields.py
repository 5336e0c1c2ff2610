"""The rules of fields, read by others, and the recorder of formulas, operator by operator."""

from typing import Annotated

import annotated_types
import numpy as np
import pydantic
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

import stepsize
from stepsize import (
    Bounds,
    Cosine,
    FieldError,
    Harmonic,
    Horizon,
    Linear,
    OneMinusSqrt,
    Piecewise,
    Plan,
    SpecError,
    UnitError,
    Warmup,
    from_dict,
    infinite,
    one_cycle,
    wsd,
    wsd_s,
)
from stepsize.schedules.formula import compile_formula
from stepsize.torch import Scheduler


@given(x=st.from_type(Annotated[float, Bounds(gt=0, le=1)]))
def test_hypothesis_draws_within_the_bounds(x):
    assert Bounds(gt=0, le=1).admit("x", x) == x


def test_pydantic_and_annotated_types_read_the_bounds():
    assert list(Bounds(ge=0, lt=1)) == [annotated_types.Ge(0), annotated_types.Lt(1)]
    rate = pydantic.TypeAdapter(Annotated[float, Bounds(gt=0, le=1)])
    assert rate.validate_python(0.5) == 0.5
    for wrong in (0.0, 1.5):
        with pytest.raises(pydantic.ValidationError):
            rate.validate_python(wrong)


def test_annotations_as_text_are_rules_too():
    """A family from a module with `from __future__ import annotations`."""
    space = {"__name__": "elsewhere", "stepsize": stepsize}
    text = '''
from __future__ import annotations
from typing import Any
from stepsize import Schedule, schedule
from stepsize.schedules.fields import Fraction01

@schedule
class Flat(Schedule):
    """Flat.

    Source: this test.
    """
    kind = "test_flat"
    level: Fraction01 = 1.0

    @property
    def duration(self) -> float:
        return 1.0

    def _value(self, t: Any, xp: Any) -> Any:
        return self.level
'''
    import sys
    import types

    sys.modules["elsewhere"] = module = types.ModuleType("elsewhere")
    try:
        module.__dict__.update(space)
        exec(text, module.__dict__)  # noqa: S102 (our own text)
        flat = stepsize.REGISTRY["test_flat"]
        assert flat(0.5)(3) == 0.5
        with pytest.raises(FieldError, match="Flat.level must be a finite number > 0 and <= 1"):
            flat(2.0)
        assert flat(0.5).range == (0.0, float("inf"))
    finally:
        stepsize.REGISTRY.pop("test_flat", None)
        del sys.modules["elsewhere"]


OPERATIONS = {
    "reflected": (lambda t, xp: 1.0 + t - (2.0 - t) + 2.0 / (t + 1.0) + 3.0 * t, 2.0),
    "negative": (lambda t, xp: -t + t * t / 2.0, 3.0),
    "<=": (lambda t, xp: xp.where(t <= 2.0, t, 0.0), 2.0),
    ">": (lambda t, xp: xp.where(t > 2.0, t, 0.5), 2.0),
    ">=": (lambda t, xp: xp.where(2.0 <= t, t, 0.5), 2.0),  # noqa: SIM300 (the reflected one)
    "where of where": (lambda t, xp: 2.0 * xp.where(t < 1.0, xp.where(t < 0.5, 1.0, 2.0), t), 0.7),
    "numbers only": (
        lambda t, xp: xp.clip(5.0, 0.0, 1.0) + xp.floor(2.5) + xp.power(2.0, 3.0),
        0.0,
    ),
    "functions": (lambda t, xp: xp.log(t + 1.0) + xp.log1p(t) + xp.exp(-t) + xp.cos(t), 1.5),
}


@pytest.mark.parametrize("name", OPERATIONS)
def test_recorded_operations_compute_what_they_say(name):
    formula, t = OPERATIONS[name]

    class Plain:
        """The same names over plain floats, one operation at a time."""

        log, log1p, exp, cos = np.log, np.log1p, np.exp, np.cos

        @staticmethod
        def where(condition, a, b):
            return a if condition else b

        @staticmethod
        def clip(x, low, high):
            return min(max(x, low), high)

        floor, power = np.floor, np.power

    assert compile_formula(formula)(t) == pytest.approx(formula(t, Plain), rel=1e-15)


def test_a_formula_that_branches_with_if_is_told_how():
    with pytest.raises(TypeError, match=r"use xp.where\(condition, a, b\)"):
        compile_formula(lambda t, xp: 1.0 if t > 3 else 0.0)
    with pytest.raises(AttributeError, match="a formula may not use 'tan'"):
        compile_formula(lambda t, xp: xp.tan(t))


# Small things of plans, horizons and schedulers


def test_a_plan_draws_itself_and_can_be_replaced_in():
    plan = one_cycle(100)
    assert plan.sketch(width=20, height=3).startswith("lr\n")
    assert plan._repr_svg_().count("<path") == 2
    assert plan.replaced(lr=Cosine(9))["lr"] == Cosine(9)
    with pytest.raises(FieldError, match=r"Plan.lr must be a schedule, got <.*Custom\(function\)"):
        Plan(lr=abs)
    with pytest.raises(SpecError, match="plan: expected at least one schedule"):
        from_dict({"format": 1, "plan": {}})


def test_a_batch_ramp_in_percent_tokens_or_mixed_units():
    half = Piecewise({0: 8, "50%": 16})
    assert Horizon(100, batch_size=half).position(100, "samples") == 50 * 8 + 50 * 16
    tokens = Horizon("1000tok", batch_size=Piecewise({0: 1, "500tok": 2}), tokens_per_sample=10)
    assert tokens.steps == 75
    for total, ramp, message in [
        (100, Piecewise({0: 1, "5 samples": 2, "9tok": 3}), "in one unit of st, samples, tok"),
        (None, half, "a part of an unknown total"),
        ("100tok", Piecewise({0: 1, "5tok": 2}), "needs Horizon\\(tokens_per_sample"),
    ]:
        with pytest.raises(UnitError, match=message):
            Horizon(total, batch_size=ramp)


def test_rates_between_units_that_are_missing_are_named():
    with pytest.raises(UnitError, match="the horizon has no total"):
        _ = Horizon(batches_per_epoch=3).steps
    with pytest.raises(UnitError, match="steps cannot be converted to 'h'"):
        Horizon(10).position(3, "h")
    with pytest.raises(UnitError, match="has no optimizer step when 8 are accumulated"):
        _ = Horizon("1ep", batches_per_epoch=5, accumulate=8, last="drop").steps
    assert Horizon("2ep", batch_size=Linear(5, start=1, stop=3), samples_per_epoch=20).steps > 5
    assert (
        Horizon(9, batch_size=Linear(5, start=1, stop=3), samples_per_epoch=20).position(9, "ep")
        > 0
    )


def test_base_lrs_may_be_set_and_a_scheduler_prints_itself():
    optimizer = torch.optim.SGD([nn.Parameter(torch.ones(1))], lr=0.1)
    scheduler = Scheduler(
        optimizer, lr=Warmup(5) >> Cosine(15), extra={"ema": Linear(9).absolute()}
    )
    scheduler.base_lrs = [0.5]
    scheduler.last_epoch = 5
    assert scheduler.get_last_lr() == [0.5]
    assert repr(scheduler) == (
        "Scheduler(lr=Warmup(5) >> Cosine(15), ema=Absolute(Linear(9)), at step 5)"
    )
    scheduler._step_count = 99  # frameworks store it; it stays what was counted
    assert scheduler._step_count == 6
    assert scheduler.horizon is None


def test_a_ramp_may_be_named_wherever_one_is_taken():
    assert wsd(along="one_minus_sqrt") == wsd(along="OneMinusSqrt") == wsd(along=OneMinusSqrt)
    assert wsd_s(10, 20, 5, along="harmonic") == wsd_s(10, 20, 5, along=Harmonic)
    assert infinite(5, 20, along="linear") == infinite(5, 20, along=Linear)
    makes = (
        wsd,
        lambda along: wsd_s(1, 2, 3, along=along),
        lambda along: infinite(1, 2, along=along),
    )
    for make in makes:
        with pytest.raises(FieldError, match="along must be a ramp class or its name .* 'step'"):
            make(along="step")
