"""The files through which a running job is told to change its plan, and the command that writes."""

import json
import os
import platform
import time

import pytest

from stepsize import Absolute, Constant, Cosine, Horizon, SpecError, UnitError, Warmup
from stepsize.control.inbox import Inbox, requested, tagged
from stepsize.control.mailbox import Answer, Mailbox, UnfinishedError
from stepsize.control.status import check, told_data
from stepsize.edits.kinds import CoolDown, Extend, Replan, edit_data
from stepsize.edits.moment import Moment
from stepsize.schedules.plan import Plan

PLAN = {"lr": Warmup("5%") >> Cosine(stop=0.1), "momentum": Constant(value=0.9).absolute()}


@pytest.fixture
def box(tmp_path):
    made = Mailbox(tmp_path / "run")
    made.make()
    return made


def told(box, step=500, plan=None, horizon=Horizon(1000, batches_per_epoch=100), **fields):  # noqa: B008 (frozen)
    status = {
        "pid": os.getpid(), "host": platform.node(), "updated": time.time(), "within": 5.0,
        "listening": True, "journal": [], "keys": ["lr", "momentum"], "lr": [0.05],
        "finished": False, "total": "1000", "seconds_per_step": 0.5,
        **told_data(PLAN if plan is None else plan, Moment(step, horizon)), **fields,
    }  # fmt: skip
    box.tell(status)
    return status


# Files ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "edit",
    [
        CoolDown("5%", 0.1, "cosine", ("lr", "momentum"), "why not"),
        Extend("120ep"),
        Replan(Plan(lr=Warmup(10) >> Cosine("rest")), over=0.0, since="start"),
    ],
)
def test_a_request_is_read_as_it_was_written(box, edit):
    name = box.send(edit)
    assert box.names() == ([name], [])
    assert box.request(name) == edit
    assert box.answer(name) is None
    answer = Answer(True, 120, "", edit_data(edit))
    box.reply(name, answer)
    assert box.answer(name) == answer
    assert box.names() == ([name], [name])


def test_requests_are_in_order_of_time(box):
    names = [box.send(Extend(1000 + i)) for i in range(20)]
    assert box.names()[0] == names


