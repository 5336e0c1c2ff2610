"""Adaptive gradient descent of Malitsky and Mishchenko beside what has to be tuned.

After the experiments of "Adaptive gradient descent without descent" (2020) as they stand in the
authors' notebooks (ymalitsky/adaptive_GD): logistic regression with a penalty of L / (10 n), matrix
factorisation, a network on minibatches. Their data are not shipped, so the data are others, and so
are the numbers. `python benchmarks/papers/adgd.py`, about two minutes.
"""

import functools
import math

import numpy as np
import torch
from common import save, write_table
from matplotlib import pyplot as plt
from sklearn.datasets import load_breast_cancer, load_digits
from torch import nn

from stepsize.optim import AdGD

STEPS = 3000
LEVELS = (1e-2, 1e-4, 1e-6, 1e-8)


# Logistic regression -----------------------------------------------------------------------------


def cancer():
    x, y = load_breast_cancer(return_X_y=True)
    return (x - x.mean(0)) / x.std(0), y.astype(float)


def mushroomlike():
    """8,000 rows of 22 categories in 112 binary columns, as mushrooms has; labels with noise."""
    draw = np.random.default_rng(0)
    sizes = [5] * 20 + [6] * 2
    columns = [np.eye(k)[draw.choice(k, 8000, p=draw.dirichlet(np.ones(k)))] for k in sizes]
    x = np.hstack(columns)
    scores = x @ draw.normal(size=x.shape[1]) * 3
    return x, (scores + draw.logistic(size=8000) > np.median(scores)).astype(float)


class Logistic:
    """Mean logistic loss plus the penalty; its least value by Newton's method."""

    def __init__(self, data):
        self.x, self.y = data
        n, self.size = self.x.shape
        self.penalty = 0.25 * np.linalg.norm(self.x, 2) ** 2 / n / (10 * n)
        self.steepest = 0.25 * np.linalg.norm(self.x, 2) ** 2 / n + self.penalty
        self.least = self.loss(self.solved())

    def solved(self):
        """Minimise by Newton's method."""
        w = np.zeros(self.size)
        for _ in range(40):
            p = 1 / (1 + np.exp(-self.x @ w))
            bent = self.x.T @ ((p * (1 - p))[:, None] * self.x) / len(self.y)
            way = np.linalg.solve(bent + self.penalty * np.eye(self.size), self.slope(w))
            size = 1.0
            while self.loss(w - size * way) > self.loss(w) + 1e-15:
                size /= 2
            w = w - size * way
        return w

    def loss(self, w):
        """Give the loss."""
        z = self.x @ w
        return np.mean(np.logaddexp(0, z) - self.y * z) + self.penalty / 2 * w @ w

    def slope(self, w):
        """Give its gradient."""
        p = 1 / (1 + np.exp(-self.x @ w))
        return self.x.T @ (p - self.y) / len(self.y) + self.penalty * w


def descent(f, w, steps):
    for _ in range(steps):
        yield w, 1 / f.steepest
        w = w - f.slope(w) / f.steepest


def nesterov(f, w, steps, strongly=False):
    root = math.sqrt(f.steepest / f.penalty)
    before, a = w, 1.0
    for _ in range(steps):
        yield w, 1 / f.steepest
        y, after = w - f.slope(w) / f.steepest, (1 + math.sqrt(1 + 4 * a * a)) / 2
        momentum = (root - 1) / (root + 1) if strongly else (a - 1) / after
        w, before, a = y + momentum * (y - before), y, after


def armijo(f, w, steps):
    """Each search begins at twice the last step size; 1/2 of the decrease, as the authors ask."""
    size = 1 / f.steepest
    for _ in range(steps):
        yield w, size
        g, here = f.slope(w), f.loss(w)
        size *= 2
        while f.loss(w - size * g) > here - size / 2 * g @ g and size > 1e-12:
            size /= 2
        w = w - size * g


def polyak(f, w, steps):
    for _ in range(steps):
        g = f.slope(w)
        size = max(f.loss(w) - f.least, 0) / max(g @ g, 1e-300)
        yield w, size
        w = w - size * g


