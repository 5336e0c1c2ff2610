"""What the two source documents describe, as one expression each, with its numbers."""

import math

import pytest

from stepsize import (
    Cosine,
    Exponential,
    Horizon,
    MultiStep,
    PowerLaw,
    Step,
    Warmup,
    inverse_sqrt,
    noam,
    one_cycle,
    resolve,
    sgdr,
    warmup_cosine,
    warmup_linear,
    warmup_step,
)

RUN = Horizon("90ep", batches_per_epoch=100)


def test_resnet_drops_tenfold_at_30_60_and_would_at_90_epochs():
    for form in (Step("30ep", 0.1), MultiStep(("30ep", "60ep", "90ep"), 0.1)):
        rate = resolve(form.absolute(0.1), RUN)
        assert [rate(100 * e) for e in (0, 29, 30, 59, 60, 89)] == pytest.approx(
            [0.1, 0.1, 0.01, 0.01, 0.001, 0.001], rel=1e-14
        )


@pytest.mark.parametrize(("gamma", "half_life"), [(0.95, 13.5), (0.99, 69.0)])
def test_exponential_decay_and_its_half_life_in_epochs(gamma, half_life):
    rate = resolve(Exponential(gamma, every="1ep"), RUN)
    assert rate(100) == gamma
    assert rate(100 * half_life) == pytest.approx(0.5, abs=1e-3)
    assert -math.log(2) / math.log(gamma) == pytest.approx(half_life, abs=0.04)


def test_inverse_square_root_is_the_polynomial_of_one_half():
    assert inverse_sqrt() == PowerLaw(0.5)
    assert [inverse_sqrt()(k) for k in (0, 3, 99)] == pytest.approx([1, 0.5, 0.1])


@pytest.mark.parametrize(("gamma", "k"), [(0.95, 35), (0.99, 281), (0.999, 4166)])
def test_exponential_falls_below_inverse_square_root_at(gamma, k):
    assert Exponential(gamma)(k - 1) > inverse_sqrt()(k - 1)
    assert Exponential(gamma)(k) < inverse_sqrt()(k)


def test_warmup_from_a_hundredth_then_cosine():
    rate = (Warmup(1000, start=0.01) >> Cosine(4000)).absolute(1e-3)
    assert [rate(t) for t in (0, 500, 1000, 3000, 5000)] == pytest.approx(
        [1e-5, 5.05e-4, 1e-3, 5e-4, 0.0], abs=1e-18
    )


def test_one_cycle_rises_for_30_to_45_percent_while_momentum_falls():
    for form, share in (("torch", 0.3), ("paper", 0.45)):
        plan = one_cycle(form=form)
        rate, momentum = (resolve(plan[key], Horizon(1000)) for key in ("lr", "momentum"))
        top = max(range(1001), key=rate)
        assert top == 1000 * share
        assert rate(top) == 1.0
        assert (momentum(0), momentum(top)) == (0.95, 0.85)
        rising = [rate(t) for t in range(top + 1)]
        falling = [momentum(t) for t in range(top + 1)]
        assert rising == sorted(rising)
        assert falling == sorted(falling, reverse=True)


def test_noam_peaks_at_the_end_of_its_warmup():
    rates = [noam(512, 4000)(t) for t in range(8000)]
    assert rates.index(max(rates)) == 3999
    assert max(rates) == pytest.approx((512 * 4000) ** -0.5, rel=1e-15)


COMBINATIONS = {
    "warmup + cosine": (warmup_cosine("5%"), "Warmup('5%') >> Cosine()"),
    "warmup + linear": (warmup_linear("10%"), "Warmup('10%') >> Linear()"),
    "warmup + cosine with warm restarts": (
        Warmup("5ep") >> sgdr("10ep", growth=2),
        "Warmup('5ep') >> Repeated(Cosine(), '10ep', growth=2)",
    ),
    "warmup + step": (
        warmup_step("5ep"),
        "Warmup('5ep') * MultiStep(('30ep', '60ep', '80ep'))",
    ),
    "one-cycle": (
        one_cycle(momentum=None)["lr"],
        "Cosine('30%', start=0.04, stop=1) >> Cosine(stop=4e-06)",
    ),
}


@pytest.mark.parametrize("name", COMBINATIONS)
def test_every_common_combination_is_one_expression(name):
    schedule, text = COMBINATIONS[name]
    assert repr(schedule) == text
    values = [resolve(schedule, RUN)(t) for t in range(0, 9001, 50)]
    assert max(values) <= 1.0
    assert min(values) >= 0.0
    assert values[0] < 0.1


def test_a_schedule_is_formula_times_stepping_unit_times_horizon():
    """Second seed, section 4: change one of the three and the rate at a step changes."""
    base = resolve(Cosine(), Horizon("9ep", batches_per_epoch=100))
    other_unit = resolve(Cosine().held("1ep"), Horizon("9ep", batches_per_epoch=100))
    other_horizon = resolve(Cosine(), Horizon("18ep", batches_per_epoch=100))
    assert base(450) == 0.5
    assert other_unit(450) == pytest.approx((1 + math.cos(math.pi * 4 / 9)) / 2)
    assert other_horizon(450) == pytest.approx((1 + math.cos(math.pi / 4)) / 2)
