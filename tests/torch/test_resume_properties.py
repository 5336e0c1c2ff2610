"""Stopped anywhere and resumed, a run is as if it had never stopped: bit for bit, or it says no."""

import io
import json
import math
import os
import pickle
import re
import signal
import subprocess
import sys
import textwrap
import time

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from stepsize import (
    Constant,
    Cosine,
    Horizon,
    Linear,
    MismatchError,
    MultiStep,
    Piecewise,
    Plan,
    StepsizeError,
    Warmup,
    wsd,
)
from stepsize.feedback import Plateau, PlateauCooldown, SpikeGuard, UpDown
from stepsize.torch import Scheduler
from stepsize.torch.state import hashed

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*was over at step"),
    pytest.mark.filterwarnings("ignore:.*has seen no"),
]
N = 24
SHARES = Plan(
    lr=Warmup("20%") >> Cosine(stop=0.1), momentum=Linear(start=0.95, stop=0.85).absolute()
)


at_steps = pytest.mark.parametrize(
    "every", [pytest.param(4, id=""), pytest.param(1, id="at every step", marks=pytest.mark.slow)]
)


def noise(step):
    """A metric that falls, jumps about, and now and then is no number."""
    if step % 11 == 7:
        return math.nan
    return 2.0 + math.sin(step * 12.9898) + (50.0 if step % 13 == 9 else 0.0) - 0.01 * step


class Run:
    """An optimizer or several under a scheduler, with what happens at which step."""

    def __init__(
        self, plan=SHARES, *, happens=None, sees=False, optimizers=1, late=False, **fields
    ):
        self.happens, self.sees, self.trace = happens or {}, sees, []
        self.states = None
        self.optimizers = [
            torch.optim.SGD(
                [{"params": [one()], "lr": 0.1 / (i + 1), "name": f"{o}.{i}"} for i in range(2)],
                lr=0.1,
                momentum=0.9,
            )
            for o in range(optimizers)
        ]
        if "horizon" not in fields:
            fields["horizon"] = Horizon(N)
        if late:
            horizon = fields["horizon"]
            fields["horizon"] = lambda: horizon
        self.scheduler = Scheduler(self.optimizers, plan, **fields)

    @property
    def step(self):
        return self.scheduler.last_epoch

    def go(self, until):
        while self.step < until:
            for each in self.optimizers:
                each.step()
            self.scheduler.step()
            step = self.step
            if self.sees:
                self.scheduler.observe(noise(step + 1000))
                if step % 3 == 0:
                    self.scheduler.observe(metric=noise(step))
            for act in self.happens.get(step, ()):
                act(self)
            self.trace.append(self.now())
            if self.states is not None:
                self.states.append(self.scheduler.state_dict())
        return self

    def at(self, step):
        """Give the groups the shape that they have at a step, as the user's code does."""
        for when, acts in sorted(self.happens.items()):
            for act in acts if when <= step else ():
                getattr(act, "shape", lambda run: None)(self)
        return self

    def now(self):
        groups = [g for each in self.optimizers for g in each.param_groups]
        return [(g["lr"], g["momentum"]) for g in groups], repr(self.scheduler.values())

    def whole(self):
        return *self.now(), self.scheduler.state_dict()


def one():
    made = nn.Parameter(torch.ones(1))
    made.grad = torch.zeros(1)
    return made


def through_files(state, k):
    """Give a state as it comes back: from JSON, or from torch's files."""
    if k % 2:
        return json.loads(json.dumps(state))
    file = io.BytesIO()
    torch.save(state, file)
    file.seek(0)
    return torch.load(file, weights_only=True)


