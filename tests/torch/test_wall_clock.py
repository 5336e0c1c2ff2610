"""Schedules over wall-clock time: they follow the time that training has taken."""

import json

import pytest
import torch
from torch import nn

from stepsize import (
    Constant,
    Cosine,
    FieldError,
    Horizon,
    Linear,
    MultiStep,
    Plan,
    StepsizeError,
    UnitError,
    Warmup,
    check,
    describe,
    preview,
    table,
)
from stepsize.torch import Scheduler

HOUR = 3600.0
DAY = Horizon("12h")


class Watch:
    """A clock that is set by hand."""

    def __init__(self, now=1e6):
        self.now = now

    def __call__(self):
        return self.now


class Run:
    """One step per call, each of so many seconds."""

    def __init__(self, plan=None, watch=None, horizon=DAY, **fields):
        self.watch = watch or Watch()
        p = nn.Parameter(torch.ones(1))
        p.grad = torch.zeros(1)
        self.optimizer = torch.optim.SGD([p], lr=0.1, momentum=0.9)
        plan = plan or Plan(lr=Warmup("5%") >> Cosine())
        self.scheduler = Scheduler(
            self.optimizer, plan, horizon=horizon, clock=self.watch, **fields
        )

    def go(self, *seconds):
        for each in seconds:
            self.watch.now += each
            self.optimizer.step()
            self.scheduler.step()
        return self

    @property
    def lr(self):
        return self.optimizer.param_groups[0]["lr"]


def told(schedule, hours):
    return pytest.approx(0.1 * schedule(hours), rel=1e-9, abs=1e-15)


def test_values_follow_the_elapsed_time_and_not_the_steps():
    schedule = Warmup(0.6, start=0.0) >> Cosine(11.4)  # in hours
    plan = Plan(lr=Warmup("5%", start=0.0) >> Cosine())
    one, other = Run(plan), Run(plan)
    one.go(*[60.0] * 90)
    other.go(0.25 * HOUR, HOUR, 0.25 * HOUR)
    assert one.lr == other.lr == told(schedule, 1.5)
    one.go(9 * HOUR, 0.75 * HOUR)
    assert one.lr == told(schedule, 11.25)
    one.go(2 * HOUR)
    assert one.lr == 0.0
    assert one.scheduler.last_epoch == 93
    assert one.scheduler.finished


@pytest.mark.parametrize("total", ["720 min", "43200s", "0.5d"])
def test_every_unit_of_wall_clock_time_is_the_same_time(total):
    runs = [
        Run(horizon=Horizon(total)),
        Run(Plan(lr=Warmup("36 min") >> Cosine("11.4h")), horizon=Horizon()),
    ]
    for run in runs:
        run.go(HOUR, 4 * HOUR)
    assert runs[0].lr == pytest.approx(runs[1].lr, rel=1e-12) == Run().go(5 * HOUR).lr


def test_a_clock_that_goes_backwards_never_takes_time_back():
    run = Run(Plan(lr=Linear())).go(3 * HOUR)
    before = run.lr
    run.go(-2 * HOUR)
    assert run.lr == before
    run.go(1 * HOUR)
    assert run.lr == before
    run.go(2 * HOUR)
    assert run.lr == pytest.approx(0.1 * (1 - 4 / 12))


def test_a_long_pause_between_steps_is_training_time():
    run = Run(Plan(lr=Linear())).go(HOUR, 100 * HOUR, HOUR)
    assert run.lr == 0.0


def test_the_time_stands_still_between_a_save_and_its_load():
    plan = Plan(lr=Linear(), momentum=Linear(start=0.9, stop=0.8).absolute())
    straight = Run(plan).go(HOUR, 2 * HOUR)
    state = json.loads(json.dumps(straight.scheduler.state_dict()))
    assert json.loads(state["details"])["seconds"] == 3 * HOUR
    resumed = Run(plan, Watch(5.0))  # another machine's clock
    resumed.watch.now += 7 * HOUR
    resumed.scheduler.load_state_dict(state)
    assert resumed.lr == straight.lr == pytest.approx(0.1 * 0.75)
    for hours in (1, 2, 3, 4):
        straight.go(hours * HOUR)
        resumed.go(hours * HOUR)
        groups = [run.optimizer.param_groups[0] for run in (straight, resumed)]
        values = [[group["lr"], group["momentum"]] for group in groups]
        assert values[1] == pytest.approx(values[0], rel=1e-9, abs=1e-15)


def test_cool_down_over_minutes_begins_now():
    run = Run(Plan(lr=Linear())).go(6 * HOUR)
    run.scheduler.cool_down("10 min", to=0.1, why="the job ends")
    assert run.lr == 0.05
    lrs = []
    for _ in range(12):
        run.go(60.0)
        lrs.append(run.lr)
    expected = [0.05 * (1 - 0.9 * min(i, 10) / 10) for i in range(1, 13)]
    assert lrs == pytest.approx(expected, rel=1e-9)
    assert run.scheduler.finished
    assert run.scheduler.journal[0]["over"] == "10min"
    assert run.scheduler.journal[0]["seconds"] == 6 * HOUR


def test_extend_in_hours_changes_nothing_now_and_reaches_the_new_end():
    run = Run(Plan(lr=Warmup("5%") >> Linear())).go(0.6 * HOUR, 5.7 * HOUR)
    before = run.lr
    run.scheduler.extend("14h")
    assert run.lr == before == pytest.approx(0.05)
    run.go(3.85 * HOUR)
    assert run.lr == pytest.approx(0.025)
    run.go(3.85 * HOUR)
    assert run.lr == pytest.approx(0.0, abs=1e-15)
    assert run.scheduler.horizon == Horizon("14h")


