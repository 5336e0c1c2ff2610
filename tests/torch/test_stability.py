"""Measuring the limit beside a training: what is noted, that nothing is disturbed, the study."""

import copy
import math
import pickle

import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy

from stepsize import Cosine, FieldError, Task, Warmup
from stepsize.finding.stability import StabilityCourse
from stepsize.plot import stability
from stepsize.torch import Scheduler
from stepsize.torch.limits import preconditioned_sharpness, stability_limit
from stepsize.torch.sharpness import sharpness
from stepsize.torch.stability import StabilityLog
from stepsize.torch.warmups import warmup_study

OPTIMIZERS = {
    "Adam": lambda p: torch.optim.Adam(p, lr=0.01),
    "SGD": lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9),
}


class Run:
    """A small training, with dropout and buffers."""

    def __init__(self, seed=0, make=OPTIMIZERS["SGD"]):
        torch.manual_seed(seed)
        self.model = nn.Sequential(
            nn.Linear(8, 16), nn.BatchNorm1d(16), nn.Tanh(), nn.Dropout(0.2), nn.Linear(16, 3)
        )
        self.optimizer = make(self.model.parameters())
        self.x, self.y = torch.randn(64, 8), torch.randint(0, 3, (64,))

    def step(self):
        chosen = torch.randint(0, 64, (16,))
        loss = cross_entropy(self.model(self.x[chosen]), self.y[chosen])
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        return {"loss": loss.detach()}

    def probe(self):
        self.model.eval()
        torch.rand(3)  # as a careless one may
        return cross_entropy(self.model(self.x), self.y)

    def in_training(self):
        return cross_entropy(self.model(self.x), self.y)


# What is noted ----------------------------------------------------------------------------------


def test_it_notes_what_holds_right_before_the_step():
    run = Run(make=OPTIMIZERS["Adam"])
    run.model[1].momentum = 0.0  # or the step's own forward pass would have moved the averages
    log = StabilityLog(run.model, run.optimizer, run.probe, tolerance=1e-4, most=60)
    told = []
    for t in range(4):
        expected = {}
        if t:
            loss = cross_entropy(copy.deepcopy(run.model).eval()(run.x), run.y)
            expected["loss"] = loss.item()
            run.model.eval()
            fresh = cross_entropy(run.model(run.x), run.y)
            params = list(run.model.parameters())
            settings = {"tolerance": 1e-4, "most": 60}
            expected["sharpness"] = sharpness(fresh, params, **settings).value
            own = preconditioned_sharpness(fresh, run.optimizer, **settings).value
            expected |= {"preconditioned": own, "limit": stability_limit(own, run.optimizer)}
            run.model.train()
        before = [p.detach().clone() for p in run.model.parameters()]
        run.step()
        moved = [
            (p - b).square().sum() for p, b in zip(run.model.parameters(), before, strict=True)
        ]
        expected["update"] = torch.stack(moved).sum().sqrt().item()
        told.append(expected)
    assert [m.step for m in log.course] == [0, 1, 2, 3]
    assert log.course[0].limit is None
    assert log.course[0].sharpness > 0
    for moment, expected in zip(log.course, told, strict=True):
        for name, value in expected.items():
            assert getattr(moment, name) == pytest.approx(value, rel=1e-3), name


def test_adams_first_step_is_the_rate_for_every_element():
    run = Run(make=OPTIMIZERS["Adam"])
    log = StabilityLog(run.model, run.optimizer, run.probe)
    run.step()
    assert log.course[0].relative == pytest.approx(1, abs=0.15)  # some have no gradient
    assert log.course[0].relative <= 1 + 1e-6


def test_the_rate_is_what_the_scheduler_wrote_for_the_step():
    run = Run()
    scheduler = Scheduler(run.optimizer, lr=Warmup(4) >> Cosine(10))
    log = StabilityLog(run.model, run.optimizer, run.probe, every=2, until=5)
    for _ in range(8):
        run.step()
        scheduler.step()
    assert [m.step for m in log.course] == [0, 2, 4]
    assert [m.rate for m in log.course] == pytest.approx([0.02, 0.06, 0.1])
    last = log.record()
    assert (last.step, last.update) == (8, None)
    assert log.record().step == log.course[-1].step == 8
    assert len(log.course) == 4


def test_it_looks_no_more_once_detached_or_gone():
    run = Run()
    log = StabilityLog(run.model, run.optimizer, run.probe)
    run.step()
    log.detach()
    run.step()
    assert len(log.course) == 1
    course = log.course
    del log
    run.step()
    assert pickle.loads(pickle.dumps(course)) == course  # noqa: S301 (our own)
    assert isinstance(course, StabilityCourse)


