"""Changes of plan on a live scheduler: what is written, what the journal says, what is refused."""

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
    Warmup,
    check,
    describe,
    preview,
    wsd,
)
from stepsize.feedback import Plateau
from stepsize.torch import Scheduler

pytestmark = pytest.mark.filterwarnings("ignore:.*was over at step")


def made(steps=0, lrs=(0.1, 0.02), horizon=100, **fields):
    """A scheduler after some real steps of its optimizer."""
    params = [nn.Parameter(torch.ones(1)) for _ in lrs]
    groups = [{"params": [p], "lr": lr} for p, lr in zip(params, lrs, strict=True)]
    for p in params:
        p.grad = torch.zeros(1)
    optimizer = torch.optim.SGD(groups, lr=0.1, momentum=0.9)
    fields = {"lr": Warmup("10%") >> Cosine(), **fields}
    return go(Scheduler(optimizer, horizon=Horizon(horizon), **fields), steps)


def go(scheduler, steps):
    for _ in range(steps):
        scheduler.optimizer.step()
        scheduler.step()
    return scheduler


def rates(scheduler):
    return [group["lr"] for group in scheduler.optimizer.param_groups]


def test_an_edit_is_written_at_once_and_the_value_does_not_jump():
    for act in (
        lambda s: s.cool_down(20),
        lambda s: s.extend(300),
        lambda s: s.extend(60),
        lambda s: s.replan(lr=Linear(), over=10),
    ):
        scheduler = made(40)
        before = rates(scheduler)
        act(scheduler)
        assert rates(scheduler) == pytest.approx(before, rel=1e-12)
        assert rates(scheduler) == scheduler.at(40)["lr"]
        go(scheduler, 1)
        assert rates(scheduler) == pytest.approx(before, rel=0.2)
        assert rates(scheduler) == scheduler.values()["lr"]


def test_the_journal_says_what_where_and_why_as_plain_data():
    scheduler = made(40)
    scheduler.extend("200st", why="more data came")
    go(scheduler, 5)
    scheduler.cool_down("5%", to=0.1, along="cosine", why="enough")
    first, second = json.loads(json.dumps(scheduler.journal))
    assert (first["kind"], first["step"], first["total"], first["why"]) == (
        "extend",
        40,
        200.0,
        "more data came",
    )
    assert (second["kind"], second["step"], second["over"]) == ("cool_down", 45, "5%")
    assert (second["along"], second["to"], second["keys"]) == ("cosine", 0.1, ["lr"])
    scheduler.journal.clear()
    assert len(scheduler.journal) == 2


def test_after_a_cooldown_it_is_finished():
    scheduler = made(40)
    scheduler.cool_down(10)
    assert not go(scheduler, 9).finished
    assert go(scheduler, 1).finished
    assert rates(scheduler) == [0.0, 0.0]
    with pytest.raises(FieldError, match="nothing lies ahead|above 0"):
        scheduler.cool_down(10)


REFUSED = [
    lambda s: s.cool_down(10, keys=("beta1",)),
    lambda s: s.cool_down("70%"),
    lambda s: s.cool_down("1tok"),
    lambda s: s.cool_down("1h"),
    lambda s: s.cool_down(0),
    lambda s: s.extend(40),
    lambda s: s.extend("3ep"),
    lambda s: s.extend(Horizon(300, batches_per_epoch=7)),
    lambda s: s.extend(Horizon()),
    lambda s: s.replan(beta1=Constant()),
    lambda s: s.replan(lr=Cosine().absolute(0.1)),
    lambda s: s.replan(lr=Cosine("3ep")),
    lambda s: s.replan(Cosine()),
    lambda s: s.replan(),
    lambda s: s.replan(lr=Warmup(200) >> Cosine()),
    lambda s: s.add_param_group({"params": [nn.Parameter(torch.ones(1))]}, beta1=Constant()),
]


@pytest.mark.parametrize("act", REFUSED, ids=range(len(REFUSED)))
def test_a_refused_edit_says_so_and_changes_nothing(act):
    scheduler = made(40)
    before, groups = scheduler.state_dict(), [dict(g) for g in scheduler.optimizer.param_groups]
    with pytest.raises(StepsizeError, match="."):
        act(scheduler)
    assert scheduler.state_dict() == before
    assert [dict(g) for g in scheduler.optimizer.param_groups] == groups
    assert rates(go(scheduler, 10)) == rates(made(50))