def test_replan_in_minutes_and_in_shares():
    run = Run(Plan(lr=Linear())).go(3 * HOUR)
    run.scheduler.replan(lr=MultiStep(("50%",)), over="6 min", since="start")
    assert run.lr == pytest.approx(0.075)
    run.go(180.0)
    assert run.lr == pytest.approx((0.075 + 0.1) / 2)
    run.go(180.0)
    assert run.lr == pytest.approx(0.1)
    run.go(3 * HOUR)
    assert run.lr == pytest.approx(0.01)
    run.scheduler.replan(lr=Constant(value=0.5))  # a hundredth of 12 hours
    run.go(0.12 * HOUR)
    assert run.lr == pytest.approx(0.05)


def test_edits_are_resumed_with_the_time_they_were_made_at():
    def edits(run):
        run.scheduler.extend("20h")
        run.go(0.5 * HOUR)
        run.scheduler.cool_down("1h", to=0.5)
        run.go(0.25 * HOUR)
        run.scheduler.replan(lr=Linear(), over="10 min", since="start")
        return run.go(300.0)

    straight = edits(Run(Plan(lr=Cosine())).go(HOUR))
    resumed = Run(Plan(lr=Cosine()), Watch(3.0))
    resumed.scheduler.load_state_dict(straight.scheduler.state_dict())
    assert resumed.lr == straight.lr
    assert resumed.scheduler.journal == straight.scheduler.journal
    for _ in range(5):
        assert resumed.go(HOUR).lr == pytest.approx(straight.go(HOUR).lr, rel=1e-9, abs=1e-15)


def test_other_units_are_refused_clearly_and_nothing_changes():
    run = Run(Plan(lr=Linear())).go(HOUR)
    state = run.scheduler.state_dict()
    refused = [
        lambda: run.scheduler.cool_down(100),
        lambda: run.scheduler.cool_down("1ep"),
        lambda: run.scheduler.extend(1000),
        lambda: run.scheduler.extend("3ep"),
        lambda: run.scheduler.replan(lr=Cosine(1000)),
        lambda: run.scheduler.replan(lr=Cosine(), over=100),
        lambda: run.scheduler.replan(lr=Warmup("1000tok") >> Cosine()),
        lambda: run.scheduler.extend("30 min"),
        lambda: run.scheduler.cool_down("12h"),
    ]
    for act in refused:
        with pytest.raises(StepsizeError) as raised:
            act()
        assert isinstance(raised.value, UnitError | FieldError)
        assert run.scheduler.state_dict() == state
    with pytest.raises(UnitError, match="cannot be mixed: their rate is known only live"):
        run.scheduler.cool_down(100)
    with pytest.raises(UnitError, match="cannot be mixed"):
        Run(Plan(lr=Warmup(100) >> Cosine("3h")))
    with pytest.raises(UnitError, match="cannot be mixed"):
        Run(Plan(lr=Cosine("3h")), horizon=Horizon(1000))


def test_a_refused_extension_says_where_the_run_is():
    run = Run(Plan(lr=Linear())).go(HOUR)
    with pytest.raises(FieldError, match=r"beyond where the run is \(3600 seconds\)"):
        run.scheduler.extend("30 min")
    with pytest.raises(FieldError, match=r"what is left of the run \(39600 s\)"):
        run.scheduler.cool_down("12h")


def test_only_the_present_step_has_a_value():
    """What time another step will come at is not known."""
    run = Run(Plan(lr=Linear())).go(3 * HOUR)
    assert run.scheduler.at(1) == run.scheduler.values()
    assert run.scheduler.values()["lr"] == [run.lr]
    with pytest.raises(UnitError, match="at the present step only"):
        run.scheduler.at(10**6)


def test_pictures_words_and_tables_over_hours_do_not_break():
    run = Run().go(HOUR)
    run.scheduler.extend("14h")
    run.scheduler.cool_down("2h")
    for what in (run.scheduler, Cosine("3h"), Plan(lr=Warmup("5%") >> Cosine())):
        horizon = None if what is run.scheduler else DAY
        for show in (preview, describe, check, table):
            try:
                shown = show(what, horizon)
            except StepsizeError as error:
                assert str(error)  # noqa: PT017 (a clear no)
            else:
                assert shown is not None


def test_a_plain_schedule_beside_one_over_hours_moves_by_steps():
    plan = Plan(lr=Linear(), momentum=Linear(10, start=0.9, stop=0.8).absolute())
    run = Run(plan).go(*[HOUR] * 5)
    group = run.optimizer.param_groups[0]
    assert (group["lr"], group["momentum"]) == (pytest.approx(0.1 * 7 / 12), pytest.approx(0.85))
    run.scheduler.cool_down("1h", to=0.5)
    run.go(HOUR)
    assert (group["lr"], group["momentum"]) == (pytest.approx(0.05 * 7 / 12), pytest.approx(0.84))


def test_a_clock_is_not_read_where_nothing_needs_it():
    run = Run(Plan(lr=Linear(10)), horizon=None)
    run.watch.now += HOUR
    run.go(1.0)
    assert run.scheduler.state_dict()["details"].count('"seconds": 0.0') == 1
