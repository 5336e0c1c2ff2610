"""Watching: signals and deadlines in time, requests from outside exactly once."""

import copy
import datetime as dt
import gc
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
import warnings
from pathlib import Path

import pytest
import torch
from torch import nn

from stepsize import Constant, Cosine, FieldError, Horizon, Linear, UnitError, Warmup
from stepsize.control.inbox import requested
from stepsize.control.mailbox import Mailbox
from stepsize.edits.kinds import CoolDown, Extend, Replan
from stepsize.schedules.plan import Plan
from stepsize.torch import Scheduler, StepsizeWarning, ranks

pytestmark = pytest.mark.filterwarnings("ignore:.*was over at step")
FLAT = Warmup(10) >> Constant("rest")


class Clock:
    def __init__(self):
        self.now = 100.0

    def __call__(self):
        return self.now


class Run:
    """A tiny training whose steps last as long as is said."""

    def __init__(self, schedule=FLAT, total=1000, pace=1.0, **fields):
        self.clock, self.pace = Clock(), pace
        self.param = nn.Parameter(torch.ones(2))
        self.optimizer = torch.optim.SGD([self.param], lr=0.1)
        horizon = None if total is None else Horizon(total)
        fields = {"horizon": horizon, "clock": self.clock, **fields}
        self.scheduler = Scheduler(self.optimizer, lr=schedule, **fields)

    def go(self, steps):
        for _ in range(steps):
            self.param.grad = torch.ones(2)
            self.optimizer.step()
            self.clock.now += self.pace
            self.scheduler.step()
        return self

    def finish(self, most=5000):
        """Go on until the rates have come to their end; give the step."""
        while not self.scheduler.finished:
            self.go(1)
            assert self.scheduler.last_epoch < most
        return self.scheduler.last_epoch

    @property
    def now(self):
        return self.clock.now

    @property
    def lr(self):
        return self.optimizer.param_groups[0]["lr"]

    @property
    def journal(self):
        return self.scheduler.journal


@pytest.fixture(autouse=True)
def handlers():
    """Every test gives its signals back."""
    watched = (signal.SIGUSR1, signal.SIGUSR2, signal.SIGTERM)
    before = [signal.getsignal(each) for each in watched]
    yield
    gc.collect()
    assert [signal.getsignal(each) for each in watched] == before


@pytest.fixture
def run(tmp_path):
    made = []

    def make(*args, **fields):
        made.append(Run(*args, **fields))
        made[-1].box = Mailbox(tmp_path / "run")
        return made[-1]

    yield make
    for each in made:
        each.scheduler.detach()


# In time ----------------------------------------------------------------------------------------


def test_a_signal_cools_down_over_what_fits(run):
    it = run()
    it.scheduler.watch(signals={signal.SIGUSR1: "10min"}, margin=100)
    it.go(203)
    signal.raise_signal(signal.SIGUSR1)
    at = it.now
    assert it.journal == []  # the handler does nothing
    ended = it.finish()
    (record,) = it.journal
    assert (record["kind"], record["keys"]) == ("cool_down", ["lr"])
    assert record["why"].startswith("SIGUSR1: ")
    assert 0 < record["step"] - 203 <= 10
    assert at + 600 - 100 - 2 <= it.now <= at + 600 - 100  # all of the time is used
    assert it.lr == 0.0
    assert ended == record["step"] + record["over"]


def test_the_wanted_length_is_taken_where_it_fits(run):
    it = run()
    it.scheduler.watch(signals={signal.SIGUSR1: 600}, over="5%", to=0.1, along="cosine")
    it.go(100)
    signal.raise_signal(signal.SIGUSR1)
    it.finish()
    (record,) = it.journal
    assert (record["over"], record["along"]) == (50.0, "cosine")
    assert it.lr == pytest.approx(0.01)


@pytest.mark.parametrize("over", ["2min", 120, "12%", "0.12ep"])
def test_the_wanted_length_is_in_any_unit(run, over):
    it = run(horizon=Horizon(1000, batches_per_epoch=1000))
    it.scheduler.watch(signals={signal.SIGUSR1: 600}, over=over)
    it.go(100)
    signal.raise_signal(signal.SIGUSR1)
    it.go(10)
    assert it.journal[0]["over"] == 120.0


