"""Lengths with units, horizons, and what resolving a schedule makes of them."""

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import stepsize
from stepsize import (
    Clipped,
    Constant,
    Cosine,
    Exponential,
    ExponentialWarmup,
    FieldError,
    Horizon,
    Linear,
    MultiStep,
    OneMinusSqrt,
    Piecewise,
    Plan,
    PowerLaw,
    Step,
    Time,
    UnitError,
    Warmup,
    driving_unit,
    one_cycle,
    resolve,
    stepwise,
    wsd,
)
from stepsize.units import number_text, parse

IMAGENET = Horizon("90ep", batches_per_epoch=391)


@pytest.mark.parametrize(
    ("text", "amount", "unit"),
    [
        ("12ep", 12, "ep"),
        ("12 epochs", 12, "ep"),
        ("1epoch", 1, "ep"),
        ("3e6 samples", 3e6, "samples"),
        ("2e9tok", 2e9, "tok"),
        ("2_000_000 tokens", 2e6, "tok"),
        ("5%", 5, "%"),
        (".5%", 0.5, "%"),
        ("6h", 6, "h"),
        ("90min", 90, "min"),
        (" rest ", 1, "rest"),
    ],
)
def test_texts_are_read(text, amount, unit):
    assert parse(text) == Time(float(amount), unit)
    assert parse(str(parse(text))) == parse(text)


@pytest.mark.parametrize("text", ["1000st", "1000 steps", "1e3 step"])
def test_steps_are_plain_numbers(text):
    assert parse(text) == 1000.0


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_number_text_reads_back(x):
    assert float(number_text(x)) == x


def test_a_fraction_is_never_told_from_a_count_by_its_size():
    assert resolve(Warmup(1) >> Cosine(), Horizon(10)) == Warmup(1) >> Cosine(9)
    assert resolve(Warmup("100%"), Horizon(10)) == Warmup(10)


@given(
    st.integers(1, 5000),
    st.lists(st.integers(1, 40), min_size=1, max_size=5).filter(lambda x: sum(x) < 100),
)
def test_parts_add_up_to_the_horizon_and_fall_on_whole_steps(total, shares):
    tree = Constant(f"{shares[0]}%")
    for share in shares[1:]:
        tree = tree >> Linear(f"{share}%")
    resolved = resolve(tree >> Cosine(), Horizon(total))
    assert resolved.duration == total
    for start in getattr(resolved, "starts", (0.0,)):
        assert start == int(start)


def test_thirds_of_100():
    third = f"{100 / 3}%"
    tree = resolve(Linear(third) >> Linear(third) >> Linear(third), Horizon(100))
    assert [p.over for p in tree.parts] == [33, 34, 33]


def test_a_warmup_of_5_percent_reaches_its_peak():
    """5% of 1003 steps is 50.15: unrounded, no step ever sees the peak."""
    tree = resolve(Warmup("5%") >> Cosine(), Horizon(1003))
    assert max(tree(t) for t in range(1003)) == 1.0


def test_a_part_of_less_than_half_a_step_drops_out():
    assert resolve(Warmup("0.1%") >> Cosine(), Horizon(100)) == Cosine(100)


def test_rest_inside_a_part_is_the_rest_of_the_sequence():
    tree = resolve(Warmup(10) >> 0.5 * (Linear(10, start=1, stop=0.8) >> Cosine()), Horizon(100))
    assert tree.duration == 100
    assert tree(20) == 0.5
    assert tree(60) == pytest.approx(0.25)


def test_rest_of_nothing_is_an_error():
    with pytest.raises(UnitError, match="the other parts leave nothing over"):
        resolve(Warmup(100) >> Cosine(), Horizon(100))


@pytest.mark.parametrize(
    ("batches", "accumulate", "last", "expected"),
    [
        (391, 4, "step", 98),
        (391, 4, "drop", 97),
        (391, 4, "carry", Fraction(391, 4)),
        (391, 1, "step", 391),
    ],
)
def test_steps_per_epoch(batches, accumulate, last, expected):
    horizon = Horizon("2ep", batches_per_epoch=batches, accumulate=accumulate, last=last)
    assert horizon.steps_per_epoch == expected
    assert horizon.steps == math.ceil(2 * expected)


