"""A range test beside the training steps that it is made of, and beside torch-lr-finder's.

Every loop makes the same number of steps of the same model on the same batches: "plain" takes
batches from the loader, and does forward, backward and update. The rate stays where nothing
diverges, so that none of them stops early. What each does before and after its steps is part of it.
"""

import gc
import importlib.util
import random
import statistics
from collections.abc import Callable, Iterator
from contextlib import redirect_stderr, redirect_stdout
from io import StringIO

import torch
from report import Table, ns
from timing import cpu
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from stepsize.torch import preserved, range_test

BATCH, START, STOP = 32, 1e-7, 1e-3
MODELS = {
    "MLP 32-64-10": lambda: nn.Sequential(nn.Linear(32, 64), nn.Tanh(), nn.Linear(64, 10)),
    "MLP 32-512-512-10": lambda: nn.Sequential(
        nn.Linear(32, 512), nn.Tanh(), nn.Linear(512, 512), nn.Tanh(), nn.Linear(512, 10)
    ),
}
PLAIN, TWIN = "plain steps", "plain steps again"


class Subject:
    """A model, its optimizer and its loader."""

    def __init__(self, name: str) -> None:
        torch.manual_seed(0)
        self.model = MODELS[name]()
        self.optimizer = torch.optim.Adam(self.model.parameters(), lr=1e-4)
        data = TensorDataset(torch.randn(3200, 32), torch.randint(0, 10, (3200,)))
        self.loader = DataLoader(data, batch_size=BATCH)
        self.loss = nn.functional.cross_entropy

    def plain(self, steps: int) -> None:
        """Train as everybody does."""
        left = steps
        while left:
            for inputs, targets in self.loader:
                self.optimizer.zero_grad()
                self.loss(self.model(inputs), targets).backward()
                self.optimizer.step()
                left -= 1
                if not left:
                    break

    def ours(self, steps: int) -> None:
        """Find the rate here, in one repeat."""
        range_test(
            self.model, self.optimizer, self.loss, self.loader,
            start=START, stop=STOP, steps=steps, repeats=1,
        )  # fmt: skip

    def own_step(self, steps: int) -> None:
        """Find the rate here, with a step of one's own."""

        def step(batch: tuple[torch.Tensor, torch.Tensor]) -> torch.Tensor:
            self.optimizer.zero_grad()
            loss = self.loss(self.model(batch[0]), batch[1])
            loss.backward()
            self.optimizer.step()
            return loss

        range_test(
            self.model, self.optimizer, step=step, loader=self.loader,
            start=START, stop=STOP, steps=steps, repeats=1,
        )  # fmt: skip

    def finder(self, steps: int) -> None:
        """Find it with torch-lr-finder, and put the model back."""
        from torch_lr_finder import LRFinder  # noqa: PLC0415 (only where it is installed)

        with redirect_stdout(StringIO()), redirect_stderr(StringIO()):
            finder = LRFinder(self.model, self.optimizer, self.loss)
            finder._set_learning_rate(START)  # noqa: SLF001 (start_lr= is 0 for it where it is small)
            finder.range_test(self.loader, end_lr=STOP, num_iter=steps)
            finder.reset()


def tables(*, quick: bool) -> Iterator[Table]:
    """One table for each model."""
    rounds, steps = (5, 100) if quick else (41, 100)
    for name in MODELS:
        yield _table(name, rounds, steps)


def _table(name: str, rounds: int, steps: int) -> Table:
    subject = Subject(name)
    loops: dict[str, Callable[[int], None]] = {
        PLAIN: subject.plain,
        TWIN: subject.plain,
        "range_test": subject.ours,
        "range_test, step=": subject.own_step,
    }
    if importlib.util.find_spec("torch_lr_finder") is not None:
        loops["torch-lr-finder"] = subject.finder
    found = _measured(subject, loops, rounds, steps)
    rows = []
    for loop, times in found.items():
        ratios = [time / plain for time, plain in zip(times, found[PLAIN], strict=True)]
        row = [loop, ns(min(times) / steps), f"{min(times) / min(found[PLAIN]):.3f}x"]
        rows.append([*row, f"{statistics.median(ratios):.3f}x"])
    columns = ["loop", "per step", "of plain, least", "of plain, median of rounds"]
    return Table(f"{steps} steps of a {name}, batch {BATCH}, Adam", columns, rows)


def _measured(
    subject: Subject, loops: dict[str, Callable[[int], None]], rounds: int, steps: int
) -> dict[str, list[int]]:
    """Give the CPU times of whole tests, in rounds of a random order.

    Each begins with the same weights: with those of a long training, whose gradients vanish, a step
    takes three times as long (denormal numbers).
    """
    found: dict[str, list[int]] = {name: [] for name in loops}
    try:
        for number in range(rounds + 1):
            gc.collect()
            gc.disable()
            for name in random.sample(list(loops), len(loops)):
                with preserved(subject.model, subject.optimizer):
                    spent = cpu(loops[name], steps)
                if number:  # the first round warms up
                    found[name].append(spent)
    finally:
        gc.enable()
    return found
