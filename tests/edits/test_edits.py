"""What edits make of the schedules people use, and what they refuse."""

import json
import math

import pytest

from stepsize import (
    Constant,
    Cosine,
    Exponential,
    FieldError,
    Geometric,
    Horizon,
    Linear,
    MismatchError,
    MultiStep,
    Piecewise,
    Plan,
    Ramp,
    SpecError,
    Step,
    StepsizeError,
    UnitError,
    Warmup,
    resolve,
    sgdr,
    stepwise,
    wsd,
)
from stepsize.edits.carry import carried
from stepsize.edits.kinds import CoolDown, Edit, Extend, Replan, edit_data, edit_from
from stepsize.edits.moment import Moment
from stepsize.schedules.schedule import REGISTRY
from stepsize.units import Time

RAMPS = sorted((c for c in REGISTRY.values() if issubclass(c, Ramp)), key=lambda c: c.kind)
LONG = Horizon(1000)


def edited(schedule, edit, step, horizon=LONG):
    """Give the schedule after an edit, its value by step, and the horizon."""
    made, then = carried(edit, {"lr": schedule}, Moment(step, horizon))
    return made["lr"], stepwise(made["lr"], then), then


def check_past(schedule, value, step, horizon=LONG):
    before = stepwise(schedule, horizon)
    assert [value(t) for t in range(step)] == pytest.approx([before(t) for t in range(step)], 1e-12)


# Extend -----------------------------------------------------------------------------------------


def test_a_warmup_that_is_over_never_comes_back():
    """Resolved anew, 5 % of 2000 steps at step 70 is a rate of 0.7 instead of 0.999."""
    schedule = Warmup("5%") >> Cosine()
    _, value, _ = edited(schedule, Extend(2000), 70)
    check_past(schedule, value, 70)
    assert value(70) == stepwise(schedule, LONG)(70) > 0.998
    assert value(2000) == 0.0
    falls = [value(t) - value(t + 1) for t in range(70, 2000)]
    assert min(falls) >= 0.0


@pytest.mark.parametrize("step", [51, 300, 899, 900])
@pytest.mark.parametrize("total", [950, 2000, 10_000])
def test_wsd_keeps_its_peak_and_cools_down_over_a_tenth_of_the_new_total(step, total):
    schedule = wsd("5%", cooldown="10%")
    if total * 0.9 < step:
        with pytest.raises(FieldError, match="would have ended before now"):
            edited(schedule, Extend(total), step)
        return
    _, value, _ = edited(schedule, Extend(total), step)
    check_past(schedule, value, step)
    start = round(total * 0.9)
    assert {value(t) for t in range(50, start + 1)} == {1.0}
    tree = resolve(schedule, Horizon(total))
    assert [value(t) for t in range(start, total + 1)] == [tree(t) for t in range(start, total + 1)]


def test_a_cooldown_that_has_begun_goes_on_from_where_it_is_to_the_new_end():
    schedule = Warmup("5%") >> Constant("rest") >> Linear("20%")
    _, value, _ = edited(schedule, Extend(1400), 900)
    assert value(900) == pytest.approx(0.5)
    assert [value(t) for t in (900, 1150, 1400)] == pytest.approx([0.5, 0.25, 0.0])


def test_what_is_left_of_a_curve_is_stretched_or_shortened_and_is_continuous():
    schedule, old = Cosine(stop=0.1), stepwise(Cosine(stop=0.1), LONG)
    for total in (401, 500, 999, 1500, 100_000):
        _, value, _ = edited(schedule, Extend(total), 400)
        check_past(schedule, value, 400)
        assert value(400) == old(400)
        assert value(total) == value(3 * total) == 0.1
    twice, _, horizon = edited(schedule, Extend(1500), 400)
    _, value, _ = edited(twice, Extend(3000), 800, horizon)
    first = stepwise(twice, horizon)
    assert [value(t) for t in range(801)] == [first(t) for t in range(801)]
    assert value(3000) == 0.1