def test_a_deadline_cools_down_as_late_as_the_length_allows(run):
    it = run(total=None, schedule=Constant())
    it.scheduler.watch(deadline="10min", over=100, margin=50)
    ended = it.finish()
    (record,) = it.journal
    assert record["why"].startswith("the deadline: ")
    assert record["over"] == pytest.approx(100, abs=11)
    assert 540 <= ended <= 550


def test_before_a_deadline_a_fifth_of_the_run_unless_told(run):
    it = run(total=None, schedule=Constant())
    it.scheduler.watch(deadline="1000s", margin=0)
    ended = it.finish()
    assert it.journal[0]["over"] == pytest.approx(200, abs=11)
    assert 990 <= ended <= 1000


def test_evaluations_between_steps_cost_time_too(run):
    it = run(total=None, schedule=Constant())
    it.scheduler.watch(deadline="2000s", margin=0, over=100)
    began = it.now
    while not it.scheduler.finished:
        it.go(1)
        if it.scheduler.last_epoch % 50 == 0:
            it.clock.now += 50.0  # an evaluation as long as 50 steps
    assert it.now - began <= 2000 + 50


def test_a_plan_that_ends_in_time_is_left_alone(run):
    it = run(schedule=Cosine(stop=0.1), total=300)
    it.scheduler.watch(signals={signal.SIGUSR1: 600}, deadline="1h")
    it.go(50)
    signal.raise_signal(signal.SIGUSR1)
    it.go(250)
    assert it.journal == []
    assert it.lr == pytest.approx(0.01)


def test_a_signal_counts_once_and_two_causes_make_one_cooldown(run):
    it = run()
    it.scheduler.watch(signals={signal.SIGUSR1: 100, signal.SIGTERM: 50}, deadline="10h", margin=5)
    it.go(100)
    signal.raise_signal(signal.SIGUSR1)
    it.go(50)
    signal.raise_signal(signal.SIGUSR1)
    signal.raise_signal(signal.SIGTERM)  # the cooldown under way fits
    it.finish()
    assert len(it.journal) == 1


def test_a_cooldown_under_way_that_would_not_end_in_time_is_shortened_to_the_same_end(run):
    it = run()
    it.go(100)
    it.scheduler.watch(signals={signal.SIGTERM: 60}, margin=10)
    it.scheduler.cool_down(800, to=0.5)
    it.go(400)
    signal.raise_signal(signal.SIGTERM)
    before = it.now
    it.finish()
    assert it.now - before <= 50
    assert it.lr == pytest.approx(0.05)
    assert [record["kind"] for record in it.journal] == ["cool_down", "cool_down"]


def test_a_run_that_has_cooled_down_is_not_cooled_again(run):
    it = run()
    it.scheduler.watch(signals={signal.SIGUSR1: 60}, deadline="2h")
    it.go(100)
    it.scheduler.cool_down(50)
    it.go(60)
    signal.raise_signal(signal.SIGUSR1)
    it.go(30)
    assert len(it.journal) == 1


def test_where_not_even_one_step_fits_it_says_so_and_takes_one(run):
    it = run(pace=100.0)
    it.scheduler.watch(signals={signal.SIGTERM: 60})
    it.go(5)
    signal.raise_signal(signal.SIGTERM)
    with pytest.warns(StepsizeWarning, match="not even one step fits into what is left before SIG"):
        it.go(1)
    it.go(1)
    assert it.lr == 0.0
    assert it.scheduler.finished


def test_slow_steps_are_looked_at_one_by_one(run):
    it = run(pace=30.0)
    it.scheduler.watch(signals={signal.SIGTERM: 300}, margin=0)
    it.go(50)
    signal.raise_signal(signal.SIGTERM)
    it.go(1)
    assert it.journal[0]["step"] == 51
    assert it.journal[0]["over"] == 9.0


def test_wall_clock_schedules_end_in_time_too(run):
    it = run(schedule=Warmup("1%") >> Constant("rest"), total="2h")
    it.scheduler.watch(signals={signal.SIGUSR1: 600}, margin=60)
    it.go(100)
    signal.raise_signal(signal.SIGUSR1)
    at = it.now
    it.finish()
    assert 538 <= it.now - at <= 542
    assert it.lr == 0.0
    left = run(schedule=Cosine(), total="5min")
    left.scheduler.watch(signals={signal.SIGUSR2: 600})
    left.go(50)
    signal.raise_signal(signal.SIGUSR2)
    left.finish()
    assert left.journal == []


