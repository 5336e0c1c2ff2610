"""The beginning of a run: a ramp run backwards, and the constant."""

import math
from typing import Annotated, Any, ClassVar

from stepsize.errors import FieldError
from stepsize.schedules.fields import Bounds, Length, OptionalLength, Value
from stepsize.schedules.formula import Names
from stepsize.schedules.names import nearest
from stepsize.schedules.ramps import Linear, Ramp, mix
from stepsize.schedules.schedule import REGISTRY, Schedule, schedule
from stepsize.units import plain


@schedule
class Warmup(Schedule):
    """From `start` up to 1 over a length: any ramp (`along`, a class or its name) run backwards.

    The value at t is the ramp's value at `over - t`. It never starts at 0 unless told to: by
    default the first value is `q/(over+q)`, where q is one optimizer step, or the `every` of the
    `held` around it. In steps that is `(t+1)/(over+1)`, reaching 1 at t = over.

    | the field's variants | first value | written here |
    | --- | --- | --- |
    | (t+1)/(W+1) (nanoGPT) | 1/(W+1) | `Warmup(W)` |
    | (t+1)/W (nanochat, torchtitan) | 1/W | `Warmup(W-1, start=1/W)` |
    | t/W (transformers, optax, Megatron) | 0 | `Warmup(W, start=0)` |
    | s + (1-s) t/W (torch LinearLR) | s | `Warmup(W, start=s)` |

    Shapes: `Linear`, `Cosine`, `Geometric` (exponential), `OneMinusSqrt` (1-sqrt),
    `Polynomial` (quadratic), `Logarithmic`. A constant warmup is `Constant(over, value)`.

    Source: Goyal et al. 2017 for the gradual warmup; the table from reading the named codes.

    >>> Warmup(4)(0), Warmup(4)(4), Warmup(1000, start=0.01)(500)
    (0.2, 1.0, 0.505)
    """

    kind: ClassVar[str] = "warmup"
    over: Length
    start: Annotated[float, Bounds(ge=0)] | None = None
    along: type[Ramp] | str = Linear

    def _check(self) -> None:
        along = ramp_class("Warmup.along", self.along)
        object.__setattr__(self, "along", along)
        try:
            self._ramp(1.0, 1.0 if self.start is None else self.start)
        except FieldError:
            rule = f"a value that {along.__name__} can start at"
            raise FieldError.of(
                "Warmup.start", rule, self.start, "give a small one above 0"
            ) from None

    def _ramp(self, over: float, first: float) -> Ramp:
        along: Any = self.along  # stored as a class, which takes these as every ramp does
        ramp: Ramp = along(over, start=1.0, stop=first)
        return ramp

    def _prepare(self) -> Ramp:
        over = self.duration
        return self._ramp(over, 1.0 / (over + 1.0) if self.start is None else self.start)

    @property
    def duration(self) -> float:
        """The field `over`."""
        return plain(self.over, "Warmup.over")

    @property
    def range(self) -> tuple[float, float]:
        """From the first value to 1 (from 1, if it starts higher)."""
        first = 0.0 if self.start is None else self.start
        return (min(first, 1.0), max(first, 1.0))

    def _quantized(self, quantum: float) -> Schedule | None:
        if self.start is not None:
            return self
        return Warmup(self.over, quantum / (self.duration + quantum), self.along)

    def _value(self, t: Any, xp: Names) -> Any:
        over = self.duration
        ramp: Ramp = self._prepared
        x = xp.clip(t, 0.0, over)
        backwards = ramp._parts((over - x) / over, x / over, xp)  # noqa: SLF001 (a ramp's own protocol)
        return mix(1.0, ramp.stop, backwards)


def ramp_class(field: str, given: object) -> type[Ramp]:
    """Find a ramp by its class, its kind or the name of its class; `FieldError` for no ramp."""
    ramps = [cls for cls in REGISTRY.values() if issubclass(cls, Ramp)]
    named = {**{cls.__name__: cls for cls in ramps}, **{cls.kind: cls for cls in ramps}}
    found = named.get(given) if isinstance(given, str) else given
    if isinstance(found, type) and issubclass(found, Ramp):
        return found
    rule = f"a ramp class or its name ({', '.join(sorted(cls.__name__ for cls in ramps))})"
    near = nearest(given, named).lstrip(", ") if isinstance(given, str) else ""
    raise FieldError.of(field, rule, given, near)


@schedule
class Constant(Schedule):
    """The same value for a length of time, endless unless `over` is given.

    In the middle of a sequence write the length or `Constant("rest")`. With a value below 1 it is
    the constant warmup: `Constant(500, 0.1) >> ...`.

    Source: elementary.

    >>> (Constant(30, 1.0) >> Constant(value=0.1))(30), Constant()(1e9)
    (0.1, 1.0)
    """

    kind: ClassVar[str] = "constant"
    over: OptionalLength = None
    value: Value = 1.0

    @property
    def duration(self) -> float:
        """The field `over`; endless if None."""
        over = self.over
        return math.inf if over is None else plain(over, "Constant.over")

    @property
    def range(self) -> tuple[float, float]:
        """The one value."""
        return (self.value, self.value)

    def _value(self, t: Any, xp: Names) -> Any:
        del t, xp
        return self.value