def test_extending_again_to_the_same_total_changes_nothing():
    made, _, horizon = edited(Warmup("5%") >> Cosine(), Extend(2000), 300)
    assert edited(made, Extend(2000), 300, horizon)[0] == made
    here, there = stepwise(made, horizon), edited(made, Extend(2000), 301, horizon)[1]
    times = range(2100)
    assert [there(t) for t in times] == pytest.approx([here(t) for t in times], 1e-12, 1e-15)


@pytest.mark.parametrize("moment", [29, 30, 31, 59, 60, 61])
def test_moments_that_lie_ahead_move_and_those_behind_stay(moment):
    for schedule in (
        MultiStep(("30%", "60%", "90%")),
        Piecewise({"0%": 1.0, "30%": 0.1, "60%": 0.01, "90%": 1e-3}),
    ):
        _, value, _ = edited(schedule, Extend(2000), 10 * moment)
        check_past(schedule, value, 10 * moment)
        drops = [t for t in range(1, 2001) if not math.isclose(value(t), value(t - 1))]
        assert drops == [t if t <= 10 * moment else 2 * t for t in (300, 600, 900)]


def test_a_moment_that_a_shorter_run_has_behind_is_now():
    schedule = MultiStep(("30%", "60%"))
    _, value, _ = edited(schedule, Extend(800), 550)
    check_past(schedule, value, 550)
    assert [value(t) for t in (549, 550, 799)] == pytest.approx([0.1, 0.01, 0.01])
    table = Piecewise({"0%": 1.0, "50%": 0.5, "60%": 0.2, "70%": 0.1})
    _, value, _ = edited(table, Extend(520), 450)
    assert [value(t) for t in (449, 450, 519)] == [1.0, 0.1, 0.1]


def test_what_never_ends_goes_on_as_it_was():
    for schedule in (Step("10%"), Exponential(0.5, every="10%"), sgdr("10%")):
        _, value, _ = edited(schedule, Extend(5000), 555)
        old = stepwise(schedule, LONG)
        times = range(3000)
        assert [value(t) for t in times] == pytest.approx([old(t) for t in times], 1e-12)


def test_products_and_absolutes_keep_their_past_part_by_part():
    warm = Warmup("5%") * Cosine()
    for schedule in (warm, warm.absolute(3e-4), (0.5 * warm).between(0.1), warm.held(10)):
        _, value, _ = edited(schedule, Extend(3000), 420)
        check_past(schedule, value, 420)
        assert value(420) == pytest.approx(stepwise(schedule, LONG)(420), rel=1e-12)
        assert value(3000) == pytest.approx(stepwise(schedule, LONG)(1000), abs=1e-15)


def test_a_period_of_holding_told_as_a_share_stays_what_it_was():
    schedule = (Warmup("10%") >> Cosine()).held("2%")
    _, value, _ = edited(schedule, Extend(4000), 333)
    check_past(schedule, value, 333)
    for horizon in (Horizon("1024000tok", batch_size=16, tokens_per_sample=64), LONG):
        step = 5
        made, then = carried(
            Extend("2048000tok" if horizon.batch_size else 2000),
            {"lr": schedule},
            Moment(step, horizon),
        )
        check_past(schedule, stepwise(made["lr"], then), step, horizon)


def test_nested_sequences_and_cuts():
    inner = Constant("rest") >> Linear("10%", stop=0.2)
    schedule = Warmup("5%") >> (0.5 * inner)
    _, value, _ = edited(schedule, Extend(2000), 400)
    check_past(schedule, value, 400)
    assert [value(t) for t in (1799, 1800, 1900, 2000)] == pytest.approx([0.5, 0.5, 0.3, 0.1])
    stairs = Step("10%", factor=0.5).cut("50%") >> Linear(start=0.03125)
    _, value, _ = edited(stairs, Extend(2000), 50)  # the first stair: nothing has dropped yet
    assert [value(t) for t in (199, 200, 999)] == [1.0, 0.5, 0.0625]
    _, value, _ = edited(stairs, Extend(2000), 250)
    check_past(stairs, value, 250)
    assert value(2000) == 0.0


