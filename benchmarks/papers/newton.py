"""Newton, diagonal Newton and gradient descent on ellipses: where 1/h is right.

Quadratics 1/2 x'Hx, from a point that has a part of every eigenvector; `DiagonalNewton` is told the
exact diagonal. "Gradient descent" has its best constant rate, 2 / (least + greatest eigenvalue).
Nothing here is a paper's number: the statements are textbook ones, and the table says what was
measured. The list counts random matrices that dividing by the diagonal makes worse. The first table
trains a network of 64-32-10 with tanh on scikit-learn's digits (1,397 images, 400 to test), batches
of 32, 6 epochs, three seeds. `python benchmarks/papers/newton.py`, about two minutes.
"""

import math
from contextlib import nullcontext
from functools import partial

import matplotlib as mpl
import numpy as np
import torch
from common import save, write_table
from matplotlib import pyplot as plt
from sklearn.datasets import load_digits
from torch import nn
from torch.nn.functional import cross_entropy

from stepsize.optim import DiagonalNewton
from stepsize.torch.curvature import Beside

mpl.use("Agg")
torch.set_num_threads(1)
DOUBLE = torch.float64
COLOURS = {
    "gradient descent": "#a9a9a9",
    "diagonal Newton, lr 1": "#d1495b",
    "diagonal Newton, best lr": "#edae49",
    "Newton": "#00798c",
}
WIDTHS = (2.8, 1.2, 1.2, 1.2)  # so that a line is seen where another lies on it
SMALL, LARGE = 1e-8, 1e8


def rotated(degrees, condition=25.0):
    """Give an ellipse of a condition number, turned."""
    a = math.radians(degrees)
    turn = torch.tensor([[math.cos(a), -math.sin(a)], [math.sin(a), math.cos(a)]], dtype=DOUBLE)
    return turn @ torch.diag(torch.tensor([1.0, condition], dtype=DOUBLE)) @ turn.T


def correlated(n, by=0.95):
    return torch.full((n, n), by, dtype=DOUBLE).fill_diagonal_(1.0)


PROBLEMS = {
    "one dimension, h = 7": torch.tensor([[7.0]], dtype=DOUBLE),
    "ellipse, 25 to 1, along the axes": rotated(0),
    "the same, turned by 15 degrees": rotated(15),
    "the same, turned by 45 degrees": rotated(45),
    "3 parameters, correlated by 0.95": correlated(3),
    "10 parameters, correlated by 0.95": correlated(10),
}


def scaled(h):
    """Give D^-1/2 H D^-1/2, which has the eigenvalues of D^-1 H."""
    root = h.diagonal().rsqrt()
    return h * root.outer(root)


def best_rate(h):
    values = torch.linalg.eigvalsh(h)
    return (2 / (values[0] + values[-1])).item()


def start_of(h):
    """Give a start of length 1 that every eigenvector has a part in."""
    values, vectors = torch.linalg.eigh(h)
    return vectors @ torch.ones_like(values) / len(values) ** 0.5


def path(h, method, steps=3000):
    """Give the places of a descent, as long as it neither has arrived nor flown away."""
    x = start_of(h).requires_grad_()
    if method == "gradient descent":
        optimizer = torch.optim.SGD([x], lr=best_rate(h))
    else:
        lr = best_rate(scaled(h)) if method.endswith("best lr") else 1.0
        optimizer = DiagonalNewton([x], lr=lr, curvature="observed", damping=0.0)
    places = [x.detach().clone()]
    for _ in range(steps):
        if not SMALL < places[-1].norm() < LARGE:
            break
        optimizer.zero_grad()
        if isinstance(optimizer, DiagonalNewton):
            optimizer.observe([h.diagonal()])
        (0.5 * x @ h @ x).backward()
        if method == "Newton":
            x.data -= torch.linalg.solve(h, x.grad)
        else:
            optimizer.step()
        places.append(x.detach().clone())
    return torch.stack(places)


def told(places):
    """Say how many steps it took to shorten the distance by a million."""
    far = places.norm(dim=1) / places[0].norm()
    if far[-1] > 1:
        return f"**diverges**, x{(far[-1] / far[-2]).item():.2f} a step"
    arrived = (far < 1e-6).nonzero()
    if not len(arrived):
        return f"{far[-1].item():.1e} left after {len(far) - 1}"
    return f"{arrived[0].item()}"


def row(name, h):
    values = torch.linalg.eigvalsh(h)
    own = torch.linalg.eigvalsh(scaled(h))
    found = [told(path(h, method)) for method in COLOURS]
    kappas = [f"{(v[-1] / v[0]).item():.3g}" for v in (values, own)]
    return [name, *kappas, f"{own[-1].item():.3g}", *found]


def worsened(n, count=20_000, seed=0):
    """Give the share of random matrices A A' that scaling makes worse, and the worst factor."""
    a = np.random.default_rng(seed).standard_normal((count, n, n))
    h = a @ a.transpose(0, 2, 1)
    root = 1 / np.sqrt(np.diagonal(h, axis1=1, axis2=2))
    after = h * root[:, :, None] * root[:, None, :]
    ratio = np.linalg.cond(after) / np.linalg.cond(h)
    return 100 * (ratio > 1 + 1e-9).mean(), ratio.max(), np.median(ratio)


def told_by_bbprop(params, lr, damping):
    return DiagonalNewton(params, lr=lr, damping=damping, curvature="observed", initial_step=0.1)


def measuring(**fields):
    return lambda params, lr: DiagonalNewton(params, lr=lr, **fields)