def check_every_step(*, until=N, every=1, **fields):
    """Save at every step, load into a fresh run and go on: the same to the last bit."""
    straight = Run(**fields)
    straight.states = [straight.scheduler.state_dict()]
    straight.go(until)
    for k in range(0, until + 1, every):
        resumed = Run(**fields).at(k)
        resumed.scheduler.load_state_dict(through_files(straight.states[k], k))
        if k:
            assert resumed.now() == straight.trace[k - 1], k
        assert resumed.scheduler.state_dict() == straight.states[k]
        resumed.go(until)
        assert resumed.trace == straight.trace[k:], k
        assert resumed.scheduler.state_dict() == straight.states[until]
    return straight


# Whatever it is made of -------------------------------------------------------------------------


@pytest.mark.parametrize(
    "fields",
    [
        pytest.param({}, id="shares"),
        pytest.param({"plan": Plan(lr=wsd(3, cooldown="30%"))}, id="wsd"),
        pytest.param({"plan": Plan(lr=Cosine(7).repeated(growth=1.5))}, id="restarts"),
        pytest.param({"reach": "last"}, id="reaches the end at the last step"),
        pytest.param({"floor": {"lr": 0.03}}, id="a floor"),
        pytest.param({"floor": {"lr": [0.03, 0.0]}}, id="a floor by group"),
        pytest.param({"late": True}, id="a horizon given as a function"),
        pytest.param({"optimizers": 3}, id="several optimizers"),
        pytest.param({"counts": "calls"}, id="calls are counted"),
        pytest.param({"follow": True}, id="follows"),
        pytest.param({"extra": {"ema": Linear(start=0.9, stop=0.99).absolute()}}, id="extras"),
        pytest.param(
            {
                "groups": {
                    "0.1": {"lr": Linear("50%")},
                    0: {"momentum": Constant(value=0.5).absolute()},
                }
            },
            id="groups of their own",
        ),
        pytest.param({"base": {"lr": [0.5, 0.25]}}, id="base values"),
        pytest.param(
            {
                "plan": Plan(lr=Warmup("64samples") >> Cosine()),
                "horizon": Horizon("384samples", batch_size=16),
            },
            id="samples",
        ),
        pytest.param(
            {
                "plan": Plan(lr=Warmup("1000tok") >> Cosine("rest")),
                "horizon": Horizon(
                    "20480tok",
                    batch_size=Piecewise({0: 4, 6: 8, 12: 16}).absolute(),
                    tokens_per_sample=64,
                ),
            },
            id="tokens under a batch-size ramp",
        ),
        pytest.param(
            {"horizon": Horizon("5ep", batches_per_epoch=19, accumulate=4, last="carry")},
            id="epochs of a fraction of steps",
        ),
    ],
)
@at_steps
def test_saved_at_any_step_it_goes_on_bit_for_bit(fields, every):
    check_every_step(every=every, **fields)


CONTROLLERS = {
    "plateau": Plateau(factor=0.5, patience=1),
    "plateau with floors": Plateau(
        factor=0.1, patience=0, cooldown=2, floor={0: 0.2}, floor_value={1: 0.01}
    ),
    "plateau from a share of the run on": Plateau(factor=0.7, patience=0, after="20%"),
    "up and down": UpDown(factor=0.8, patience=1, window=3, cooldown=1, reset=2),
    "spike guard": SpikeGuard(cold=4, consecutive=1, cooldown=2, recover=5),
    "linear spike guard": SpikeGuard(cold=2, recover=3, along="linear", decay=0.9),
    "cooldown at a plateau": PlateauCooldown(patience=1, over=5),
}


@pytest.mark.parametrize("name", CONTROLLERS)
@at_steps
def test_with_every_controller_it_goes_on_bit_for_bit(name, every):
    straight = check_every_step(every=every, feedback=CONTROLLERS[name], sees=True)
    quiet = Run().go(N)
    assert [rates for rates, _ in straight.trace] != [rates for rates, _ in quiet.trace]


def test_with_several_controllers_it_goes_on_bit_for_bit():
    check_every_step(feedback=list(CONTROLLERS.values()), sees=True, optimizers=2, every=5)


# Whatever happens to it -------------------------------------------------------------------------


