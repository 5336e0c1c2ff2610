"""Tables in Markdown, and what a reader must know about the machine."""

import datetime as dt
import importlib.metadata
import os
import platform
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

PEERS = {
    "numpy": "numpy",
    "torch": "torch",
    "transformers": "transformers",
    "timm": "timm",
    "ignite": "pytorch-ignite",
    "fvcore": "fvcore",
    "optax": "optax",
    "jax": "jax",
    "torch-lr-finder": "torch-lr-finder",
}


@dataclass(frozen=True)
class Table:
    """One table: what it shows, its columns and rows, and notes under it."""

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    notes: str = ""

    def markdown(self) -> str:
        """Write the table as Markdown."""
        lines = [f"### {self.title}", "", _row(self.columns), _row(["---"] * len(self.columns))]
        lines += [_row(row) for row in self.rows]
        return "\n".join([*lines, *(["", self.notes] if self.notes else []), ""])


def _row(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"


def ns(value: float) -> str:
    """Write nanoseconds in the unit that reads best."""
    for limit, unit in ((1e4, "ns"), (1e7, "µs"), (1e10, "ms")):
        if value < limit:
            return f"{value / (limit / 1e4):,.0f} {unit}"
    return f"{value / 1e9:,.1f} s"


def against(value: float, floor: float) -> str:
    """Write a time and its ratio to the floor."""
    return f"{ns(value)} ({value / floor:.2f}x)"


def version(package: str) -> str:
    """Give the version of an installed distribution."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


def header(seconds: float) -> str:
    """Write when, with what, and on how much of a machine the numbers were measured."""
    versions = ", ".join(f"{name} {version(package)}" for name, package in PEERS.items())
    when = f"{dt.datetime.now(tz=dt.UTC):%Y-%m-%d}"
    machine = f"{platform.machine()}, {os.cpu_count()} shared cores, one thread used"
    python = platform.python_version()
    return f"""# Benchmarks

Measured {when} in {seconds:.0f} s with stepsize {version("stepsize")} on Python {python};
{versions};
{machine}.

Times are CPU time of the measuring thread, the least over many rounds in shuffled order
(`timing.py`). Compare ratios: absolute numbers are this machine's on this day. The floor is
handwritten code without any check; its twin is the same code once more, so what the two differ by
is noise. Run again with `make bench`.
"""