def test_only_record_looks_where_every_is_none():
    run = Run()
    log = StabilityLog(run.model, run.optimizer, run.probe, every=None)
    run.step()
    assert not log.course
    assert log.record().step == 1


def test_a_run_that_blows_up_is_noted_to_its_end():
    w = torch.ones(2, requires_grad=True)
    optimizer = torch.optim.SGD([w], lr=1e30)
    log = StabilityLog(nn.ParameterList([w]), optimizer, lambda: (w**4).sum())
    for _ in range(3):
        optimizer.zero_grad()
        (w**4).sum().backward()
        optimizer.step()
    assert [m.limit is None for m in log.course] == [False, True, True]
    assert not math.isfinite(log.course[-1].loss)


def test_a_step_that_calls_its_parents_is_one_step():
    class Twice(torch.optim.SGD):
        def step(self, closure=None):
            return super().step(closure)

    run = Run(make=lambda p: Twice(p, lr=0.1))
    log = StabilityLog(run.model, run.optimizer, run.probe)
    for _ in range(3):
        run.step()
    assert [m.step for m in log.course] == [0, 1, 2]
    assert all(m.update for m in log.course)


@pytest.mark.parametrize(
    ("settings", "told"),
    [({"every": 0}, "StabilityLog: every"), ({"until": 0}, "StabilityLog: until")],
    ids=["every", "until"],
)
def test_settings_that_make_no_sense_are_refused(settings, told):
    run = Run()
    with pytest.raises(FieldError, match=told):
        StabilityLog(run.model, run.optimizer, run.probe, **settings)
    with pytest.raises(FieldError, match="must be one of"):
        StabilityLog(run.model, torch.optim.LBFGS(run.model.parameters()), run.probe)


# Nothing is disturbed ---------------------------------------------------------------------------


@pytest.mark.parametrize("probe", ["probe", "in_training"])
@pytest.mark.parametrize("name", sorted(OPTIMIZERS))
def test_a_run_is_the_same_to_the_bit_with_and_without(name, probe):
    ends = []
    for watched in (False, True):
        run = Run(3, OPTIMIZERS[name])
        if watched:
            log = StabilityLog(run.model, run.optimizer, getattr(run, probe), every=2)
        for _ in range(7):
            run.step()
        if watched:
            log.record()
            assert len(log.course) == 5
        gradients = [p.grad for p in run.model.parameters()]
        state = [x for held in run.optimizer.state.values() for x in held.values()]
        ends.append([*run.model.state_dict().values(), *gradients, *state, torch.get_rng_state()])
        assert all(module.training for module in run.model.modules())
    assert all(torch.equal(a, b) for a, b in zip(*ends, strict=True) if isinstance(a, torch.Tensor))


def test_a_probe_that_fails_leaves_everything_as_it_was():
    run = Run()

    def failing():
        run.model.eval()
        run.model(run.x)
        torch.rand(1)
        raise RuntimeError("no probe")

    log = StabilityLog(run.model, run.optimizer, failing, every=None)
    state = torch.get_rng_state()
    with pytest.raises(RuntimeError, match="no probe"):
        log.record()
    assert torch.equal(torch.get_rng_state(), state)
    assert run.model.training


# The study --------------------------------------------------------------------------------------


def sharp_run(seed):
    """Start where the loss is sharp: the limit rises as the first weights shrink."""
    run = Run(seed, lambda p: torch.optim.SGD(p, lr=0.5))
    run.model = nn.Sequential(nn.Linear(8, 16), nn.Tanh(), nn.Linear(16, 3))
    with torch.no_grad():
        run.model[2].weight.mul_(4)
    run.optimizer = torch.optim.SGD(run.model.parameters(), lr=0.5)
    return run


def test_a_study_trains_each_length_from_the_same_start():
    found = warmup_study(sharp_run, rate=1.0, warmup=[5, 10], steps=12, every=3, seeds=(0, 1))
    assert found.lengths == (0, 5, 10)
    assert [(run.warmup, run.seed) for run in found.runs] == [
        (w, s) for w in (0, 5, 10) for s in (0, 1)
    ]
    for run in found.runs:
        assert [m.step for m in run.course] == [0, 3, 6, 9, 12]
        rates = [min((m.step + 1) / (run.warmup + 1), 1.0) for m in run.course]
        assert [m.rate for m in run.course] == pytest.approx(rates)
    for seed in (0, 1):
        first = {run.course[0].sharpness for run in found.runs if run.seed == seed}
        assert len(first) == 1
    assert found.of(0)[0].course[0].share > found.of(10)[0].course[0].share


