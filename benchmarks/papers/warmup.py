"""Why warmup works: the rate against the stability limit, measured, with and without one.

Networks on scikit-learn's digits (1,397 images, 400 to test, batches of 128): three layers of 64
with ReLU as torch initialises them; the same with all weights six times as large, which is a sharp
start; and two small transformer blocks with the norm after the sum, over the 8 rows of an image.
Each is trained (the last for 120 steps, the others for 400) to a rate that is high for it, with no
warmup, with one of 20 steps, and with the length that `recommend_warmup` reads from the runs with
20; five seeds, and the sharpness is that on 256 fixed images.
`python benchmarks/papers/warmup.py`, about nine minutes on one thread of two busy cores.
"""

import math
import time
from functools import partial
from itertools import pairwise
from statistics import median

import matplotlib as mpl
import torch
from common import save, write_table
from matplotlib import pyplot as plt
from sklearn.datasets import load_digits
from torch import nn
from torch.nn.functional import cross_entropy

from stepsize import Constant, Warmup, untuned_warmup
from stepsize.finding.warmup import recommend_warmup
from stepsize.plot.stable import draw_rates
from stepsize.torch import Scheduler
from stepsize.torch.sharpness import sharpness
from stepsize.torch.stability import StabilityLog
from stepsize.torch.warmups import warmup_study

mpl.use("Agg")
torch.set_num_threads(1)
TRAIN, PROBE, BATCH = 1397, 256, 128
GENTLE, SEEDS = 20, tuple(range(5))
ROUGH = {"tolerance": 0.03, "most": 20}


def images():
    x, y = load_digits(return_X_y=True)
    order = torch.randperm(len(y), generator=torch.Generator().manual_seed(0))
    return torch.tensor((x - x.mean(0)) / 8).float()[order], torch.tensor(y)[order]


X, Y = images()


def perceptron(scale=1.0):
    sizes = (64, 64, 64, 10)
    layers = [nn.Linear(a, b) for a, b in pairwise(sizes)]
    with torch.no_grad():
        for layer in layers:
            layer.weight.mul_(scale)
    return nn.Sequential(layers[0], nn.ReLU(), layers[1], nn.ReLU(), layers[2])


class Block(nn.Module):
    """A transformer's block with the norm after the sum, as the first ones had it."""

    def __init__(self, width):
        super().__init__()
        self.three, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.wide, self.narrow = nn.Linear(width, 2 * width), nn.Linear(2 * width, width)
        self.first, self.second = nn.LayerNorm(width), nn.LayerNorm(width)

    def forward(self, x):
        """Attend, then widen and narrow."""
        split = [
            part.unflatten(2, (2, -1)).transpose(1, 2) for part in self.three(x).chunk(3, dim=2)
        ]
        seen = nn.functional.scaled_dot_product_attention(*split).transpose(1, 2).flatten(2)
        x = self.first(x + self.out(seen))
        return self.second(x + self.narrow(nn.functional.gelu(self.wide(x))))


class Transformer(nn.Module):
    """Reads an image row by row."""

    def __init__(self, width=32, blocks=2):
        super().__init__()
        self.rows = nn.Linear(8, width)
        self.places = nn.Parameter(0.1 * torch.randn(8, width))
        self.blocks = nn.Sequential(*(Block(width) for _ in range(blocks)))
        self.out = nn.Linear(width, 10)

    def forward(self, x):
        """Give the ten scores."""
        return self.out(self.blocks(self.rows(x.unflatten(1, (8, 8))) + self.places).mean(1))


class Run:
    """A training from a seed: the protocol that `warmup_study` asks for."""

    def __init__(self, seed, network, optimizer, batch=BATCH):
        torch.manual_seed(seed)
        self.model = network()
        self.optimizer = optimizer(self.model.parameters())
        self._order, self._batch = torch.Generator().manual_seed(seed), batch

    def step(self):
        """Train on a batch drawn anew."""
        chosen = torch.randperm(TRAIN, generator=self._order)[: self._batch]
        loss = cross_entropy(self.model(X[chosen]), Y[chosen])
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        return {"loss": loss.detach()}

    def probe(self):
        """Give the loss that is measured."""
        return cross_entropy(self.model(X[:PROBE]), Y[:PROBE])

    @torch.no_grad()
    def evaluate(self):
        """Give the loss on all that is trained on, and what is right in the test."""
        right = (self.model(X[TRAIN:]).argmax(1) == Y[TRAIN:]).double().mean()
        loss = cross_entropy(self.model(X[:TRAIN]), Y[:TRAIN])
        return {"loss": loss.item(), "accuracy": right.item()}


def sgd(params, lr=1.0, momentum=0.0):
    return torch.optim.SGD(params, lr=lr, momentum=momentum)


def adam(params, lr=1.0, beta2=0.999):
    return torch.optim.Adam(params, lr=lr, betas=(0.9, beta2))


