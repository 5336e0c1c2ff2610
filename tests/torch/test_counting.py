"""What is a step and what is not: position follows the optimizer through all that calls it.

Everything here holds with `follow=True` too, where the hook also writes.
"""

import copy
import warnings

import pytest
import torch
from torch import nn

from stepsize import Constant, Cosine, Horizon, Warmup
from stepsize.feedback import Plateau
from stepsize.torch import Scheduler

SHAPE = Warmup(5) >> Cosine(35)
CALLS = r"calls of step\(\) are counted"
both_ways = pytest.mark.parametrize("follow", [False, True], ids=["stepped", "follows"])


def parameter():
    return nn.Parameter(torch.ones(2))


def grouped(cls, *lrs, **fields):
    groups = [{"params": [parameter()], "lr": lr} for lr in lrs or (0.1,)]
    return cls(groups, lr=0.1, **fields)


def sgd(*lrs, cls=torch.optim.SGD, **fields):
    return grouped(cls, *lrs, **{"momentum": 0.9, **fields})


def take_step(optimizer, *given, **named):
    for group in optimizer.param_groups:
        for p in group["params"]:
            p.grad = torch.ones_like(p)
    optimizer.step(*given, **named)


def rates(optimizer):
    return [float(g["lr"]) for g in optimizer.param_groups]


def used_at_real_steps(optimizer):
    """The first rate at each call of the optimizer's step; before a scheduler's hooks."""
    used = []
    optimizer.register_step_pre_hook(lambda o, *_: used.append(rates(o)[0]))
    return used


def values(first, last):
    return [0.1 * SHAPE(t) for t in range(first, last)]


def drive(scheduler, follow, *, calls=1):
    """What the loop does after a step: nothing, where the scheduler follows."""
    for _ in range(0 if follow else calls):
        scheduler.step()


# Calls of step() ----------------------------------------------------------------------------------


@both_ways
@pytest.mark.parametrize("calls", [1, 2, 4])
def test_many_calls_for_one_step_move_it_once(calls, follow):
    optimizer = sgd()
    used, scheduler = used_at_real_steps(optimizer), Scheduler(optimizer, lr=SHAPE, follow=follow)
    for _ in range(20):
        take_step(optimizer)
        for _ in range(calls):
            scheduler.step()
    assert used == values(0, 20)
    assert scheduler.last_epoch == 20


@both_ways
def test_one_call_per_epoch_moves_it_an_epoch(follow):
    optimizer = sgd()
    scheduler = Scheduler(optimizer, lr=SHAPE, follow=follow)
    for epoch in range(1, 5):
        for batch in range(5):
            take_step(optimizer)
            if follow:
                assert rates(optimizer) == values(5 * epoch - 4 + batch, 5 * epoch - 3 + batch)
        scheduler.step()
        assert rates(optimizer) == [0.1 * SHAPE(5 * epoch)]


@both_ways
def test_the_wrong_order_of_the_two_calls_shifts_nothing_after_the_first_step(follow):
    optimizer = sgd()
    used, scheduler = used_at_real_steps(optimizer), Scheduler(optimizer, lr=SHAPE, follow=follow)
    for _ in range(10):
        scheduler.step()
        take_step(optimizer)
    assert scheduler.last_epoch == 10
    scheduler.step()
    assert rates(optimizer) == values(10, 11)
    assert used[2:] == values(2, 10)


@both_ways
def test_accumulated_batches_are_no_steps(follow):
    optimizer = sgd()
    used, scheduler = used_at_real_steps(optimizer), Scheduler(optimizer, lr=SHAPE, follow=follow)
    for batch in range(1, 33):
        if batch % 4 == 0:
            take_step(optimizer)
        if batch >= 4:
            scheduler.step()
    assert used == values(0, 8)
    assert scheduler.last_epoch == 8


@both_ways
def test_a_dry_loop_counts_calls_and_the_first_real_step_corrects_it(follow):
    optimizer = sgd()
    scheduler = Scheduler(optimizer, lr=SHAPE, follow=follow)
    for t in range(12):
        assert rates(optimizer) == values(t, t + 1)
        scheduler.step()
    take_step(optimizer)
    drive(scheduler, follow)
    assert (scheduler.last_epoch, rates(optimizer)) == (1, values(1, 2))


