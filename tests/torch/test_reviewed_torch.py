"""What a review of the torch room found, as it has to be."""

import copy
import gc
import math
import pickle
import sys
import warnings
import weakref

import pytest
import torch
from torch import nn

from stepsize import (
    Constant,
    Cosine,
    FieldError,
    Horizon,
    Linear,
    MismatchError,
    StepsizeError,
    UnitError,
    Warmup,
    check,
    describe,
    preview,
)
from stepsize.feedback import Plateau, PlateauCooldown, Seen, SpikeGuard, UpDown
from stepsize.torch import Scheduler
from stepsize.torch.controlled import Controlled
from stepsize.torch.guards import StepsizeWarning

SHARES = Warmup("5%") >> Cosine()


def parameter():
    return nn.Parameter(torch.ones(2))


def sgd(*lrs, cls=torch.optim.SGD, names=(), **fields):
    groups = [{"params": [parameter()], "lr": lr} for lr in lrs or (0.1,)]
    for group, name in zip(groups, names, strict=False):
        group["name"] = name
    return cls(groups, lr=0.1, **fields)


def run(lr=SHARES, total=None, *, lrs=(), steps=0, **settings):
    """A scheduler of a new optimizer, some steps on its way."""
    horizon = Horizon(total) if isinstance(total, int | str) else total
    given = {} if lr is None else {"lr": lr}
    return go(Scheduler(sgd(*lrs), horizon=horizon, **given, **settings), steps)


def go(scheduler, steps=1, *metric):
    for _ in range(steps):
        take_step(scheduler.optimizer)
        scheduler.step(*metric)
    return scheduler


def take_step(optimizer):
    for group in optimizer.param_groups:
        for p in group["params"]:
            p.grad = torch.zeros_like(p)
    optimizer.step()


def rates(scheduler):
    return [float(group["lr"]) for group in scheduler.optimizer.param_groups]


def ahead(scheduler, *steps):
    return [scheduler.at(t)["lr"][0] for t in steps]


def loaded(scheduler, saving, **how):
    scheduler.load_state_dict(saving.state_dict(), **how)
    return scheduler


def assert_same_future(one, other, steps=50):
    assert rates(one) == rates(other)
    for _ in range(steps):
        assert rates(go(one)) == rates(go(other))


# Units in a run that steps drive ------------------------------------------------------------------


def told_in_tokens(total=None, **fields):
    return Horizon(total, batch_size=10, tokens_per_sample=10, **fields)


UNITS = {
    "replan-samples": (
        lambda: run(Warmup(10) >> Cosine(), Horizon(300, batch_size=10)),
        lambda scheduler: scheduler.replan(lr=Linear("1000 samples")),
        10,
    ),
    "extend-tokens": (
        lambda: run(SHARES, told_in_tokens(300)),
        lambda scheduler: scheduler.extend("5e4tok"),
        20,
    ),
    "open-end-tokens": (
        lambda: run(Constant("rest") >> Linear("20%"), told_in_tokens(open_end=True)),
        lambda scheduler: scheduler.extend("3e4tok"),
        160,
    ),
    "warmup-and-open-end-tokens": (
        lambda: run(
            Warmup("1e3tok") >> Constant("rest") >> Linear("20%"), told_in_tokens(open_end=True)
        ),
        lambda scheduler: scheduler.extend("3e4tok"),
        160,
    ),
}


@pytest.mark.parametrize(("build", "edit", "then"), UNITS.values(), ids=UNITS)
def test_an_edit_in_another_unit_resumes_under_the_same_script(build, edit, then):
    saving = go(build(), 100)
    edit(saving)
    go(saving, then)
    again = loaded(build(), saving)
    assert again.journal == saving.journal
    assert_same_future(saving, again)
    assert again.state_dict() == saving.state_dict()


def tokens(total):
    return Horizon(total, batch_size=10, tokens_per_sample=100)


def test_shares_of_tokens_are_adopted_with_the_saved_total():
    saving = run(SHARES, tokens("1e6tok"), steps=300)
    again = loaded(run(SHARES, tokens("2e6tok")), saving, on_mismatch="adopt")
    assert again.horizon.steps == 1000
    assert_same_future(saving, again)