HEAVY = partial(sgd, momentum=0.9)
NETWORKS = {  # and how many steps it is trained, and every how many it is measured
    "perceptron": (perceptron, 400, 5),
    "weights x 6": (partial(perceptron, 6.0), 400, 5),
    "transformer": (Transformer, 120, 8),
}
CASES = [
    ("perceptron", "SGD", sgd, 1.0),
    ("perceptron", "momentum 0.9", HEAVY, 0.3),
    ("perceptron", "Adam", adam, 0.03),
    ("weights x 6", "SGD", sgd, 0.3),
    ("weights x 6", "SGD", sgd, 1.0),
    ("weights x 6", "momentum 0.9", HEAVY, 0.3),
    ("weights x 6", "Adam", adam, 0.1),
    ("transformer", "SGD", sgd, 0.1),
    ("transformer", "momentum 0.9", HEAVY, 0.2),
    ("transformer", "Adam", adam, 0.02),
]
DRAWN = [CASES[0], CASES[4], CASES[9]]
COLUMNS = (
    "network", "optimizer", "rate", "warmup", "sharpness at the start",
    "rate over limit in the first 10 steps, at worst", "in the whole run, at worst",
    "moments over the limit", "training loss at the end", "right in the test, %",
)  # fmt: skip


ABOUT_STEPS = (
    "The size of Adam's steps (root mean square over the elements) over the rate that the run goes "
    "to, 0.01, on the perceptron; medians of five seeds:"
)
ABOUT_BATCHES = (
    "Small, large and full batches, 40 epochs of SGD on the perceptron, rates in proportion, a "
    "quarter of the run as warmup; the sharpness is that on all training images:"
)
ABOUT_ADVICE = (
    f"The warmup that the runs with one of {GENTLE} steps ask for, each list in order of size and "
    "not of seeds:"
)
ABOUT_RUNS = (
    'Medians, and the least and greatest, of five seeds. Where it says "as advised", the length is '
    "the middle one of those above:"
)


def spread(values, digits="{:.3g}"):
    """Give the median, and the least and the greatest."""
    told = [x for x in values if x is not None and math.isfinite(x)]
    if not told:
        return "-"
    ends = [digits.format(x) for x in (median(told), min(told), max(told))]
    return f"{ends[0]} ({ends[1]} to {ends[2]})"


def early(course, until=10):
    return max((m.share for m in course.known if m.step <= until), default=None)


def study_of(case, *lengths):
    network, _, optimizer, rate = case
    make, steps, every = NETWORKS[network]
    build = partial(Run, network=make, optimizer=optimizer)
    lengths = {"warmup": lengths, "steps": steps, "every": every}
    return warmup_study(build, rate=rate, seeds=SEEDS, **lengths, **ROUGH)


def asked_for(study, rate):
    """Give what the runs with the gentle warmup ask for, in order; None last."""
    given = [recommend_warmup(run.course, rate) for run in study.of(GENTLE)]
    return [
        sorted(lengths, key=lambda steps: math.inf if steps is None else steps)
        for lengths in zip(*((one.steps, one.throughout) for one in given), strict=True)
    ]


def listed(lengths):
    return ", ".join("none helps" if steps is None else str(steps) for steps in lengths)


def rows_of(case, study, name):
    network, optimizer, _, rate = case
    for warmup in study.lengths:
        runs = study.of(warmup)
        over = [100 * len(r.course.violations) / len(r.course.known) for r in runs]
        yield [
            network, optimizer, f"{rate:g}", name(warmup),
            spread([run.course[0].sharpness for run in runs]),
            spread([early(run.course) for run in runs], "{:.2g}"),
            spread([run.course.worst for run in runs], "{:.2g}"),
            spread(over, "{:.0f} %"),
            spread([run.metrics.get("loss", math.nan) for run in runs], "{:.2g}"),
            spread([100 * run.metrics.get("accuracy", math.nan) for run in runs], "{:.1f}"),
        ]  # fmt: skip