@both_ways
def test_a_metric_never_moves_time(follow):
    optimizer = sgd()
    plateau = Plateau(patience=100)
    scheduler = Scheduler(optimizer, lr=SHAPE, feedback=plateau, follow=follow)
    for t in range(1, 8):
        take_step(optimizer)
        scheduler.step(1.0)
        scheduler.step(2.0)
        assert scheduler.last_epoch == t
    drive(scheduler, follow)
    assert rates(optimizer) == values(7, 8)


def test_a_controller_of_a_metric_follows_unless_told():
    """A framework that makes no steps of time on a plateau (transformers) need not."""
    optimizer = sgd()
    used = used_at_real_steps(optimizer)
    scheduler = Scheduler(optimizer, lr=SHAPE, feedback=Plateau())
    for _ in range(8):
        take_step(optimizer)
    assert used == values(0, 8)
    assert scheduler.last_epoch == 8


# Closures, exceptions, subclasses, wrappers -------------------------------------------------------


@both_ways
@pytest.mark.parametrize("named", [False, True])
def test_a_closure_is_part_of_one_step(follow, named):
    optimizer = sgd()
    scheduler, seen = Scheduler(optimizer, lr=SHAPE, follow=follow), []

    def closure():
        seen.append(rates(optimizer)[0])
        return torch.tensor(1.0)

    for _ in range(10):
        take_step(optimizer, closure=closure) if named else take_step(optimizer, closure)
        drive(scheduler, follow)
    assert seen == values(0, 10)
    assert scheduler.last_epoch == 10


@both_ways
def test_a_step_of_many_evaluations_is_one(follow):
    p = parameter()
    optimizer = torch.optim.LBFGS([p], lr=0.1, max_iter=5)
    scheduler, seen = Scheduler(optimizer, lr=SHAPE, follow=follow), []

    def closure():
        seen.append(rates(optimizer)[0])
        optimizer.zero_grad()
        loss = (p**4).sum()
        loss.backward()
        return loss

    for _ in range(4):
        optimizer.step(closure)
        drive(scheduler, follow)
    assert len(seen) > 12
    assert list(dict.fromkeys(seen)) == values(0, 4)  # the same within a step
    assert scheduler.last_epoch == 4


@both_ways
@pytest.mark.parametrize("keywords", [{}, {"closure": None}])
def test_a_step_with_no_closure_by_name_is_a_step(follow, keywords):
    optimizer = sgd()
    scheduler = Scheduler(optimizer, lr=SHAPE, follow=follow)
    for _ in range(5):
        take_step(optimizer, **keywords)
        drive(scheduler, follow)
    assert (scheduler.last_epoch, rates(optimizer)) == (5, values(5, 6))


@both_ways
def test_a_step_that_raises_is_not_counted(follow):
    optimizer = sgd()
    scheduler = Scheduler(optimizer, lr=SHAPE, follow=follow)

    def broken():
        raise RuntimeError("out of memory")

    for t in range(1, 6):
        with pytest.raises(RuntimeError, match="out of memory"):
            optimizer.step(broken)
        assert scheduler.last_epoch == t - 1
        take_step(optimizer)
        drive(scheduler, follow)
        assert (scheduler.last_epoch, rates(optimizer)) == (t, values(t, t + 1))


class Nested(torch.optim.SGD):
    """Its step calls that of its parent: torch fires the hooks of both."""

    breaks = ""

    def step(self, closure=None):
        if self.breaks == "before":
            raise RuntimeError("before")
        loss = super().step(closure)
        if self.breaks == "after":
            raise RuntimeError("after")
        return loss


class Twice(Nested):
    def step(self, closure=None):
        return super().step(closure)


