"""Learning-rate schedules as values, and what stands on them.

`import stepsize` needs only the standard library. The torch binding is `stepsize.torch`.
"""

from stepsize.errors import FieldError, MismatchError, SpecError, StepsizeError, UnitError
from stepsize.files import dump, from_dict, load, to_dict
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
    "eight_one_one",
    "from_dict",
    "half_life",
    "infinite",
    "inverse_sqrt",
    "inverse_time",
    "load",
    "noam",
    "one_cycle",
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
