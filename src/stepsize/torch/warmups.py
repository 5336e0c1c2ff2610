"""Training with and without a warmup, and looking at the stability limit meanwhile."""

import math
from collections.abc import Sequence
from typing import Any

from stepsize.errors import FieldError
from stepsize.finding.stability import StabilityCourse
from stepsize.finding.studies import Trained, WarmupStudy
from stepsize.schedules.fields import Bounds
from stepsize.schedules.warmup import Warmup
from stepsize.torch.looking import present
from stepsize.torch.ranks import scalar
from stepsize.torch.scheduler import Scheduler
from stepsize.torch.stability import StabilityLog


def warmup_study(
    task: Any,
    *,
    rate: float,
    warmup: int | Sequence[int],
    steps: int,
    every: int = 1,
    seeds: Sequence[int] = (0,),
    **settings: Any,
) -> WarmupStudy:
    """Train with warmups of given lengths and without one, and measure the limit along each run.

    Args:
        task: a `Task`, or a function that gives a run for a seed: with `.optimizer`, `.step()`, and
            `.model` and `.probe()` as runs of torch tasks have; `.evaluate()` where there is one.
        rate: that every run goes to, linearly and then constant: the rate of the first param group.
            The others keep their ratio to it.
        warmup: how many steps, or several such lengths; no warmup is always tried.
        steps: how many each run takes; it ends where its loss is no longer finite.
        every: how many steps lie between the moments that are measured.
        seeds: each gives one run for every length.
        **settings: as of `StabilityLog`.

    Raises:
        FieldError: for runs without a probe, and numbers that make no sense.

    >>> import torch
    >>> class Run:
    ...     def __init__(self, seed):
    ...         self.w = torch.tensor([1.0, 1.0], dtype=torch.float64, requires_grad=True)
    ...         self.model = torch.nn.ParameterList([self.w])
    ...         self.optimizer = torch.optim.SGD([self.w], lr=1.0)
    ...     def probe(self):
    ...         return (self.w**4).sum()  # of sharpness 12 w², so of limit 1/6 at first
    ...     def step(self):
    ...         self.optimizer.zero_grad()
    ...         loss = self.probe()
    ...         loss.backward()
    ...         self.optimizer.step()
    ...         return {"loss": loss}
    >>> study = warmup_study(Run, rate=0.3, warmup=3, steps=6)
    >>> [(run.warmup, round(run.course.worst, 9)) for run in study.runs]
    [(0, 1.8), (3, 0.45)]
    """
    whole = Bounds(ge=1, whole=True)
    top = float(Bounds(gt=0).admit("warmup_study: rate", rate))
    count = int(whole.admit("warmup_study: steps", steps))
    given = warmup if isinstance(warmup, Sequence) else [warmup]
    lengths = sorted({0, *(int(whole.admit("warmup_study: warmup", w)) for w in given)})
    if not len(seeds):
        raise FieldError.of("warmup_study: seeds", "one seed at least", seeds)
    build = task if callable(task) else task.build
    logged = {"every": int(whole.admit("warmup_study: every", every)), **settings}
    runs = []
    for length in lengths:
        for seed in seeds:
            run = build(seed)
            _scale(run.optimizer, top)
            runs.append(_trained(run, seed, length, count, logged))
    return WarmupStudy(top, count, tuple(runs))


def _trained(run: Any, seed: int, warmup: int, steps: int, logged: Any) -> Trained:
    if not hasattr(run, "probe") or not hasattr(run, "model"):
        rule = "one whose runs have a probe() and a model"
        raise FieldError.of("warmup_study: task", rule, type(run).__name__)
    schedule = Scheduler(run.optimizer, lr=Warmup(warmup)) if warmup else None
    log = StabilityLog(run.model, run.optimizer, run.probe, **logged)
    finished = _train(run, schedule, steps)
    if finished:
        log.record()
    log.detach()
    course: StabilityCourse = log.course
    metrics = dict(run.evaluate()) if finished and hasattr(run, "evaluate") else {}
    return Trained(seed, warmup, course, metrics, finished and _is_finite(course))


def _train(run: Any, schedule: Scheduler | None, steps: int) -> bool:
    for _ in range(steps):
        if not math.isfinite(scalar(run.step()["loss"])):
            return False
        if schedule is not None:
            schedule.step()
    return True


def _is_finite(course: StabilityCourse) -> bool:
    return all(moment.loss is None or math.isfinite(moment.loss) for moment in course)


def _scale(optimizer: Any, rate: float) -> None:
    """Give the first group the rate, and the others theirs in proportion."""
    first = scalar(present(optimizer.param_groups[0]))
    if not first > 0:
        raise FieldError.of("warmup_study: the optimizer's lr", "above 0", first)
    for group in optimizer.param_groups:
        group["lr"] = scalar(present(group)) * rate / first