def test_extend_refuses_what_has_ended_and_what_lies_behind():
    with pytest.raises(FieldError, match=r"must be beyond where the run is \(step 500\)"):
        edited(Cosine(), Extend(500), 500)
    with pytest.raises(FieldError, match="would have ended before now; cool_down"):
        edited(Warmup("50%") >> Cosine(), Extend(500), 300)
    with pytest.raises(UnitError, match="cannot be mixed"):
        edited(Cosine(), Extend("14h"), 300)
    with pytest.raises(UnitError, match="batches_per_epoch"):
        edited(Cosine(), Extend("3ep"), 300)


def test_what_has_ended_beside_what_has_not_is_no_obstacle():
    both = {"lr": Cosine(), "momentum": Linear("10%", start=0.9, stop=0.95)}
    made, horizon = carried(Extend(2000), both, Moment(500, LONG))
    assert stepwise(made["momentum"], horizon)(700) == 0.95
    made, horizon = carried(Extend(2000), {"momentum": both["momentum"]}, Moment(500, LONG))
    assert stepwise(made["momentum"], horizon)(1900) == 0.95  # and it can be replanned now


def test_a_schedule_in_numbers_of_steps_is_left_alone():
    schedule = Warmup(2.5) >> Cosine(700.25)
    assert edited(schedule, Extend(2000), 100)[0] is schedule


@pytest.mark.parametrize("step", [1, 6, 7, 100, 276])
@pytest.mark.parametrize("epochs", [28, 30, 31, 45])
def test_epochs_of_a_fraction_of_steps(step, epochs):
    horizon = Horizon("30ep", batches_per_epoch=37, accumulate=4, last="carry")  # 277.5 steps
    schedule = Warmup("2%") >> Cosine(stop=0.1)
    if epochs * 9.25 <= step:
        return
    _, value, then = edited(schedule, Extend(f"{epochs}ep"), step, horizon)
    check_past(schedule, value, step, horizon)
    assert value(then.steps) == 0.1


def test_a_batch_size_in_shares_of_the_run_cannot_be_extended():
    """Its ramp would move too, and with it how many samples have been seen."""
    ramp = Piecewise({"0%": 8, "20%": 16}).absolute()
    horizon = Horizon("64000samples", batch_size=ramp)
    with pytest.raises(FieldError, match="batch size"):
        edited(Cosine(), Extend("128000samples"), 3000, horizon)
    edited(Cosine(), Extend("128000samples"), 1000, horizon)


def test_the_end_of_an_open_run_is_announced():
    horizon = Horizon(open_end=True)
    schedule = wsd(100, cooldown="10%")
    made, value, then = edited(schedule, Extend(5000), 3000, horizon)
    assert then == Horizon(5000)
    check_past(schedule, value, 3000, horizon)
    assert {value(t) for t in range(100, 4501)} == {1.0}
    assert value(5000) == 0.0
    for edit in (CoolDown(), CoolDown("5%"), Replan(Plan(lr=Cosine()))):
        with pytest.raises(
            UnitError, match="no total|needs to know when training ends|not announced yet"
        ):
            edited(schedule, edit, 3000, horizon)
    _, value, _ = edited(schedule, CoolDown(500), 3000, horizon)
    assert [value(t) for t in (3000, 3250, 3500, 9000)] == [1.0, 0.5, 0.0, 0.0]
    assert made == schedule


# Cool down --------------------------------------------------------------------------------------


@pytest.mark.parametrize("cls", RAMPS, ids=lambda c: c.kind)
def test_cool_down_along_every_ramp_is_that_ramp(cls):
    schedule = Warmup("5%") >> Constant()
    for along in (cls, cls.kind, cls.__name__):
        _, value, _ = edited(schedule, CoolDown(100, to=0.1, along=along), 500)
        check_past(schedule, value, 500)
        ramp = cls(100, start=1.0, stop=0.1)
        assert [value(500 + t) for t in range(150)] == [ramp(t) for t in range(150)]


