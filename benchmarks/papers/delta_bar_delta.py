"""Delta-Bar-Delta in a valley and under noise, and what regret adds to it.

Jacobs 1988 and Song & Yang 2023 could not be read, so no number of theirs stands beside ours. Seen
here: what the notes say of rules 3 and 4 (the idea of momentum), what noise does to the rates, what
the options of RegrettableDBD are worth, and that an additive increase has a scale.
"""

import itertools

import matplotlib.pyplot as plt
import numpy as np
import torch
from common import save, write_table

from stepsize.optim import DeltaBarDelta, RegrettableDBD

VALLEY = torch.tensor([1.0, 50.0], dtype=torch.float64)
START = (-9.0, 1.0)
SEEDS, STEPS, NOISE = 40, 300, 0.3
MANY = torch.tensor(np.geomspace(1, 30, 10))
DIVERGED = 1e6


def descend(make, h, start, steps, *, noise=0.0, seed=0):
    """Give the places, and what `sizes_of` says, on 1/2 sum h x^2 with noisy gradients."""
    rng = np.random.default_rng(seed)
    x = torch.tensor(start, dtype=torch.float64, requires_grad=True)
    optimizer, places, sizes = make([x]), [x.detach().clone()], []
    for _ in range(steps):
        x.grad = h * x.detach() + noise * torch.tensor(rng.normal(size=len(h)))
        optimizer.step()
        places.append(x.detach().clone())
        read = getattr(optimizer, "sizes_of", None)
        sizes.append(torch.as_tensor(0.0 if read is None else read(x)).clone())
    return torch.stack(places), torch.stack(sizes)


def loss(h, x):
    return (0.5 * h * x**2).sum(-1)


def sgd(lr, momentum=0.0):
    return lambda p: torch.optim.SGD(p, lr=lr, momentum=momentum)


def dbd(**settings):
    return lambda p: DeltaBarDelta(p, **settings)


VALLEY_METHODS = {
    "gradient descent, 1/L": sgd(1 / 50),
    "momentum, best of 64 settings": None,  # chosen below
    "Delta-Bar-Delta": dbd(initial_step=1 / 200, delta=2e-3, epsilon=0.3, beta=0.5),
}


def best_momentum():
    """Give the settings with the lowest loss over a grid of rates and coefficients."""
    grid = itertools.product(np.geomspace(1e-3, 6e-2, 8), np.linspace(0.2, 0.9, 8))
    runs = [
        (loss(VALLEY, descend(sgd(lr, kept), VALLEY, START, 100)[0])[-1].item(), lr, kept)
        for lr, kept in grid
    ]
    return sgd(*min(runs)[1:])


class Unregretted(torch.optim.SGD):
    """The control: one gain for the whole that rises and falls as theirs does, without regret."""

    gain, past, delta, epsilon, most = 1.0, None, 0.1, 0.2, np.inf

    def step(self):
        """Change the gain, and step with it."""
        [group] = self.param_groups
        [x] = group["params"]
        if self.past is not None:
            agreement = torch.dot(x.grad, self.past)
            raised = self.gain + self.delta if agreement > 0 else self.gain * (1 - self.epsilon)
            self.gain = min(max(raised, 0.01), self.most)
        self.past = x.grad.clone()
        with torch.no_grad():
            x.sub_(x.grad, alpha=group["lr"] * self.gain)

    def sizes_of(self, parameter):
        """Give the gain."""
        del parameter
        return self.gain


def unregretted(lr, most):
    def make(params):
        made = Unregretted(params, lr=lr)
        made.most = most
        return made

    return make


def regrets():
    """Give every combination of what the abstract and the notes leave open."""
    for undo, after, forget in itertools.product(
        ("rate", "rate and parameters"), (False, True), (False, True)
    ):
        words = [undo] + ["apply"] * after + ["forget"] * forget
        settings = {"undo": undo, "apply_after_undo": after, "forget_after_undo": forget}
        yield f"RegrettableDBD, {', '.join(words)}", settings
    yield "RegrettableDBD, increase multiplies", {"increase": "multiply"}
    yield "RegrettableDBD, compares updates", {"evidence": "updates"}