def test_what_wants_no_learning_rate(run):
    it = run()
    with pytest.raises(FieldError, match="cool_down: a key must be scheduled"):
        it.scheduler.watch(deadline="1h", keys=("momentum",))


def test_a_length_that_needs_a_horizon_says_so_at_once(run):
    with pytest.raises(UnitError, match="watch: over"):
        run(total=None, schedule=Constant()).scheduler.watch(deadline="1h", over="5%")


# What may be given ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"signals": {signal.SIGUSR1: "5ep"}}, "watch: signals must be a length of wall-clock"),
        ({"signals": {signal.SIGUSR1: 0}}, "watch: signals must be a finite number > 0"),
        ({"signals": {signal.SIGKILL: 5}}, "signals that can be handled"),
        ({"signals": {"SIGUSR1": 5}}, "signals that can be handled"),
        ({"signals": [signal.SIGUSR1]}, "must be a mapping from signals"),
        ({"deadline": 5}, "watch: deadline must be later than now"),
        ({"deadline": "soon"}, "watch: deadline must be a length of wall-clock time"),
        ({"deadline": "5"}, "watch: deadline must be a length of wall-clock time"),
        ({"deadline": True}, "watch: deadline must be a finite number"),
        ({"deadline": dt.datetime(2020, 1, 1)}, "later than now"),  # noqa: DTZ001 (a user's)
        ({"deadline": "1h", "over": "-5%"}, "cool_down: over must be"),
        ({"deadline": "1h", "along": "geometric"}, "give a small one above 0"),
        ({"deadline": "1h", "margin": -1}, "watch: margin must be a finite number > 0"),
        ({"deadline": "1h", "every": 0}, "watch: every must be a whole number >= 1"),
    ],
)
def test_what_makes_no_sense_is_refused_and_changes_nothing(run, fields, words):
    it = run()
    it.scheduler.watch(signals={signal.SIGUSR2: 60})
    watching = it.scheduler._alarms.standing
    with pytest.raises(FieldError, match=words):
        it.scheduler.watch(**fields)
    assert it.scheduler._alarms.standing is watching
    assert callable(signal.getsignal(signal.SIGUSR2))


@pytest.mark.parametrize(
    "given",
    [
        lambda: time.time() + 3600,
        lambda: str(int(time.time()) + 3600),  # SLURM_JOB_END_TIME
        lambda: dt.datetime.now() + dt.timedelta(hours=1),  # noqa: DTZ005 (a user's)
        lambda: dt.datetime.now(dt.UTC) + dt.timedelta(hours=1),
        lambda: "60 min",
        lambda: "0h 59min60s",
    ],
)
def test_every_way_to_say_when_the_job_ends(run, given):
    it = run()
    it.scheduler.watch(deadline=given())
    assert it.scheduler._alarms.standing._deadline == pytest.approx(it.now + 3600, abs=2)


def test_the_handler_that_was_there_is_called_and_comes_back(run):
    heard = []
    before = signal.signal(signal.SIGUSR1, lambda *_: heard.append("theirs"))
    try:
        it = run()
        it.scheduler.watch(signals={signal.SIGUSR1: 600})
        it.go(20)
        signal.raise_signal(signal.SIGUSR1)
        assert heard == ["theirs"]
        it.go(10)
        assert len(it.journal) == 1
        it.scheduler.watch()
        signal.raise_signal(signal.SIGUSR1)
        assert heard == ["theirs", "theirs"]
        assert signal.getsignal(signal.SIGUSR1).__name__ == "<lambda>"
    finally:
        signal.signal(signal.SIGUSR1, before)


def test_another_watch_a_detach_and_the_end_of_a_scheduler_give_signals_back(run):
    default = signal.getsignal(signal.SIGUSR1)
    it = run()
    it.scheduler.watch(signals={signal.SIGUSR1: 600})
    it.scheduler.watch(signals={signal.SIGUSR2: 600})
    assert signal.getsignal(signal.SIGUSR1) == default
    it.scheduler.detach()
    assert signal.getsignal(signal.SIGUSR2) == default
    with pytest.raises(FieldError, match="not detached"):
        it.scheduler.watch(deadline="1h")
    alone = Run()
    alone.scheduler.watch(signals={signal.SIGUSR1: 600})
    del alone
    gc.collect()
    assert signal.getsignal(signal.SIGUSR1) == default