@pytest.mark.parametrize(
    ("over", "horizon", "steps"),
    [
        (50, LONG, 50),
        ("5%", LONG, 50),
        ("rest", LONG, 600),
        ("2ep", Horizon("40ep", batches_per_epoch=25), 50),
        ("3200samples", Horizon("64000samples", batch_size=64), 50),
        ("51200tok", Horizon(1000, batch_size=16, tokens_per_sample=64), 50),
        (0.2, LONG, 1),
        (10.4, LONG, 10),
        (10.5, LONG, 11),
    ],
)
def test_cool_down_over_lengths_in_all_units(over, horizon, steps):
    for schedule in (
        Constant(),
        Constant(value=3e-4).absolute(),
        Warmup("10%") >> Constant("rest"),
    ):
        _, value, _ = edited(schedule, CoolDown(over, to=0.2), 400, horizon)
        peak = stepwise(schedule, horizon)(400)
        assert value(400) == peak
        assert value(400 + steps // 2) == pytest.approx(peak * (1 - 0.8 * (steps // 2) / steps))
        assert value(400 + steps) == value(9999) == pytest.approx(0.2 * peak, rel=1e-15)


def test_cool_down_reaches_only_the_keys_it_is_for():
    told = {"lr": Cosine(), "momentum": Constant(value=0.9).absolute(), "wd": Constant()}
    made, horizon = carried(CoolDown("10%", keys=("lr", "wd")), told, Moment(100, LONG))
    assert made["momentum"] is told["momentum"]
    assert horizon is LONG
    assert stepwise(made["wd"], LONG)(200) == 0.0


def test_cool_down_refuses_what_makes_no_sense():
    for over in (601, "61%", "601st"):
        with pytest.raises(FieldError, match=r"at most what is left of the run \(600 steps\)"):
            edited(Cosine(), CoolDown(over), 400)
    with pytest.raises(FieldError, match="of a value above 0, got 0.0; it is on its way up"):
        edited(Warmup(10, start=0.0) >> Constant(), CoolDown(10), 0)
    with pytest.raises(FieldError, match=r"at most what is left of the run \(0 steps\)"):
        edited(Cosine(stop=0.1), CoolDown(), 1000)
    with pytest.raises(UnitError, match="cannot be mixed"):
        edited(Cosine(), CoolDown("10 min"), 400)
    with pytest.raises(FieldError, match="a share that Geometric can end at"):
        CoolDown(10, along=Geometric)


# Replan -----------------------------------------------------------------------------------------


def test_replan_joins_in_a_straight_line_of_a_hundredth_of_the_run():
    old = stepwise(Cosine(), LONG)
    _, value, _ = edited(Cosine(), Replan(Plan(lr=Linear())), 300)
    new = Linear(700)
    check_past(Cosine(), value, 300)
    assert value(300) == old(300)
    assert value(305) == pytest.approx((old(300) + new(10)) / 2)
    assert [value(t) for t in range(310, 1001)] == pytest.approx(
        [new(t - 300) for t in range(310, 1001)], abs=1e-15
    )
    _, value, _ = edited(Cosine(), Replan(Plan(lr=Linear()), since="start"), 300)
    assert [value(t) for t in range(310, 1001)] == pytest.approx(
        [1 - t / 1000 for t in range(310, 1001)], abs=1e-15
    )


@pytest.mark.parametrize("since", ["now", "start"])
def test_replan_over_nothing_jumps(since):
    _, value, _ = edited(Cosine(), Replan(Plan(lr=Constant(value=0.3)), over=0, since=since), 300)
    check_past(Cosine(), value, 300)
    assert {value(t) for t in range(300, 1100)} == {0.3}


@pytest.mark.parametrize("over", [0, 10, None])
def test_replan_with_a_schedule_that_is_over_by_now_holds_its_last_value(over):
    then = Warmup(50) >> Linear(100, stop=0.25)
    for schedule, new in ((Cosine(), then), (Cosine().absolute(0.1), then.absolute(0.1))):
        _, value, _ = edited(schedule, Replan(Plan(lr=new), over=over, since="start"), 400)
        assert value(410) == value(5000) == pytest.approx(new(150), rel=1e-15)


def test_replan_near_the_end_joins_over_what_is_left():
    _, value, _ = edited(Cosine(), Replan(Plan(lr=Constant(value=0.5))), 995)
    assert value(1000) == 0.5
    with pytest.raises(FieldError, match="at most what is left"):
        edited(Cosine(), Replan(Plan(lr=Constant(value=0.5)), over=20), 995)


def test_replan_between_absolute_and_factor_is_refused():
    with pytest.raises(FieldError, match=r"a factor, as before.*leave .absolute\(\) out"):
        edited(Cosine(), Replan(Plan(lr=Linear().absolute(0.1))), 300)
    with pytest.raises(FieldError, match=r"absolute, as the one it replaces.*absolute\(peak\)"):
        edited(Cosine().absolute(0.1), Replan(Plan(lr=Linear())), 300)


def test_a_run_in_steps_is_planned_anew_in_tokens():
    horizon = Horizon(1000, batch_size=16, tokens_per_sample=64)
    schedule, then = Warmup(100) >> Cosine(), Warmup("51200tok") >> Linear("512000tok")
    _, value, _ = edited(schedule, Replan(Plan(lr=then), over="10240tok"), 300, horizon)
    check_past(schedule, value, 300, horizon)
    alone = stepwise(then, horizon)
    expected = [alone(t - 300) for t in range(310, 1001)]
    assert [value(t) for t in range(310, 1001)] == pytest.approx(expected, rel=1e-12, abs=1e-15)
    with pytest.raises(UnitError, match="tokens_per_sample|batch_size"):
        edited(schedule, Replan(Plan(lr=then)), 300)


def test_absolute_values_of_zero_on_both_sides():
    zero = Constant(value=0.0).absolute()
    _, value, _ = edited(zero, Replan(Plan(lr=zero), over=10), 300)
    assert {value(t) for t in range(1000)} == {0.0}


# Numbers ----------------------------------------------------------------------------------------


def test_at_a_thousand_million_steps_every_value_is_exact_to_the_last_digits():
    horizon, k = Horizon(10**9), 123_456_789
    schedule = Warmup("1%") >> Cosine(stop=0.1)
    old = stepwise(schedule, horizon)
    _, value, _ = edited(schedule, Extend(3 * 10**9), k, horizon)
    for t in (0, 1, 10**7 - 1, 10**7, k - 1, k):
        assert value(t) == old(t)
    assert abs(value(k + 1) - value(k)) < 1e-9
    assert value(3 * 10**9) == 0.1
    left = [value(3 * 10**9 - n) - 0.1 for n in (10_000, 20_000)]
    assert left[1] / left[0] == pytest.approx(4, rel=0.05)  # the cosine's foot, not noise
    _, value, _ = edited(schedule, CoolDown(7), k, horizon)
    assert [value(k + t) / old(k) for t in range(8)] == pytest.approx(
        [1 - t / 7 for t in range(8)], abs=1e-15
    )


@pytest.mark.parametrize("step", [0, 1, 9, 10, 11, 998, 999])
def test_at_the_start_at_a_boundary_and_one_step_before_the_end(step):
    schedule = Warmup("1%") >> Constant("rest") >> Linear("1%")
    edits = [
        Extend(1500),
        CoolDown("rest", to=0.5),
        Replan(Plan(lr=Linear())),
        Replan(Plan(lr=Cosine(stop=0.5)), since="start"),
    ]
    for edit in edits:
        made, value, horizon = edited(schedule, edit, step)
        check_past(schedule, value, step)
        assert all(0.0 <= value(t) <= 1.0 for t in range(1600))
        later = step + (horizon.steps - step) // 2
        edited(made, CoolDown(1, to=0.5), later, horizon)


def test_a_part_of_less_than_half_a_step_is_left_out_after_an_edit_too():
    schedule = Warmup("0.01%") >> Constant("0.02%", 0.5) >> Cosine()
    for step in (0, 1, 500):
        _, value, _ = edited(schedule, Extend(2000), step)
        check_past(schedule, value, step)
        assert value(2000) == 0.0
    _, value, _ = edited(schedule, Extend(20_000), 500)  # where it would have a length, it is over
    check_past(schedule, value, 500)


# As data ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "edit",
    [
        CoolDown(),
        CoolDown(100, to=0.1, along="one_minus_sqrt", keys=["lr", "wd"], why="it diverged"),
        CoolDown("5%", keys="lr"),
        CoolDown("10 min"),
        Extend(1000),
        Extend("120ep", why="more data"),
        Extend("2e9tok"),
        Extend(1 / 3),
        Replan(Plan(lr=Warmup("5%") >> Cosine())),
        Replan(Plan(lr=Cosine().absolute(3e-4), wd=Constant()), over=0, since="start", why="x"),
        Replan(Plan(lr=Cosine()), over="1e6 tok"),
    ],
    ids=str,
)
def test_an_edit_comes_back_from_its_data(edit):
    data = json.loads(json.dumps(edit_data(edit)))
    assert edit_from(data) == edit
    assert edit_data(edit_from(data)) == edit_data(edit)
    assert isinstance(edit, Edit)


