"""The range test: how large may the learning rate of this model be?"""

import time
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from typing import Any, Literal, cast

import torch
from torch.nn import Module
from torch.optim import Optimizer

from stepsize.errors import FieldError
from stepsize.finding.curve import RangeCurve
from stepsize.finding.divergence import FACTOR
from stepsize.finding.report import RangeTest
from stepsize.schedules.fields import Bounds
from stepsize.torch import ranks
from stepsize.torch.kept import Kept
from stepsize.torch.preserve import preserved
from stepsize.torch.ramping import RAMPS, check_optimizer, quieten, rates_of, ratios_of
from stepsize.torch.ready import Ready, Score, calls_of
from stepsize.torch.ready import accuracy as top_accuracy
from stepsize.torch.streams import begin_streams, keep_streams
from stepsize.torch.trials import Row, Settings, Told, trial

START, STOP, STEPS, REPEATS = 1e-6, 10.0, 120, 3
_FEWEST = 10  # steps that a curve can be read from
Ratios = tuple[tuple[str, float], ...]


def range_test(
    model: Any,
    optimizer: Optimizer | None = None,
    loss_fn: Callable[[Any, Any], Any] | None = None,
    loader: Any = None,
    *,
    step: Callable[..., Any] | None = None,
    start: float = START,
    stop: float = STOP,
    steps: int = STEPS,
    ramp: Literal["geometric", "linear"] = "geometric",
    repeats: int = REPEATS,
    seed: int = 0,
    accumulate: int = 1,
    autocast: torch.dtype | None = None,
    scaler: Any = None,
    accuracy: bool | Score = False,
    diverged: float | None = FACTOR,
    also: Iterable[Any] = (),
    on_step: Told | None = None,
) -> RangeTest:
    """Train for a moment with a rate that rises from step to step, and see where the loss goes.

    ```python
    found = range_test(model, optimizer, loss_fn, loader)  # batches are pairs (inputs, targets)
    found = range_test(model, optimizer, step=my_step, loader=loader)  # my_step(batch) -> loss
    found = range_test(model, optimizer, step=my_step)  # my_step() takes its own data
    found = range_test(task)  # a stepsize Task: every repeat is a run of another seed
    ```

    Model, optimizer, schedulers, random numbers and loader are afterwards what they were, to the
    bit, as `preserved` says; also after an error or Ctrl-C. Every repeat starts there, with another
    order of the data. The rate is written before each real step of the optimizer, whatever a
    scheduler wrote; a step that a GradScaler leaves out is none, and losses of several calls for
    one step are averaged.

    The loss at `rates[i]` is what the model said before the step with that rate, so it is what the
    steps at `rates[:i]` led to: it is the loss that a training step has at hand, and measuring it
    after the step would take a second forward pass.

    Under torch.distributed every rank calls it; losses are averaged over the ranks, and all of them
    stop together and have the same result. What `step` raises on one rank alone ends the others
    only at the process group's timeout, as it does in training.

    Args:
        model: what is trained; or a `Task`, alone.
        optimizer: its optimizer. Ratios between the rates of its groups are kept, and the rate of
            the test is the first group's.
        loss_fn: gives the mean loss of outputs and targets.
        loader: gives batches, and is gone through as often as need be.
        step: does forward and backward pass and `optimizer.step()`, in any structure; gives the
            loss, or a mapping with "loss" and, if it likes, "accuracy".
        start: the first rate; 0 is possible on a linear ramp.
        stop: the last rate.
        steps: of the optimizer, from one to the other.
        ramp: "geometric", equal ratios, or "linear", equal differences.
        repeats: how often it is done; what differs between them is the noise of the answer.
        seed: what the orders of the data follow from.
        accumulate: batches for one step.
        autocast: a dtype such as torch.bfloat16 for the forward pass.
        scaler: a GradScaler.
        accuracy: True to measure the share of right classes, or a function of outputs and targets.
        diverged: how many times what was gained the loss may go up again before the repeat ends;
            None for to the end. A loss that is not finite ends it always.
        also: what else `step` changes, for `preserved`: torch's schedulers, an EMA of the model.
        on_step: called with the number of the repeat, of the step, the rate and the loss.

    Raises:
        FieldError: for what breaks these rules: an optimizer whose step needs a closure, one with
            none of the model's parameters, a loader that is empty or an iterator, a loss that is
            not one number or not finite at the start, a `step` that never steps the optimizer.

    Source: Smith, arXiv 1506.01186, sec. 3.3 (linear, accuracy); the geometric ramp after Gugger
    2018, as in fastai.

    The weight is taken down by the rate's share at every step, from 1:

    >>> import torch
    >>> model = torch.nn.Linear(1, 1, bias=False)
    >>> _ = torch.nn.init.ones_(model.weight)
    >>> sgd = torch.optim.SGD(model.parameters(), lr=0.3)
    >>> def step():
    ...     sgd.zero_grad()
    ...     loss = model.weight.square().sum() / 2
    ...     loss.backward()
    ...     sgd.step()
    ...     return loss
    >>> found = range_test(model, sgd, step=step, start=0.1, stop=1, steps=10, ramp="linear")
    >>> [round(loss, 4) for loss in found.curve.losses[0][:3]], found.ended
    ([0.5, 0.405, 0.2592], ('end', 'end', 'end'))
    >>> round(model.weight.item(), 4), sgd.param_groups[0]["lr"]
    (1.0, 0.3)
    """
    begun = time.perf_counter()
    rates = _rates(ramp, start, stop, steps)
    settings = Settings(rates, diverged, accumulate, autocast, on_step)
    for name, count, least in (("repeats", repeats, 1), ("seed", seed, 0)):
        Bounds(ge=least, whole=True).admit(name, count)
    if not isinstance(model, Module) and callable(getattr(model, "build", None)):
        others = {"loss_fn": loss_fn, "loader": loader, "step": step, "scaler": scaler}
        others["optimizer"] = None if optimizer is None else type(optimizer).__name__
        _check_out(
            "a task", "tell the task", autocast=autocast, accuracy=accuracy or None, **others
        )
        trials = _of_task(model, settings, range(seed, seed + repeats))
    else:
        driven = _checked(model, optimizer)
        if step is not None:
            cure = "let step do it, and give {'loss': ..., 'accuracy': ...}"
            _check_out("step", cure, autocast=autocast, accuracy=accuracy or None)
        score = top_accuracy if accuracy is True else accuracy or None
        ready = Ready(model, driven, loss_fn, accumulate, autocast, scaler, score)
        calls = calls_of(ready, loader, step, seed)
        more = also if scaler is None else (*also, scaler)
        kept = preserved(model, driven, loader=loader, also=more)
        seeds = [(seed, repeat) for repeat in range(repeats)]
        trials = _of_model(driven, calls, kept, settings, seeds)
    return _report(*trials, settings, ramp, time.perf_counter() - begun)