@both_ways
@pytest.mark.parametrize("cls", [Nested, Twice])
def test_a_step_that_calls_its_parents_is_one_step(follow, cls):
    torch.optim.SGD([parameter()], lr=0.1)  # from now on the parent's step has hooks of its own
    fired = []
    optimizer = sgd(cls=cls)
    optimizer.register_step_post_hook(lambda *_: fired.append(1))
    scheduler = Scheduler(optimizer, lr=SHAPE, follow=follow)
    for t in range(1, 11):
        take_step(optimizer)
        drive(scheduler, follow)
        assert (scheduler.last_epoch, rates(optimizer)) == (t, values(t, t + 1))
    assert len(fired) >= 20  # what torch does


@both_ways
@pytest.mark.parametrize("where", ["before", "after", "inside"])
def test_an_exception_between_nested_steps_does_not_stop_the_counting(follow, where):
    torch.optim.SGD([parameter()], lr=0.1)
    optimizer = sgd(cls=Nested)
    scheduler = Scheduler(optimizer, lr=SHAPE, follow=follow)

    def broken():
        raise RuntimeError("inside")

    done = 0
    for t in range(12):
        optimizer.breaks = where if t % 3 == 1 else ""
        if optimizer.breaks:
            with pytest.raises(RuntimeError, match=where):
                optimizer.step(broken if where == "inside" else None)
        else:
            take_step(optimizer)
            done += 1
        drive(scheduler, follow)
        assert (scheduler.last_epoch, rates(optimizer)) == (done, values(done, done + 1))


class Wrapper(torch.optim.Optimizer):
    """A wrapper that never ran Optimizer.__init__, as several optimizer libraries have."""

    def __init__(self, inner):
        self.inner, self.param_groups, self.state = inner, inner.param_groups, inner.state
        self.defaults = inner.defaults

    def step(self, closure=None):
        return self.inner.step(closure)


class Duck:
    """Something with groups and a step."""

    def __init__(self, inner):
        self.inner, self.param_groups = inner, inner.param_groups

    def step(self):
        self.inner.step()


@both_ways
@pytest.mark.parametrize("cls", [Wrapper, Duck])
def test_an_optimizer_without_hooks_is_driven_by_calls_and_it_says_so(follow, cls):
    optimizer = cls(sgd())
    with pytest.warns(UserWarning, match=f"{cls.__name__} has no step hooks.* {CALLS}") as said:
        scheduler = Scheduler(optimizer, lr=SHAPE, follow=follow)
    assert len(said) == 1
    for t in range(1, 10):
        take_step(optimizer)
        scheduler.step()
        assert (scheduler.last_epoch, rates(optimizer)) == (t, values(t, t + 1))


def test_asking_for_calls_says_nothing():
    scheduler = Scheduler(Duck(sgd()), lr=SHAPE, counts="calls")
    scheduler.step()
    assert scheduler.last_epoch == 1


@both_ways
def test_a_copy_of_the_optimizer_alone_is_nobodys(follow):
    """Hooks do not travel with a copy."""
    optimizer = sgd()
    scheduler = Scheduler(optimizer, lr=SHAPE, follow=follow)
    take_step(optimizer)
    drive(scheduler, follow)
    alone = copy.deepcopy(optimizer)
    for _ in range(3):
        take_step(alone)
    assert (scheduler.last_epoch, rates(optimizer), rates(alone)) == (1, values(1, 2), values(1, 2))
    take_step(optimizer)
    drive(scheduler, follow)
    assert (rates(optimizer), rates(alone)) == (values(2, 3), values(1, 2))


@both_ways
def test_a_copy_of_both_goes_on_by_itself(follow):
    optimizer = sgd()
    scheduler = Scheduler(optimizer, lr=SHAPE, follow=follow)
    for _ in range(3):
        take_step(optimizer)
        drive(scheduler, follow)
    other, copied = copy.deepcopy((optimizer, scheduler))
    take_step(other)
    drive(copied, follow)
    assert (copied.last_epoch, rates(other)) == (4, values(4, 5))
    assert (scheduler.last_epoch, rates(optimizer)) == (3, values(3, 4))