def edit(name, *args, **fields):
    """A change of plan, left out where it is refused."""

    def act(run):
        try:
            getattr(run.scheduler, name)(*args, **fields)
        except StepsizeError as error:
            assert str(error)  # noqa: PT017 (whatever it says)

    return act


EDITS = [
    edit("cool_down"),
    edit("cool_down", 4, to=0.1, along="one_minus_sqrt", why="a test"),
    edit("cool_down", "10%", keys=("lr", "momentum"), to=0.5),
    edit("extend", 40),
    edit("extend", 20),
    edit("extend", 30.5),
    edit("replan", lr=Constant(value=0.3)),
    edit("replan", lr=Linear(), over=0),
    edit("replan", lr=Warmup(3) >> Cosine(), over=2, since="start"),
    edit("replan", momentum=Constant(value=0.5).absolute(), over=3),
    edit("replan", lr=Warmup("2ep") >> MultiStep(("50%",)), over=1),
]


@pytest.mark.parametrize("number", [6, pytest.param(80, marks=pytest.mark.slow)])
def test_after_edits_at_any_steps_it_goes_on_bit_for_bit(number):
    @settings(max_examples=number)
    @given(data=st.data())
    def holds(data):
        when = st.integers(1, N - 1)
        pairs = data.draw(st.lists(st.tuples(when, st.sampled_from(EDITS)), min_size=1, max_size=4))
        happens = {}
        for step, act in pairs:
            happens.setdefault(step, []).append(act)
        horizon = Horizon("24st", batches_per_epoch=4)
        reach = data.draw(st.sampled_from(["end", "last"]))
        ema = {"ema": Linear("10%", start=0.5, stop=0.9).absolute()}
        extra = data.draw(st.sampled_from([None, ema]))
        fields = {"happens": happens, "horizon": horizon, "reach": reach, "extra": extra}
        check_every_step(until=N + 4, every=6, **fields)

    holds()


@pytest.mark.parametrize("act", EDITS, ids=range(len(EDITS)))
def test_an_edit_changes_nothing_before_it_and_no_value_at_it(act):
    run = Run(horizon=Horizon(N, batches_per_epoch=4)).go(9)
    before = [run.scheduler.at(t) for t in range(10)]
    act(run)
    after = [run.scheduler.at(t) for t in range(10)]
    for was, now in zip(before[:9], after[:9], strict=True):
        assert now["lr"] == pytest.approx(was["lr"], rel=1e-12)
        assert now["momentum"] == pytest.approx(was["momentum"], rel=1e-12)
    assert [g["lr"] for g in run.optimizers[0].param_groups] == after[9]["lr"]
    assert after[9]["lr"] == pytest.approx(before[9]["lr"], rel=1e-12) or "over" in str(
        run.scheduler.journal
    )


def adds(clock, **schedules):
    """A group that joins later; the shape alone is what a resumed run's code makes."""

    def group():
        return {"params": [one()], "lr": 0.7, "name": "late"}

    def act(run):
        run.scheduler.add_param_group(group(), clock=clock, **schedules)

    act.shape = lambda run: run.optimizers[0].add_param_group(group())
    return act


def removes(index):
    def act(run):
        del run.optimizers[0].param_groups[index]
        run.scheduler.rebind()

    act.shape = lambda run: run.optimizers[0].param_groups.pop(index) and run.scheduler.rebind()
    return act


@pytest.mark.parametrize(
    "happens",
    [
        pytest.param({5: [adds("run")]}, id="joins"),
        pytest.param({5: [adds("own")]}, id="with a clock of its own"),
        pytest.param({5: [adds("own", lr=Warmup(4) >> Cosine("50%"))]}, id="with its own schedule"),
        pytest.param({5: [adds("run", lr=Linear())], 9: [edit("extend", 40)]}, id="then extended"),
        pytest.param({5: [adds("own")], 9: [edit("cool_down", 6)]}, id="then cooled down"),
        pytest.param(
            {5: [edit("extend", 30)], 6: [adds("own")], 12: [edit("replan", lr=Linear())]},
            id="between edits",
        ),
        pytest.param({6: [removes(0)]}, id="one is removed"),
    ],
)
@at_steps
def test_with_groups_that_come_and_go_it_goes_on_bit_for_bit(happens, every):
    check_every_step(happens=happens, every=every)