def test_shares_of_tokens_continue_without_a_jump():
    saving = run(SHARES, tokens("1e6tok"), steps=300)
    again = loaded(run(SHARES, tokens("2e6tok")), saving, on_mismatch="continue")
    assert rates(again) == pytest.approx(rates(saving), rel=1e-12)
    assert again.horizon.steps == 2000
    values = ahead(again, 300, 301, 1000, 1999, 2000)
    assert values == sorted(values, reverse=True)
    assert values[1] == pytest.approx(values[0], rel=1e-3)
    assert values[-1] == pytest.approx(0.0, abs=1e-12)


def test_a_total_in_steps_is_adopted_beside_a_group_in_tokens():
    def build(total):
        groups = {1: {"lr": Cosine("5e5tok")}}
        return run(SHARES, tokens(total), lrs=(0.1, 0.1), groups=groups)

    saving = go(build(1000), 300)
    assert_same_future(saving, loaded(build(2000), saving, on_mismatch="adopt"))


# Epochs -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("lr", [SHARES, Warmup("5ep") >> Cosine()], ids=["shares", "epochs"])
def test_epochs_go_on_with_another_number_of_processes(lr):
    saving = run(lr, Horizon("90ep", batches_per_epoch=10, replicas=2), steps=450)
    again = loaded(run(lr, Horizon("90ep", batches_per_epoch=20, replicas=1)), saving)
    assert again.last_epoch == 450
    assert rates(again) == pytest.approx(rates(saving), rel=1e-12)
    alone = run(lr, Horizon("90ep", batches_per_epoch=20))
    assert rates(again) == pytest.approx(ahead(alone, 900), rel=1e-12)
    of_ten = ahead(saving, *(450 + 10 * epoch for epoch in range(46)))
    of_twenty = ahead(again, *(450 + 20 * epoch for epoch in range(46)))
    assert of_twenty == pytest.approx(of_ten, rel=1e-9, abs=1e-12)
    assert go(again, 20).get_last_lr() == pytest.approx(of_ten[1:2], rel=1e-9)


EDITS = {
    "extend": lambda scheduler: scheduler.extend("120ep"),
    "extend-steps": lambda scheduler: scheduler.extend(1200),
    "replan": lambda scheduler: scheduler.replan(lr=Linear()),
    "cool_down": lambda scheduler: scheduler.cool_down("10ep"),
    "cool_down-steps": lambda scheduler: scheduler.cool_down(100),
    "cool_down-rest": lambda scheduler: scheduler.cool_down(),
}


@pytest.mark.parametrize("edit", EDITS.values(), ids=EDITS)
def test_an_edited_run_in_epochs_goes_on_with_another_number_of_processes(edit):
    saving = run(SHARES, Horizon("90ep", batches_per_epoch=10), steps=450)
    edit(saving)
    go(saving, 20)
    again = loaded(run(SHARES, Horizon("90ep", batches_per_epoch=20)), saving)
    of_ten = ahead(saving, *(470 + 10 * epoch for epoch in range(80)))
    of_twenty = ahead(again, *(470 + 20 * epoch for epoch in range(80)))
    assert of_twenty == pytest.approx(of_ten, rel=1e-9, abs=1e-12)


def test_a_run_in_epochs_on_other_processes_is_shown_as_it_is():
    saving = run(SHARES, Horizon("90ep", batches_per_epoch=10), steps=450)
    again = loaded(run(SHARES, Horizon("90ep", batches_per_epoch=20)), saving)
    assert check(again) == ()
    assert "0.0162" not in str(describe(again))  # where 1350 steps of 1800 end
    assert not go(again, 899).finished
    assert go(again).finished
    assert rates(again) == [0.0]


# Controllers --------------------------------------------------------------------------------------