def test_a_handler_put_on_top_stays(run):
    it = run()
    it.scheduler.watch(signals={signal.SIGUSR1: 600})
    ours, heard = signal.getsignal(signal.SIGUSR1), []

    def theirs(number, frame):
        heard.append(number)
        ours(number, frame)

    signal.signal(signal.SIGUSR1, theirs)
    it.scheduler.watch()
    signal.raise_signal(signal.SIGUSR1)
    assert heard == [signal.SIGUSR1]
    signal.signal(signal.SIGUSR1, signal.SIG_DFL)


def test_signals_outside_the_main_thread_are_an_error(run):
    it, found = run(), []

    def attempt():
        try:
            it.scheduler.watch(signals={signal.SIGUSR1: 600})
        except FieldError as error:
            found.append(str(error))

    thread = threading.Thread(target=attempt)
    thread.start()
    thread.join()
    assert "must be set in the main thread" in found[0]


def test_a_forked_worker_dies_as_ever(run):
    it = run()
    it.scheduler.watch(signals={signal.SIGTERM: 600})
    ready, told = os.pipe()
    child = os.fork()
    if not child:
        os.write(told, b"x")
        time.sleep(30)
        os._exit(0)
    os.read(ready, 1)
    os.kill(child, signal.SIGTERM)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGTERM


def test_a_copy_does_not_watch(run):
    it = run()
    it.scheduler.watch(deadline="1h")
    it.scheduler._clock.read = time.monotonic
    made = copy.deepcopy(it.scheduler)
    assert made._alarms.standing is None


# Requests ---------------------------------------------------------------------------------------


def test_requests_are_carried_out_in_order_and_answered(run):
    it = run()
    it.scheduler.watch(it.box.run)
    it.go(100)
    first = it.box.send(Extend(2000, "more money"))
    second = it.box.send(CoolDown("5%", why="enough"))
    it.go(11)
    kinds = [(r["kind"], r["why"]) for r in it.journal]
    assert kinds == [
        ("extend", f"more money [request {first}]"),
        ("cool_down", f"enough [request {second}]"),
    ]
    step = it.journal[0]["step"]
    assert 100 < step <= 111
    assert it.box.answer(first)[:3] == (True, step, "")
    assert it.box.answer(second)[:3] == (True, step, "")
    assert it.finish() == step + 100


@pytest.mark.parametrize(
    ("edit", "words"),
    [
        (CoolDown(5000), "at most what is left of the run"),
        (CoolDown("5%", keys=("momentum",)), "cool_down: a key must be scheduled"),
        (Extend(50), "extend: the total must be beyond where the run is"),
        (Extend("90ep"), "batches_per_epoch"),
        (Replan(Plan(lr=Cosine().absolute(0.1))), "a factor, as before"),
        (Replan(Plan(lr=1e6 * Constant())), "outside|0.01, 100"),
        (Replan(Plan(momentum=Cosine())), "replan: a key must be scheduled"),
    ],
)
def test_what_makes_no_sense_is_refused_and_training_goes_on(run, edit, words):
    it, straight = run(), run()
    it.scheduler.watch(it.box.run)
    it.go(100)
    straight.go(100)
    name = it.box.send(edit)
    it.go(20)
    straight.go(20)
    answer = it.box.answer(name)
    assert not answer.accepted
    assert re.search(words, answer.why), answer.why
    assert it.journal == []
    assert it.lr == straight.lr
    it.go(20)
    assert it.box.answer(name) == answer


def test_a_replan_follows_an_expression(run):
    it = run()
    it.scheduler.watch(it.box.run)
    it.go(100)
    it.box.folder.mkdir(exist_ok=True)
    told = {"format": 1, "edit": {"kind": "replan", "plan": {"lr": "Linear(100)"}, "over": 0}}
    (it.box.folder / "mine.json").write_text(json.dumps(told))
    it.go(11)
    assert it.box.answer("mine").accepted
    assert it.finish() == it.journal[0]["step"] + 100