def test_an_open_end_is_announced_and_resumed():
    plan = Plan(lr=wsd(3, cooldown="25%"))
    announced = {10: [edit("extend", 20)]}
    straight = check_every_step(plan=plan, horizon=Horizon(open_end=True), happens=announced)
    assert straight.trace[19][0][0][0] == 0.0
    assert straight.trace[13][0][0][0] == 0.1


@pytest.mark.parametrize("late", [False, True])
@pytest.mark.parametrize("order", ["os", "so", "o then built", "built first"])
@pytest.mark.parametrize("k", [0, 1, 9, N])
def test_in_any_order_of_building_and_loading(order, k, late):
    happens = {4: [edit("extend", 40)], 7: [edit("cool_down", 9, to=0.2)]}
    fields = {"happens": happens, "late": late, "floor": {"lr": 0.002}}
    straight = Run(**fields)
    straight.go(k)
    saved = straight.scheduler.state_dict(), straight.optimizers[0].state_dict()
    straight.go(N + 4)
    resumed = Run(**fields)
    (optimizer,) = resumed.optimizers
    if order == "o then built":
        resumed.scheduler.detach()
        optimizer.load_state_dict(saved[1])
        for group in optimizer.param_groups:
            group.pop("initial_lr", None)
            group.pop("initial_momentum", None)
        resumed.scheduler = Scheduler(optimizer, SHARES, horizon=Horizon(N), floor={"lr": 0.002})
        resumed.scheduler.load_state_dict(saved[0])
    else:
        steps = {"s": resumed.scheduler.load_state_dict, "o": optimizer.load_state_dict}
        for name in order if order in ("os", "so") else "so":
            steps[name](saved["so".index(name)])
    resumed.go(N + 4)
    assert resumed.trace == straight.trace[k:]


# What does not belong ---------------------------------------------------------------------------


def refused(saving, loading, **options):
    """Give the message of a refused load, which has changed nothing."""
    before = loading.whole()
    with pytest.raises(MismatchError) as raised:
        loading.scheduler.load_state_dict(saving.scheduler.state_dict(), **options)
    assert loading.whole() == before
    return str(raised.value)


@pytest.mark.parametrize(
    ("change", "shown"),
    [
        ({"plan": Plan(lr=Cosine())}, "schedules.lr"),
        (
            {"plan": SHARES.replaced(lr=Warmup("20%") >> Cosine(stop=0.2))},
            "stop: saved 0.1, now 0.2",
        ),
        ({"horizon": Horizon(2 * N)}, "total: saved 24.*, now 48"),
        ({"horizon": Horizon(open_end=True), "plan": Plan(lr=Constant("rest"))}, "open_end"),
        ({"optimizers": 2}, "groups and keys: saved .*optimizer 1"),
        ({"feedback": CONTROLLERS["plateau"]}, "feedback"),
        ({"floor": {"lr": 0.01}}, "floor"),
        ({"reach": "last"}, "reach"),
        ({"extra": {"ema": Constant(value=0.5).absolute()}}, "extra.ema"),
        ({"groups": {0: {"lr": Cosine()}}}, "groups"),
    ],
    ids=lambda x: x if isinstance(x, str) else next(iter(x)),
)
def test_what_was_not_saved_is_an_error_that_shows_it_and_the_ways_out(change, shown):
    for saving, loading in ((Run().go(7), Run(**change)), (Run(**change).go(7), Run())):
        text = refused(saving, loading)
        for way in ("'keep'", "'adopt'", "'continue'"):
            assert way in text
    assert re.search(shown, refused(Run().go(7), Run(**change))), shown


