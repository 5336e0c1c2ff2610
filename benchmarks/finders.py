"""Every finder's rule against a sweep: what does training with its suggestion cost?

python benchmarks/finders.py                 all problems, about a quarter of an hour on two cores
python benchmarks/finders.py TASK.py ...     tasks of your own, printed only
python benchmarks/finders.py data.npz        arrays x and y: an MLP under SGD and under Adam

A finder's range test has 100 steps; ours has three repeats of 120, and its first repeat alone is
shown too. Its suggestion is then trained with for 500 steps that decay linearly to 0, as is a
sweep of four rates a decade. The excess is the loss above that of the sweep's best rate, on
training and on validation data, with the same seeds; what diverges, or has no suggestion, counts
as not trained.
"""

import argparse
import io
import math
import sys
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from contextlib import redirect_stdout
from pathlib import Path
from statistics import fmean, median
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from finder_problems import CHOSEN, REPORTED, adam, mlp, sgd, standardised, task
from lightning.pytorch.tuner.lr_finder import _LRFinder
from matplotlib.figure import Figure
from papers.common import save, write_table
from torch_lr_finder import LRFinder

from stepsize import Linear, Task
from stepsize.finding import RULES, RangeCurve, averaged, suggest
from stepsize.task_file import load_task
from stepsize.torch import Scheduler, range_test

STEPS, SEEDS, CURVES, PROBE = 500, (100, 101), 4, 4096
OURS, OURS_ONCE = "stepsize", "stepsize, one repeat"
FASTAI, LIGHTNING = (1e-7, 10.0), (1e-8, 1.0)  # their default ranges
Losses = tuple[float, float]


def trained(problem: Task, rate: float, seed: int) -> Losses:
    """Give the losses on training and validation data after a whole training with a rate."""
    run = problem.build(seed)
    schedule = Linear(STEPS, start=rate, stop=0.0).absolute()
    scheduler = Scheduler(run.optimizer, lr=schedule, follow=True)
    for _ in range(STEPS):
        if not math.isfinite(float(run.step()["loss"])):
            break
    del scheduler
    return judged(run)


def judged(run: Any) -> Losses:
    with torch.no_grad():
        return float(run.probe(PROBE)), float(run.evaluate()["loss"])


def sweep(problem: Task, fresh: Losses) -> dict[float, list[Losses]]:
    """Train with four rates a decade, up to where it fails for good."""
    found: dict[float, list[Losses]] = {}
    for rate in (10 ** (k / 4) for k in range(-16, 5)):
        found[rate] = [capped(trained(problem, rate, seed), fresh) for seed in SEEDS]
        best = min(fmean(a for a, _ in each) for each in found.values())
        if fmean(a for a, _ in found[rate]) >= fresh[0] and best < fresh[0]:
            break
    return found


def capped(losses: Losses, fresh: Losses) -> Losses:
    """What is worse than no training is no training."""
    train, valid = (
        min(loss, most) if math.isfinite(loss) else most
        for loss, most in zip(losses, fresh, strict=True)
    )
    return train, valid


def curve(problem: Task, ends: tuple[float, float], seed: int) -> RangeCurve:
    start, stop = ends
    return range_test(problem, start=start, stop=stop, repeats=1, seed=seed, diverged=None).curve


def lightnings(seen: RangeCurve) -> float | None:
    """What Lightning says: its own code, of losses averaged as its callback does."""
    finder = _LRFinder("exponential", *LIGHTNING, 100)
    smooth = averaged(seen.losses[0]).tolist()
    best = np.fmin.accumulate(smooth)
    over = [i for i, loss in enumerate(smooth) if i > 1 and loss > 4 * best[i]]
    end = over[0] if over else len(smooth)
    finder.results = {"lr": list(seen.rates[:end]), "loss": smooth[:end]}
    return finder.suggestion()


def torch_lr_finders(seen: RangeCurve) -> float | None:
    """What torch-lr-finder says: its own code, of losses smoothed as its range test does."""
    finder = object.__new__(LRFinder)
    smooth = [seen.losses[0][0]]
    for loss in seen.losses[0][1:]:
        smooth.append(0.05 * loss + 0.95 * smooth[-1])
        if smooth[-1] > 5 * min(smooth):
            break
    finder.history = {"lr": list(seen.rates[: len(smooth)]), "loss": smooth}
    with redirect_stdout(io.StringIO()):  # it prints what it returns
        drawn = finder.plot(ax=Figure().subplots(), suggest_lr=True)
    return float(drawn[1]) if isinstance(drawn, tuple) else None