def test_whatever_goes_wrong_with_a_request_training_goes_on(run, monkeypatch):
    it = run()
    it.scheduler.watch(it.box.run)
    name = it.box.send(CoolDown(5))
    with monkeypatch.context() as patch:
        patch.setattr(type(it.scheduler), "_apply", lambda *_: 1 / 0)
        it.go(20)
    assert it.box.answer(name).why == "it failed: ZeroDivisionError('division by zero')"


def test_a_cooldown_that_cannot_be_is_said_once(run):
    it = run(schedule=Constant(), horizon=lambda: Horizon(batches_per_epoch=9))
    it.scheduler.watch(deadline="1h", over="5%")
    with pytest.warns(StepsizeWarning, match="no cooldown before the deadline: watch: over"):
        it.go(20)
    it.go(20)
    zero = run(schedule=Linear(5) >> Constant(value=0.0), total=None)
    zero.scheduler.watch(deadline="50s")
    with pytest.warns(StepsizeWarning, match="no cooldown before the deadline: cool_down must be"):
        zero.go(60)
    assert zero.journal == []


def saved(it):
    return json.loads(json.dumps([it.optimizer.state_dict(), it.scheduler.state_dict()]))


def resumed(run, state, **fields):
    it = run(**fields)
    it.scheduler.watch(it.box.run)
    it.optimizer.load_state_dict(state[0])
    it.scheduler.load_state_dict(state[1])
    return it


def test_a_checkpoint_older_than_an_edit_makes_it_again_at_its_step(run):
    it = run()
    it.scheduler.watch(it.box.run)
    old = saved(it.go(97))
    name = it.box.send(CoolDown(200))
    it.go(20)
    step = it.box.answer(name).step
    rates = [it.go(1).lr for _ in range(50)]
    again = resumed(run, old).go(20)
    assert again.journal == it.journal
    assert again.box.answer(name).step == step
    assert [again.go(1).lr for _ in range(50)] == rates


def test_a_checkpoint_newer_than_an_edit_does_not_make_it_twice(run):
    it = run()
    it.scheduler.watch(it.box.run)
    it.go(97)
    it.box.send(CoolDown(200))
    new = saved(it.go(20))
    rates = [it.go(1).lr for _ in range(50)]
    again = resumed(run, new)
    assert [again.go(1).lr for _ in range(50)] == rates
    assert len(again.journal) == 1


def test_killed_between_the_edit_and_its_answer(run):
    it = run()
    it.scheduler.watch(it.box.run)
    old = saved(it.go(97))
    name = it.box.send(CoolDown(200))
    new = saved(it.go(20))
    answer = it.box.answer(name)
    (it.box.folder / f"{name}.answer.json").unlink()
    again = resumed(run, new).go(20)
    assert len(again.journal) == 1
    assert again.box.answer(name) == answer
    again = resumed(run, old).go(40)  # and the answer that was made up is as good as the first
    assert again.journal == it.journal


def test_a_refused_request_stays_refused_and_a_broken_answer_is_made_again(run):
    it = run()
    it.scheduler.watch(it.box.run)
    old = saved(it.go(50))
    bad, good = it.box.send(CoolDown(5000)), it.box.send(CoolDown(100))
    it.go(20)
    (it.box.folder / f"{good}.answer.json").write_text("{")
    again = resumed(run, old).go(30)
    assert [r["kind"] for r in again.journal] == ["cool_down"]
    assert not again.box.answer(bad).accepted
    assert again.box.answer(good).accepted


def test_edits_of_the_user_do_not_stop_the_looks(run):
    it = run()
    it.scheduler.watch(it.box.run)
    for _ in range(40):  # each clears the alarms
        it.go(7)
        it.scheduler.extend(2000)
    name = it.box.send(CoolDown(100))
    it.go(7)
    it.scheduler.cool_down(50)
    it.go(7)
    assert it.box.answer(name).accepted


def test_going_back_makes_the_edits_again(run):
    it = run()
    it.scheduler.watch(it.box.run)
    old = saved(it.go(50))
    it.box.send(CoolDown(100))
    it.go(60)
    journal = it.journal
    it.scheduler.load_state_dict(old[1])
    it.go(60)
    assert it.journal == journal


