"""How the best rate moves with the length of training and with the batch size.

python benchmarks/best_rate.py        about seven minutes on two cores; writes best_rate.md and .svg

Each point is a sweep of three rates a decade with linear decay to 0, judged by the validation loss
at the end, mean of the seeds; the best rate is the vertex of the parabola, in logarithms of the
rate, through the best point and its neighbours.
"""

import math
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from statistics import fmean
from typing import Any, NamedTuple

import numpy as np
import torch
from finder_problems import (
    Transformer,
    adam,
    mlp,
    mnist,
    sgd,
    source_text,
    task,
    taught,
    teacher_weights,
)
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter
from papers.common import save, write_table
from torch import Tensor
from torch.nn.functional import mse_loss

from stepsize import Linear, Task
from stepsize.torch import Scheduler

SEEDS = (100, 101)


class Case(NamedTuple):
    """What is swept: a problem by batch size, and the pairs of steps and batch size."""

    problem: Callable[[int], Task]
    points: tuple[tuple[int, int], ...]
    low: int
    """The first rate, in thirds of a decade."""
    seeds: int = len(SEEDS)


def of(data: Any, model: Any, optimizer: Any) -> Callable[[int], Task]:
    return partial(task, data, model, optimizer)


LENGTHS = tuple((steps, 64) for steps in (125, 250, 500, 1000, 2000, 4000))
SAMPLES = tuple((32_000 // batch, batch) for batch in (8, 16, 32, 64, 128, 256, 512))
STEPS = tuple((500, batch) for batch in (8, 16, 32, 64, 128, 256, 512))
MNIST_SGD = of(mnist, partial(mlp, 784, 10), sgd)
MNIST_ADAM = of(mnist, partial(mlp, 784, 10), adam)


def fresh_teacher(batch: int) -> Task:
    """Make a task whose samples are new in every batch: nothing can be learnt by heart."""
    weights = teacher_weights()

    def batches(seed: int, epoch: int) -> Iterator[tuple[Tensor, Tensor]]:
        draw = torch.Generator().manual_seed(1000 * seed + epoch)
        for _ in range(50):
            yield taught(batch, weights, draw)

    model = partial(mlp, 20, 1)
    valid = taught(4096, weights, torch.Generator().manual_seed(1))
    return Task.from_torch(model, mse_loss, batches, valid, sgd, batches_per_epoch=50, epochs=100)


SOURCE = of(source_text, partial(Transformer, 95), adam)
CASES = {
    "length: MNIST, MLP, SGD": Case(MNIST_SGD, LENGTHS, -9),
    "length: MNIST, MLP, Adam": Case(MNIST_ADAM, LENGTHS, -13),
    "length: teacher, fresh samples, MLP, SGD": Case(fresh_teacher, LENGTHS, -6),
    "length: source, transformer, Adam": Case(
        SOURCE, tuple((steps, 16) for steps in (125, 250, 500, 1000, 2000)), -8, 1
    ),
    "batch, same samples: MNIST, MLP, SGD": Case(MNIST_SGD, SAMPLES, -7),
    "batch, same samples: MNIST, MLP, Adam": Case(MNIST_ADAM, SAMPLES, -11),
    "batch, same steps: MNIST, MLP, SGD": Case(MNIST_SGD, STEPS, -7),
    "batch, same steps: MNIST, MLP, Adam": Case(MNIST_ADAM, STEPS, -11),
}


def trained(problem: Task, rate: float, steps: int, seed: int) -> float:
    run = problem.build(seed)
    scheduler = Scheduler(
        run.optimizer, lr=Linear(steps, start=rate, stop=0.0).absolute(), follow=True
    )
    for _ in range(steps):
        if not math.isfinite(float(run.step()["loss"])):
            return math.inf
    del scheduler
    loss = run.evaluate()["loss"]
    return loss if math.isfinite(loss) else math.inf


def best_rate(case: Case, steps: int, batch: int) -> tuple[float, float]:
    """Sweep upwards until three rates in a row are worse; give the best rate and its loss."""
    torch.set_num_threads(1)
    problem, losses = case.problem(batch), []
    for k in range(case.low, 8):
        rate = 10 ** (k / 3)
        losses.append(fmean(trained(problem, rate, steps, s) for s in SEEDS[: case.seeds]))
        if len(losses) - 1 - int(np.argmin(losses)) >= 3:
            break
    i = int(np.argmin(losses))
    return 10 ** ((case.low + i + _vertex(losses, i)) / 3), losses[i]


def _vertex(losses: list[float], i: int) -> float:
    """Give how far the vertex of a parabola is from the best of three points, in their distance."""
    if not 0 < i < len(losses) - 1 or not math.isfinite(losses[i + 1]):
        return 0.0
    a, b, c = losses[i - 1 : i + 2]
    return 0.5 * (a - c) / (a - 2 * b + c)


def measured(name: str) -> list[tuple[float, float]]:
    case = CASES[name]
    return [best_rate(case, steps, batch) for steps, batch in case.points]


def slope(sizes: list[int], rates: list[float]) -> float:
    """Give the exponent of the size that fits the best rates."""
    return float(np.polyfit(np.log(sizes), np.log(rates), 1)[0])


def sizes_of(name: str) -> list[int]:
    return [point[0 if name.startswith("length") else 1] for point in CASES[name].points]


def drawn(found: dict[str, list[tuple[float, float]]]) -> Figure:
    figure = Figure((9, 3.4), layout="constrained")
    panels = {
        "length": "steps",
        "batch, same samples": "batch size",
        "batch, same steps": "batch size",
    }
    for axes, (kind, what) in zip(figure.subplots(1, 3), panels.items(), strict=True):
        for name, points in found.items():
            if name.startswith(kind + ":"):
                sizes, rates = sizes_of(name), [rate for rate, _ in points]
                told = f"{name.partition(': ')[2]}, {slope(sizes, rates):+.2f}"
                axes.loglog(sizes, rates, "o-", markersize=3, label=told)
        axes.set_title(kind, fontsize=9)
        axes.set_xlabel(what)
        axes.legend(fontsize=6, frameon=False)
        axes.tick_params(labelsize=7)
        axes.xaxis.set_minor_formatter(NullFormatter())
    figure.supylabel("best rate", fontsize=9)
    return figure


def main() -> None:
    names = list(CASES)
    with ProcessPoolExecutor(2) as pool:
        found = dict(zip(names, pool.map(measured, names), strict=True))
    rows = []
    for name, points in found.items():
        sizes, rates = sizes_of(name), [rate for rate, _ in points]
        told = ", ".join(f"{size}: {rate:.3g}" for size, rate in zip(sizes, rates, strict=True))
        rows.append([name, f"{slope(sizes, rates):+.2f}", told])
    write_table(__file__, ABOUT, ["case", "exponent", "best rate by size"], rows)
    save(__file__, drawn(found))


ABOUT = f"""The best peak rate of a linear decay to 0 by the validation loss at the end, over the
length of training or the batch size, and the exponent of the size that fits it. {len(SEEDS)} seeds,
the transformer one; three rates a decade."""

if __name__ == "__main__":
    sys.exit(main())
