"""How near the estimators of the Hessian's diagonal come to it, and what they cost.

A network of 64-16-10 with tanh (1,210 parameters) on 200 of scikit-learn's digits, before training
and after 100 steps of SGD; everything in double, on one thread. Nothing here is a paper's number.
The noise is that of the draws alone: one minibatch. `python benchmarks/papers/curvature.py`, about
a minute.
"""

import time
from functools import partial

import matplotlib as mpl
import torch
from common import save, write_table
from matplotlib import pyplot as plt
from sklearn.datasets import load_digits
from torch import nn
from torch.nn.functional import cross_entropy

from stepsize.optim.again import Repeatable
from stepsize.optim.differenced import Signs, sampled_diagonal
from stepsize.torch import curvature

mpl.use("Agg")
torch.set_num_threads(1)
SAMPLES, SEEDS = 200, 5
COLOURS = {"hidden layer": "#00798c", "last layer": "#d1495b"}


def data():
    x, y = load_digits(return_X_y=True)
    order = torch.randperm(len(y), generator=torch.Generator().manual_seed(0))[:SAMPLES]
    x = torch.tensor(x / 16, dtype=torch.float64)
    return (x - x.mean(0))[order], torch.tensor(y)[order]


def network(steps, x, y):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(64, 16), nn.Tanh(), nn.Linear(16, 10)).double()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
    for _ in range(steps):
        optimizer.zero_grad()
        cross_entropy(model(x), y).backward()
        optimizer.step()
    return model


class Case:
    """A network at some point of its training, with every estimate of its curvature."""

    def __init__(self, steps):
        self.x, self.y = data()
        self.model = network(steps, self.x, self.y)
        self.params = list(self.model.parameters())

    def loss(self):
        """Evaluate the loss."""
        return cross_entropy(self.model(self.x), self.y)

    def closure(self):
        """Evaluate it, with gradients."""
        self.model.zero_grad()
        loss = self.loss()
        loss.backward()
        return loss

    def exact(self, seed):
        """Give the diagonal itself."""
        del seed
        return curvature.hessian_diagonal(self.loss(), self.params)

    def hutchinson(self, seed, samples=1, distribution="rademacher"):
        """Estimate by random signs or normal numbers."""
        return curvature.hutchinson(
            self.loss(),
            self.params,
            samples=samples,
            distribution=distribution,
            generator=torch.Generator().manual_seed(seed),
        )

    def differenced(self, seed):
        """Estimate as DiagonalNewton does."""
        repeat = Repeatable(self.closure, self.params)
        repeat.first()
        first = {p: p.grad.clone() for p in self.params}
        return list(sampled_diagonal(repeat, first, Signs(seed), 0.03).values())

    def gauss_newton(self, seed):
        """Give the Gauss-Newton diagonal."""
        del seed
        return curvature.gauss_newton_diagonal(self.model(self.x), self.params)

    def bbprop(self, seed, *, bends=False):
        """Approximate that."""
        del seed
        return curvature.bbprop(self.model, self.params, self.x, self.y, bends=bends)

    def along_the_gradient(self, seed):
        """Difference two gradients along the first."""
        del seed
        self.closure()
        v = [-0.01 * p.grad for p in self.params]
        return curvature.finite_difference(self.closure, self.params, v)


METHODS = {
    "exact": (Case.exact, "1,210 + 1"),
    "Hutchinson, 1 sample": (Case.hutchinson, "1 + 1"),
    "Hutchinson, 10 samples": (partial(Case.hutchinson, samples=10), "10 + 1"),
    "Hutchinson, 100 samples": (partial(Case.hutchinson, samples=100), "100 + 1"),
    "Hutchinson, 10 samples, gaussian": (
        partial(Case.hutchinson, samples=10, distribution="gaussian"),
        "10 + 1",
    ),
    "Hutchinson by a difference, 1 sample": (Case.differenced, "2"),
    "Gauss-Newton diagonal": (Case.gauss_newton, "2,000"),
    "bbprop": (Case.bbprop, "1"),
    "bbprop with bends": (partial(Case.bbprop, bends=True), "2"),
    "finite difference along the gradient": (Case.along_the_gradient, "2"),
}


def flat(tensors):
    return torch.cat([t.detach().reshape(-1) for t in tensors])


def compared(found, exact):
    """Give relative error, correlation, and the middle of found / exact where exact is not tiny."""
    error = ((found - exact).norm() / exact.norm()).item()
    both = torch.corrcoef(torch.stack([found, exact]))[0, 1].item()
    seen = exact.abs() > 0.01 * exact.abs().max()
    return error, both, (found[seen] / exact[seen]).median().item()


def quickest(call, rounds=5):
    times = []
    for _ in range(rounds):
        begin = time.process_time()
        call()
        times.append(time.process_time() - begin)
    return min(times)