@pytest.mark.slow
@both_ways
def test_a_compiled_step_is_a_step(follow):
    torch.compiler.reset()
    optimizer = sgd(torch.tensor(0.1, dtype=torch.float64), momentum=0.0)
    scheduler = Scheduler(optimizer, lr=SHAPE, follow=follow)
    compiled = torch.compile(optimizer.step, backend="eager")
    for t in range(1, 13):
        for p in optimizer.param_groups[0]["params"]:
            p.grad = torch.ones_like(p)
        compiled()
        drive(scheduler, follow)
        assert (scheduler.last_epoch, rates(optimizer)) == (t, values(t, t + 1))


# Skipped steps under AMP --------------------------------------------------------------------------


def scaled(optimizer, scaler, *, infinite):
    optimizer.zero_grad()
    (p,) = optimizer.param_groups[0]["params"]
    scaler.scale((p * (float("inf") if infinite else 1.0)).sum()).backward()
    scaler.step(optimizer)
    scaler.update()


@both_ways
@pytest.mark.parametrize("fused", [False, True], ids=["plain", "fused"])
@pytest.mark.parametrize("cls", [torch.optim.SGD, torch.optim.AdamW, torch.optim.Adam])
def test_a_step_that_amp_skips_is_none(cls, fused, follow):
    """A fused optimizer is called for it too, and tells by `found_inf`."""
    optimizer = grouped(cls, fused=fused)
    called, scheduler = [], Scheduler(optimizer, lr=SHAPE, follow=follow)
    optimizer.register_step_pre_hook(lambda *_: called.append(1))
    scaler, done = torch.amp.GradScaler("cpu", init_scale=4.0), 0
    for t in range(12):
        skipped = t in (0, 4, 5, 11)
        scaled(optimizer, scaler, infinite=skipped)
        drive(scheduler, follow)
        done += not skipped
        if done:
            assert (scheduler.last_epoch, rates(optimizer)) == (done, values(done, done + 1))
    assert len(called) == (12 if fused else 8)


class OnDevice(torch.Tensor):
    """A tensor that says it is on a GPU, and notes when it is read."""

    read = ()

    @property
    def device(self):
        return torch.device("cuda", 0)

    def item(self):
        self.read.append(float(self.as_subclass(torch.Tensor)))
        return self.read[-1]


@pytest.fixture
def on_device(monkeypatch):
    monkeypatch.setattr(OnDevice, "read", [])
    return lambda value: torch.tensor(float(value)).as_subclass(OnDevice)


@both_ways
def test_found_inf_of_a_device_is_read_one_step_later(on_device, follow):
    """Reading it at once would wait for the device at every step."""
    optimizer = sgd(fused=True)
    scheduler = Scheduler(optimizer, lr=SHAPE, follow=follow)

    def step(skipped):
        optimizer.found_inf, optimizer.grad_scale = on_device(skipped), None
        before = list(OnDevice.read)
        for p in optimizer.param_groups[0]["params"]:
            p.grad = torch.ones_like(p)
        for hook in optimizer._optimizer_step_post_hooks.values():  # the kernel has no such device
            hook(optimizer, (), {})
        del optimizer.found_inf, optimizer.grad_scale
        drive(scheduler, follow)
        return len(OnDevice.read) - len(before)

    assert step(skipped=False) == 0
    assert [step(skipped=False) for _ in range(3)] == [1, 1, 1]  # the one before
    assert (scheduler.last_epoch, rates(optimizer)) == (4, values(4, 5))
    step(skipped=True)
    assert step(skipped=False) == 1
    assert (scheduler.last_epoch, rates(optimizer)) == (5, values(5, 6))
    assert OnDevice.read == [0.0, 0.0, 0.0, 0.0, 1.0]


@both_ways
def test_a_skip_that_is_still_unread_is_not_saved_as_a_step(on_device, follow):
    optimizer = sgd(fused=True)
    scheduler = Scheduler(optimizer, lr=SHAPE, follow=follow)
    for skipped in (False, False, True):
        optimizer.found_inf = on_device(skipped)
        for hook in optimizer._optimizer_step_post_hooks.values():
            hook(optimizer, (), {})
        drive(scheduler, follow)
    assert scheduler.state_dict()["step"] == 2