def test_nothing_partial_is_ever_seen(box, monkeypatch):
    """A process that dies while it writes leaves a file that is no request."""
    monkeypatch.setattr("pathlib.Path.replace", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    monkeypatch.setattr("stepsize.files.disk._remove", lambda _: None)
    with pytest.raises(KeyboardInterrupt):
        box.send(Extend(1000))
    assert len(os.listdir(box.folder)) == 1  # noqa: PTH208 (hidden ones too)
    assert box.names() == ([], [])


def test_a_pipe_and_a_device_do_not_stop_the_reader(box):
    os.mkfifo(box.folder / "pipe.json")
    (box.folder / "zero.json").symlink_to("/dev/zero")
    for name in ("pipe", "zero"):
        with pytest.raises(SpecError, match="no ordinary file"):
            box.request(name)
    with pytest.raises(UnfinishedError, match="No such file"):
        box.request("nothing")


def test_a_folder_that_cannot_be_made(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(SpecError, match="cannot be made"):
        Mailbox(tmp_path / "file").make()


# Exactly once -----------------------------------------------------------------------------------


class Job:
    """A run as far as the inbox knows it: a journal that is lost back to the last checkpoint."""

    def __init__(self, box):
        self.box, self.step, self.journal, self.saved = box, 0, [], (0, [])
        self.inbox = Inbox(box)

    def look(self, die=None):
        for order in self.inbox.orders(self.journal, self.step):
            if order.step > self.step:
                continue
            if die == "before":
                raise KeyboardInterrupt
            record = edit_data(tagged(order.edit, order.name))
            self.journal.append({**record, "step": self.step, "position": 0.0})
            if die == "saved":
                self.save()
            if die in ("after", "saved"):
                raise KeyboardInterrupt
            self.inbox.reply(order.name, Answer(True, self.step, "", edit_data(order.edit)))

    def save(self):
        self.saved = (self.step, list(self.journal))

    def restart(self):
        self.step, self.journal = self.saved[0], list(self.saved[1])
        self.inbox = Inbox(self.box)


@pytest.mark.parametrize("die", ["before", "after", "saved", None])
@pytest.mark.parametrize("late", [False, True])
def test_wherever_it_dies_an_edit_is_made_exactly_once(box, die, late):
    job = Job(box)
    for job.step in range(30):
        job.look()
        if job.step == 10:
            job.save()
    name = box.send(CoolDown(100))
    try:
        job.look(die)
    except KeyboardInterrupt:
        pass
    else:
        if late:
            job.save()
    job.restart()
    for step in range(job.step + 1, 40):
        job.step = step
        job.look()
    assert list(requested(job.journal)) == [name]
    assert len(job.journal) == 1
    assert box.answer(name).step == job.journal[0]["step"]
    if die is None:
        assert job.journal[0]["step"] == 29


def test_accepted_edits_come_again_in_the_order_of_their_steps(box):
    job = Job(box)
    for job.step in range(10):
        if job.step in (3, 6):
            box.send(Extend(1000 + job.step))
        job.look()
    was = job.journal
    job.restart()
    new = box.send(Extend(5000))
    job.look()
    assert list(requested(job.journal)) == [new]
    for job.step in range(1, 10):
        job.look()
    assert job.journal[1:] == was


def test_an_answer_that_cannot_be_written_is_written_later(box, monkeypatch):
    job, name = Job(box), box.send(Extend(1000))
    with monkeypatch.context() as patch:
        patch.setattr("stepsize.control.mailbox.write_whole", full)
        job.look()
        job.look()
    assert box.answer(name) is None
    job.look()
    assert box.answer(name).accepted
    assert len(job.journal) == 1


def full(path, _content):
    raise SpecError(f"{path}: cannot be written: No space left on device")


def test_a_remark_that_looks_like_a_request():
    (record,) = [edit_data(tagged(CoolDown(5, why="[request mine] again"), "real"))]
    assert list(requested([record, {"kind": "kept"}])) == ["real"]


# What an edit would meet ------------------------------------------------------------------------


def test_the_status_tells_what_a_run_would_say(box):
    status = told(box)
    check(CoolDown("5%"), box.status())
    check(Extend("20ep"), status)
    check(Replan(Plan(lr=Cosine())), status)
    for edit, words in (
        (CoolDown(501), r"at most what is left of the run \(500 steps\)"),
        (CoolDown(5, keys=("beta1",)), r"a key must be scheduled \(lr, momentum\)"),
        (Extend(400), "beyond where the run is"),
        (Replan(Plan(wd=Cosine())), "replan: a key must be scheduled"),
        (Replan(Plan(momentum=Cosine())), "absolute, as the one it replaces"),
    ):
        with pytest.raises(ValueError, match=words):
            check(edit, status)
    with pytest.raises(ValueError, match="of a run whose rates have not come to their end"):
        check(CoolDown(5), {**status, "finished": True})


def test_a_status_keeps_the_horizon(box):
    ramp = Horizon("1e5 samples", batch_size=Constant(value=10.0).absolute())
    for horizon in (Horizon("90ep", batches_per_epoch=391), Horizon("12h"), None, ramp):
        timed = horizon == Horizon("12h")
        plan = {"lr": Cosine() if timed else Absolute(Constant(), peak=1.0)}
        check(
            CoolDown("5min" if timed else 5), json.loads(json.dumps(told(box, 500, plan, horizon)))
        )
    with pytest.raises(UnitError, match="no total"):
        check(CoolDown("5%"), told(box, plan={"lr": Constant()}, horizon=None))


def test_a_status_of_another_version_leaves_it_to_the_run(box):
    check(CoolDown(5000), {"keys": ["lr"], "finished": False})
    check(CoolDown(5000), {**told(box), "plan": {"lr": {"kind": "custom", "function": "os:abort"}}})


# The command ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["nowhere", "cool_down"], "nowhere: there is no such run folder"),
        ([".", "cool_down"], "has no status"),
        (["run", "cool_down", "--over", "soon"], "cool_down: over must be a length of time"),
        (["run", "cool_down", "--over", "60%"], "at most what is left of the run (500 steps)"),
        (["run", "cool_down", "--to", "-1"], "cool_down: to must be a finite number >= 0"),
        (["run", "cool_down", "--along", "cosin"], "cool_down: along must be a ramp class"),
        (["run", "cool_down", "--key", "beta1"], "scheduled (lr, momentum), got 'beta1'"),
        (["run", "extend", "5%"], "extend: the total must be a length that stands alone"),
        (["run", "extend", "100"], "beyond where the run is (step 500)"),
        (["run", "replan", "Cosin(5)"], "unknown name 'Cosin', did you mean 'Cosine'"),
        (["run", "replan", "Plan(lr=Cosine())", "--key", "lr"], "left out with a plan"),
        (["run", "replan", "Cosine()", "--key", "momentum"], "absolute, as the one it replaces"),
        (["run", "cool_down", "--over", "5tok"], "in this run"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_what_makes_no_sense_is_not_asked(run, box, arguments, words):
    told(box)
    status, out, err = run("edit", *arguments)
    assert (status, out) == (2, "")
    assert words in err
    assert err.startswith("stepsize: ")
    assert err.count("\n") == 1
    assert box.names() == ([], [])


@pytest.mark.parametrize(
    "arguments",
    [
        ["run"],
        ["run", "explode"],
        ["run", "replan", "Cosine()", "--since", "then"],
        ["run", "extend"],
    ],
)
def test_wrong_usage(run, box, arguments):
    told(box)
    status, _, err = run("edit", *arguments)
    assert status == 2
    assert "Usage: stepsize edit" in err


def test_a_request_without_an_answer(run, box):
    told(box)
    status, out, err = run("edit", "run", "cool_down", "--over", "5%", "--why", "x", "--wait", 0)
    assert (status, err) == (3, "")
    assert out.startswith("no answer yet: run/edits/")
    (name,) = box.names()[0]
    assert box.request(name) == CoolDown("5%", why="x")


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (Answer(True, 512), (0, "accepted at step 512\n", "")),
        (Answer(False, 512, "too long"), (1, "refused at step 512: too long\n", "")),
    ],
)
def test_the_answer_is_waited_for(run, box, monkeypatch, answer, said):
    told(box)
    asked = []
    monkeypatch.setattr(
        "stepsize.cli.edit.time.sleep",
        lambda _: asked or asked.append(1) or box.reply(box.names()[0][0], answer),
    )
    assert run("edit", "run", "replan", "Linear(100)", "--over", "0") == said
    assert box.request(box.names()[0][0]).over == 0.0


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"listening": False}, "the run has stopped watching at step 500"),
        ({"pid": 2**22 - 1}, "its process 4194303 is not there any more"),
        ({"updated": time.time() - 900}, "s old, and was to be written every 5 s"),
        ({"updated": time.time() - 900, "within": 600.0}, ""),
        ({"host": "elsewhere", "pid": 2**22 - 1}, ""),
    ],
)
def test_it_warns_where_nobody_may_be_listening(run, box, fields, words):
    told(box, **fields)
    status, _, err = run("edit", "run", "extend", 2000, "--wait", 0)
    assert status == 3
    assert words in err
    assert bool(err) == bool(words)
    assert len(box.names()[0]) == 1