JUNK = {
    "half.json": '{"format": 1, "edit": {"kind": "cool',
    "array.json": "[1]",
    "format.json": '{"format": 9, "edit": {"kind": "cool_down"}}',
    "kind.json": '{"format": 1, "edit": {"kind": "explode"}}',
    "field.json": '{"format": 1, "edit": {"kind": "cool_down", "ovr": 5}}',
    "type.json": '{"format": 1, "edit": {"kind": "cool_down", "over": [5]}}',
    "along.json": '{"format": 1, "edit": {"kind": "cool_down", "along": 5}}',
    "nan.json": '{"format": 1, "edit": {"kind": "cool_down", "over": NaN}}',
    "long.json": '{"format": 1, "edit": {"kind": "extend", "total": ' + "9" * 5000 + "}}",
    "deep.json": "[" * 60000,
    "large.json": " " * 70000,
    "code.json": '{"format": 1, "edit": {"kind": "replan", "plan": {"lr": "__import__(1)"}}}',
    "custom.json": '{"format": 1, "edit": {"kind": "replan", "plan": {"lr": '
    '{"kind": "custom", "function": "os:abort"}}}}',
    "edit.json": '{"format": 1, "edit": 5}',
}


def test_foreign_files_are_refused_and_crash_nothing(run):
    it = run()
    it.scheduler.watch(it.box.run)
    for name, text in JUNK.items():
        (it.box.folder / name).write_text(text)
    (it.box.folder / "latin.json").write_bytes(b"\xff\xfe\xff")
    (it.box.folder / "folder.json").mkdir()
    os.mkfifo(it.box.folder / "pipe.json")
    (it.box.folder / "zero.json").symlink_to("/dev/zero")
    (it.box.folder / "nowhere.json").symlink_to("/nowhere")
    (it.box.folder / "notes.txt").write_text("hello")
    (it.box.folder / ".hidden.json").write_text("hello")
    (it.box.folder / "bad.answer.json").write_text("[]")
    it.go(100)
    assert it.journal == []
    names, answered = it.box.names()
    assert set(names) <= set(answered)
    for name in names:
        assert not it.box.answer(name).accepted
        assert it.box.answer(name).why
    assert {"half", "deep", "pipe", "zero", "nowhere", "folder", "latin"} <= set(names)
    assert "hidden" not in names


def test_a_file_that_is_being_written_is_waited_for(run):
    it = run()
    it.scheduler.watch(it.box.run)
    it.go(20)
    whole, file = '{"format": 1, "edit": {"kind": "cool_down"}}', it.box.folder / "slow.json"
    for end in range(1, len(whole) + 1, 5):
        file.write_text(whole[:end])
        it.go(5)  # one look
        assert it.box.answer("slow") is None
    file.write_text(whole)
    it.go(20)
    assert it.box.answer("slow").accepted


def test_a_folder_that_vanishes_is_no_reason_to_stop(run):
    it = run()
    it.scheduler.watch(it.box.run)
    it.go(20)
    for each in (it.box.run / "status.json", it.box.folder, it.box.run):
        each.unlink() if each.is_file() else each.rmdir()
    with pytest.warns(StepsizeWarning, match="the status cannot be written"):
        it.go(30)
    it.go(30)  # once is enough
    assert it.scheduler.last_epoch == 80


def test_the_status_says_where_the_run_is(run):
    it = run(schedule=Warmup("5%") >> Cosine(), extra={"ema": Linear(500).absolute()})
    it.scheduler.watch(it.box.run, signals={signal.SIGUSR1: 60}, deadline="1h")
    assert it.box.status()["step"] == 0
    it.go(300)
    status = it.box.status()
    assert 290 <= status["step"] <= 300
    assert status["total"] == "1000"
    assert status["keys"] == ["ema", "lr"]
    assert (status["pid"], status["listening"], status["finished"]) == (os.getpid(), True, False)
    assert status["seconds_per_step"] == pytest.approx(1.0)
    assert status["signals"] == ["SIGUSR1"]
    assert status["lr"][0] == pytest.approx(it.scheduler.at(status["step"])["lr"][0])
    it.scheduler.detach()
    assert not it.box.status()["listening"]


def test_the_status_is_written_seldom(run, monkeypatch):
    it = run(pace=0.01)
    told = []
    monkeypatch.setattr(Mailbox, "tell", lambda _, status: told.append(status["step"]))
    it.scheduler.watch(it.box.run)
    it.go(2000)  # 20 seconds
    assert 3 <= len(told) <= 6