def test_time_is_the_drivers_where_one_scaler_skips_for_one_of_two():
    first, second = sgd(), sgd()
    scheduler = Scheduler([first, second], lr=SHAPE)
    scaler = torch.amp.GradScaler("cpu", init_scale=4.0)
    for t in range(6):
        for optimizer, infinite in ((first, t == 2), (second, t in (3, 4))):
            optimizer.zero_grad()
            (p,) = optimizer.param_groups[0]["params"]
            scaler.scale((p * (float("inf") if infinite else 1.0)).sum()).backward()
            scaler.step(optimizer)
        scaler.update()
        scheduler.step()
    assert scheduler.last_epoch == 5
    assert rates(first) == rates(second) == values(5, 6)


# Calls that make no step: torch.distributed.checkpoint --------------------------------------------


def model_and(cls, lr, **fields):
    model = nn.Linear(2, 1)
    return model, cls(model.parameters(), lr=lr, **fields)


def trained_step(model, optimizer):
    optimizer.zero_grad()
    model(torch.ones(1, 2)).sum().backward()
    optimizer.step()


OPTIMIZERS = {
    "sgd": lambda: model_and(torch.optim.SGD, 0.1),
    "momentum": lambda: model_and(torch.optim.SGD, 0.1, momentum=0.9),
    "adamw": lambda: model_and(torch.optim.AdamW, 0.1),
    "tensor rate": lambda: model_and(
        torch.optim.AdamW, torch.tensor(0.1, dtype=torch.float64), foreach=False
    ),
    "tensor rate, sgd": lambda: model_and(torch.optim.SGD, torch.tensor(0.1, dtype=torch.float64)),
}


@both_ways
@pytest.mark.parametrize("kind", OPTIMIZERS)
def test_making_the_state_for_a_checkpoint_is_no_step(kind, follow):
    """It calls step(closure=None) with zero gradients at rate 0; for SGD at every save."""
    from torch.distributed.checkpoint import state_dict as dcp

    model, optimizer = OPTIMIZERS[kind]()
    called = []
    scheduler = Scheduler(optimizer, lr=SHAPE, follow=follow)
    optimizer.register_step_post_hook(lambda *_: called.append(1))
    dcp.get_optimizer_state_dict(model, optimizer)
    assert called  # what torch does
    assert (scheduler.last_epoch, rates(optimizer)) == (0, values(0, 1))
    for t in range(1, 9):
        trained_step(model, optimizer)
        drive(scheduler, follow)
        assert (scheduler.last_epoch, rates(optimizer)) == (t, values(t, t + 1))
        saved = dcp.get_optimizer_state_dict(model, optimizer)
        assert (scheduler.last_epoch, rates(optimizer)) == (t, values(t, t + 1))

    model, optimizer = OPTIMIZERS[kind]()
    resumed = Scheduler(optimizer, lr=SHAPE, follow=follow)
    dcp.set_optimizer_state_dict(model, optimizer, saved)
    assert resumed.last_epoch == 0
    resumed.load_state_dict(scheduler.state_dict())
    assert (resumed.last_epoch, rates(optimizer)) == (8, values(8, 9))
    for t in range(9, 13):
        trained_step(model, optimizer)
        drive(resumed, follow)
        assert (resumed.last_epoch, rates(optimizer)) == (t, values(t, t + 1))


@both_ways
def test_a_real_step_at_rate_0_is_a_step(follow):
    """With gradients, by name of the closure too: a warmup from 0 is no checkpoint."""
    optimizer = sgd()
    scheduler = Scheduler(optimizer, lr=Warmup(5, start=0.0) >> Cosine(35), follow=follow)
    take_step(optimizer, closure=None)
    drive(scheduler, follow)
    assert scheduler.last_epoch == 1
    assert rates(optimizer) == [pytest.approx(0.02)]


# Partial steps and graphs: calls are counted ------------------------------------------------------


def zero_1_and_2(optimizer):
    """One call per group, which is alone in the list meanwhile."""
    groups = optimizer.param_groups
    for group in groups:
        optimizer.param_groups = [group]
        take_step(optimizer)
    optimizer.param_groups = groups