def adgd(f, w, steps, **options):
    """Run the optimizer itself, on the gradients of f."""
    p = torch.tensor(w, requires_grad=True)
    if options.get("rule") == "known-lipschitz":
        options["lipschitz"] = f.steepest
    optimizer = AdGD([p], **options)

    def closure():
        p.grad = torch.tensor(f.slope(p.detach().numpy()))
        return torch.tensor(0.0)

    for _ in range(steps):
        here = p.detach().numpy().copy()
        optimizer.step(closure)
        yield here, optimizer.sizes_of(p)


SEARCHED = {"search_initial": True}
METHODS = {
    "gradient descent, 1/L": descent,
    "Nesterov": nesterov,
    "Nesterov, strongly convex": functools.partial(nesterov, strongly=True),
    "Armijo": armijo,
    "Polyak, f* known": polyak,
    "AdGD": adgd,
    "AdGD, L known": functools.partial(adgd, rule="known-lipschitz"),
    "AdGD, tighter": functools.partial(adgd, rule="tighter"),
    "AdGD-2, first rule": functools.partial(adgd, rule="adgd2-1", **SEARCHED),
    "AdGD-2, second rule": functools.partial(adgd, rule="adgd2-2", **SEARCHED),
    "AdGD, accelerated": functools.partial(adgd, accelerated=True),
}


def traced(method, f, start, steps):
    """Give the gap before every step, and the step sizes."""
    both = [(f.loss(w) - f.least, size) for w, size in method(f, start, steps)]
    return [np.array(column) for column in zip(*both, strict=True)]


def first_below(gaps, level):
    reached = np.flatnonzero(gaps <= level)
    return int(reached[0]) if len(reached) else "-"


def logistic_rows(name, f, runs):
    for method, (gaps, sizes) in runs.items():
        reached = [first_below(gaps, level) for level in LEVELS]
        rises = int((np.diff(gaps) > 1e-12).sum())
        until = None if reached[-1] == "-" else reached[-1]  # there, rounding takes over
        size = np.median(sizes[:until]) * f.steepest
        yield name, method, *reached, rises, f"{size:.3g}"


# Matrix factorisation ----------------------------------------------------------------------------


class Factors:
    """|U V^T - A|^2 / 2 for a matrix of 120 x 80 of rank 6: not convex, least value 0."""

    least, rank, rows, columns = 0.0, 6, 120, 80

    def __init__(self):
        draw = np.random.default_rng(1)
        left, right = draw.normal(size=(120, 6)), draw.normal(size=(80, 6))
        self.matrix = left @ np.diag(np.geomspace(1, 0.2, 6)) @ right.T
        self.start = draw.normal(size=200 * 6)

    def _apart(self, w):
        w = w.reshape(200, 6)
        return w[:120], w[120:]

    def loss(self, w):
        """Give the loss."""
        u, v = self._apart(w)
        return 0.5 * np.sum((u @ v.T - self.matrix) ** 2)

    def slope(self, w):
        """Give its gradient."""
        u, v = self._apart(w)
        rest = u @ v.T - self.matrix
        return np.concatenate([rest @ v, rest.T @ u]).reshape(-1)


def fixed(f, w, steps, lipschitz, momentum):
    """Gradient descent, or Nesterov's method, with a step size that was tuned."""
    before, a = w, 1.0
    for _ in range(steps):
        yield w, 1 / lipschitz
        y, after = w - f.slope(w) / lipschitz, (1 + math.sqrt(1 + 4 * a * a)) / 2
        w, before, a = y + momentum * (a - 1) / after * (y - before), y, after


def factor_rows():
    f = Factors()
    whole = f.loss(f.start)

    def row(name, gaps):
        reached = [first_below(gaps / whole, level) for level in LEVELS]
        return "matrix factorisation", name, *reached, int((np.diff(gaps) > 1e-12).sum()), ""

    with np.errstate(all="ignore"):
        for name, momentum in (("gradient descent", 0.0), ("Nesterov", 1.0)):
            found = {}
            for lipschitz in 20.0 * 2.0 ** np.arange(8):
                given = functools.partial(fixed, lipschitz=lipschitz, momentum=momentum)
                gaps, _ = traced(given, f, f.start, STEPS)
                found[lipschitz] = np.nan_to_num(gaps, nan=np.inf)
            best = min(found, key=lambda k: found[k][-1])
            yield row(f"{name}, tuned 1/{best:g}", found[best])
    for name in ("AdGD", "AdGD-2, first rule", "AdGD-2, second rule"):
        yield row(name, traced(METHODS[name], f, f.start, STEPS)[0])


