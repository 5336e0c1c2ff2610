"""Twin optimizers: one driven by a peer's scheduler, one by ours, looked at before every step."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch.optim import SGD, Optimizer

from stepsize import Plan, Schedule
from stepsize.torch import Scheduler

SGD_MOMENTUM = partial(SGD, momentum=0.9)
Trace = dict[tuple[str, int], list[float]]  # by key and group, the value at t = 0, 1, ...


@dataclass(frozen=True)
class Row:
    """A peer's scheduler and the same in our words: one schedule, or one for every group.

    `floor` is how far values may be apart whatever their size; a row that needs one says why.
    """

    name: str
    peer: Callable[[Optimizer], Any]
    ours: Schedule | Plan | tuple[Schedule | Plan, ...]
    steps: int
    lrs: tuple[float, ...] = (0.1, 0.003)
    optimizer: Callable[..., Optimizer] = SGD_MOMENTUM
    floor: float = 1e-18

    @property
    def plans(self) -> list[Plan]:
        each = self.ours if isinstance(self.ours, tuple) else (self.ours,) * len(self.lrs)
        return [x if isinstance(x, Plan) else Plan(lr=x) for x in each]

    def twin(self) -> Optimizer:
        """The first group has the optimizer's default rate, as in most scripts."""
        groups = [{"params": [torch.zeros(1, requires_grad=True)], "lr": lr} for lr in self.lrs]
        return self.optimizer(groups, lr=self.lrs[0])


@dataclass(frozen=True, kw_only=True)
class Known(Row):
    """A row that differs from the peer at the steps `differ`, and is the same everywhere else.

    There the peer's rate of the last group is `gives(t)`, ours is `holds(t)`.
    """

    differ: range | frozenset[int]
    gives: Callable[[int], float]
    holds: Callable[[int], float]
    why: str


@dataclass(frozen=True)
class Stops:
    """A peer that raises where ours has a value: at `t` it is `value`."""

    name: str
    call: Callable[[Optimizer], object]
    error: type[Exception]
    message: str
    ours: Schedule
    t: float
    value: float


def look(trace: Trace, optimizer: Optimizer, plans: list[Plan]) -> None:
    for index, (group, plan) in enumerate(zip(optimizer.param_groups, plans, strict=True)):
        for key in plan:
            value = group["betas"][0] if key == "beta1" else group[key]
            trace.setdefault((key, index), []).append(value)


def drive(row: Row, bind: Callable[[Optimizer], Any]) -> Trace:
    """Run the dry loop: optimizer step, scheduler step."""
    optimizer, trace = row.twin(), {}
    scheduler = bind(optimizer)
    look(trace, optimizer, row.plans)
    for _ in range(row.steps):
        optimizer.step()
        scheduler.step()
        look(trace, optimizer, row.plans)
    return trace


def peer(row: Row) -> Trace:
    return drive(row, row.peer)


def ours(row: Row) -> Trace:
    """Ours bound: a common schedule as a plan, others by group."""
    if isinstance(row.ours, tuple):
        return drive(row, partial(Scheduler, groups=dict(enumerate(row.plans))))
    return drive(row, partial(Scheduler, plan=row.plans[0]))


def pure(row: Row) -> Trace:
    """Ours as a function: a factor times the group's rate, or the absolute value."""
    return {
        (key, index): [
            each(t) * (1.0 if each.is_absolute else row.lrs[index]) for t in range(row.steps + 1)
        ]
        for index, plan in enumerate(row.plans)
        for key, each in plan.items()
    }


def close(a: float, b: float, floor: float = 1e-18) -> bool:
    return abs(a - b) <= max(1e-12 * abs(b), floor)


def apart(row: Row, left: Mapping[Any, list[float]], right: Trace) -> list[tuple[Any, ...]]:
    """Everything that differs, as (key, group, t, left, right)."""
    assert left.keys() == right.keys()
    return [
        (*place, t, a, b)
        for place in left
        for t, (a, b) in enumerate(zip(left[place], right[place], strict=True))
        if not close(a, b, row.floor)
    ]


def check(row: Row) -> None:
    """The peer, ours bound and ours as a function are the same at every step."""
    expected = peer(row)
    assert apart(row, ours(row), expected) == []
    assert apart(row, pure(row), expected) == []


def check_known(row: Known) -> None:
    """They differ where the row says, as it says, and nowhere else."""
    expected, last = peer(row), ("lr", len(row.lrs) - 1)
    assert len(row.differ) > 0
    for found in (ours(row), pure(row)):
        assert {each[2] for each in apart(row, found, expected)} == set(row.differ)
        for t in row.differ:
            assert close(expected[last][t], row.gives(t), row.floor), ("the peer", t)
            assert close(found[last][t], row.holds(t), row.floor), ("ours", t)
