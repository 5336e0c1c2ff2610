"""What is said about a long run is true of every step of it."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from stepsize import (
    Constant,
    Cosine,
    Custom,
    CycledPolynomial,
    FieldError,
    Horizon,
    Linear,
    MultiStep,
    Piecewise,
    Plan,
    PowerLaw,
    Repeated,
    Step,
    UnitError,
    Warmup,
    check,
    compare_golden,
    cyclic,
    describe,
    difference,
    golden,
    preview,
    sgdr,
    table,
    write_golden,
)
from stepsize.look.runs import run_of
from stepsize.look.scan import points_in
from stepsize.schedules.moments import moments_of
from stepsize.torch import Scheduler

TOTALS = st.sampled_from([1000, 35_190, 150_000])


@settings(max_examples=25)
@given(total=TOTALS, at=st.floats(0.01, 0.98), by=st.sampled_from([1, 2, 7]), data=st.data())
def test_one_step_moved_is_found(total, at, by, data, tmp_path_factory):
    step = int(at * total)
    one, other = data.draw(
        st.sampled_from(
            [
                (MultiStep((step,)), MultiStep((step + by,))),
                (Piecewise({0: 1, step: 0.5}), Piecewise({0: 1, step + by: 0.5})),
                (Constant(), Piecewise({0: 1, step: 0.5, step + by: 1})),
                (Step(step), Step(step + by)),
                (Cosine(step).repeated(), Cosine(step).repeated().shifted(by)),
                (Warmup(step) >> Cosine(total), Warmup(step + by) >> Cosine(total)),
            ]
        )
    )
    run = Horizon(total)
    a, b = one.compile(), other.compile()
    truth = [t for t in range(total) if abs(a(float(t)) - b(float(t))) > 1e-12]
    (gap,) = difference(one, other, run).gaps
    assert gap.first_at == (truth[0] if truth else None)
    path = tmp_path_factory.mktemp("golden") / "lr.json"
    write_golden(path, one, run)
    assert bool(compare_golden(path, other, run)) is bool(truth)


@pytest.mark.parametrize(
    ("schedule", "total", "peak_at", "peak"),
    [
        (Piecewise({0: 0.5, 777: 1.0, 778: 0.5}), 100_000, 777, 1.0),
        (Piecewise({0: 0.1, 123_457: 0.1, 123_458: 1.0, 123_460: 0.1}), 10_000_000, 123_458, 1.0),
        (cyclic(7, low=0.0), 1_000_000, 7, 1.0),
        (Warmup(12_345_678) >> Cosine(), 100_000_000, 12_345_678, 1.0),
    ],
)
def test_a_short_peak_of_a_long_run_is_seen(schedule, total, peak_at, peak):
    (facts,) = describe(schedule, Horizon(total)).facts
    assert (facts.peak_at, facts.peak) == (peak_at, peak)
    shown = preview(schedule, Horizon(total)).panels[0].series[0].points
    assert max(value for _, value in shown) == pytest.approx(peak, rel=0.05)
    assert f"{peak_at:,}" in str(describe(schedule, Horizon(total)))


@pytest.mark.parametrize("period", [500, 1000, 977])
def test_no_period_hides_from_a_mean(period):
    (facts,) = describe(cyclic(period, low=0.0), Horizon(65_536_000)).facts
    assert facts.mean == pytest.approx(0.5, abs=0.01)


def test_a_spike_of_a_momentum_is_found_in_ten_million_steps():
    spike = Piecewise({0: 0.9, 7_777_777: 1.0, 7_777_778: 0.9}).absolute()
    (found,) = check(Plan(momentum=spike), Horizon(10_000_000))
    assert (found.rule, found.at) == ("momentum", 7_777_777.0)


def test_a_run_of_a_million_steps_is_looked_at_step_by_step():
    run = run_of(Cosine(), Horizon(1_000_000))
    assert len(points_in(run, run.tracks[0])) == 1_000_000
    assert len(points_in(run_of(Cosine(), Horizon(1_000_001)), run.tracks[0])) < 50_000


def test_a_table_under_a_batch_ramp_has_rows_at_the_units_multiples():
    ramp = Horizon("2e7 tok", batch_size=Linear(500, start=16, stop=128), tokens_per_sample=256)
    tokens = [row[0] for row in table(Cosine(), ramp, every="2e6 tok", unit="tokens").rows]
    assert all(abs(at - 2e6 * i) < 128 * 256 for i, at in enumerate(tokens[:-1]))
    carry = Horizon("90ep", batches_per_epoch=391, accumulate=4, last="carry")
    steps = [row[0] for row in table(Cosine(), carry, every="30ep").rows]
    assert steps[-1] == carry.steps - 1


def test_a_bound_scheduler_keeps_its_base_values_and_its_horizon():
    optimizer = torch.optim.SGD([torch.ones(1, requires_grad=True)], lr=1.0)
    scheduler = Scheduler(optimizer, lr=Cosine(), horizon=Horizon(100), extra={"noise": Linear()})
    with pytest.raises(FieldError, match="base must be left out"):
        table(scheduler, base=0.1)
    with pytest.raises(FieldError, match="horizon must be that of the scheduler"):
        table(scheduler, Horizon(1000))
    assert table(scheduler, Horizon(100)).rows == table(scheduler).rows
    assert all(facts.is_value for facts in describe(scheduler).facts)  # also where lr is 1


def test_a_scheduler_that_went_on_with_another_batch_size_shows_its_own_future():
    def made(batch):
        optimizer = torch.optim.SGD([torch.ones(1, requires_grad=True)], lr=0.1)
        schedule = Warmup("200 samples") >> Cosine("800 samples")
        run = Horizon("1000 samples", batch_size=batch)
        return Scheduler(optimizer, lr=schedule, horizon=run)

    first, second = made(10), made(20)
    for _ in range(50):
        first.optimizer.step()
        first.step()
    second.load_state_dict(first.state_dict())
    rows = table(second, every=1).rows
    assert [row[1] for row in rows[50:]] == [second.at(t)["lr"][0] for t in range(50, len(rows))]
    assert len(rows) == 75  # half the samples in 50 steps, the other half in 25


def test_two_optimizers_with_groups_of_one_name_are_told_apart():
    def sgd(lr):
        return torch.optim.SGD(
            [{"params": [torch.ones(1, requires_grad=True)], "name": "body"}], lr=lr
        )

    scheduler = Scheduler([sgd(0.1), sgd(0.2)], lr=Cosine(10))
    names = [series.name for series in preview(scheduler).panels[0].series]
    assert names == ["body of optimizer 0", "body of optimizer 1"]
    assert len(golden(scheduler)["curves"]) == 2


@pytest.mark.parametrize("look", [describe, check, table, golden])
def test_an_endless_schedule_needs_a_run(look):
    with pytest.raises(UnitError, match="does not say how long the run is: give Horizon"):
        look(PowerLaw(0.5))
    assert preview(PowerLaw(0.5)).panels  # a picture shows its scale


def test_a_run_too_long_for_floats_is_refused():
    with pytest.raises(UnitError, match="too long: steps beyond 2\\*\\*53"):
        describe(Cosine(), Horizon(1e17))
    assert describe(Cosine(), Horizon(1e15)).facts[0].first == 1.0


def test_wall_clock_and_steps_meet_where_the_rate_is_known():
    shares = Warmup("5%") >> Cosine()
    assert preview(shares, Horizon("12h")).panels[0].x.name == "hours"
    assert preview(shares, Horizon("12h"), seconds_per_step=0.5).panels[0].x.high == 86_400
    hours = Warmup("1h") >> Cosine()
    for run in (Horizon(86_400), Horizon("864ep", batches_per_epoch=100)):
        (facts,) = describe(hours, run, seconds_per_step=0.5).facts
        assert facts.peak_at == 7200


BEYOND = Constant(value=1e308) * Constant(value=10.0)


@pytest.mark.parametrize("look", [describe, check, table, golden])
def test_no_look_shows_a_value_beyond_all_numbers(look):
    with pytest.raises(FieldError, match="the value at t = 0 must be a finite number, got inf"):
        look(BEYOND, Horizon(10))


def test_values_that_are_no_numbers_are_told():
    with pytest.raises(FieldError, match="the value at t = 0 must be a finite number, got inf"):
        preview(BEYOND, Horizon(10))
    with pytest.raises(
        FieldError, match="Custom.function must be a number at every time, got .*t = 0"
    ):
        preview(Custom(_broken, over=10))


def _broken(t):
    return 1.0 / t


def test_a_long_fall_can_be_drawn_by_orders_of_magnitude():
    found = preview(Repeated(Linear(1)) * Step(1, factor=0.1), Horizon(5000), log_y=True)
    assert found.panels[0].y.low >= 1e-12
    assert found.text(width=20, height=4)
    assert preview(Constant(value=5e-324), Horizon(10), log_y=True).text()


def test_factors_and_values_are_not_shown_on_one_axis():
    with pytest.raises(FieldError, match="all factors or all values, got 'a'; give base="):
        preview({"a": Linear(10).absolute(0.1), "b": Linear(10)})
    assert preview({"a": Linear(10).absolute(0.1), "b": Linear(10)}, base=0.1).panels


def test_a_rate_beside_a_plan_is_one():
    found = preview({"plan": Plan(lr=Linear(10)), "line": Cosine(10)})
    assert [panel.title for panel in found.panels] == ["lr"]


def test_restarts_inside_many_cycles_are_moments():
    run = run_of(sgdr(100), Horizon(10_000))
    assert {100.0, 200.0, 9900.0} <= set(run.moments(run.tracks[0]))


@pytest.mark.parametrize(
    ("schedule", "moments"),
    [
        (CycledPolynomial(100), {100, 200, 300}),
        (Warmup(10) >> Step(50).cut(100) >> Linear(40), {10, 60, 110, 150}),
        (Linear(30).held(7), {7, 14, 21, 28, 35}),
        (Cosine(10).repeated(growth=2), {10, 30, 70, 150}),
        (Cosine(10).repeated(5), {5, 10, 15}),
        (Piecewise({0: 1, 5: 0.5, 9: 0}).stretched(2), {10, 18}),
        (MultiStep((5, 9)).shifted(2), {2, 7, 11}),
        (Step(40) * MultiStep((7,)), {7, 40, 80}),
    ],
    ids=repr,
)
def test_a_schedule_knows_when_it_may_jump(schedule, moments):
    found = moments_of(schedule, 400)
    assert moments <= found
    # and it jumps nowhere else
    value = schedule.compile()
    jumps = {t for t in range(1, 400) if abs(value(t) - value(t - 1e-9)) > 1e-3}
    jumps |= {t for t in range(1, 400) if abs(value(t + 1e-9) - value(t)) > 1e-3}
    assert jumps <= found


def test_the_same_numbers_in_two_units_are_two_curves():
    run = Horizon(1000, batch_size=10)
    shown = preview({"samples": Linear("1000 samples"), "steps": Linear(1000)}, run).panels[0]
    assert [dict(series.points)[50.0] for series in shown.series] == [0.5, 0.95]


def test_three_million_steps_are_compared_one_by_one():
    spike = Piecewise({0: 1, 1_234_567: 0.5, 1_234_568: 1})
    (gap,) = difference(Constant(), spike, Horizon(3_000_000)).gaps
    assert (gap.first_at, gap.largest_at, gap.largest) == (1_234_567, 1_234_567, -0.5)