class Zero3:
    """The groups are empty but for one sub-group's parameter during its call."""

    def __init__(self, optimizer, sub_groups):
        self.parts = [(g, parameter()) for g in sub_groups]
        for group in optimizer.param_groups:
            group["params"] = []

    def __call__(self, optimizer):
        for index, part in self.parts:
            optimizer.param_groups[index]["params"] = [part]
            take_step(optimizer)
            optimizer.param_groups[index]["params"] = []


PARTIAL = {
    "zero 1 and 2": ((0.1, 0.2), lambda _: zero_1_and_2),
    "zero 1 and 2, one group": ((0.1,), lambda _: zero_1_and_2),
    "zero 3": ((0.1, 0.2), lambda optimizer: Zero3(optimizer, (0, 0, 1))),
}


@both_ways
@pytest.mark.parametrize("kind", PARTIAL)
def test_partial_steps_are_told_apart_and_calls_counted_from_then_on(kind, follow):
    lrs, make = PARTIAL[kind]
    optimizer = sgd(*lrs)
    scheduler = Scheduler(optimizer, lr=SHAPE, follow=follow)
    step = make(optimizer)
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        for t in range(1, 31):
            step(optimizer)
            scheduler.step()
            assert scheduler.last_epoch == t
            assert rates(optimizer) == [lr * SHAPE(t) for lr in lrs]
    if len(lrs) == 1:  # a call for the only group is a step
        assert not said
        return
    (only,) = [str(each.message) for each in said]
    assert "SGD cannot be counted" in only
    assert "DeepSpeed ZeRO" in only
    assert "calls of step() are counted from now on, one per optimizer step" in only


@both_ways
@pytest.mark.filterwarnings(f"ignore:.*{CALLS}")
def test_one_call_for_one_sub_group_is_one_step(follow):
    optimizer = sgd(0.1)
    scheduler = Scheduler(optimizer, lr=SHAPE, follow=follow)
    step = Zero3(optimizer, (0,))
    for t in range(1, 31):
        step(optimizer)
        scheduler.step()
        assert (scheduler.last_epoch, rates(optimizer)) == (t, values(t, t + 1))


@both_ways
@pytest.mark.filterwarnings(f"ignore:.*{CALLS}")
@pytest.mark.parametrize("kind", PARTIAL)
def test_a_state_that_was_saved_without_partial_steps_goes_on_with_them(kind, follow):
    lrs, make = PARTIAL[kind]
    optimizer = sgd(*lrs)
    scheduler = Scheduler(optimizer, lr=SHAPE, follow=follow)
    for _ in range(9):
        take_step(optimizer)
        drive(scheduler, follow)
    saved = scheduler.state_dict()

    optimizer = sgd(*lrs)
    resumed = Scheduler(optimizer, lr=SHAPE, follow=follow)
    resumed.load_state_dict(saved)
    step = make(optimizer)
    for t in range(10, 21):
        step(optimizer)
        resumed.step()
        assert (resumed.last_epoch, rates(optimizer)) == (t, [lr * SHAPE(t) for lr in lrs])


@pytest.fixture
def graph(monkeypatch):
    """A machine with a GPU, on which a graph may be being captured."""
    state = {"capturing": False}
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: state["capturing"])
    return state


@both_ways
@pytest.mark.parametrize("warm", [0, 3], ids=["at once", "after warm steps"])
def test_a_captured_step_is_none_and_calls_are_counted_from_then_on(graph, warm, follow):
    """What has been counted stays; what is replayed is known to the caller of step() alone."""
    rate = torch.tensor(0.1, dtype=torch.float64)
    optimizer = sgd(rate)
    optimizer.param_groups[0]["capturable"] = True
    scheduler = Scheduler(optimizer, lr=SHAPE, follow=follow)
    for _ in range(warm):  # on a side stream, as torch asks for
        take_step(optimizer)
        drive(scheduler, follow)
    written = rate._version  # a write during the capture would be the graph's for ever
    graph["capturing"] = True
    with pytest.warns(UserWarning, match=f"captured in a CUDA graph.* {CALLS}") as said:
        take_step(optimizer)
    graph["capturing"] = False
    assert len(said) == 1
    assert rate._version == written
    for t in range(1, 11):  # replays run no Python; whoever replays calls step()
        scheduler.step()
        assert rate.item() == 0.1 * SHAPE(scheduler.last_epoch)
        assert scheduler.last_epoch == warm + t