def warned(call):
    """What is said meanwhile, but for a run that goes on behind its end."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        call()
    return [str(w.message) for w in caught if "was over at step" not in str(w.message)]


@pytest.mark.parametrize("steps", [92, 95, 96])
def test_a_plateau_near_the_end_cools_down_over_what_is_left(steps):
    stop = PlateauCooldown(over="10%", patience=1)
    scheduler = run(Warmup("5%") >> Constant("rest"), 100, feedback=stop, steps=steps)
    assert warned(lambda: go(scheduler, 100 - steps, 1.0)) == []
    assert [edit["kind"] for edit in scheduler.journal] == ["cool_down"]
    assert rates(scheduler) == [0.0]
    assert scheduler.finished


@pytest.mark.parametrize(
    ("lr", "total"), [(Cosine(50), None), (Warmup("5%") >> Constant("rest"), 60)]
)
def test_a_plateau_where_nothing_is_left_to_cool_says_so_once(lr, total):
    scheduler = run(lr, total, feedback=PlateauCooldown(over=10, patience=1))
    warned(lambda: go(scheduler, 60))
    before = rates(scheduler)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        go(scheduler, 10, 1.0)
    said = [w.category for w in caught if "was over at step" not in str(w.message)]
    assert said == [StepsizeWarning]
    assert rates(scheduler) == before
    assert scheduler.journal == []


@pytest.mark.parametrize("way", ["keep", "continue", "adopt"])
def test_a_changed_setting_of_a_controller_keeps_its_factor(way):
    saving = go(run(Constant(), feedback=Plateau(patience=1, factor=0.1)), 6, 1.0)
    assert rates(saving)[0] < 0.02
    again = run(Constant(), feedback=Plateau(patience=5, factor=0.1))
    assert rates(loaded(again, saving, on_mismatch=way)) == rates(saving)
    assert rates(go(again)) == rates(saving)


def test_other_kinds_of_controllers_cannot_be_continued():
    saving = go(run(Constant(), feedback=Plateau(patience=1, factor=0.1)), 6, 1.0)
    other = run(Constant(), feedback=UpDown(sees="metric"))
    with pytest.raises(MismatchError):
        loaded(other, saving, on_mismatch="continue")
    assert rates(other) == [0.1]


def test_other_floors_cannot_be_continued_and_are_adopted():
    saving = run(Linear(100), floor=0.05, steps=80)
    with pytest.raises(MismatchError, match="floor"):
        loaded(run(Linear(100)), saving, on_mismatch="continue")
    again = loaded(run(Linear(100)), saving, on_mismatch="adopt")
    assert (rates(again), ahead(again, 100)) == ([0.05], [0.05])
    other = loaded(run(Linear(100), floor=0.01), saving, on_mismatch="adopt")
    assert (rates(other), ahead(other, 100)) == ([0.05], [0.05])


def test_an_extra_stays_above_the_floor_of_its_controller():
    floored = Plateau(keys=("ema",), patience=0, factor=0.5, floor_value=0.6)
    scheduler = run(Cosine(100), extra={"ema": Constant(value=0.9).absolute()}, feedback=floored)
    go(scheduler, 4, 1.0)
    assert scheduler.values()["ema"] == 0.6
    assert scheduler.logs()["ema"] == 0.6


def test_one_tensor_cannot_have_two_floors():
    rate = torch.tensor(0.1)
    optimizer = sgd(rate, rate)
    with pytest.raises(FieldError):
        Scheduler(optimizer, lr=Constant(), feedback=Plateau(floor={0: 0.5, 1: 0.01}))
    Scheduler(optimizer, lr=Constant(), feedback=Plateau(floor=0.01))


def test_a_long_history_keeps_both_keys():
    keys = ("lr", "weight_decay")
    guard = SpikeGuard(keys=keys, cold=0, consecutive=1, cooldown=0, recover=3, decay=0.5)
    controlled = Controlled((guard,), None)
    for t in range(5000):
        controlled.see(Seen(float(t), loss=math.nan if t % 4 == 0 else 1.0), float(t), 0.0)
    early = controlled.history[:900]
    assert len(controlled.history) <= 4096
    assert {key for _, key, *_ in early} == set(keys)
    assert sum(key == "lr" for _, key, *_ in early) in range(400, 501)


def test_a_run_by_the_clock_is_shown_after_a_controller_acted():
    now = [0.0]
    plateau = Plateau(patience=0, factor=0.1)
    scheduler = run(Cosine("rest"), "1h", feedback=plateau, clock=lambda: now[0])
    for _ in range(5):
        now[0] += 10.0
        go(scheduler, 1, 1.0)
    assert scheduler.logs()["factor/plateau"] < 1.0
    assert preview(scheduler).text()
    assert str(describe(scheduler))
    check(scheduler)


def test_a_moment_that_has_passed_stays_passed_in_a_longer_run():
    plateau = Plateau(patience=0, factor=0.5, until="50%")
    scheduler = run(Constant("rest"), 100, feedback=plateau, steps=60)
    go(scheduler, 3, 1.0)
    scheduler.extend(200)
    go(scheduler, 3, 1.0)
    assert rates(scheduler) == [0.1]


def test_a_metric_is_a_number():
    scheduler = run(Constant(), feedback=Plateau())
    take_step(scheduler.optimizer)
    with pytest.raises(FieldError):
        scheduler.step({"loss": 1.0})


# Groups -------------------------------------------------------------------------------------------


def test_a_group_keeps_its_schedule_when_one_before_it_is_gone():
    saving = run(Cosine(100), lrs=(0.1, 0.1), steps=10)
    saving.add_param_group({"params": [parameter()]}, lr=Linear(100))
    go(saving, 10)
    del saving.optimizer.param_groups[0]
    go(saving, 10)
    assert rates(saving)[1] == pytest.approx(0.07)
    again = loaded(run(Cosine(100), lrs=(0.1, 0.1)), saving)
    assert_same_future(saving, again, 20)


def test_groups_under_each_others_names_are_a_mismatch():
    saving = go(Scheduler(sgd(0.1, 0.01, names=("body", "head")), lr=Cosine(100)), 10)
    other = Scheduler(sgd(0.01, 0.1, names=("head", "body")), lr=Cosine(100))
    with pytest.raises(MismatchError) as error:
        loaded(other, saving)
    assert "body" in str(error.value)
    assert "head" in str(error.value)
    assert rates(other) == [0.01, 0.1]


def test_a_group_that_cannot_be_scheduled_is_not_added():
    scheduler = run(Cosine(100), steps=10)
    with pytest.raises(UnitError):
        scheduler.add_param_group({"params": [parameter()]}, lr=Cosine("5ep"))
    assert len(scheduler.optimizer.param_groups) == 1
    assert scheduler.journal == []
    assert rates(go(scheduler)) == [0.1 * Cosine(100)(11)]


@pytest.mark.parametrize("index", [-1, 1])
def test_a_group_is_added_to_an_optimizer_that_is_there(index):
    scheduler = run(Cosine(100))
    with pytest.raises(FieldError):
        scheduler.add_param_group({"params": [parameter()]}, optimizer=index)
    assert len(scheduler.optimizer.param_groups) == 1


def test_two_groups_of_one_name_are_both_logged():
    optimizer = sgd(0.1, 0.5)
    for group in optimizer.param_groups:
        group["name"] = "a"
    logs = Scheduler(optimizer, lr=Constant()).logs()
    assert logs == {"lr/a": 0.1, "lr/a 1": 0.5}


def test_a_d_that_is_no_number_is_not_logged():
    optimizer = sgd()
    optimizer.param_groups[0]["d"] = "x"
    assert Scheduler(optimizer, lr=Constant()).logs() == {"lr": 0.1}


# Base values and copies ---------------------------------------------------------------------------


def test_the_saved_base_is_taken_and_said_once():
    saving = run(Constant(), lrs=(0.3,), steps=3)
    again = run(Constant(), lrs=(0.1,))
    with pytest.warns(StepsizeWarning) as said:
        loaded(again, saving)
    assert len(said) == 1
    assert "0.3" in str(said[0].message)
    assert "0.1" in str(said[0].message)
    assert rates(again) == [0.3]
    assert warned(lambda: go(again, 5)) == []


def test_an_explicit_base_wins_over_the_state():
    saving = run(Constant(), lrs=(0.3,), steps=3)
    again = run(Constant(), lrs=(0.1,), base=0.1)
    assert warned(lambda: loaded(again, saving)) == []
    assert rates(go(again)) == [0.1]


def test_the_same_base_is_taken_in_silence():
    saving = run(Cosine(100), lrs=(0.3,), steps=50)
    again = run(Cosine(100), lrs=(0.3,))
    assert warned(lambda: loaded(again, saving)) == []
    assert rates(again) == rates(saving)


class Clock:
    """Seconds that a test sets; it travels with a copy."""

    seconds = 0.0

    def __call__(self):
        return self.seconds


def adopted():
    saving = run(Cosine("rest"), 100, steps=10)
    return loaded(run(Cosine("rest"), 200), saving, on_mismatch="adopt")


def with_a_group_less():
    scheduler = run(Cosine(100), lrs=(0.1,) * 3, groups={2: {"lr": Linear(100)}}, steps=10)
    del scheduler.optimizer.param_groups[0]
    return go(scheduler, 10)


def by_the_clock():
    clock = Clock()
    scheduler = run(Cosine("rest"), "1h", clock=clock)
    clock.seconds = 1200.0
    return go(scheduler)


@pytest.mark.parametrize("make", [adopted, with_a_group_less, by_the_clock])
@pytest.mark.parametrize("how", [copy.deepcopy, lambda x: pickle.loads(pickle.dumps(x))])  # noqa: S301 (our own)
def test_a_copy_goes_on_as_the_original(make, how):
    original = make()
    copied = how(original)
    assert copied.optimizer is not original.optimizer
    assert copied.horizon == original.horizon
    assert_same_future(original, copied, 20)


# Edits --------------------------------------------------------------------------------------------


def test_what_schedules_no_rate_is_not_finished():
    optimizer = sgd(weight_decay=0.1)
    scheduler = Scheduler(optimizer, weight_decay=Cosine(100))
    assert not scheduler.finished
    assert not go(scheduler, 100).finished


def test_a_new_plan_reaches_groups_with_schedules_of_their_own():
    scheduler = run(Cosine(100), lrs=(0.1, 0.1), groups={1: {"lr": Linear(100)}}, steps=10)
    scheduler.replan(lr=Constant(value=0.5), over=0)
    assert rates(go(scheduler, 50)) == [0.05, 0.05]
    own = {0: {"lr": Cosine(100)}, 1: {"lr": Linear(100)}}
    scheduler = run(None, lrs=(0.1, 0.1), groups=own, steps=10)
    scheduler.replan(lr=Constant(value=0.5), over=0)
    assert rates(go(scheduler)) == [0.05, 0.05]
    again = loaded(run(None, lrs=(0.1, 0.1), groups=own), scheduler)
    assert rates(again) == [0.05, 0.05]


def test_a_script_that_says_the_extended_total_changes_nothing():
    saving = run(SHARES, 1000, steps=500)
    saving.extend(2000)
    go(saving, 200)
    again = loaded(run(SHARES, 2000), saving, on_mismatch="continue")
    assert again.journal == saving.journal
    steps = (700, 1000, 1500, 2000)
    assert ahead(again, *steps) == ahead(saving, *steps)
    assert_same_future(saving, again)


def test_another_total_behind_a_cooldown_cannot_be_continued():
    saving = run(SHARES, 1000, steps=500)
    saving.cool_down(100)
    go(saving, 90)
    with pytest.raises(MismatchError, match=r"keep.*adopt"):
        loaded(run(SHARES, 2000), saving, on_mismatch="continue")


def test_a_cooldown_passes_over_a_key_that_is_at_zero():
    optimizer = sgd(weight_decay=0.1)
    none = Constant(value=0.0).absolute()
    scheduler = go(Scheduler(optimizer, lr=Constant(), weight_decay=none), 10)
    scheduler.cool_down(10, keys=("lr", "weight_decay"))
    assert scheduler.at(15)["lr"] == pytest.approx([0.05])
    assert scheduler.at(20) == {"lr": [0.0], "weight_decay": [0.0]}


def test_a_cooldown_passes_over_a_group_that_is_at_zero():
    own = {0: {"lr": Constant()}, 1: {"lr": Constant(50) >> Linear(50)}}
    scheduler = run(None, lrs=(0.1, 0.1), groups=own, steps=100)
    scheduler.cool_down(10)
    assert scheduler.at(105)["lr"] == pytest.approx([0.05, 0.0])
    assert rates(go(scheduler, 10)) == [0.0, 0.0]
    with pytest.raises(FieldError):
        scheduler.cool_down(10)


def test_a_share_of_an_open_end_says_that_none_was_announced():
    scheduler = run(Constant("rest"), Horizon(open_end=True), steps=10)
    with pytest.raises(StepsizeError, match=r"extend\(") as error:
        scheduler.cool_down("10%")
    assert "steps" in str(error.value)
    assert scheduler.journal == []


def test_a_run_that_has_ended_is_extended_and_planned_anew():
    scheduler = run(Cosine(stop=0.1), 100, steps=100)
    scheduler.extend(200)
    assert ahead(scheduler, 100, 150, 200) == pytest.approx([0.01] * 3)
    scheduler.replan(lr=Cosine(), over=0)
    assert ahead(scheduler, 100, 150, 200) == pytest.approx([0.1, 0.05, 0.0])
    assert not scheduler.finished
    assert go(scheduler, 100).finished
    assert_same_future(scheduler, loaded(run(Cosine(stop=0.1), 100), scheduler), 5)


# States -------------------------------------------------------------------------------------------


def test_what_a_mismatch_means_can_be_said_at_construction():
    saving = run(SHARES, 1000, steps=600)
    told = loaded(run(SHARES, 2000, on_mismatch="continue"), saving)
    given = loaded(run(SHARES, 2000), saving, on_mismatch="continue")
    assert rates(told) == pytest.approx(rates(saving))
    assert_same_future(told, given, 20)
    kept = loaded(run(SHARES, 2000, on_mismatch="continue"), saving, on_mismatch="keep")
    assert rates(kept) == ahead(run(SHARES, 2000), 600)
    with pytest.raises(FieldError, match="on_mismatch"):
        run(SHARES, 2000, on_mismatch="whatever")


@pytest.mark.parametrize("changed", [{"step": 7}, {"position": 7.0}, {"counted": 0}])
def test_a_state_whose_position_was_changed_is_refused(changed):
    state = run(Cosine(100), steps=20).state_dict()
    other = run(Cosine(100))
    other.load_state_dict(dict(state))
    other = run(Cosine(100))
    with pytest.raises(MismatchError):
        other.load_state_dict({**state, **changed})
    assert other.last_epoch == 0


# What is left behind ------------------------------------------------------------------------------


@pytest.fixture
def _counted():
    gc.collect()
    gc.disable()
    yield
    gc.enable()
    gc.collect()


@pytest.mark.usefixtures("_counted")
@pytest.mark.parametrize("settings", [{}, {"follow": True}, {"feedback": Plateau()}], ids=str)
def test_an_optimizer_is_freed_without_the_collector(settings):
    optimizer = sgd()
    scheduler = go(Scheduler(optimizer, lr=Cosine(100), **settings), 5)
    alive = [
        weakref.ref(each) for each in (optimizer, scheduler, *optimizer.param_groups[0]["params"])
    ]
    del optimizer, scheduler
    assert [each() for each in alive] == [None] * 3


class Breaks(torch.optim.SGD):
    """A step around another, which fails when told to."""

    broken = False

    def step(self, closure=None):
        if self.broken:
            raise ArithmeticError
        return super().step(closure)


class Large:
    """What a frame may hold."""


def test_a_step_that_fails_holds_on_to_no_frame():
    sgd()  # torch wraps the step of a class once
    optimizer = sgd(cls=Breaks)
    scheduler = go(Scheduler(optimizer, lr=Cosine(100)), 3)
    optimizer.broken = True

    def failing():
        large = Large()
        with pytest.raises(ArithmeticError):
            optimizer.step()
        return weakref.ref(large)

    held = failing()
    gc.collect()
    assert held() is None
    optimizer.broken = False
    assert rates(go(scheduler)) == [0.1 * Cosine(100)(4)]


def loop_with(variables):
    """A training loop whose frame is as large as wanted."""
    names = [f"    v{i} = 0" for i in range(variables)]
    lines = ["def loop(go, scheduler):", *names, "    sys._getframe()", "    go(scheduler, 5)"]
    space = {"sys": sys}
    exec("\n".join(lines), space)  # noqa: S102 (our own text)
    return space["loop"]


@pytest.mark.parametrize("variables", range(24))
def test_steps_count_after_one_that_failed_whichever_frame_is_made_in_its_place(variables):
    sgd()
    optimizer, loop = sgd(cls=Breaks), loop_with(variables)
    scheduler = go(Scheduler(optimizer, lr=Cosine(100)))
    optimizer.broken = True
    try:  # noqa: SIM105 (a context manager has a frame of its own)
        optimizer.step()
    except ArithmeticError:
        pass
    optimizer.broken = False
    loop(go, scheduler)
    assert scheduler.last_epoch == 6


def test_a_late_horizon_leaves_no_hook_before_steps():
    scheduler = run(SHARES, lambda: Horizon(100))
    go(scheduler, 5)
    assert rates(scheduler) == ahead(run(SHARES, 100), 5)
    assert len(scheduler.optimizer._optimizer_step_pre_hooks) == 0


def test_a_detached_scheduler_follows_nothing_and_changes_no_plan():
    scheduler = run(Cosine(100), steps=5)
    scheduler.detach()
    for call in (scheduler.follow, lambda: scheduler.cool_down(10)):
        with pytest.raises(FieldError, match="detach"):
            call()
    assert scheduler.journal == []
    assert len(scheduler.optimizer._optimizer_step_post_hooks) == 0


@pytest.mark.parametrize("follow", [False, True], ids=["stepped", "follows"])
def test_a_warning_that_is_an_error_is_raised_once(follow):
    optimizer = sgd()
    optimizer.param_groups[0]["initial_lr"] = 0.5
    scheduler = Scheduler(optimizer, lr=Cosine(100), follow=follow)
    raised = 0
    with warnings.catch_warnings():
        warnings.simplefilter("error", StepsizeWarning)
        for t in range(1, 6):
            try:
                go(scheduler)
            except StepsizeWarning:
                raised += 1
                scheduler.step()  # writes what the error kept from being written
            assert scheduler.last_epoch == t
            assert rates(scheduler) == [0.5 * Cosine(100)(t)]
    assert raised == 1


def test_a_state_that_fails_half_way_leaves_floors_position_and_values(monkeypatch):
    """The state of another schedule with another floor, whose values cannot be written."""
    other = torch.optim.SGD([torch.nn.Parameter(torch.ones(1))], lr=0.5)
    feedback = Plateau(patience=1)
    source = Scheduler(
        other, lr=Cosine(over=20), horizon=Horizon(40), feedback=feedback, floor=0.25
    )
    for _ in range(5):
        other.step()
        source.step(1.0)
    taken = source.state_dict()

    mine = torch.optim.SGD([torch.nn.Parameter(torch.ones(1))], lr=0.1)
    kept = Scheduler(
        mine, lr=Linear(over=10), horizon=Horizon(20), feedback=Plateau(patience=1), floor=0.01
    )
    before, slots = kept.state_dict(), kept._binding.slots
    rebind, calls = kept.rebind, []

    def once():
        calls.append(1)
        if len(calls) == 1:
            raise RuntimeError("no")
        rebind()

    monkeypatch.setattr(kept, "rebind", once)
    with pytest.raises(RuntimeError, match="no"):
        kept.load_state_dict(taken, on_mismatch="adopt")
    assert kept.state_dict() == before
    assert kept._binding.slots == slots