def test_a_horizon_that_comes_late(run):
    it = run(horizon=lambda: Horizon(500))
    it.scheduler.watch(it.box.run, deadline="100s", over="10%")
    name = it.box.send(Extend(600))
    it.finish()
    assert it.box.answer(name).accepted
    assert it.scheduler.last_epoch <= 100


@pytest.mark.filterwarnings("ignore:.*an earlier run of this folder")
def test_with_following_and_with_calls_counted(run):
    for fields in ({"follow": True}, {"counts": "calls"}):
        it = run(**fields)
        it.scheduler.watch(it.box.run)
        it.go(30)
        name = it.box.send(CoolDown(100))
        it.go(20)
        assert it.box.answer(name).accepted
        it.finish()
        assert it.lr == 0.0


# Ranks ------------------------------------------------------------------------------------------


class Wire:
    """Two ranks in one process, one after the other: what the first gave, the other is given."""

    def __init__(self, monkeypatch):
        self.sent, self.rank, self.log = [], 0, ([], [])
        monkeypatch.setattr(ranks, "from_first", self.from_first)
        monkeypatch.setattr(ranks, "means", self.means)
        monkeypatch.setattr(ranks, "rank", lambda: self.rank)
        self.heard = set()

    def from_first(self, make):
        self.log[self.rank].append("broadcast")
        if self.rank == 0:
            self.sent.append(make())
            return self.sent[-1]
        return self.sent.pop(0)

    def means(self, read, names):
        seen = read()
        self.log[self.rank].append("means")
        self.heard |= {name for name in names if seen[name]}
        return {name: 0.5 if name in self.heard else 0.0 for name in names}


def test_ranks_look_at_the_same_steps_and_do_the_same(run, monkeypatch):
    wire, both = Wire(monkeypatch), [run(), run(pace=3.3)]
    for wire.rank, it in enumerate(both):
        it.scheduler.watch(it.box.run)
    name = None
    for step in range(150):
        for wire.rank, it in enumerate(both):
            it.go(1)
        if step == 70:
            name = both[0].box.send(CoolDown(30))
        if step == 110:
            bad = both[0].box.send(CoolDown(100, keys=("beta1",)))
    assert wire.log[0] == wire.log[1]
    assert wire.sent == []
    assert {k: v for k, v in both[0].journal[0].items() if k != "seconds"} == {
        k: v for k, v in both[1].journal[0].items() if k != "seconds"
    }
    assert set(requested(both[1].journal)) == {name}
    assert not both[0].box.answer(bad).accepted
    assert both[0].lr == both[1].lr == 0.0


def test_a_signal_on_any_rank_counts_on_all(run, monkeypatch):
    wire, both = Wire(monkeypatch), [run(), run()]
    for wire.rank, it in enumerate(both):
        it.scheduler.watch(signals={(signal.SIGUSR1, signal.SIGUSR2)[wire.rank]: 600})
        it.scheduler._alarms.standing._signals.lives = {10: 600.0}
    both[1].scheduler._alarms.standing._signals.arrived[10] = 100.0
    wire.heard.add("10")
    for _ in range(40):
        for wire.rank, it in enumerate(both):
            it.go(1)
    assert [each.journal[0]["kind"] for each in both] == ["cool_down", "cool_down"]
    assert both[0].journal[0]["step"] == both[1].journal[0]["step"]


# Real processes ---------------------------------------------------------------------------------

TRAIN = Path(__file__).with_name("watched_run.py")


def start(tmp_path, *arguments):
    command = [sys.executable, str(TRAIN), str(tmp_path), *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)  # noqa: S603 (our own)


def until(true, seconds=60.0):
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "it took too long"
        time.sleep(0.02)


def step_of(box):
    try:
        return box.status()["step"]
    except ValueError:
        return -1


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGUSR1, signal.SIGTERM])
def test_a_real_process_finishes_in_time(tmp_path, number):
    process, box = start(tmp_path, "--life", 8, "--sleep", 0.03), Mailbox(tmp_path)
    try:
        until(lambda: step_of(box) > 0)
        time.sleep(1.0)
        process.send_signal(number)
        sent = time.time()
        out, err = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 0, err
    told = json.loads(out.splitlines()[-1])
    assert told["lr"] == 0.0
    assert told["journal"][0]["why"].startswith(signal.Signals(number).name)
    assert 4.0 < told["at"] - sent < 8.0  # in time, and most of it was used


