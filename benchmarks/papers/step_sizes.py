"""What step sizes adaptive optimizers really take: how they spread, and what a schedule adds.

No paper's numbers: our own measurement with `stepsize.torch.step_sizes`, for the docs. A network of
64-64-64-10 on scikit-learn's digits (1,500 images to train, 297 to test), 600 steps of 32, three
seeds, medians over them. `python benchmarks/papers/step_sizes.py`, about a minute.
"""

import statistics
from dataclasses import replace

import torch
from common import save, write_table
from sklearn.datasets import load_digits
from torch import nn

from stepsize import Constant, Cosine, Horizon, Warmup, plot
from stepsize.drawing.series import short, spoken
from stepsize.look.spreads import Spread, Spreads
from stepsize.torch import Scheduler, StepSizeHistory, StepSizes, step_sizes

STEPS, SEEDS = 600, (0, 1, 2)
SHARES = (0.05, 0.25, 0.5, 0.75, 0.95)
OPTIMIZERS = {
    "SGD": lambda params: torch.optim.SGD(params, lr=0.1),
    "Adam": lambda params: torch.optim.Adam(params, lr=1e-3),
    "Adagrad": lambda params: torch.optim.Adagrad(params, lr=1e-2),
    "RMSprop": lambda params: torch.optim.RMSprop(params, lr=1e-3),
    "Adadelta": lambda params: torch.optim.Adadelta(params, lr=1.0),
}
SCHEDULES = {"constant": Constant(), "warmup, cosine": Warmup("5%") >> Cosine()}


def data():
    x, y = load_digits(return_X_y=True)
    order = torch.randperm(len(y), generator=torch.Generator().manual_seed(0))
    return torch.tensor(x / 16).float()[order], torch.tensor(y)[order]


def trained(make, schedule, seed):
    """Train; give the optimizer's history, what its elements take without the schedule, error."""
    torch.manual_seed(seed)
    x, y = data()
    widths = [nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10)]
    model = nn.Sequential(*widths)
    optimizer = make(model.parameters())
    scheduler = Scheduler(optimizer, lr=schedule, horizon=Horizon(STEPS))
    history = StepSizes(optimizer, every=10, quantiles=SHARES)
    for _ in range(STEPS):
        at = torch.randint(0, 1500, (32,))
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(x[at]), y[at]).backward()
        optimizer.step()
        scheduler.step()
    own = step_sizes(optimizer, quantiles=SHARES, samples=None, scheduled=False)["group 0"]
    error = 100 * (model(x[1500:]).argmax(1) != y[1500:]).float().mean().item()
    return history, own, error


def row(name, title, runs):
    def middle(of):
        return statistics.median(map(of, runs))

    low, mid, high = (middle(lambda r, q=q: r[1].quantiles[q]) for q in (0.05, 0.5, 0.95))
    ratio = middle(lambda r: r[1].quantiles[0.95] / r[1].quantiles[0.05])
    still = middle(lambda r: r[1].elements - r[1].count)
    shown = [spoken(short(value, 2)) for value in (low, mid, high)]
    return [name, title, *shown, f"{ratio:,.1f}", int(still), f"{middle(lambda r: r[2]):.1f} %"]


def together(histories):
    """Give the quartiles of several runs as one history, each under its name."""
    spreads: dict[int, dict[str, Spread]] = {}
    for name, history in histories.items():
        for step, spread in history.of("group 0"):
            middle = {q: spread.quantiles[q] for q in (0.25, 0.5, 0.75)}
            spreads.setdefault(step, {})[name] = replace(spread, quantiles=middle)
    return StepSizeHistory((step, Spreads(found)) for step, found in sorted(spreads.items()))


def main():
    rows, histories = [], {}
    for name, make in OPTIMIZERS.items():
        for title, schedule in SCHEDULES.items():
            runs = [trained(make, schedule, seed) for seed in SEEDS]
            rows.append(row(name, title, runs))
            histories[name] = runs[0][0]  # the last is under the cosine
    columns = ["optimizer", "schedule", "p5", "median", "p95", "p95 / p5", "without", "test error"]
    about = (
        "Step sizes of the elements of a small network on digits after 600 steps, with the "
        "schedule's part divided out (`scheduled=False`); medians over three seeds of 8,970 "
        "elements. `without`: elements that never had a gradient."
    )
    write_table(__file__, about, columns, rows)
    save(__file__, plot.step_sizes(together(histories)))


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
