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
from stepsize.schedules.timing import Cut, Held, Repeated, Shifted, Stretched
from stepsize.schedules.warmup import Constant, Warmup
from stepsize.time import Horizon, driving_unit, resolve, stepwise
from stepsize.units import Time

if TYPE_CHECKING:
    from stepsize.files.description import from_dict, to_dict
    from stepsize.files.disk import dump, dumps, load, loads
    from stepsize.files.expression import parse
    from stepsize.files.schema import json_schema

__version__ = "0.1.0"

__all__ = [
    "REGISTRY",
    "Absolute",
    "Between",
    "Bounds",
    "Clipped",
    "Constant",
    "Cosine",
    "Custom",
    "Cut",
    "CycledPolynomial",
    "Exponential",
    "ExponentialWarmup",
    "FieldError",
    "Geometric",
    "Harmonic",
    "Held",
    "Horizon",
    "KDecay",
    "Linear",
    "Logarithmic",
    "MirrorCosine",
    "MismatchError",
    "MultiStep",
    "OneMinusSqrt",
    "OneMinusSquare",
    "Piecewise",
    "Plan",
    "Polynomial",
    "PowerLaw",
    "Product",
    "Ramp",
    "Repeated",
    "Rex",
    "Scaled",
    "Schedule",
    "Sequence",
    "Shifted",
    "SpecError",
    "Step",
    "StepsizeError",
    "Stretched",
    "Tanh",
    "Time",
    "UnitError",
    "Warmup",
    "__version__",
    "cyclic",
    "driving_unit",
    "dump",
    "dumps",
    "eight_one_one",
    "from_dict",
    "half_life",
    "infinite",
    "inverse_sqrt",
    "inverse_time",
    "json_schema",
    "load",
    "loads",
    "noam",
    "one_cycle",
    "parse",
    "resolve",
    "schedule",
    "sgdr",
    "slanted_triangular",
    "stepwise",
    "to_dict",
    "trapezoid",
    "untuned_warmup",
    "warmup_cosine",
    "warmup_inverse_sqrt",
    "warmup_linear",
    "warmup_step",
    "wsd",
    "wsd_s",
]

# What a training run seldom needs is imported when it is first asked for.
_LATER = MappingProxyType(
    {
        "dump": "files.disk",
        "dumps": "files.disk",
        "from_dict": "files.description",
        "json_schema": "files.schema",
        "load": "files.disk",
        "loads": "files.disk",
        "parse": "files.expression",
        "to_dict": "files.description",
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