# Sharded optimizers -------------------------------------------------------------------------------


@pytest.fixture
def one_rank(tmp_path):
    from torch import distributed

    distributed.init_process_group(
        "gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1
    )
    yield
    distributed.destroy_process_group()


@both_ways
@pytest.mark.usefixtures("one_rank")
@pytest.mark.parametrize("inner", [torch.optim.SGD, torch.optim.AdamW])
def test_a_zero_redundancy_optimizer_is_stepped_once(follow, inner):
    from torch.distributed.optim import ZeroRedundancyOptimizer

    optimizer = ZeroRedundancyOptimizer([parameter()], optimizer_class=inner, lr=0.1)
    scheduler = Scheduler(optimizer, lr=SHAPE, follow=follow)
    for t in range(1, 11):
        take_step(optimizer)
        drive(scheduler, follow)
        assert (scheduler.last_epoch, rates(optimizer)) == (t, values(t, t + 1))
        take_back = optimizer.optim.param_groups[0]["lr"]  # the inner one is given it at its step
        assert take_back in values(t - 1, t + 1)


# Groups that change -------------------------------------------------------------------------------


@both_ways
def test_groups_added_in_the_middle_of_training_have_a_base_of_their_own(follow):
    optimizer = sgd(0.1, 0.2)
    scheduler = Scheduler(optimizer, lr=SHAPE, follow=follow)
    for t in range(1, 13):
        take_step(optimizer)
        drive(scheduler, follow)
        if t == 6:
            optimizer.add_param_group({"params": [parameter()], "lr": 0.7})
    assert scheduler.last_epoch == 12
    assert rates(optimizer) == [base * SHAPE(12) for base in (0.1, 0.2, 0.7)]


@both_ways
@pytest.mark.parametrize("gone", [0, 1, 2])
def test_base_values_stay_with_their_groups_when_one_is_taken_away(follow, gone):
    bases = [0.1, 0.2, 0.3]
    optimizer = sgd(*bases)
    scheduler = Scheduler(
        optimizer, lr=SHAPE, groups={2: {"momentum": Constant(value=0.5)}}, follow=follow
    )
    for t in range(1, 13):
        take_step(optimizer)
        drive(scheduler, follow)
        if t == 6:
            del optimizer.param_groups[gone]
            del bases[gone]
    assert rates(optimizer) == [base * SHAPE(12) for base in bases]
    momenta = [group["momentum"] for group in optimizer.param_groups]
    assert momenta == [m for i, m in enumerate([0.9, 0.9, 0.45]) if i != gone]


@both_ways
def test_lists_of_bases_and_floors_speak_of_the_groups_there_were_at_first(follow):
    first, second = sgd(1.0), sgd(1.0)
    told = {"base": {"lr": [0.1, 0.2]}, "floor": {"lr": [0.05, 0.01]}}
    scheduler = Scheduler([first, second], lr=Cosine(10), follow=follow, **told)
    take_step(first)
    drive(scheduler, follow)
    first.add_param_group({"params": [parameter()], "lr": 0.7})
    take_step(first)
    scheduler.step()
    assert rates(first) == [0.1 * Cosine(10)(2), 0.7 * Cosine(10)(2)]
    assert rates(second) == [0.2 * Cosine(10)(2)]
    scheduler.last_epoch = 10
    assert (rates(first), rates(second)) == ([0.05, 0.0], [0.01])
    del first.param_groups[0]
    scheduler.rebind()
    assert (rates(first), rates(second)) == ([0.0], [0.01])