def test_another_controller_is_another_description():
    one_way = Run(feedback=Plateau(patience=3), sees=False).go(5)
    assert "patience: saved 3, now 4" in refused(one_way, Run(feedback=Plateau(patience=4)))


TOKENS = Plan(lr=Warmup("8192tok") >> Cosine())


def in_tokens(total="49152tok", **fields):
    return Horizon(total, **{"batch_size": 16, "tokens_per_sample": 128, **fields})


def test_another_world_size_alone_is_none_and_another_length_is():
    saving = Run(TOKENS, horizon=in_tokens()).go(10)
    for replicas, batch in ((2, 16), (4, 4), (1, 32)):
        horizon = in_tokens(replicas=replicas, batch_size=batch)
        loading = Run(TOKENS, horizon=horizon)
        loading.scheduler.load_state_dict(saving.scheduler.state_dict())
        assert loading.now()[0] == [pytest.approx(x, rel=1e-12) for x in saving.now()[0]]
        again = Run(TOKENS, horizon=horizon)
        again.scheduler.load_state_dict(through_files(loading.scheduler.state_dict(), 1))
        assert again.go(20).trace == loading.go(20).trace
    text = refused(saving, Run(TOKENS, horizon=in_tokens("98304tok")))
    assert re.search(r"total: saved 49152(\.0)?, now 98304", text)


def test_after_a_change_of_world_size_edits_and_resumes_go_on():
    saving = Run(TOKENS, horizon=in_tokens()).go(11)
    horizon = in_tokens(replicas=4)
    loading = Run(TOKENS, horizon=horizon)
    loading.scheduler.load_state_dict(saving.scheduler.state_dict())
    rate = loading.now()[0][0][0]
    loading.scheduler.cool_down("16384tok", to=0.5)
    assert loading.now()[0][0][0] == pytest.approx(rate, rel=0.05)
    resumed = Run(TOKENS, horizon=horizon)
    resumed.scheduler.load_state_dict(through_files(loading.scheduler.state_dict(), 0))
    assert resumed.go(20).trace == loading.go(20).trace


# The ways out -----------------------------------------------------------------------------------

OTHERS = {
    "longer": {"horizon": Horizon(2 * N)},
    "shorter": {"horizon": Horizon(20)},
    "another schedule": {"plan": SHARES.replaced(lr=Linear(stop=0.2))},
    "both": {"plan": SHARES.replaced(lr=Linear(stop=0.2)), "horizon": Horizon(40)},
    "another momentum": {"plan": SHARES.replaced(momentum=Constant(value=0.8).absolute())},
}


@pytest.mark.parametrize(
    "edits", [{}, {5: [edit("extend", 30)]}, {4: [edit("cool_down", 3, to=0.5)]}]
)
@pytest.mark.parametrize("way", ["keep", "adopt", "continue"])
@pytest.mark.parametrize("name", OTHERS)
def test_after_a_way_out_the_next_resume_needs_none_and_is_bit_for_bit(name, way, edits):
    saving = Run(happens=edits).go(8)
    state, before = saving.scheduler.state_dict(), saving.scheduler.journal
    loading = Run(**OTHERS[name])
    loading.scheduler.load_state_dict(through_files(state, 0), on_mismatch=way)
    assert loading.step == 8
    assert loading.scheduler.journal[: len(before)] == before
    if way != "keep":
        assert loading.now()[0] == [pytest.approx(x, rel=1e-12) for x in saving.now()[0]]
    states = {8: loading.scheduler.state_dict()}
    while loading.step < N + 4:
        loading.go(loading.step + 10)
        states[loading.step] = loading.scheduler.state_dict()
    if way == "adopt":
        return check_adopted(saving, loading)
    for k, each in states.items():
        again = Run(**OTHERS[name])
        again.scheduler.load_state_dict(through_files(each, k))
        again.go(loading.step)
        assert again.trace == loading.trace[k - 8 :], k
    return None