@given(st.integers(2, 500), st.integers(1, 17), st.integers(1, 300))
def test_carried_epochs_begin_in_exact_integers(batches, accumulate, epoch):
    """Epoch k begins at ceil(k * batches / accumulate), also where the quotient is no float."""
    horizon = Horizon("400ep", batches_per_epoch=batches, accumulate=accumulate, last="carry")
    dropped = resolve(Step("1ep", factor=0.5), horizon)
    first = -(-epoch * batches // accumulate)
    begun = first * accumulate // batches  # more than one epoch may begin at one step
    assert dropped(first) == 0.5**begun
    assert dropped(first - 1) == 0.5 ** ((first - 1) * accumulate // batches)


def test_held_is_what_stepping_once_per_epoch_means():
    """The second seed, section 4: the same formula under another stepping unit."""
    per_epoch = resolve(Cosine().held("1ep"), IMAGENET)
    per_update = resolve(Cosine(), IMAGENET)
    for epoch in (0, 1, 45, 89):
        values = {per_epoch(epoch * 391 + i) for i in range(391)}
        (value,) = values
        assert value == pytest.approx(0.5 * (1 + math.cos(math.pi * epoch / 90)), abs=1e-15)
        assert per_update(epoch * 391) == pytest.approx(value, abs=1e-15)


def test_a_held_warmup_starts_at_one_quantum():
    held = resolve(Warmup("5ep").held("1ep"), IMAGENET)
    assert [held(391 * e) for e in range(6)] == pytest.approx(
        [1 / 6, 2 / 6, 3 / 6, 4 / 6, 5 / 6, 1.0]
    )
    assert Warmup(5 * 391).held(391)(0) == pytest.approx(1 / 6)


def test_a_token_driven_warmup_starts_at_one_step():
    horizon = Horizon("1e6 tok", batch_size=10, tokens_per_sample=100)
    value = stepwise(Warmup("1e5 tok") >> Cosine(), horizon)
    assert value(0) == pytest.approx(1 / 101)
    assert value(100) == 1.0


def test_an_endless_warmup_counts_its_lead_in_steps():
    horizon = Horizon("1e6 tok", batch_size=10, tokens_per_sample=100)
    value = stepwise(ExponentialWarmup("1e4 tok"), horizon)
    assert value(0) == pytest.approx(ExponentialWarmup(10)(0))


# A batch-size ramp (gap G5) -------------------------------------------------------------------

RAMP = Linear(500, start=16, stop=128)


def samples_after(steps, ramp=RAMP):
    return sum(math.floor(ramp(k) + 0.5) for k in range(steps))


@pytest.mark.parametrize("step", [0, 1, 17, 250, 499, 500, 501, 900, 1000])
def test_a_batch_ramp_converts_samples_exactly(step):
    horizon = Horizon(1000, batch_size=RAMP, tokens_per_sample=2048)
    assert horizon.position(step, "samples") == samples_after(step)
    assert horizon.position(step, "tok") == 2048 * samples_after(step)
    assert horizon.step_at(samples_after(step), "samples") == pytest.approx(step, abs=1e-9)


def test_the_tail_of_a_wsd_in_tokens_lands_exactly_under_a_ramp():
    """Written in steps the decay never finishes (NVIDIA Megatron-Bridge 2609)."""
    total = samples_after(1000) * 2048
    horizon = Horizon(f"{total} tok", batch_size=RAMP, tokens_per_sample=2048)
    assert horizon.steps == 1000
    value = stepwise(wsd("5%", "20%", along=OneMinusSqrt), horizon)
    tree = resolve(Warmup("5%") >> Constant("rest") >> Linear(f"{0.2 * total} tok"), horizon)
    assert driving_unit(Warmup("5%") >> Linear("9tok")) == "tok"
    assert value(1000) == 0.0
    assert tree.duration == total
    assert tree(horizon.position(1000, "tok")) == 0.0
    assert tree(horizon.position(999, "tok")) > 0.0


def test_a_shape_over_tokens_is_another_curve_than_over_steps():
    ramp = Linear("100%", start=1, stop=4)
    horizon = Horizon(1000, batch_size=ramp, tokens_per_sample=1)
    over_steps = stepwise(Cosine("100%"), horizon)
    total = horizon.position(1000, "tok")
    over_tokens = stepwise(Cosine(f"{total} tok"), horizon)
    assert over_steps(500) == pytest.approx(0.5)
    assert over_tokens(500) == pytest.approx(Cosine(total)(horizon.position(500, "tok")))
    assert over_tokens(500) > 0.6


def test_a_ramp_by_samples_is_followed_sample_by_sample():
    ramp = Piecewise({0: 32, "1000 samples": 64, "5000 samples": 128})
    horizon = Horizon("20000 samples", batch_size=ramp)
    samples, step = 0, 0
    while samples < 20000:
        assert horizon.position(step, "samples") == samples
        samples += 32 if samples < 1000 else 64 if samples < 5000 else 128
        step += 1
    assert horizon.steps == step


def test_accumulation_and_replicas_multiply_the_batch():
    horizon = Horizon("4096 samples", batch_size=8, accumulate=4, replicas=2)
    assert horizon.steps == 64


def test_epochs_under_a_ramp_need_their_samples():
    horizon = Horizon(1000, batch_size=RAMP, batches_per_epoch=10)
    with pytest.raises(UnitError, match="give Horizon\\(samples_per_epoch=...\\)"):
        resolve(Cosine("5ep"), horizon)
    horizon = Horizon("5ep", batch_size=RAMP, samples_per_epoch=10_000)
    assert horizon.position(horizon.steps, "samples") >= 50_000


# Everything else ----------------------------------------------------------------------------


@pytest.mark.parametrize("total", [2, 3, 10, 1003, 35190, 10_000_019])
def test_reach_last_lets_the_last_step_see_the_end(total):
    tree = resolve(Warmup("10%") >> Cosine(start=1.0, stop=0.1), Horizon(total), reach="last")
    assert tree(total - 1) == 0.1
    assert resolve(Linear(total), Horizon(total), reach="last")(total - 1) == 0.0


def test_every_family_with_lengths_takes_units():
    horizon = Horizon("10ep", batches_per_epoch=100)
    for written, plain in [
        (Step("3ep"), Step(300)),
        (MultiStep(("3ep", "50%"), 0.5), MultiStep((300, 500), 0.5)),
        (Exponential(0.9, every="1ep"), Exponential(0.9, every=100)),
        (PowerLaw(0.5, timescale="1ep"), PowerLaw(0.5, timescale=100)),
        (Piecewise({0: 1.0, "5ep": 0.1}), Piecewise({0: 1.0, 500: 0.1})),
        (Cosine("5ep").shifted("-1ep"), Cosine(500).shifted(-100)),
        (Cosine("5ep").repeated(), Cosine(500).repeated()),
        (Clipped(Linear("1ep"), 0.1), Clipped(Linear(100), 0.1)),
    ]:
        assert resolve(written, horizon) == plain, written


def test_rest_inside_a_cycle_is_the_rest_of_the_cycle():
    tree = resolve(
        (Warmup("1ep") >> Cosine()).repeated("10ep"), Horizon("50ep", batches_per_epoch=10)
    )
    assert tree.of == Warmup(10) >> Cosine(90)
    assert [tree(t) for t in (10, 100, 110)] == [1.0, tree(0), 1.0]


def test_a_schedule_that_needs_a_horizon_says_so_when_called():
    with pytest.raises(UnitError, match="Cosine.over is 'rest', which needs a horizon"):
        Cosine()(5)
    with pytest.raises(UnitError, match="Warmup.over is '5%', which needs a horizon"):
        (Warmup("5%") >> Cosine(10))(5)


@pytest.mark.parametrize(
    ("schedule", "horizon", "message"),
    [
        (
            Cosine("5ep"),
            Horizon(100),
            "Cosine.over = 5ep: an epoch cannot be converted .*batches_per_epoch=",
        ),
        (Cosine("5tok"), Horizon(100), "Horizon.total = 100.* give Horizon\\(batch_size=...\\)"),
        (Cosine("5%"), Horizon(), "Cosine.over is a part of the horizon, which has no total"),
        (Cosine(), Horizon(), 'a "rest" is a part of the horizon, which has no total'),
        (Cosine("6h") >> Linear("1ep"), Horizon("7h"), "wall-clock time cannot be mixed"),
    ],
)
def test_a_unit_that_the_horizon_cannot_convert(schedule, horizon, message):
    with pytest.raises(UnitError, match=message):
        resolve(schedule, horizon)


def test_wall_clock_resolves_to_seconds():
    tree = resolve(Warmup("10min") >> Cosine(), Horizon("6h"))
    assert tree == Warmup(600) >> Cosine(21000)
    assert driving_unit(Warmup("10min")) == "s"


def test_endless_schedules_need_no_total():
    assert resolve(Warmup(10) >> PowerLaw(0.5), Horizon()) == Warmup(10) >> PowerLaw(0.5)


class Loader:
    def __init__(self, batches, batch_size):
        self.batches, self.batch_size = batches, batch_size

    def __len__(self):
        return self.batches


def test_a_horizon_from_a_loader():
    horizon = Horizon.from_loader(Loader(391, 128), epochs=90, accumulate=2)
    assert horizon == Horizon("90ep", batches_per_epoch=391, batch_size=128, accumulate=2)
    assert horizon.steps == 90 * 196
    with pytest.raises(UnitError, match="has no length"):
        Horizon.from_loader(iter([1]), epochs=3)


def test_positions_in_every_unit():
    horizon = Horizon("3ep", batches_per_epoch=10, batch_size=8, tokens_per_sample=5)
    assert [horizon.position(15, u) for u in ("st", "ep", "samples", "tok")] == [15, 1.5, 120, 600]


def test_a_plan_knows_its_units_and_is_a_value():
    plan = one_cycle()
    assert plan.units == {"%", "rest"}
    assert plan == one_cycle() and hash(plan) == hash(one_cycle())  # noqa: PT018
    assert eval(repr(plan), vars(stepsize)) == plan  # noqa: S307 (our own text)
    assert plan.renamed(momentum="beta1")["beta1"] == plan["momentum"]
    with pytest.raises(AttributeError, match="frozen"):
        plan.lr = Cosine()
    with pytest.raises(FieldError, match="Plan.lr must be a schedule"):
        Plan(lr=0.1)


def test_one_cycle_over_a_horizon_ends_with_it():
    lr = resolve(one_cycle()["lr"], Horizon(1000))
    assert (lr(0), lr(300), lr(1000)) == pytest.approx((0.04, 1.0, 4e-6))
    paper = resolve(one_cycle(form="paper")["lr"], Horizon(1000))
    assert (paper(0), paper(450), paper(900), paper(1000)) == pytest.approx((0.04, 1.0, 0.04, 4e-6))


def test_resolved_values_are_arrays_too():
    tree = resolve(Warmup("5%") >> Cosine(), Horizon(1000))
    assert np.all(tree(np.arange(1000)) == tree.curve(1000))