@both_ways
def test_floors_of_controllers_stay_with_their_groups(follow):
    optimizer = sgd(1.0, 1.0, 1.0)
    plateau = Plateau(factor=0.1, patience=0, floor={0: 0.5, 1: 0.2, 2: 0.7})
    scheduler = Scheduler(optimizer, lr=Constant(), feedback=plateau, follow=follow)
    del optimizer.param_groups[1]
    for _ in range(4):
        take_step(optimizer)
        scheduler.step()
        scheduler.step(1.0)
    assert rates(optimizer) == [0.5, 0.7]


def test_a_list_of_groups_that_was_replaced_is_taken_up_though_nobody_calls_step():
    optimizer = sgd(0.1, 0.2)
    scheduler = Scheduler(optimizer, lr=SHAPE, follow=True)
    for _ in range(6):
        take_step(optimizer)
    optimizer.param_groups = list(optimizer.param_groups)
    for _ in range(6):
        take_step(optimizer)
    assert scheduler.last_epoch == 12
    assert rates(optimizer) == [0.1 * SHAPE(12), 0.2 * SHAPE(12)]


@both_ways
def test_a_list_of_groups_that_was_replaced_for_good_is_taken_up(follow):
    bases = (0.1, 0.2)
    optimizer = sgd(*bases)
    scheduler = Scheduler(optimizer, lr=SHAPE, follow=follow)
    for t in range(1, 13):
        take_step(optimizer)
        scheduler.step()
        assert (scheduler.last_epoch, rates(optimizer)) == (t, [b * SHAPE(t) for b in bases])
        if t == 6:
            optimizer.param_groups = list(optimizer.param_groups)


@both_ways
def test_groups_replaced_by_copies_keep_their_bases(follow):
    optimizer = sgd(0.1, 0.2)
    scheduler = Scheduler(optimizer, lr=SHAPE, follow=follow)
    for t in range(1, 13):
        take_step(optimizer)
        scheduler.step()
        if t == 6:
            optimizer.param_groups[:] = [dict(group) for group in optimizer.param_groups]
            scheduler.rebind()
    assert scheduler.last_epoch == 12
    assert rates(optimizer) == [0.1 * SHAPE(12), 0.2 * SHAPE(12)]


@both_ways
def test_loading_an_optimizer_in_the_middle_keeps_the_count(follow):
    optimizer = sgd(0.1, 0.2)
    scheduler = Scheduler(optimizer, lr=SHAPE, follow=follow)
    for t in range(1, 13):
        take_step(optimizer)
        drive(scheduler, follow)
        if t == 6:
            optimizer.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    assert scheduler.last_epoch == 12
    assert rates(optimizer) == [0.1 * SHAPE(12), 0.2 * SHAPE(12)]


# The end of a scheduler ---------------------------------------------------------------------------


@both_ways
def test_what_somebody_has_kept_of_a_detached_scheduler_writes_nothing(follow):
    optimizer = sgd(0.1, torch.tensor(0.2))
    scheduler = Scheduler(optimizer, lr=SHAPE, follow=follow)
    cached = scheduler.step
    for _ in range(3):
        take_step(optimizer)
        cached()
    scheduler.detach()
    for group in optimizer.param_groups:
        group["lr"] = 0.5
    for _ in range(10):
        take_step(optimizer)
        cached()
        scheduler.step()
    assert rates(optimizer) == [0.5, 0.5]
    assert scheduler.last_epoch == 3


@both_ways
def test_following_may_begin_late(follow):
    optimizer = sgd()
    scheduler = Scheduler(optimizer, lr=SHAPE, follow=follow)
    for t in range(1, 11):
        take_step(optimizer)
        if t == 5:
            scheduler.follow()
        drive(scheduler, t > 5)
    assert (scheduler.last_epoch, rates(optimizer)) == (10, values(10, 11))


@both_ways
def test_a_horizon_that_is_bound_late_counts_from_the_first_step(follow):
    optimizer = sgd()
    scheduler = Scheduler(optimizer, lr=Cosine(), horizon=lambda: Horizon(20), follow=follow)
    for _ in range(5):
        take_step(optimizer)
        drive(scheduler, follow)
    assert (scheduler.last_epoch, rates(optimizer)) == (5, [0.1 * Cosine(20)(5)])
