"""What one `scheduler.step()` costs, by the number of param groups."""

import functools
import warnings
from collections.abc import Callable, Mapping
from itertools import repeat
from typing import Any

from families import warmup_cosine
from floors import BASE, fill_rate, optimizer, write_one_cycle, write_rate, write_stairs
from peers import PEERS, installed
from report import Table, against
from timing import Loop, calling, compare_built, stepping
from torch.optim.lr_scheduler import CosineAnnealingLR, OneCycleLR

from stepsize import Step, one_cycle
from stepsize.feedback import Plateau, SpikeGuard, UpDown
from stepsize.torch import Scheduler

WARMUP, TOTAL = 1000, 10_000_000
FLOOR, TWIN = "floor: handwritten closure", "floor again (its twin)"
CALLS, BOUND = 'stepsize, `counts="calls"`', "the same, `step` looked up once"
FOLLOWS, BUMP = "stepsize, following the optimizer", "(the bump subtracted from it)"
CONTROLLED = "the same, with three controllers that see nothing now"
HOOK = "(its hook on `optimizer.step()`)"
EMPTY = "(an empty call)"


def tables(*, quick: bool) -> list[Table]:
    """Give the tables of this section."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that optimizer.step() was not called
        return [_warmup_cosine(quick), _one_cycle(quick), _unchanged(quick), _tensors(quick)]


def _loop(made: Any) -> Loop:
    return stepping(made) if hasattr(made, "step") else calling(made)


def _by_groups(
    sizes: tuple[int, ...], quick: bool, make: Callable[[int], Mapping[str, Loop]]
) -> list[dict[str, float]]:
    builds, rounds = (1, 9) if quick else (3, 31)
    return [compare_built(builds, functools.partial(make, n), rounds=rounds) for n in sizes]


def _rows(found: list[dict[str, float]], floor: str = FLOOR) -> list[list[str]]:
    return [[name, *[against(each[name], each[floor]) for each in found]] for name in found[0]]


def _table(
    title: str, sizes: tuple[int, ...], found: list[dict[str, float]], notes: str = ""
) -> Table:
    columns = ["per step", *[f"{n:,} group{'s' * (n > 1)}" for n in sizes]]
    return Table(title, columns, _rows(found), notes)


def _ours(groups: int, **made: Any) -> Scheduler:
    return Scheduler(optimizer(groups, tensor=made.pop("tensor", False)), counts="calls", **made)


def _following(groups: int, name: str = FOLLOWS, **more: Any) -> dict[str, Loop]:
    """Count by a bump of the list that the hook counts in, so that no optimizer has to run."""
    driven = optimizer(groups)
    scheduler = Scheduler(driven, lr=warmup_cosine(WARMUP, TOTAL), follow=False, **more)
    hook = next(iter(driven._optimizer_step_post_hooks.values()))  # noqa: SLF001 (torch's own dict)
    hook(driven, (), {})  # from now on steps are counted
    cell, bumped = scheduler._cell, [0.0]  # noqa: SLF001 (where the hook counts)

    def follow(n: int) -> None:
        for _ in repeat(None, n):
            cell[0] += 1.0
            scheduler.step()

    def bump(n: int) -> None:
        for _ in repeat(None, n):
            bumped[0] += 1.0

    def hooked(n: int) -> None:
        for _ in repeat(None, n):
            hook(driven, (), {})

    return {name: follow} if more else {name: follow, BUMP: bump, HOOK: hooked}


def _warmup_cosine(quick: bool) -> Table:
    sizes, missing = (1, 10, 100, 1000), [n for n, m in PEERS.items() if not _has(m)]

    def make(groups: int) -> dict[str, Loop]:
        kept = _ours(groups, lr=warmup_cosine(WARMUP, TOTAL))
        loops = {
            FLOOR: calling(write_rate(optimizer(groups), WARMUP, TOTAL)),
            TWIN: calling(write_rate(optimizer(groups), WARMUP, TOTAL)),
            CALLS: stepping(_ours(groups, lr=warmup_cosine(WARMUP, TOTAL))),
            BOUND: calling(kept.step),
            **_following(groups),
            **_following(groups, CONTROLLED, feedback=[Plateau(), SpikeGuard(), UpDown()]),
        }
        present = {n: m for n, m in PEERS.items() if n not in missing}
        loops |= {n: _loop(m(optimizer(groups), WARMUP, TOTAL)) for n, m in present.items()}
        for name in loops:
            if name not in (BUMP, HOOK):
                loops[name](WARMUP + 10)  # past the warmup
        return loops | {EMPTY: calling(lambda: kept)}  # which keeps the scheduler alive

    found = _by_groups(sizes, quick, make)
    for each in found:
        for name in (FOLLOWS, CONTROLLED):
            each[name] -= each[BUMP]
    rows = _rows(found)
    off = _largest_differences([n for n in PEERS if n not in missing])
    rows = [[*row, off.get(row[0], "")] for row in rows]
    rows += [[name, *["not installed"] * len(sizes), ""] for name in missing]
    table = _table("Warmup and cosine", sizes, found)
    return Table(table.title, [*table.columns, "largest difference"], rows, _NOTES)


_NOTES = (
    "In brackets: times the floor. The last column is the largest difference from stepsize's "
    "value, in parts of the peak, over a run of 1,000 steps with 100 of warmup "
    "(transformers starts its warmup at 0). In a training loop "
    "`optimizer.step()` runs the hook; here a bump of the same list stands for it, and its time is "
    "subtracted. optax dispatches to other threads: its row is the calling thread's part alone."
)


def _has(make: Any) -> bool:
    return installed(make, optimizer(1))


def _largest_differences(peers: list[str]) -> dict[str, str]:
    """Run each candidate for a short schedule and compare the rates it wrote with ours."""
    expected = [BASE * warmup_cosine(100, 1000)(t) for t in range(1000)]
    makers = {FLOOR: write_rate, **{n: PEERS[n] for n in peers if "no warmup" not in n}}
    makers[CALLS] = lambda opt, w, t: Scheduler(opt, lr=warmup_cosine(w, t), counts="calls")
    told = {}
    for name, make in makers.items():
        opt = optimizer(1)
        made, written = make(opt, 100, 1000), []
        for _ in range(999):
            (made.step if hasattr(made, "step") else made)()
            written.append(opt.param_groups[0]["lr"])
        most = max(abs(a - b) for a, b in zip(written, expected[1:], strict=True))
        told[name] = f"{most / BASE:.0e}" if most else "0"
    return told


def _one_cycle(quick: bool) -> Table:
    def make(groups: int) -> dict[str, Loop]:
        opts = [optimizer(groups, momentum=0.9) for _ in range(4)]
        return {
            FLOOR: calling(write_one_cycle(opts[0], TOTAL)),
            TWIN: calling(write_one_cycle(opts[1], TOTAL)),
            CALLS: stepping(Scheduler(opts[2], one_cycle(TOTAL), counts="calls")),
            "torch OneCycleLR": stepping(OneCycleLR(opts[3], BASE, total_steps=TOTAL)),
        }

    sizes = (1, 10, 100, 1000)
    return _table("One cycle: rate and momentum", sizes, _by_groups(sizes, quick, make))


def _unchanged(quick: bool) -> Table:
    every = 1_000_000_000

    def make(groups: int) -> dict[str, Loop]:
        return {
            FLOOR: calling(write_stairs(optimizer(groups), every, 0.1)),
            TWIN: calling(write_stairs(optimizer(groups), every, 0.1)),
            CALLS: stepping(_ours(groups, lr=Step(every, 0.1))),
        }

    sizes = (1, 100, 1000)
    return _table("A value that does not change", sizes, _by_groups(sizes, quick, make))


def _tensors(quick: bool) -> Table:
    def make(groups: int) -> dict[str, Loop]:
        opts = [optimizer(groups, tensor=True) for _ in range(3)]
        return {
            FLOOR: calling(fill_rate(opts[0], WARMUP, TOTAL)),
            TWIN: calling(fill_rate(opts[1], WARMUP, TOTAL)),
            CALLS: stepping(_ours(groups, tensor=True, lr=warmup_cosine(WARMUP, TOTAL))),
            "torch CosineAnnealingLR": stepping(CosineAnnealingLR(opts[2], TOTAL)),
        }

    sizes = (1, 100, 1000)
    notes = "Every group holds its rate as a tensor of no dimension, as torch.compile wants it."
    return _table("Rates that are tensors", sizes, _by_groups(sizes, quick, make), notes)