def check_adopted(saving, loading):
    """Compare with the run whose description was taken."""
    saving.go(loading.step)
    rates = [rates for rates, _ in saving.trace[8:]]
    assert [rates for rates, _ in loading.trace] == rates
    again = Run()
    again.scheduler.load_state_dict(through_files(loading.scheduler.state_dict(), 1))
    assert again.now()[0] == loading.now()[0]


def test_keep_goes_where_the_present_description_is_at_that_step():
    kept = Run(plan=Plan(lr=Linear()))
    kept.scheduler.load_state_dict(Run().go(8).scheduler.state_dict(), on_mismatch="keep")
    assert kept.now()[0] == Run(plan=Plan(lr=Linear())).go(8).now()[0]


def test_continue_of_what_cannot_be_joined_is_refused_and_changes_nothing():
    for change in (
        {"plan": Plan(lr=Cosine())},
        {"groups": {0: {"lr": Cosine()}}},
        {"plan": SHARES.replaced(lr=Cosine().absolute(0.1))},
        {"horizon": Horizon(5)},
    ):
        loading = Run(**change)
        before = loading.whole()
        with pytest.raises(StepsizeError):
            loading.scheduler.load_state_dict(
                Run().go(8).scheduler.state_dict(), on_mismatch="continue"
            )
        assert loading.whole() == before


# What is damaged --------------------------------------------------------------------------------


def rich_state():
    happens = {
        3: [adds("own")],
        5: [edit("extend", 40)],
        7: [edit("cool_down", 9, to=0.2)],
        6: [edit("replan", lr=Linear())],
    }
    return Run(happens=happens, feedback=Plateau(patience=1), sees=True), happens


JUNK = [None, True, -1, math.nan, math.inf, 10**400, "", "%", [], {}, [[]], {"a": 1}, "[" * 5000]


def places(data, path=()):
    """Every place in a piece of plain data."""
    yield path
    items = (
        data.items()
        if isinstance(data, dict)
        else enumerate(data)
        if isinstance(data, list)
        else ()
    )
    for key, value in items:
        yield from places(value, (*path, key))


def replaced(data, path, value, *, gone=False):
    made = json.loads(json.dumps(data))
    if not path:
        return value
    inner = made
    for key in path[:-1]:
        inner = inner[key]
    if gone:
        del inner[path[-1]]
    else:
        inner[path[-1]] = value
    return made


def check_damaged(state):
    """A damaged state is refused and changes nothing, or it means something."""
    loading, _ = rich_state()
    loading.at(10).scheduler.rebind()
    before = loading.whole()
    if isinstance(state.get("details"), str):  # as if it had been written so
        state = {**state, "checksum": hashed(state["details"])}
    try:
        loading.scheduler.load_state_dict(state)
    except StepsizeError:
        assert loading.whole() == before


def test_a_damaged_state_is_a_mismatch_and_changes_nothing():
    saving, happens = rich_state()
    state = saving.go(10).scheduler.state_dict()
    loading, _ = rich_state()
    loading.at(10).scheduler.rebind()
    before = loading.whole()
    details = json.loads(state["details"])
    bad = [{k: v for k, v in state.items() if k != key} for key in state]
    bad += [{**state, "details": state["details"][:n]} for n in range(0, len(state["details"]), 37)]
    for name in ("bases", "journal", "controlled", "seconds", "description", "origin"):
        bad.append(
            {**state, "details": json.dumps({k: v for k, v in details.items() if k != name})}
        )
    bad += [{**state, "fingerprint": junk} for junk in (None, 3, "0" * 16)]
    bad += [{**state, "format": junk} for junk in (None, 0, 2, "1")]
    for each in bad:
        for way in ("error", "adopt", "keep", "continue"):
            with pytest.raises(MismatchError):
                loading.scheduler.load_state_dict(each, on_mismatch=way)
            assert loading.whole() == before
    loading.scheduler.load_state_dict(state)
    assert loading.go(20).trace == saving.go(20).trace[10:]
    assert happens


