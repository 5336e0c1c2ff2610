"""Ten schedules and a constant rate on one task: a small network on scikit-learn's digits.

Trains a convolutional network under each of them, several seeds each, prints a table, draws the
rates and losses, writes the best schedule to a file, and trains once more from that file. Killed at
any moment and started again, it goes on where it was and ends with the same numbers.

    python examples/digits.py [--epochs 20] [--seeds 3] [--out runs/digits] [--only cosine ...]
"""

import argparse
import json
import os
import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from stepsize import (
    Constant,
    Cosine,
    Exponential,
    Horizon,
    MultiStep,
    OneMinusSqrt,
    Plan,
    Schedule,
    Step,
    Warmup,
    dump,
    inverse_sqrt,
    load,
    one_cycle,
    sgdr,
    warmup_linear,
    wsd,
)
from stepsize.torch import Scheduler

RATE, MOMENTUM, BATCH, REACHED = 0.2, 0.9, 64, 0.15


def contestants() -> dict[str, Plan]:
    """The schedules by name; the maximal rate is the same for all."""
    found: dict[str, Schedule | Plan] = {
        "constant": Constant(),
        "step": Step("25%", factor=0.3),
        "multi-step": MultiStep(("50%", "75%"), factor=0.1),
        "exponential": Exponential(0.8, every="1ep"),
        "inverse sqrt": Warmup("5%") >> inverse_sqrt("1ep"),
        "cosine": Cosine(),
        "warmup + cosine": Warmup("10%") >> Cosine(),
        "warmup + linear": warmup_linear("10%"),
        "warm restarts": sgdr("14.285714%", growth=2),
        "one-cycle": one_cycle(),
        "wsd, 1-sqrt": wsd("5%", "30%", along=OneMinusSqrt),
    }
    return {n: s if isinstance(s, Plan) else Plan(lr=s) for n, s in found.items()}


class Data:
    """The digits, split once; the order of a seed's epoch is a function of both."""

    def __init__(self) -> None:
        x, y = load_digits(return_X_y=True)
        images = torch.tensor(x, dtype=torch.float32).reshape(-1, 1, 8, 8) / 16.0
        order = torch.randperm(len(y), generator=torch.Generator().manual_seed(0))
        self.x, self.y = images[order], torch.tensor(y)[order]
        self.train = len(y) - 360

    @property
    def batches(self) -> int:
        """Batches per epoch; the last one may be smaller."""
        return -(-self.train // BATCH)

    def epoch(self, seed: int, epoch: int) -> list[tuple[Tensor, Tensor]]:
        """The training batches of one epoch of one seed."""
        generator = torch.Generator().manual_seed(1000 * seed + epoch)
        order = torch.randperm(self.train, generator=generator)
        return [(self.x[part], self.y[part]) for part in order.split(BATCH)]


def network(seed: int) -> nn.Module:
    """A small convolutional network, initialised from the seed."""
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(16, 32, 3, stride=2, padding=1),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(512, 64),
        nn.ReLU(),
        nn.Linear(64, 10),
    )


def train(
    plan: Plan, seed: int, epochs: int, data: Data, folder: Path, *, tick: Callable[[], None]
) -> dict[str, Any]:
    """Train one network; go on from its checkpoint if there is one, return its finished result."""
    result, checkpoint = folder / f"{seed}.json", folder / f"{seed}.pt"
    if result.exists():
        done: dict[str, Any] = json.loads(result.read_text())
        if done["plan"] == repr(plan):  # and not of another plan by the same name
            for _ in range(epochs):
                tick()
            return done
        result.unlink()
        checkpoint.unlink(missing_ok=True)
    model = network(seed)
    optimizer = torch.optim.SGD(model.parameters(), lr=RATE, momentum=MOMENTUM)
    horizon = Horizon(f"{epochs}ep", batches_per_epoch=data.batches)
    scheduler = Scheduler(optimizer, plan, horizon=horizon)
    parts = {"model": model, "optimizer": optimizer, "scheduler": scheduler}
    history: list[dict[str, float]] = []
    if checkpoint.exists():
        saved = torch.load(checkpoint, weights_only=True)
        for name, part in parts.items():
            part.load_state_dict(saved[name])
        history = saved["history"]
    for _ in history:
        tick()
    for epoch in range(len(history), epochs):
        for x, y in data.epoch(seed, epoch):
            optimizer.zero_grad()
            cross_entropy(model(x), y).backward()
            optimizer.step()
            scheduler.step()
        history.append({"step": scheduler.last_epoch, **evaluate(model, data)})
        states = {name: part.state_dict() for name, part in parts.items()}
        written(checkpoint, lambda file, s=states: torch.save({**s, "history": history}, file))
        tick()
    done = {"plan": repr(plan), "seed": seed, "history": history}
    written(result, lambda file: file.write_text(json.dumps(done)))
    return done


def evaluate(model: nn.Module, data: Data) -> dict[str, float]:
    """Loss and accuracy on the validation images."""
    x, y = data.x[data.train :], data.y[data.train :]
    with torch.no_grad():
        scores = model(x)
    accuracy = (scores.argmax(1) == y).float().mean()
    return {"loss": cross_entropy(scores, y).item(), "accuracy": accuracy.item()}