def suggestions(problem: Task, seed: int) -> dict[str, float | None]:
    """Give what every finder says, of range tests of this seed."""
    first = 10 * seed  # the repeats of one seed are no other seed's
    own = range_test(problem, seed=first)
    shared = curve(problem, FASTAI, first)
    once = RangeCurve(own.curve.rates, own.curve.losses[:1])
    found: dict[str, float | None] = {OURS: own.rate, OURS_ONCE: suggest(once).rate}
    found |= {
        f"fastai, {name}": rule(shared.rates, shared.losses[0]) for name, rule in RULES.items()
    }
    found["torch-lr-finder"] = torch_lr_finders(shared)
    found["Lightning"] = lightnings(curve(problem, LIGHTNING, first))
    return found


def measured(problem: Task) -> SimpleNamespace:
    """Give the excess of every finder on a problem, in training and in validation loss."""
    torch.set_num_threads(1)
    fresh = judged(problem.build(SEEDS[0]))
    swept = sweep(problem, fresh)
    means = {
        rate: [fmean(column) for column in zip(*each, strict=True)] for rate, each in swept.items()
    }
    best = [min(mean[i] for mean in means.values()) for i in (0, 1)]
    excess: dict[str, list[list[float]]] = {}
    rates: dict[str, list[float | None]] = {}
    for seed in range(CURVES):
        for name, rate in suggestions(problem, seed).items():
            losses = fresh if rate is None else after(problem, rate, fresh)
            excess.setdefault(name, []).append([a - b for a, b in zip(losses, best, strict=True)])
            rates.setdefault(name, []).append(rate)
    return SimpleNamespace(excess=excess, rates=rates, means=means, fresh=fresh)


def after(problem: Task, rate: float, fresh: Losses) -> list[float]:
    each = [capped(trained(problem, rate, seed), fresh) for seed in SEEDS]
    return [fmean(column) for column in zip(*each, strict=True)]


def measured_by_name(name: str) -> SimpleNamespace:
    return measured((CHOSEN | REPORTED)[name]())


def table(found: dict[str, SimpleNamespace]) -> tuple[list[str], list[list[str]]]:
    """Give a line for each finder: mean and median excess over all problems and seeds."""
    columns = [
        "finder",
        "mean",
        "median",
        "worst problem",
        "mean, validation",
        "spread of the rate",
    ]
    rows = []
    for name in next(iter(found.values())).excess:
        train = [fmean(e[0] for e in each.excess[name]) for each in found.values()]
        valid = [fmean(e[1] for e in each.excess[name]) for each in found.values()]
        spread = [_spread(each.rates[name]) for each in found.values()]
        worst = max(zip(train, found, strict=True))
        told = [f"{fmean(train):.4f}", f"{median(train):.4f}", f"{worst[0]:.3f} ({worst[1]})"]
        rows.append([name, *told, f"{fmean(valid):.4f}", f"x {median(spread):.2f}"])
    return columns, rows


def _spread(rates: list[float | None]) -> float:
    given = [rate for rate in rates if rate]
    return max(given) / min(given) if given else math.nan


def by_problem(found: dict[str, SimpleNamespace]) -> tuple[list[str], list[list[str]]]:
    """Give a line for each problem: the best rate, and each finder's rate and excess."""
    names = list(next(iter(found.values())).excess)
    rows = []
    for problem, each in found.items():
        best = min(each.means, key=lambda rate: each.means[rate][0])
        valid = min(each.means, key=lambda rate: each.means[rate][1])
        told = (
            f"{_middle(each.rates[name])}: {fmean(e[0] for e in each.excess[name]):.4f}"
            for name in names
        )
        rows.append([problem, f"{best:.2g}", f"{valid:.2g}", *told])
    return ["problem", "best rate", "best in validation", *names], rows


