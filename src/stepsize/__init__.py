"""Learning-rate schedules as values, and what stands on them.

`import stepsize` needs only the standard library. The torch binding is `stepsize.torch`, pictures
with matplotlib are `stepsize.plot`.
"""

from types import MappingProxyType
from typing import TYPE_CHECKING

from stepsize.errors import FieldError, MismatchError, SpecError, StepsizeError, UnitError
from stepsize.schedules.combine import Absolute, Between, Clipped, Product, Scaled, Sequence
from stepsize.schedules.decays import (
    CycledPolynomial,
    Exponential,
    ExponentialWarmup,
    MultiStep,
    PowerLaw,
    Step,
)
from stepsize.schedules.fields import Bounds
from stepsize.schedules.plan import Plan
from stepsize.schedules.ramps import (
    Cosine,
    Geometric,
    Harmonic,
    KDecay,
    Linear,
    Logarithmic,
    MirrorCosine,
    OneMinusSqrt,
    OneMinusSquare,
    Polynomial,
    Ramp,
    Rex,
    Tanh,
)
from stepsize.schedules.recipes import (
    cyclic,
    eight_one_one,
    half_life,
    infinite,
    inverse_sqrt,
    inverse_time,
    noam,
    one_cycle,
    sgdr,
    slanted_triangular,
    trapezoid,
    untuned_warmup,
    warmup_cosine,
    warmup_inverse_sqrt,
    warmup_linear,
    warmup_step,
    wsd,
    wsd_s,
)
from stepsize.schedules.schedule import REGISTRY, Schedule, schedule
from stepsize.schedules.tables import Custom, Piecewise
from stepsize.schedules.timing import Cut, Held, Repeated, Resumed, Shifted, Stretched
from stepsize.schedules.warmup import Constant, Warmup
from stepsize.time import Horizon, driving_unit, resolve, stepwise
from stepsize.units import Time

if TYPE_CHECKING:
    from stepsize.conform.check import conformance
    from stepsize.drawing.series import Axis, Panel, Series
    from stepsize.files.description import from_dict, to_dict
    from stepsize.files.disk import dump, dumps, load, loads
    from stepsize.files.expression import parse
    from stepsize.files.schema import json_schema
    from stepsize.lint.check import check
    from stepsize.lint.subject import Finding
    from stepsize.look.compare import Difference, Gap, difference
    from stepsize.look.golden import compare_golden, golden, write_golden
    from stepsize.look.preview import Preview, preview
    from stepsize.look.values import Table, table
    from stepsize.look.words import Description, Facts, describe
    from stepsize.task import Metric, Run, Task
    from stepsize.task_file import load_task

__version__ = "0.1.0"

__all__ = [
    "REGISTRY",
    "Absolute",
    "Axis",
    "Between",
    "Bounds",
    "Clipped",
    "Constant",
    "Cosine",
    "Custom",
    "Cut",
    "CycledPolynomial",
    "Description",
    "Difference",
    "Exponential",
    "ExponentialWarmup",
    "Facts",
    "FieldError",
    "Finding",
    "Gap",
    "Geometric",
    "Harmonic",
    "Held",
    "Horizon",
    "KDecay",
    "Linear",
    "Logarithmic",
    "Metric",
    "MirrorCosine",
    "MismatchError",
    "MultiStep",
    "OneMinusSqrt",
    "OneMinusSquare",
    "Panel",
    "Piecewise",
    "Plan",
    "Polynomial",
    "PowerLaw",
    "Preview",
    "Product",
    "Ramp",
    "Repeated",
    "Resumed",
    "Rex",
    "Run",
    "Scaled",
    "Schedule",
    "Sequence",
    "Series",
    "Shifted",
    "SpecError",
    "Step",
    "StepsizeError",
    "Stretched",
    "Table",
    "Tanh",
    "Task",
    "Time",
    "UnitError",
    "Warmup",
    "__version__",
    "check",
    "compare_golden",
    "conformance",
    "cyclic",
    "describe",
    "difference",
    "driving_unit",
    "dump",
    "dumps",
    "eight_one_one",
    "from_dict",
    "golden",
    "half_life",
    "infinite",
    "inverse_sqrt",
    "inverse_time",
    "json_schema",
    "load",
    "load_task",
    "loads",
    "noam",
    "one_cycle",
    "parse",
    "preview",
    "resolve",
    "schedule",
    "sgdr",
    "slanted_triangular",
    "stepwise",
    "table",
    "to_dict",
    "trapezoid",
    "untuned_warmup",
    "warmup_cosine",
    "warmup_inverse_sqrt",
    "warmup_linear",
    "warmup_step",
    "write_golden",
    "wsd",
    "wsd_s",
]

# What a training run seldom needs is imported when it is first asked for.
_LATER = MappingProxyType(
    {
        "Axis": "drawing.series",
        "Description": "look.words",
        "Difference": "look.compare",
        "Facts": "look.words",
        "Finding": "lint.subject",
        "Gap": "look.compare",
        "Metric": "task",
        "Panel": "drawing.series",
        "Preview": "look.preview",
        "Run": "task",
        "Series": "drawing.series",
        "Table": "look.values",
        "Task": "task",
        "check": "lint.check",
        "compare_golden": "look.golden",
        "conformance": "conform.check",
        "describe": "look.words",
        "difference": "look.compare",
        "dump": "files.disk",
        "dumps": "files.disk",
        "from_dict": "files.description",
        "golden": "look.golden",
        "json_schema": "files.schema",
        "load": "files.disk",
        "load_task": "task_file",
        "loads": "files.disk",
        "parse": "files.expression",
        "preview": "look.preview",
        "table": "look.values",
        "to_dict": "files.description",
        "write_golden": "look.golden",
    }
)


def __getattr__(name: str) -> object:
    """Import what is asked for the first time."""
    if name not in _LATER:
        raise AttributeError(f"module 'stepsize' has no attribute {name!r}")
    import importlib  # noqa: PLC0415 (only where it is needed)

    found: object = getattr(importlib.import_module(f"stepsize.{_LATER[name]}"), name)
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    """List every public name, also what is not imported yet."""
    return sorted({*globals(), *__all__})