def measured(case):
    """Give every estimate, and what it costs in ordinary passes."""
    step = quickest(case.closure, 50)
    found, costs = {}, {}
    for name, (call, _) in METHODS.items():
        count = SEEDS if "Hutchinson" in name else 1
        found[name] = [flat(call(case, seed)) for seed in range(count)]
        slow = name in ("exact", "Gauss-Newton diagonal")
        costs[name] = quickest(partial(call, case, 0), 1 if slow else 5) / step
    return found, costs


def told(name, found, costs, exact):
    """Give a row of the table: the means over the draws, before and after training."""
    cells = []
    for seen, right in zip(found, exact, strict=True):
        given = right.abs() if name.startswith("finite") else right
        numbers = torch.tensor([compared(each, given) for each in seen[name]]).mean(0).tolist()
        cells += [f"{n:.2f}" if abs(n) < 100 else f"{n:.0f}" for n in numbers]
    return [name, METHODS[name][1], f"{costs[name]:.1f}", *cells]


def ratios(case, found):
    """Say how bbprop and the Gauss-Newton diagonal compare, layer by layer."""
    sizes = [p.numel() for p in case.params]
    one, other = (found[n][0].split(sizes) for n in ("bbprop", "Gauss-Newton diagonal"))
    for layer, at in (("hidden", 0), ("last", 2)):
        seen = other[at] > 1e-3 * other[at].max()
        ratio = one[at][seen] / other[at][seen]
        spread = [
            ratio.min(),
            *ratio.quantile(torch.tensor([0.05, 0.5, 0.95]).double()),
            ratio.max(),
        ]
        yield layer, ", ".join(f"{r.item():.2f}" for r in spread)


def picture(found, exact):
    left_out = [n for n in METHODS if n == "exact" or "gaussian" in n or "by a" in n or "10 s" in n]
    names = [n for n in METHODS if n not in left_out]
    figure, panels = plt.subplots(
        2, 3, figsize=(8.3, 5.8), layout="constrained", sharex=True, sharey=True
    )
    below = torch.arange(len(exact)) < 64 * 16 + 16
    thin = torch.randperm(len(exact), generator=torch.Generator().manual_seed(0))[:420]
    for axes, name in zip(panels.flat, names, strict=True):
        axes.plot([1e-6, 1], [1e-6, 1], color="#bbbbbb", lw=1)
        for layer, mask in (("hidden layer", below), ("last layer", ~below)):
            at = thin[mask[thin]]
            x, y = exact[at].abs(), found[name][0][at].abs()
            style = {"ms": 2.2, "alpha": 0.6, "color": COLOURS[layer], "label": layer}
            axes.loglog(x, y.clamp_min(1e-6), "o", mew=0, rasterized=True, **style)
        axes.set(title=name, xlim=(1e-5, 0.3), ylim=(1e-5, 0.3))
        axes.title.set_fontsize(10)
        axes.minorticks_off()
    panels[0, 0].legend(fontsize=8, loc="lower right", markerscale=2)
    figure.supxlabel("size of the exact diagonal element", fontsize=10)
    figure.supylabel("size of the estimate", fontsize=10)
    return figure


def main():
    cases = [Case(0), Case(100)]
    (early, _), (late, costs) = map(measured, cases)
    exact = [seen["exact"][0] for seen in (early, late)]
    lines = [told(name, (early, late), costs, exact) for name in METHODS]
    moments = ("before", "after 100 steps")
    kinds = ("relative error", "correlation", "median of estimate / exact")
    columns = ["estimate", "backward passes", "time in forward and backward passes"]
    columns += [f"{kind}, {moment}" for moment in moments for kind in kinds]
    negative = [f"{100 * (e < 0).double().mean().item():.0f} %" for e in exact]
    first = (
        f"Against the exact diagonal, of which {negative[0]} are negative before training and "
        f"{negative[1]} after 100 steps. Relative error: of the whole vector, in the Euclidean "
        "norm; the median is over elements above a hundredth of the greatest. Hutchinson: means "
        "over 5 draws. The finite difference is compared with the absolute values. Time: on one "
        "thread, of a machine that did other things."
    )
    second = (
        "bbprop over the exact Gauss-Newton diagonal, weights: least, 5 %, median, 95 %, greatest:"
    )
    about = [first, "", second, ""]
    for moment, case, seen in zip(moments, cases, (early, late), strict=True):
        about += [f"- {layer} layer, {moment}: {spread}" for layer, spread in ratios(case, seen)]
    write_table(__file__, "\n".join(about), columns, lines)
    print("\n".join(about))
    save(__file__, picture(late, exact[1]))


if __name__ == "__main__":
    main()
