"""Resuming far into training: time to load a state, its size, what it writes."""

import functools
import io
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import torch
from families import warmup_cosine
from floors import BASE, optimizer
from peers import torch_cosine, torch_lambda, torch_sequential
from report import Table, ns
from timing import Loop, calling, compare
from torch.optim.lr_scheduler import OneCycleLR

from stepsize.torch import Scheduler

STEP, TOTAL, WARMUP = 10_000_000, 20_000_000, 1000
GROUPS = (1, 1000)
OURS = "stepsize Scheduler"
Make = Callable[[torch.optim.Optimizer, int, int], Any]


def _ours(opt: torch.optim.Optimizer, warmup: int, total: int) -> Scheduler:
    return Scheduler(opt, lr=warmup_cosine(warmup, total))


def _one_cycle(opt: torch.optim.Optimizer, warmup: int, total: int) -> OneCycleLR:
    del warmup
    return OneCycleLR(opt, BASE, total_steps=total, cycle_momentum=False)


SCHEDULERS: dict[str, Make] = {
    OURS: _ours,
    "torch SequentialLR[Linear, Cosine]": torch_sequential,
    "torch CosineAnnealingLR": torch_cosine,
    "torch LambdaLR": torch_lambda,
    "torch OneCycleLR": _one_cycle,
}


def tables(*, quick: bool) -> list[Table]:
    """Give the tables of this section."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that optimizer.step() was not called
        return [_table(rounds=5 if quick else 21)]


def _table(rounds: int) -> Table:
    states = {(n, g): _far(make(optimizer(g), WARMUP, TOTAL)) for n, g, make in _cases()}
    loads = compare({(n, g): _loading(make, g, states[n, g]) for n, g, make in _cases()}, rounds)
    made = {n: make(optimizer(1), WARMUP, TOTAL) for n, make in SCHEDULERS.items()}  # kept alive
    replays = compare({n: calling(scheduler.step) for n, scheduler in made.items()}, rounds)
    rows = []
    for name, make in SCHEDULERS.items():
        times = [ns(loads[name, g]) for g in GROUPS]
        sizes = [f"{_saved(states[name, g]):,} B" for g in GROUPS]
        replay = "not needed" if name == OURS else ns(replays[name] * STEP)
        rows.append([name, *times, *sizes, _writes(make, states[name, 1]), replay])
    columns = [
        "scheduler",
        "load, 1 group",
        "load, 1,000 groups",
        "`torch.save`, 1 group",
        "`torch.save`, 1,000 groups",
        "writes the rate",
        "10M steps instead",
    ]
    return Table("`load_state_dict` of a state at that step", columns, rows, _NOTES)


def _cases() -> Iterator[tuple[str, int, Make]]:
    return ((name, groups, make) for groups in GROUPS for name, make in SCHEDULERS.items())


def _loading(make: Make, groups: int, state: dict[str, Any]) -> Loop:
    scheduler = make(optimizer(groups), WARMUP, TOTAL)
    return calling(functools.partial(scheduler.load_state_dict, state))


_NOTES = (
    "Load: CPU time of `load_state_dict`. stepsize checks that the state belongs to the same "
    "schedule, writes the rates and builds its hot path anew; torch's classes copy a dict, check "
    "nothing, and leave the rates to the optimizer's own state. The last column is what replaying "
    "the steps costs where only their number is known, extrapolated. LambdaLR's state lacks its "
    "function."
)


def _far(scheduler: Any) -> dict[str, Any]:
    """Give the state of a scheduler at the far step, without going there."""
    if isinstance(scheduler, Scheduler):
        scheduler.last_epoch = STEP
        return scheduler.state_dict()
    state = scheduler.state_dict()
    state |= {"last_epoch": STEP, "_step_count": STEP + 1}
    if "_schedulers" in state:
        state["_schedulers"][-1] |= {"last_epoch": STEP - WARMUP}
    return state


def _saved(state: dict[str, Any]) -> int:
    buffer = io.BytesIO()
    torch.save(state, buffer)
    return buffer.tell()


def _writes(make: Make, state: dict[str, Any]) -> str:
    """Tell whether loading the state alone gives a fresh optimizer another rate."""
    opt = optimizer(1)
    scheduler = make(opt, WARMUP, TOTAL)
    before = opt.param_groups[0]["lr"]
    scheduler.load_state_dict(state)
    return "yes" if opt.param_groups[0]["lr"] != before else "no"