def test_status(run, box):
    record = {"kind": "extend", "total": 1000.0, "why": "more", "step": 20}
    told(box, journal=[record])
    box.reply(box.send(Extend(2000)), Answer(False, 3, "no"))
    box.send(Extend(3000))
    status, out, err = run("edit", "run", "status")
    assert (status, err) == (0, "")
    for words in (
        "step      500 of 1000\n", "lr        0.05\n", "0.5 s per step", "keys      lr, momentum",
        "journal   step 20: extend (more)", "refused at step 3: no", "no answer yet",
    ):  # fmt: skip
        assert words in out
    data = json.loads(run("edit", "run", "status", "--json")[1])
    assert data["step"] == 500
    assert [a and a["accepted"] for a in data["requests"].values()] == [False, None]


@pytest.mark.parametrize("text", ["{", "[]", '{"format": 1}', '{"format": 1, "pid": "x"}'])
def test_a_broken_status(run, box, text):
    (box.run / "status.json").write_text(text)
    status, _, err = run("edit", "run", "cool_down")
    assert status == 2
    assert "stepsize: run: " in err
    assert err.count("\n") == 1


def test_help_says_what_the_exit_status_means(run):
    assert "3 no answer yet" in run("edit", "--help")[1]
    assert "--along" in run("edit", "run", "cool_down", "--help")[1]