def compared():
    """Give the rows of the table, one line for each advice, and the studies that are drawn."""
    rows, lines, drawn = [], [], []
    for case in CASES:
        study = study_of(case, GENTLE)
        if case in DRAWN:
            drawn.append((case, study))
        rows += rows_of(case, study, lambda w: w or "none")
        asked, throughout = asked_for(study, case[3])
        told = f"{listed(asked)} (all along: {listed(throughout)})"
        lines.append(f"- {case[0]}, {case[1]}, rate {case[3]:g}: {told}")
        middle = asked[len(asked) // 2]
        if middle not in (None, 0) and middle < NETWORKS[case[0]][1]:
            again = study_of(case, middle)
            rows += list(rows_of(case, again, lambda w: f"{w}, as advised"))[1:]
        print(lines[-1], flush=True)
    return rows, lines, drawn


# Adam's first steps ------------------------------------------------------------------------------


def first_steps():
    """Give a table: the size of Adam's steps over the rate that the run goes to."""
    at = (0, 1, 4, 9, 19, 49, 99)
    yield "| beta2 | warmup | " + " | ".join(f"step {t + 1}" for t in at) + " | rate/limit at 2 |"
    yield "| --- " * (len(at) + 3) + "|"
    rate = 0.01
    for beta2 in (0.9, 0.99, 0.999):
        untuned = round(2 / (1 - beta2))
        plans = {
            "none": Constant(1),
            f"{GENTLE} steps": Warmup(GENTLE),
            f"untuned, {untuned} steps": untuned_warmup(beta2),
        }
        for name, plan in plans.items():
            courses = [adam_course(seed, beta2, plan, rate) for seed in SEEDS]
            cells = [f"{median(c[t].relative * c[t].rate / rate for c in courses):.2g}" for t in at]
            yield " | ".join([
                f"| {beta2:g}", name, *cells, spread([c[1].share for c in courses], "{:.2g}") + " |"
            ])  # fmt: skip


def adam_course(seed, beta2, plan, rate):
    run = Run(seed, perceptron, partial(adam, lr=rate, beta2=beta2))
    scheduler = Scheduler(run.optimizer, lr=plan)
    log = StabilityLog(run.model, run.optimizer, run.probe, **ROUGH)
    for _ in range(100):
        run.step()
        scheduler.step()
    return log.course


# Batches -----------------------------------------------------------------------------------------


def batches(epochs=40):
    """Give a table: small, large and full batches, with rates in proportion."""
    names = ("batch", "rate", "steps", "warmup", "sharpness at the end", "training loss", "test, %")
    yield "| " + " | ".join(names) + " |"
    yield "| --- " * len(names) + "|"
    for batch in (32, 256, TRAIN):
        rate, steps = 0.05 * batch / 32, epochs * TRAIN // batch
        for warmup in (0, steps // 4):
            ends = [ended(seed, batch, rate, steps, warmup) for seed in SEEDS]
            sharp, loss, right = zip(*ends, strict=True)
            cells = [spread(sharp), spread(loss, "{:.2g}"), spread(right, "{:.1f}")]
            yield f"| {batch} | {rate:.3g} | {steps} | {warmup or 'none'} | {' | '.join(cells)} |"


def ended(seed, batch, rate, steps, warmup):
    run = Run(seed, perceptron, partial(sgd, lr=rate), batch)
    scheduler = Scheduler(run.optimizer, lr=Warmup(warmup) if warmup else Constant(1))
    for _ in range(steps):
        run.step()
        scheduler.step()
    found = sharpness(cross_entropy(run.model(X[:TRAIN]), Y[:TRAIN]), [*run.model.parameters()])
    ends = run.evaluate()
    return found.value, ends["loss"], 100 * ends["accuracy"]


def picture(drawn):
    figure, panels = plt.subplots(
        3, len(drawn), figsize=(9.6, 7.4), layout="constrained", sharex="col", sharey="row",
        height_ratios=(3, 3, 2),
    )  # fmt: skip
    for column, (case, study) in zip(panels.T, drawn, strict=True):
        column[0].set_title(f"{case[0]}, {case[1]}, rate {case[3]:g}", fontsize=10)
        for axes, warmup in zip(column, (0, GENTLE), strict=False):
            draw_rates(axes, [run.course for run in study.of(warmup)])
        for warmup, colour in ((0, "#d1495b"), (GENTLE, "#00798c")):
            for i, run in enumerate(study.of(warmup)):
                label = None if i else ("warmup" if warmup else "no warmup")
                points = [(m.step, m.loss) for m in run.course]
                column[2].semilogy(*zip(*points, strict=True), color=colour, lw=0.8, label=label)
        column[2].set_xlabel("step")
    for axes, name in zip(panels[:, 0], ("no warmup", f"warmup of {GENTLE}", "loss"), strict=True):
        axes.set_ylabel(name if name == "loss" else f"{name}: rate and limit")
    panels[0, 0].legend(fontsize=8)
    panels[2, 0].legend(fontsize=8)
    for axes in panels.flat:
        axes.grid(color="#eeeeee")
        axes.minorticks_off()
    return figure


def main():
    begin = time.perf_counter()
    rows, lines, drawn = compared()
    save(__file__, picture(drawn))
    text = [
        ABOUT_STEPS,
        "",
        *first_steps(),
        "",
        ABOUT_BATCHES,
        "",
        *batches(),
        "",
        ABOUT_ADVICE,
        "",
        *lines,
        "",
        ABOUT_RUNS,
    ]
    print(*text, sep="\n")
    write_table(__file__, "\n".join(text), COLUMNS, rows)
    print(f"{time.perf_counter() - begin:.0f} s")


if __name__ == "__main__":
    main()