def test_what_has_ended_in_an_extra_or_a_group_is_no_obstacle_to_extending():
    extra = {"mix": Linear("10%", start=0.0, stop=1.0).absolute()}
    groups = {1: {"lr": Linear("20%", start=1.0, stop=0.5)}}
    scheduler = made(50, extra=extra, groups=groups)
    before = scheduler.at(50)
    scheduler.extend(200)
    assert scheduler.at(50) == before
    assert [scheduler.at(t)["mix"] for t in (0, 5, 10, 200)] == [0.0, 0.5, 1.0, 1.0]
    assert scheduler.at(200)["lr"] == [0.0, 0.01]


@pytest.mark.parametrize("step", [0, 1, 9, 10, 11, 50, 98])
def test_reaching_the_end_at_the_last_step_survives_edits(step):
    momentum = Linear(start=0.95, stop=0.85).absolute()
    scheduler = made(step, reach="last", momentum=momentum)
    before = [scheduler.at(t) for t in range(100)]
    scheduler.cool_down("rest", to=0.5) if step < 98 else scheduler.replan(lr=Linear(), over=1)
    after = [scheduler.at(t) for t in range(100)]
    assert [x["lr"] for x in after[: step + 1]] == [x["lr"] for x in before[: step + 1]]
    assert [x["momentum"] for x in after] == [x["momentum"] for x in before]
    assert after[99]["momentum"] == [0.85, 0.85]
    with pytest.raises(FieldError, match="reach='end'"):
        made(step, reach="last").extend(200)


def test_extend_moves_the_milestones_of_every_group_that_lie_ahead():
    groups = {1: {"lr": MultiStep(("30%", "60%"))}}
    scheduler = made(45, groups=groups, lr=wsd("10%", cooldown="10%"))
    scheduler.extend(200)
    assert [scheduler.at(t)["lr"][1] for t in (29, 30, 60, 119, 120)] == pytest.approx(
        [0.02, 0.002, 0.002, 0.002, 0.0002]
    )
    assert [scheduler.at(t)["lr"][0] for t in (10, 180, 190, 200)] == pytest.approx(
        [0.1, 0.1, 0.05, 0.0], abs=1e-12
    )


def test_an_absolute_value_is_edited_in_its_own_size():
    scheduler = made(40, lr=Cosine().absolute(3e-4))
    now = rates(scheduler)
    scheduler.cool_down(10, to=0.5)
    assert rates(scheduler) == now
    assert rates(go(scheduler, 10)) == pytest.approx([0.5 * now[0]] * 2)
    scheduler.replan(lr=Constant(value=1e-4).absolute(), over=5)
    assert rates(go(scheduler, 5)) == pytest.approx([1e-4] * 2)


def test_a_controller_goes_on_multiplying_after_an_edit():
    scheduler = made(10, lr=Constant("rest"), feedback=Plateau(factor=0.5, patience=0))
    scheduler.observe(metric=1.0)
    go(scheduler, 1).observe(metric=1.0)
    assert rates(scheduler) == [0.05, 0.01]
    scheduler.cool_down(10)
    assert rates(scheduler) == [0.05, 0.01]
    assert rates(go(scheduler, 5)) == pytest.approx([0.025, 0.005])
    scheduler.observe(metric=1.0)
    assert rates(scheduler) == pytest.approx([0.0125, 0.0025])


def test_a_floor_holds_through_edits():
    scheduler = made(40, floor={"lr": 0.01})
    scheduler.cool_down(10)
    assert rates(go(scheduler, 10)) == [0.01, 0.01]
    scheduler.replan(lr=Constant(value=0.5), over=4)
    assert rates(go(scheduler, 4)) == pytest.approx([0.05, 0.01])


def test_an_edited_scheduler_is_drawn_described_and_checked():
    scheduler = made(40, extra={"ema": Linear(start=0.9, stop=0.99).absolute()})
    for act in (
        lambda: scheduler.extend(300),
        lambda: scheduler.replan(Plan(lr=Warmup(5) >> Cosine(stop=0.1)), since="now"),
        lambda: scheduler.add_param_group({"params": [nn.Parameter(torch.ones(1))]}, clock="own"),
        lambda: scheduler.cool_down("10%", along="harmonic", to=0.1),
    ):
        act()
        go(scheduler, 7)
        assert preview(scheduler).text()
        assert str(describe(scheduler))
        assert isinstance(check(scheduler), tuple)
        assert "at step" in repr(scheduler)


def test_extending_step_by_step_is_one_plan_after_another():
    scheduler = made(0, lr=wsd("10%", cooldown="10%"))
    for total in range(101, 141):
        go(scheduler, 1)
        scheduler.extend(total)
    go(scheduler, 100)
    assert rates(scheduler) == [0.0, 0.0]
    assert scheduler.at(126)["lr"][0] == pytest.approx(0.1)
    assert len(repr(scheduler)) < 1500