@pytest.mark.slow
def test_killed_at_random_every_edit_is_made_exactly_once(tmp_path):
    """Kill -9 while requests come in; the trajectory must be that of one uninterrupted run."""
    box = Mailbox(tmp_path)
    box.make()
    seed, names = 0, []
    for number in range(8):
        process = start(tmp_path, "--save-every", 7, "--sleep", 0.002, "--steps", 100000)
        try:
            before = step_of(box)
            until(lambda before=before: step_of(box) > max(before, 0))
            names += [box.send(Extend(200000 + 1000 * number)), box.send(CoolDown(50000 + number))]
            seed = (seed * 1103515245 + 12345) % 2**31
            time.sleep(0.05 + 1.2 * seed / 2**31)
        finally:
            process.kill()
            process.communicate()
    process = start(tmp_path, "--save-every", 7, "--sleep", 0.002, "--steps", 100000, "--answered")
    out, err = process.communicate(timeout=100)
    assert process.returncode == 0, err
    told = json.loads(out.splitlines()[-1])
    made = list(requested(told["journal"]))
    assert sorted(made) == sorted(set(made))
    assert len(made) == len(told["journal"])
    answers = {name: box.answer(name) for name in names}
    assert all(answers.values())
    assert {name for name, a in answers.items() if a.accepted} == set(made)
    steps = {name: record["step"] for name, record in requested(told["journal"]).items()}
    assert steps == {name: answers[name].step for name in made}


@pytest.mark.slow
def test_real_ranks_do_the_same(tmp_path):
    """Requests, a refusal, and a signal that reaches the second rank alone."""
    box, store = Mailbox(tmp_path), tmp_path / "store"
    options = ["--store", store, "--life", 30, "--sleep", 0.01]
    both = [start(tmp_path, "--rank", rank, *options) for rank in (0, 1)]
    try:
        until(lambda: step_of(box) > 0)
        names = [box.send(Replan(Plan(lr=Constant(value=0.5)), over=5)), box.send(Extend(1))]
        until(lambda: all(map(box.answer, names)))
        both[1].send_signal(signal.SIGUSR1)
        found = []
        for process in both:
            out, err = process.communicate(timeout=90)
            assert process.returncode == 0, err
            found.append(json.loads(out.splitlines()[-1]))
    finally:
        for process in both:
            process.kill()
    assert [box.answer(name).accepted for name in names] == [True, False]
    for each in found:
        each.pop("at")
        for record in each["journal"]:
            record.pop("seconds")
    assert found[0] == found[1]
    assert [record["kind"] for record in found[0]["journal"]] == ["replan", "cool_down"]
    assert found[0]["lr"] == 0.0


def stepsize(*arguments):
    command = [sys.executable, "-m", "stepsize", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603 (our own)


@pytest.mark.slow
def test_the_command_line_against_a_live_run(tmp_path):
    process, box = start(tmp_path, "--sleep", 0.005, "--steps", 100000), Mailbox(tmp_path)
    try:
        until(lambda: step_of(box) > 0)
        found = stepsize("edit", tmp_path, "extend", "200000", "--why", "more", "--wait", 30)
        assert (found.returncode, found.stderr) == (0, "")
        assert found.stdout.startswith("accepted at step ")
        found = stepsize("edit", tmp_path, "replan", "Constant(value=0.5)", "--over", 5)
        assert (found.returncode, found.stderr) == (0, "")
        found = stepsize("edit", tmp_path, "cool_down", "--over", "50", "--wait", 30)
        assert (found.returncode, found.stderr) == (0, "")
        out, err = process.communicate(timeout=60)
        assert process.returncode == 0, err
        kinds = [record["kind"] for record in json.loads(out.splitlines()[-1])["journal"]]
        assert kinds == ["extend", "replan", "cool_down"]
    finally:
        process.kill()
    found = stepsize("edit", tmp_path, "cool_down")
    assert found.returncode == 2
    assert "of a run whose rates have not come to their end" in found.stderr


def test_no_warning_of_ours_in_an_ordinary_life(run):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        it = run()
        it.scheduler.watch(it.box.run, signals={signal.SIGUSR1: 60}, deadline="1h")
        it.go(200)
