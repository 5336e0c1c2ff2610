"""What importing costs: CPU time of fresh processes, and what they have loaded."""

import math
import os
import random
import subprocess
import sys
from collections.abc import Mapping

from report import Table

OPTIMIZER = "import torch; o = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.1)"
TORCHS = f"{OPTIMIZER}; torch.optim.lr_scheduler.CosineAnnealingLR(o, 10)"
OURS = f"{OPTIMIZER}; from stepsize import Cosine; from stepsize.torch import Scheduler"
PROGRAMS = {
    "nothing": "",
    "`import stepsize`": "import stepsize",
    "`stepsize.Cosine(100)(10.0)`": "import stepsize; stepsize.Cosine(100)(10.0)",
    "`stepsize.Cosine(100).curve(10)`": "import stepsize; stepsize.Cosine(100).curve(10)",
    "`import numpy`": "import numpy",
    "`import torch`": "import torch",
    "`import stepsize.torch`": "import stepsize.torch",
    "torch's optimizer and torch's scheduler": TORCHS,
    "torch's optimizer and stepsize's scheduler": f"{OURS}; Scheduler(o, lr=Cosine(10))",
}
WATCHED = ("numpy", "torch", "jax", "torch._dynamo", "matplotlib.pyplot")
LIMIT = "`import torch`"


def tables(*, quick: bool) -> list[Table]:
    """Give the tables of this section."""
    times = least(PROGRAMS, rounds=1 if quick else 9)
    bare, limit = times["nothing"], times[LIMIT] - times["nothing"]
    rows = [
        [
            name,
            milliseconds(times[name] - bare),
            f"{(times[name] - bare) / limit:.3f}x",
            *_loaded(program),
        ]
        for name, program in PROGRAMS.items()
        if program
    ]
    columns = ["program", "CPU time", "ratio to torch", *WATCHED]
    notes = (
        "User and system CPU time of a fresh process, the least of several in shuffled order, less "
        f"the {milliseconds(bare)} of one that does nothing. The other columns: which modules it "
        "has loaded."
    )
    return [Table("CPU time beyond a bare interpreter", columns, rows, notes)]


def milliseconds(seconds: float) -> str:
    """Write a time."""
    return f"{seconds * 1e3:,.1f} ms"


def least(programs: Mapping[str, str], rounds: int) -> dict[str, float]:
    """Give the least CPU time of a fresh process for every program, in shuffled order."""
    for program in programs.values():
        _cpu(program)  # writes the bytecode caches
    best = dict.fromkeys(programs, math.inf)
    for _ in range(rounds):
        for name in random.sample(list(programs), len(programs)):
            best[name] = min(best[name], _cpu(programs[name]))
    return best


def _cpu(program: str) -> float:
    program += "\nimport os; os._exit(0)"  # taking everything down again is not importing
    child = os.posix_spawn(sys.executable, [sys.executable, "-c", program], os.environ)
    _, status, used = os.wait4(child, 0)
    if status:
        raise RuntimeError(f"{program!r} ended with {status}")
    return used.ru_utime + used.ru_stime


def _loaded(program: str) -> list[str]:
    asked = f"{program}\nimport sys; print(*[int(n in sys.modules) for n in {WATCHED!r}])"
    done = subprocess.run(  # noqa: S603 (our own text)
        [sys.executable, "-c", asked], capture_output=True, text=True, check=True
    )
    return ["loaded" if flag == "1" else "" for flag in done.stdout.split()]
