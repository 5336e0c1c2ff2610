"""What a command costs: CPU time of fresh processes, beside the peer that has a command line."""

import importlib.util
import shlex

from imports import least, milliseconds
from report import Table

RECIPE = """'Warmup("5%") >> Cosine(stop=0.1)'"""
RUN = "--total 90ep --batches-per-epoch 391"
LONG = "--total 10000000"
COMMANDS = {
    f"stepsize describe {RECIPE} {RUN}": "stepsize.cli.app",
    f"stepsize check {RECIPE} {RUN}": "stepsize.cli.app",
    f"stepsize table {RECIPE} {RUN}": "stepsize.cli.app",
    f"stepsize plot {RECIPE} {RUN}": "stepsize.cli.app",
    f"stepsize plot {RECIPE} {LONG}": "stepsize.cli.app",
    f"stepsize plot 'cyclic(100)' {LONG}": "stepsize.cli.app",
    "lrsched cosine --base-lr 1 --min-lr 0.1 --total-steps 35190 --steps 35190 --sparkline": (
        "lrsched.cli"
    ),
}


def tables(*, quick: bool) -> list[Table]:
    """Give the tables of this section."""
    programs = {
        command: _program(command, module)
        for command, module in COMMANDS.items()
        if importlib.util.find_spec(module.partition(".")[0])
    }
    times = least({"nothing": "", "numpy": "import numpy", **programs}, rounds=1 if quick else 9)
    numpy = times["numpy"]
    rows = [[f"`{c}`", milliseconds(times[c]), f"{times[c] / numpy:.2f}x"] for c in programs]
    notes = (
        "User and system CPU time of the whole process, interpreter included "
        f"({milliseconds(times['nothing'])} alone), the least of several in shuffled order. "
        "lrsched draws one line for one schedule in steps, from every one of its values."
    )
    columns = ["command", "CPU time", "ratio to `python -c 'import numpy'`"]
    return [Table("A command, from start to end", columns, rows, notes)]


def _program(command: str, module: str) -> str:
    return (
        f"import os, sys; sys.argv = {shlex.split(command)!r}; sys.stdout = open(os.devnull, 'w')\n"
        f"from {module} import main\n"
        "try:\n    main()\nexcept SystemExit as end:\n    assert not end.code, end.code"
    )