def _middle(rates: list[float | None]) -> str:
    given = sorted(rate for rate in rates if rate)
    return f"{given[len(given) // 2]:.2g}" if given else "none"


def drawn(found: dict[str, SimpleNamespace]) -> Figure:
    """Draw the sweep of each problem, and where the finders say."""
    figure = Figure((10, 2.1 * -(-len(found) // 4)), layout="constrained")
    grid = figure.subplots(-(-len(found) // 4), 4, squeeze=False)
    shown = {OURS: "#d9822b", "fastai, minimum / 10": "#3a9d5d", "fastai, valley": "#2f7ed8"}
    for axes, (name, each) in zip(grid.flat, found.items(), strict=False):
        axes.plot(list(each.means), [mean[0] for mean in each.means.values()], color="#8a8a8a")
        for finder, colour in shown.items():
            for rate in filter(None, each.rates[finder]):
                axes.axvline(rate, color=colour, alpha=0.6, linewidth=1, label=finder)
        axes.set_xscale("log")
        axes.set_title(name, fontsize=8)
        axes.tick_params(labelsize=7)
    handles = {line.get_label(): line for line in grid[0, 0].get_lines()[1:]}
    figure.legend(handles.values(), handles, loc="outside lower center", ncols=3, fontsize=8)
    figure.supylabel("training loss after 500 steps", fontsize=8)
    return figure


def given(paths: list[str]) -> dict[str, Callable[[], Task]]:
    """Make problems of files: tasks, or arrays."""
    found: dict[str, Callable[[], Task]] = {}
    for path in paths:
        if path.endswith(".npz"):
            for name, optimizer in (("SGD", sgd), ("Adam", adam)):
                found[f"{Path(path).stem}, MLP, {name}"] = lambda p=path, o=optimizer: of_arrays(
                    p, o
                )
        else:
            found[path] = lambda p=path: load_task(p)
    return found


def of_arrays(path: str, optimizer: Any) -> Task:
    held = np.load(path)
    x, y = standardised(held["x"].reshape(len(held["x"]), -1)), held["y"]
    if np.issubdtype(y.dtype, np.floating):
        data = x, standardised(y)[:, None]
        return task(lambda: data, lambda: mlp(x.shape[1], 1), optimizer)
    names, ids = np.unique(y, return_inverse=True)
    data = x, torch.tensor(ids)
    return task(lambda: data, lambda: mlp(x.shape[1], len(names)), optimizer)


def show(found: dict[str, SimpleNamespace]) -> None:
    for columns, rows in (table(found), by_problem(found)):
        print("\n".join(" | ".join(row) for row in (columns, *rows)), end="\n\n", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("tasks", nargs="*", help="TASK.py or data.npz")
    paths = parser.parse_args().tasks
    if paths:
        show({name: measured(make()) for name, make in given(paths).items()})
        return
    names = [*CHOSEN, *REPORTED]
    found = {}
    with ProcessPoolExecutor(2) as pool:
        for name, each in zip(names, pool.map(measured_by_name, names), strict=True):
            found[name] = each
            print(name, flush=True)
    parts = {"chosen": CHOSEN, "reported": REPORTED}
    shown = {part: {name: found[name] for name in held} for part, held in parts.items()}
    columns, rows = table(shown["reported"])
    show(shown["chosen"])
    show(shown["reported"])
    chosen = {row[0]: row[1] for row in table(shown["chosen"])[1]}
    rows = [[*row, chosen[row[0]]] for row in rows]
    write_table(__file__, ABOUT, [*columns, "mean where ours was chosen"], rows)
    save(__file__, drawn(found))


ABOUT = f"""Excess training loss (nats, or squared standard deviations) after {STEPS} steps with
the rate that a finder suggests, over that of the best of four rates a decade. {len(REPORTED)}
problems that our rule was not chosen on, {CURVES} range tests of each, {len(SEEDS)} trainings of
each suggestion; the last column is the mean over the {len(CHOSEN)} problems on which its share of
the fall, its smoothing and the length of the ramp were chosen. A range test has 100 steps, ours
three repeats of 120; its first repeat alone is shown too. Lightning and torch-lr-finder are their
own code; fastai's rules are ours, equal to theirs to 12 digits."""

if __name__ == "__main__":
    sys.exit(main())