# Minibatches -------------------------------------------------------------------------------------

BATCH, EPOCHS, SEEDS = 32, 20, (0, 1, 2)


def images():
    x, y = load_digits(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(y))
    x, y = torch.tensor(x[order] / 16).float(), torch.tensor(y[order])
    return (x[:1400], y[:1400]), (x[1400:], y[1400:])


def trained(make, seed, *, own=True, epochs=EPOCHS):
    """Train; give the losses of epochs, the step sizes, and the error of the test set.

    `own=False`: the second evaluation of a step sees another minibatch.
    """
    (x, y), (new, right) = images()
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 10))
    optimizer = make(model.parameters())
    losses, sizes = [], []
    for _ in range(epochs):
        for rows in torch.randperm(len(x)).split(BATCH):
            calls = iter([rows] if own else [rows, torch.randint(len(x), (BATCH,))])
            at = rows

            def closure():
                nonlocal at
                at = next(calls, at)  # noqa: B023 (called within the step)
                optimizer.zero_grad()
                loss = nn.functional.cross_entropy(model(x[at]), y[at])
                loss.backward()
                return loss

            try:
                optimizer.step(closure)
            except ValueError:  # not finite any more
                return losses, sizes, math.nan
            if isinstance(optimizer, AdGD):
                sizes.append(optimizer.sizes_of(model[0].weight))
        with torch.no_grad():
            losses.append(nn.functional.cross_entropy(model(x), y).item())
    error = 100 * (model(new).argmax(1) != right).float().mean().item()
    return losses, sizes, error


RATES = (0.1, 0.3, 1.0, 3.0)
ALONE = "AdGD without stochastic"
NETWORK = {
    **{f"SGD, {r:g}": (functools.partial(torch.optim.SGD, lr=r), {}) for r in RATES},
    "AdGD stochastic, alpha 1": (functools.partial(AdGD, stochastic=True), {}),
    "the same, half the epochs": (functools.partial(AdGD, stochastic=True), {"epochs": 10}),
    "AdGD stochastic, alpha 0.5": (functools.partial(AdGD, stochastic=True, alpha=0.5), {}),
    "AdGD stochastic, alpha 0.2": (functools.partial(AdGD, stochastic=True, alpha=0.2), {}),
    "gradients of two minibatches": (
        functools.partial(AdGD, stochastic=True, eps=1e-8),
        {"own": False},
    ),
    ALONE: (AdGD, {}),
}


def network():
    return {
        name: [trained(make, seed, **options) for seed in SEEDS]
        for name, (make, options) in NETWORK.items()
    }


def network_table(runs):
    lines = [
        "| method | loss of the training set | test error % | median step size | evaluations |",
        "| --- | --- | --- | --- | --- |",
    ]
    for name, found in runs.items():
        losses = [losses[-1] if math.isfinite(error) else math.nan for losses, _, error in found]
        errors = [error for _, _, error in found]
        sizes = [np.median(sizes) for _, sizes, _ in found if sizes]
        size = f"{np.median(sizes):.2g}" if sizes else name.split()[-1]
        once = name.startswith("SGD") or name == ALONE
        epochs = (1 if once else 2) * len(found[0][0])
        told = f"{np.mean(losses):.3g} | {np.mean(errors):.1f} | {size} | {epochs}"
        lines.append(f"| {name} | {told} epochs |")
    return "\n".join(lines)


# The picture -------------------------------------------------------------------------------------

COLOURS = {
    "gradient descent, 1/L": "0.6",
    "Nesterov": "tab:orange",
    "Armijo": "tab:green",
    "AdGD": "tab:blue",
    "AdGD-2, second rule": "tab:purple",
    "AdGD, accelerated": "tab:red",
}