def written(path: Path, write: Callable[[Path], object]) -> None:
    """Write a file whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    write(partial)
    partial.replace(path)


def summary(results: list[dict[str, Any]]) -> dict[str, Any]:
    """Mean and spread over seeds, and the steps to the stated validation loss."""
    ends = [r["history"][-1] for r in results]
    reached = [
        next((h["step"] for h in r["history"] if h["loss"] <= REACHED), None) for r in results
    ]
    steps = None if None in reached else statistics.median(x for x in reached if x is not None)
    losses, accuracies = [e["loss"] for e in ends], [e["accuracy"] for e in ends]
    return {
        "loss": statistics.mean(losses),
        "loss spread": max(losses) - min(losses),
        "accuracy": statistics.mean(accuracies),
        "accuracy spread": max(accuracies) - min(accuracies),
        "steps": steps,
    }


def table(rows: dict[str, dict[str, Any]]) -> Table:
    """The comparison, best validation loss first."""
    shown = Table(title=f"digits, maximal rate {RATE}, best first")
    for title in (
        "schedule",
        "valid. loss",
        "spread",
        "accuracy %",
        "spread",
        f"steps to {REACHED}",
    ):
        shown.add_column(title, justify="left" if title == "schedule" else "right", no_wrap=True)
    for name, row in rows.items():
        shown.add_row(
            name,
            f"{row['loss']:.4f}",
            f"{row['loss spread']:.4f}",
            f"{100 * row['accuracy']:.2f}",
            f"{100 * row['accuracy spread']:.2f}",
            "not all" if row["steps"] is None else f"{row['steps']:.0f}",
        )
    return shown


def draw(results: dict[str, list[dict[str, Any]]], horizon: Horizon, path: Path) -> None:
    """One panel a schedule: its rate as an area, its losses over it, the constant's in grey."""
    import matplotlib as mpl  # noqa: PLC0415 (slow to import, and needed only at the end)

    mpl.use("Agg")
    from matplotlib import pyplot as plt  # noqa: PLC0415

    columns = 4
    lines = -(-len(results) // columns)
    figure, axes = plt.subplots(
        lines, columns, figsize=(13, 2.7 * lines), sharex=True, sharey=True, squeeze=False
    )
    plans = contestants()
    for panel in axes.flat[len(results) :]:
        panel.set_axis_off()
    for panel, (name, runs) in zip(axes.flat, results.items(), strict=False):
        rate = panel.twinx()
        curve = horizon.resolve(plans[name]["lr"]).curve(horizon.steps) * RATE
        rate.fill_between(range(horizon.steps), curve, color="#2f7ed8", alpha=0.18, linewidth=0)
        rate.set_ylim(0, RATE * 1.05)
        rate.set_yticks([0, RATE])
        rate.tick_params(colors="#2f7ed8", labelsize=8)
        others = results.get("constant", []) if name != "constant" else []
        for run in [*others, *runs]:
            steps = [h["step"] for h in run["history"]]
            colour, width = ("#a0a0a0", 0.8) if run in others else ("#d9822b", 1.5)
            panel.plot(steps, [h["loss"] for h in run["history"]], color=colour, linewidth=width)
        panel.set_yscale("log")
        panel.set_title(name, fontsize=10)
        panel.set_zorder(rate.get_zorder() + 1)
        panel.patch.set_visible(False)
    for panel in axes[:, 0]:
        panel.set_ylabel("validation loss", fontsize=8)
    for panel in axes[-1]:
        panel.set_xlabel("optimizer steps", fontsize=8)
    figure.suptitle(
        "rate (blue area, right axis), validation loss (orange), constant rate's (grey)"
    )
    figure.tight_layout()
    written(path, lambda file: figure.savefig(file, dpi=110, format="png"))


def main() -> None:
    """Run the comparison."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--out", type=Path, default=Path("runs/digits"))
    parser.add_argument("--only", nargs="+", metavar="NAME", choices=list(contestants()))
    given = parser.parse_args()
    torch.set_num_threads(1)  # the same sums in the same order, whatever the machine is doing
    data, console, out = Data(), Console(), given.out / f"{given.epochs}-epochs"
    plans = {n: p for n, p in contestants().items() if not given.only or n in given.only}
    horizon = Horizon(f"{given.epochs}ep", batches_per_epoch=data.batches)
    columns = (
        TextColumn("{task.description:<16}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
    )
    results: dict[str, list[dict[str, Any]]] = {}
    with Progress(*columns, console=console) as progress:
        whole = progress.add_task("epochs, all", total=len(plans) * given.seeds * given.epochs)
        for name, plan in plans.items():
            own = progress.add_task(name, total=given.seeds * given.epochs)

            def tick(own: Any = own) -> None:
                progress.advance(own)
                progress.advance(whole)

            folder = out / name.replace(" ", "_").replace(",", "")
            results[name] = [
                train(plan, seed, given.epochs, data, folder, tick=tick)
                for seed in range(given.seeds)
            ]
    rows = {name: summary(runs) for name, runs in results.items()}
    rows = dict(sorted(rows.items(), key=lambda item: item[1]["loss"]))
    console.print(table(rows))
    draw(results, horizon, out / "digits.png")
    written(out / "summary.json", lambda file: file.write_text(json.dumps(rows, indent=1)))
    best = next(iter(rows))
    dump(plans[best], out / "best.json")
    plan = load(out / "best.json")
    if not isinstance(plan, Plan):
        raise TypeError(plan)
    again = out / f"from_file_{best.replace(' ', '_')}"
    result = train(plan, given.seeds, given.epochs, data, again, tick=lambda: None)
    last = result["history"][-1]
    console.print(f"picture  {out / 'digits.png'}")
    console.print(f"best     {best}: {out / 'best.json'}", highlight=False)
    console.print(
        f"trained from that file with a new seed: loss {last['loss']:.4f}, "
        f"accuracy {100 * last['accuracy']:.2f} %"
    )


if __name__ == "__main__":
    main()