def test_groups_keep_their_ratio():
    def build(seed):
        run = sharp_run(seed)
        first, last = run.model[0], run.model[2]
        run.optimizer = torch.optim.SGD(
            [
                {"params": first.parameters(), "lr": 0.01},
                {"params": last.parameters(), "lr": 0.02},
            ]
        )
        run.step = lambda real=run.step: (seen.append(rates(run)), real())[1]
        return run

    def rates(run):
        return [group["lr"] for group in run.optimizer.param_groups]

    seen = []
    warmup_study(build, rate=0.5, warmup=1, steps=2)
    assert seen == [[0.5, 1.0], [0.5, 1.0], [0.25, 0.5], [0.5, 1.0]]


def test_a_run_that_blows_up_has_not_finished():
    found = warmup_study(sharp_run, rate=3e38, warmup=3, steps=30, every=10)
    assert not any(run.finished for run in found.runs)
    assert all(math.isnan(run.loss) for run in found.runs)
    assert "none came to its end" in str(found)


def test_a_task_is_taken_by_its_build_and_evaluated():
    class Task:
        def build(self, seed):
            run = sharp_run(seed)
            run.evaluate = lambda: {"accuracy": 0.5}
            return run

    found = warmup_study(Task(), rate=0.1, warmup=2, steps=3)
    assert [run.metrics for run in found.runs] == [{"accuracy": 0.5}] * 2


def test_a_study_of_what_has_no_probe_is_refused():
    class Bare:
        optimizer = torch.optim.SGD([torch.ones(1, requires_grad=True)], lr=0.1)

    with pytest.raises(FieldError, match=r"one whose runs have a probe\(\) and a model"):
        warmup_study(lambda seed: Bare(), rate=0.1, warmup=2, steps=3)


# Pictures ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("dark", [False, True])
def test_a_study_has_a_column_for_each_length(dark):
    found = warmup_study(sharp_run, rate=1.0, warmup=4, steps=6, seeds=(0, 1))
    figure = stability(found, dark=dark)
    assert [axes.get_title() for axes in figure.axes[:2]] == ["no warmup", "warmup of 4 steps"]
    above = figure.axes[0]
    assert above.get_yscale() == "log"
    drawn = {line.get_label(): line for line in above.get_lines()}
    limits = [m.limit for m in found.of(0)[0].course]
    assert list(drawn["limit"].get_ydata()) == limits
    one = stability(found.runs[0].course, dark=dark)
    assert len(one.axes) == 2


def test_a_course_without_limits_has_no_picture():
    with pytest.raises(FieldError, match="a picture of stability must be of moments with a limit"):
        stability(StabilityCourse(()))


def test_a_bias_before_batchnorm_does_not_spoil_adams_limit():
    torch.manual_seed(0)
    x = torch.randn(256, 8)
    y = (x[:, 0] > 0).long()
    task = Task.from_torch(
        lambda: nn.Sequential(nn.Linear(8, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Linear(16, 2)),
        cross_entropy, (x, y), (x, y), lambda p: torch.optim.AdamW(p, lr=0.01),
        batch_size=32, epochs=5,
    )  # fmt: skip
    study = warmup_study(task, rate=0.01, warmup=4, steps=10, every=2)
    limits = [m.limit for run in study.runs for m in run.course if m.limit is not None]
    assert min(limits) > 1e-3  # in eval mode, where the bias has curvature, it would be 1e-6


def test_a_probe_leaves_batchnorm_as_it_is():
    x, y = torch.randn(64, 4), torch.zeros(64, dtype=torch.long)
    task = Task.from_torch(
        lambda: nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3), nn.Dropout(0.5)),
        cross_entropy, (x, y), (x, y), lambda p: torch.optim.SGD(p, lr=0.1),
        batch_size=16, epochs=1,
    )  # fmt: skip
    run = task.build(0)
    run.step()
    before = {name: buffer.clone() for name, buffer in run.model.named_buffers()}
    modes = [module.training for module in run.model.modules()]
    assert run.probe().item() == run.probe().item()
    assert all(torch.equal(b, before[name]) for name, b in run.model.named_buffers())
    assert [module.training for module in run.model.modules()] == modes


def test_a_study_needs_a_seed():
    with pytest.raises(FieldError, match="seeds must be one seed at least"):
        warmup_study(lambda seed: None, rate=0.1, warmup=3, steps=5, seeds=())