def picture(f, runs, networks):
    figure, ((gaps, sizes), (losses, steps)) = plt.subplots(2, 2, figsize=(8.4, 6.4))
    for name, colour in COLOURS.items():
        gap, size = runs[name]
        gap = np.minimum.accumulate(np.maximum(gap, 1e-13))
        at = np.unique(np.geomspace(1, 1500, 200).astype(int)) - 1
        gaps.semilogy(at, gap[at], color=colour, label=name, lw=1.4)
        if name in ("gradient descent, 1/L", "Armijo", "AdGD"):
            near = slice(0, 300)
            sizes.semilogy(size[near] * f.steepest, color=colour, label=name, lw=1)
    gaps.set(title="logistic regression, 8,000 x 112", xlabel="iteration", ylabel="best f - f*")
    sizes.set(title="the same: step sizes", xlabel="iteration", ylabel="step size x L")
    shown = {
        "SGD, 0.1": "tab:olive",
        "SGD, 1": "0.6",
        "AdGD stochastic, alpha 1": "tab:blue",
        "AdGD stochastic, alpha 0.2": "tab:cyan",
        "gradients of two minibatches": "tab:red",
    }
    for name, colour in shown.items():
        course = np.mean([losses for losses, _, _ in networks[name]], axis=0)
        losses.semilogy(range(1, len(course) + 1), course, color=colour, label=name, lw=1.4)
        if networks[name][0][1]:
            course = np.array(networks[name][0][1])[::8]
            steps.semilogy(8 * np.arange(len(course)), course, color=colour, label=name, lw=1)
    losses.set(title="digits, a network, minibatches of 32", xlabel="epoch", ylabel="training loss")
    steps.set(title="the same: step sizes", xlabel="step", ylabel="step size")
    for axes in figure.axes:
        axes.legend(fontsize=7, loc="upper right" if axes is losses else "best")
        axes.grid(alpha=0.3)
    figure.tight_layout()
    save(__file__, figure)
    return figure


ABOUT = """
Iterations until f - f* (of matrix factorisation: f / f at the start) is below a level, at most
{steps}. Logistic regression with a penalty of L / (10 n) from w = 0 in float64, f* by Newton's
method: breast cancer (569 x 30, standardised) and data made in the manner of mushrooms (8,000 rows,
22 categories in 112 binary columns). Armijo starts every search at twice the last step size; an
iteration of it has several evaluations, one of every other method has one gradient. "rises": steps
after which the loss was higher. "median step size x L": until the last level is reached. Matrix
factorisation: 120 x 80, rank 6, without noise, the same start for all; the step sizes of its first
two rows are the best of eight. One seed: nothing but the data is random.

**Not run here: data not shipped.** On mushrooms (8,124 x 112), to 1e-6, we know from runs of the
authors' code elsewhere: AdGD 385 to 396, AdGD-2 352 to 361, Nesterov 1,763 iterations.

A network of 64-32-10 on scikit-learn's digits (1,400 images to train, 397 to test), batches of
{batch}, {epochs} epochs, means of {seeds} seeds. "evaluations": of the whole training set, forward
and backward. The authors' figure for a ResNet-18 on CIFAR-10 is not run here: it needs a GPU.

{network}

The authors' way is one minibatch for both gradients. With two, noise passes for curvature, and so
it does without `stochastic`, which compares consecutive minibatches. A tuned rate does better than
`stochastic`, at half the evaluations.

What is reproduced: far fewer iterations than 1/L, step sizes many times 1/L, a loss that rises now
and then, fewer iterations than Nesterov's method on breast cancer, and than the tuned methods for
matrix factorisation. What is not, on the made data: an advantage over Nesterov's method, which
mushrooms showed; there the accelerated form, a heuristic, has it to 1e-6 and 1e-8.
"""


def main():
    torch.set_num_threads(1)
    rows = []
    for name, data in (("breast cancer", cancer()), ("8,000 x 112", mushroomlike())):
        f = Logistic(data)
        runs = {n: traced(m, f, np.zeros(f.size), STEPS) for n, m in METHODS.items()}
        rows += logistic_rows(name, f, runs)
    rows += factor_rows()
    networks = network()
    told = {"steps": STEPS, "batch": BATCH, "epochs": EPOCHS, "seeds": len(SEEDS)}
    about = ABOUT.format(**told, network=network_table(networks))
    print(network_table(networks))
    levels = [f"{level:.0e}".replace("e-0", "e-") for level in LEVELS]
    columns = "problem", "method", *levels, "rises", "median step size x L"
    write_table(__file__, about, columns, rows)
    return picture(f, runs, networks)


if __name__ == "__main__":
    main()