def noisy_methods(lr):
    """The methods compared under noise, from a first rate."""
    yield "gradient descent", sgd(lr)
    settings = {
        "initial_step": lr,
        "delta": lr / 10,
        "epsilon": 0.2,
        "bounds": (lr / 100, 1.5 / 30),
    }
    yield "Delta-Bar-Delta", dbd(**settings)
    limits = (0.01, 1.5 / 30 / lr)
    yield "one gain, without regret", unregretted(lr, limits[1])
    for name, options in regrets():
        yield (
            name,
            lambda p, options=options: RegrettableDBD(
                torch.optim.SGD(p, lr=lr), delta=0.1, epsilon=0.2, bounds=limits, **options
            ),
        )


def medians(make, noise):
    """Give medians over the seeds: loss over the last tenth, and the last step size."""
    lasts, sizes = [], []
    for seed in range(SEEDS if noise else 1):
        places, read = descend(make, MANY, [1.0] * 10, STEPS, noise=noise, seed=seed)
        lasts.append(loss(MANY, places)[-STEPS // 10 :].mean().item())
        sizes.append(read[-1].mean().item())
    return np.median(lasts), np.median(sizes)


def scales():
    """Additive delta against curvatures up to 1,000."""
    h = torch.tensor(np.geomspace(1, 1000, 10))
    for delta in (1e-2, 1e-3, 1e-4):
        made = dbd(initial_step=3e-4, delta=delta, epsilon=0.5, beta=0.7, bounds=(0.0, 1e9))
        yield delta, loss(h, descend(made, h, [1.0] * 10, 200)[0])[-1].item()


def draw(paths, rates):
    """Trajectories over the contours, and the two rates over time."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.6), layout="constrained")
    a, b = np.meshgrid(np.linspace(-10, 5, 140), np.linspace(-1.2, 1.2, 80))
    left.contour(a, b, 0.5 * (a**2 + 50 * b**2), np.geomspace(0.2, 60, 9), colors="0.85")
    for (name, path), colour in zip(paths.items(), ("0.55", "#c8553d", "#2d6a9f"), strict=True):
        wide = 4 if colour == "0.55" else 1
        left.plot(*path[:40].T, ".-", color=colour, lw=wide, ms=4, label=name)
    left.set(xlabel="$x_1$ (curvature 1)", ylabel="$x_2$ (curvature 50)", title="40 steps")
    left.legend(fontsize=8)
    for number, colour in ((0, "#2d6a9f"), (1, "#8fb8d8")):
        right.semilogy(rates[:, number], color=colour, label=f"rate of $x_{number + 1}$")
    right.axhline(2 / 50, color="0.6", ls="--", lw=1, label="2/h of $x_2$")
    right.set(xlabel="step", ylabel="rate", title="Delta-Bar-Delta's rates")
    right.legend(fontsize=8)
    save(__file__, figure)


def main() -> None:
    methods = VALLEY_METHODS | {"momentum, best of 64 settings": best_momentum()}
    found = {name: descend(make, VALLEY, START, 100) for name, make in methods.items()}
    rows = []
    for name, (places, _) in found.items():
        values = loss(VALLEY, places)
        first = int((values < 1e-6).nonzero()[0]) if (values < 1e-6).any() else "-"
        rows.append(["valley 1:50, no noise", name, f"{values[-1]:.1e}", first, ""])
    draw({n: p for n, (p, _) in found.items()}, found["Delta-Bar-Delta"][1])
    for lr in (1 / 300, 1 / 30):
        for name, make in noisy_methods(lr):
            last, size = medians(make, NOISE)
            shown = "" if name == "gradient descent" else f"{size:.2g}"
            rows.append([f"noise 0.3, first rate {lr:.2g}", name, f"{last:.1e}", "", shown])
    for delta, last in scales():
        shown = "diverges" if not last < DIVERGED else f"{last:.1e}"
        rows.append(["curvatures 1 to 1,000", f"Delta-Bar-Delta, delta={delta:g}", shown, "", ""])
    about = f"""
Quadratics. "valley": 100 steps from (-9, 1); the step at which the loss is below 1e-6; momentum
is the best of 8 rates and 8 coefficients, Delta-Bar-Delta was not tuned. "noise":
ten curvatures from 1 to 30, {STEPS} steps, Gaussian noise in the gradients, medians of {SEEDS}
seeds of the mean loss over the last tenth; the last column is the mean rate of Delta-Bar-Delta at
the end, and the gain of RegrettableDBD. "curvatures": ten, 200 steps, no bounds. The papers' own
numbers could not be read.
"""
    columns = ["problem", "method", "loss", "steps to 1e-6", "rate or gain at the end"]
    write_table(__file__, about, columns, rows)


if __name__ == "__main__":
    main()