@pytest.mark.parametrize("every", [29, pytest.param(1, marks=pytest.mark.slow)])
def test_no_junk_anywhere_in_a_state_is_an_error_of_another_kind(every):
    saving, _ = rich_state()
    state = saving.go(10).scheduler.state_dict()
    details = json.loads(state["details"])
    spots = [path for path in places(details) if path and path[0] != "positions"]
    cases = [(path, junk, gone) for path in spots for junk in JUNK for gone in (False,)]
    cases += [(path, None, True) for path in spots]
    for path, junk, gone in cases[::every]:
        text = json.dumps(replaced(details, path, junk, gone=gone))
        check_damaged({**state, "details": text})
    for key in ("step", "counted", "position", "unit"):
        for junk in JUNK:
            check_damaged({**state, key: junk})


# Killed -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("every", [211, pytest.param(7, marks=pytest.mark.slow)])
def test_a_file_cut_off_at_any_byte_never_loads(every):
    run = Run(happens={5: [edit("extend", 40)]}).go(9)
    file = io.BytesIO()
    torch.save(run.scheduler.state_dict(), file)
    whole = file.getvalue()
    assert torch.load(io.BytesIO(whole), weights_only=True)
    for size in [*range(0, len(whole), every), *range(len(whole) - 40, len(whole))]:
        with pytest.raises((RuntimeError, EOFError, OSError, ValueError, pickle.UnpicklingError)):
            torch.load(io.BytesIO(whole[:size]), weights_only=True)


PROGRAM = """
import os, sys, torch
from stepsize import *
from stepsize.torch import Scheduler
folder, steps = sys.argv[1], int(sys.argv[2])
path, w = os.path.join(folder, "state.pt"), torch.nn.Parameter(torch.ones(2, dtype=torch.float64))
o = torch.optim.SGD([w], lr=0.1, momentum=0.9)
s = Scheduler(o, lr=Warmup("10%") >> Cosine(), horizon=Horizon(steps))
if os.path.exists(path):
    saved = torch.load(path, weights_only=True)
    w.data.copy_(saved["w"])
    o.load_state_dict(saved["o"])
    s.load_state_dict(saved["s"])
print("started", s.last_epoch, flush=True)
while s.last_epoch < 2 * steps:
    w.grad = torch.sin(3 * w.detach()) + w.detach()
    o.step()
    s.step()
    if s.last_epoch == steps // 3:
        s.extend(2 * steps)
    saved = {"w": w.detach(), "o": o.state_dict(), "s": s.state_dict()}
    torch.save(saved, path + ".new")
    os.replace(path + ".new", path)
print(repr((w.tolist(), o.param_groups[0]["lr"], s.state_dict())))
"""


@pytest.mark.slow
def test_killed_again_and_again_it_ends_as_if_never_stopped(tmp_path):
    program, steps = tmp_path / "program.py", "150"
    program.write_text(textwrap.dedent(PROGRAM))
    one_go, killed = tmp_path / "one", tmp_path / "killed"
    one_go.mkdir()
    killed.mkdir()
    command = [sys.executable, str(program)]
    straight = subprocess.run(  # noqa: S603 (our own program)
        [*command, str(one_go), steps], capture_output=True, text=True, check=True
    ).stdout.splitlines()
    starts = []
    for i in range(200):
        child = subprocess.Popen(  # noqa: S603 (our own program)
            [*command, str(killed), steps], stdout=subprocess.PIPE, text=True
        )
        starts.append(int(child.stdout.readline().split()[1]))
        time.sleep(0.02 + 0.013 * (i % 7))
        os.kill(child.pid, signal.SIGKILL)
        rest = child.stdout.read()
        child.wait()
        child.stdout.close()
        if rest.strip():
            break
    assert len(starts) >= 4
    assert starts == sorted(starts)
    assert rest.splitlines()[-1] == straight[-1]