JUNK = [
    None,
    True,
    -1,
    math.nan,
    math.inf,
    10**400,
    "",
    "5 parsecs",
    [],
    {},
    [1],
    {"a": 1},
    ["lr", 3],
]


@pytest.mark.parametrize("junk", JUNK, ids=repr)
def test_damaged_data_of_an_edit_are_an_error_of_this_library(junk):
    whole = [
        edit_data(CoolDown(100, to=0.1)),
        edit_data(Extend(1000)),
        edit_data(Replan(Plan(lr=Cosine()), over=3)),
    ]
    for good in whole:
        for name in good:
            data = {**good, name: junk}
            try:
                made = edit_from(data)
            except (MismatchError, SpecError, FieldError):
                continue
            json.dumps(edit_data(made))  # what is accepted means something: over=None, why="" ...
        for bad in ({**good, "more": junk}, {k: v for k, v in good.items() if k != "kind"}):
            with pytest.raises(MismatchError):
                edit_from(bad)
    with pytest.raises(MismatchError):
        edit_from(junk)


@pytest.mark.parametrize(
    "make",
    [
        lambda: CoolDown(-5),
        lambda: CoolDown(0),
        lambda: CoolDown(5, to=-1),
        lambda: CoolDown(5, along="straight"),
        lambda: CoolDown(5, keys=()),
        lambda: CoolDown(5, why=3),
        lambda: Extend("rest"),
        lambda: Extend("5%"),
        lambda: Extend(0),
        lambda: Extend(math.inf),
        lambda: Replan(Cosine()),
        lambda: Replan(Plan(lr=Cosine()), over=-1),
        lambda: Replan(Plan(lr=Cosine()), since="then"),
        lambda: Replan(Plan(lr=Cosine()), over="rest"),
    ],
)
def test_fields_of_an_edit_are_checked_where_they_are_given(make):
    with pytest.raises(FieldError, match="must be"):
        make()


def test_every_refusal_is_one_of_ours():
    schedule, then = Warmup("5%") >> Cosine(), Plan(lr=Cosine())
    edits = [
        Extend(1),
        Extend("1samples"),
        CoolDown("1tok"),
        CoolDown("3ep"),
        CoolDown("1h"),
        Replan(then, over="1h"),
        Replan(Plan(lr=Cosine("1h"))),
        Replan(Plan(lr=Cosine("1ep"))),
        Replan(Plan(lr=Warmup(5000) >> Cosine())),
    ]
    for edit in edits:
        with pytest.raises(StepsizeError):
            resolve(*reversed_pair(edited(schedule, edit, 300)))
    assert Time(1.0, "h")


def reversed_pair(found):
    made, _, horizon = found
    return made, horizon