RATES = (0.03, 0.1, 0.3, 1.0, 3.0)
TRAINED = {
    "SGD": lambda params, lr: torch.optim.SGD(params, lr=lr),
    "Adam, a hundredth of the lr": lambda params, lr: torch.optim.Adam(params, lr=lr / 100),
    "DiagonalNewton, damping 1": measuring(damping=1.0),
    "DiagonalNewton, damping 0.1": measuring(damping=0.1),
    "DiagonalNewton, damping 0.1, every step": measuring(damping=0.1, every=1),
    "DiagonalNewton, damping 0.01": measuring(damping=0.01),
    "with bbprop (bends), damping 0.1": partial(told_by_bbprop, damping=0.1),
    "with bbprop (bends), damping 0.01": partial(told_by_bbprop, damping=0.01),
}


def images():
    x, y = load_digits(return_X_y=True)
    order = torch.randperm(len(y), generator=torch.Generator().manual_seed(0))
    return torch.tensor((x - x.mean(0)) / 8).float()[order], torch.tensor(y)[order]


def trained(make, lr, seed):
    """Give the loss on what was trained on, and the per cent of errors in the test."""
    x, y = images()
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Linear(64, 32), nn.Tanh(), nn.Linear(32, 10))
    optimizer = make(model.parameters(), lr=lr)
    for batch in (b for _ in range(6) for b in torch.randperm(1397).split(32)):

        def closure(batch=batch):
            optimizer.zero_grad()
            loss = cross_entropy(model(x[batch]), y[batch])
            loss.backward()
            return loss

        if getattr(optimizer, "needs_closure", False):
            optimizer.step(closure)
            continue
        with (
            Beside(model, bends=True) if getattr(optimizer, "due", False) else nullcontext() as seen
        ):
            closure()
        if seen is not None:
            optimizer.observe(seen.diagonals(list(model.parameters())))
        optimizer.step()
    with torch.no_grad():
        wrong = (model(x[1397:]).argmax(1) != y[1397:]).double().mean()
        return cross_entropy(model(x[:1397]), y[:1397]).item(), 100 * wrong.item()


def training():
    """Give lines of a table: every method at every rate."""
    yield "| training loss / test error % | " + " | ".join(f"lr {lr:g}" for lr in RATES) + " |"
    yield "| --- " * (len(RATES) + 1) + "|"
    for name, make in TRAINED.items():
        cells = []
        for lr in RATES:
            loss, wrong = np.mean([trained(make, lr, seed) for seed in range(3)], 0)
            cells.append(f"{loss:.3f} / {wrong:.1f}" if loss < 100 else "diverges")
        yield " | ".join([f"| {name}", *cells]) + " |"


def contours(axes, h, title):
    reach = 1.3
    grid = torch.linspace(-reach, reach, 48, dtype=DOUBLE)
    x, y = torch.meshgrid(grid, grid, indexing="xy")
    at = torch.stack([x, y], -1)
    levels = np.geomspace(0.05, 20, 7)
    height = 0.5 * torch.einsum("...i,ij,...j", at, h, at)
    axes.contour(x, y, height, levels=levels, colors="#d5d5d5", linewidths=0.8)
    for (method, colour), width in zip(COLOURS.items(), WIDTHS, strict=True):
        if not method.endswith("best lr"):
            places = path(h, method)[:13]
            line = "o--" if method == "Newton" else "o-"
            axes.plot(*places.T, line, ms=width + 1.5, lw=width, color=colour, label=method)
    axes.plot(0, 0, "k+", ms=9)
    axes.set(title=title, xlim=(-reach, reach), ylim=(-reach, reach), aspect="equal")
    axes.set_xlabel(r"$\theta_1$")
    axes.set_ylabel(r"$\theta_2$")


def picture():
    figure, panels = plt.subplots(2, 2, figsize=(8.3, 7.8), layout="constrained")
    contours(panels[0, 0], rotated(0), "along the axes: one step")
    contours(panels[0, 1], rotated(15), "turned by 15 degrees")
    contours(panels[1, 0], rotated(45), "turned by 45 degrees: no help")
    panels[0, 0].legend(loc="lower right", fontsize=8)
    axes, h = panels[1, 1], correlated(3)
    for (method, colour), width in zip(COLOURS.items(), WIDTHS, strict=True):
        far = path(h, method, 40).norm(dim=1)
        axes.semilogy(far.clamp_min(1e-8), lw=width, color=colour, label=method)
    axes.minorticks_off()
    axes.set(title="three parameters, correlated by 0.95", ylim=(1e-4, 1e4))
    axes.set_xlabel("step")
    axes.set_ylabel("distance from the minimum")
    axes.grid(color="#eeeeee")
    axes.legend(fontsize=8, loc="upper right")
    return figure


def main():
    columns = [
        "problem",
        "condition number",
        "after dividing by the diagonal",
        "greatest eigenvalue of D^-1 H",
        *COLOURS,
    ]
    lines = [row(name, h) for name, h in PROBLEMS.items()]
    about = ["Steps until the distance from the minimum is a millionth of what it was."]
    for n in (2, 3, 5, 10):
        share, most, median = worsened(n)
        about.append(
            f"Of 20,000 random {n} x {n} matrices A A' (A of normal numbers, seed 0), dividing by "
            f"the diagonal makes the condition number worse for {share:.1f} %, by a factor of "
            f"{most:.2f} at most; in the median it multiplies it by {median:.2f}."
        )
    text = "\n".join([*training(), "", *(f"- {line}" for line in about[1:]), "", about[0]])
    write_table(__file__, text, columns, lines)
    print(text)
    save(__file__, picture())


if __name__ == "__main__":
    main()