def _rates(ramp: str, start: float, stop: float, steps: int) -> tuple[float, ...]:
    if ramp not in RAMPS:
        raise FieldError.of("ramp", " or ".join(map(repr, RAMPS)), ramp)
    low = Bounds(ge=0) if ramp == "linear" else Bounds(gt=0)
    least = low.admit("start", start)
    most = Bounds(gt=0).admit("stop", stop)
    if most <= least:
        raise FieldError.of("stop", f"above start, {least:g}", most)
    return rates_of(ramp, least, most, int(Bounds(ge=_FEWEST, whole=True).admit("steps", steps)))


def _check_out(where: str, cure: str, **others: Any) -> None:
    for name, given in others.items():
        if given is not None:
            raise FieldError.of(name, f"left out where {where} is given", given, cure)


def _checked(model: Any, optimizer: Any) -> Optimizer:
    """Give the optimizer; raise `FieldError` where it cannot find a rate for the model."""
    if not isinstance(model, Module):
        raise FieldError.of("model", "a torch.nn.Module or a task", type(model).__name__)
    check_optimizer(optimizer)
    own = {id(p) for p in model.parameters() if p.requires_grad}
    if not own:
        cure = "set requires_grad of what is to be trained"
        raise FieldError.of("model", "one with parameters to train", type(model).__name__, cure)
    if not own & {id(p) for group in optimizer.param_groups for p in group["params"]}:
        rule, cure = "one with parameters of the model", "build it from model.parameters()"
        raise FieldError.of("optimizer", rule, "none of those that train", cure)
    return cast("Optimizer", optimizer)


def _of_model(
    optimizer: Optimizer,
    calls: Callable[[int], Callable[[], Any]],
    around: AbstractContextManager[Kept],
    settings: Settings,
    seeds: list[tuple[int, int]],
) -> tuple[list[Row], Ratios]:
    rows, ratios = [], ratios_of(optimizer)
    with around as kept:
        for seed, repeat in seeds:
            if repeat:
                kept.restore()
            quieten(optimizer)
            begin_streams(seed, repeat)
            rows.append(trial(optimizer, calls(repeat), settings, ratios, repeat))
    return rows, ratios


def _of_task(task: Any, settings: Settings, seeds: range) -> tuple[list[Row], Ratios]:
    rows: list[Row] = []
    ratios: Ratios = ()
    kept = Kept()
    try:
        keep_streams(kept)
        for repeat, seed in enumerate(seeds):
            run = task.build(seed)
            if not (hasattr(run, "optimizer") and callable(getattr(run, "step", None))):
                rule = "what gives a run, with an optimizer and a step()"
                raise FieldError.of("task: build(seed)", rule, type(run).__name__)
            check_optimizer(run.optimizer)
            ratios = ratios_of(run.optimizer)
            quieten(run.optimizer)
            rows.append(trial(run.optimizer, run.step, settings, ratios, repeat))
    finally:
        kept.restore()
    return rows, ratios


def _report(
    rows: list[Row], ratios: Ratios, settings: Settings, ramp: str, seconds: float
) -> RangeTest:
    losses = tuple(tuple(row.losses) for row in rows)
    scores = tuple(tuple(row.scores) for row in rows)
    (told,) = ranks.numbers_from_first(lambda: (seconds,), 1)
    return RangeTest(
        curve=RangeCurve(settings.rates, losses, scores if any(scores) else ()),
        ramp=ramp,
        steps=len(settings.rates),
        ended=tuple(row.ended for row in rows),
        ratios=ratios,
        seconds=told,
    )
