"""What a schedule is: a frozen value that is a function of time, and an element of an algebra."""

import abc
import dataclasses
import math
from collections.abc import Callable, Iterable
from typing import Any, ClassVar, Final, TypeVar, cast, dataclass_transform

from stepsize.errors import FieldError, SpecError, UnitError
from stepsize.schedules.fields import rules_of
from stepsize.schedules.formula import Names, compile_formula, stand_alone, write_source
from stepsize.units import REST, Time, number_text

FACTOR_PEAKS: Final = (0.01, 100.0)
"""Where the peak of a factor lies; outside, it is a rate in disguise."""
_FARTHEST: Final = 1e300  # stands for "for ever": sums and products with it stay finite


class Schedule(abc.ABC):
    """A pure function of training time, as a value: comparable, hashable, printed as code.

    `schedule(t)` with t = optimizer steps completed gives the value that the next step uses, so
    `schedule(0)` is the value of the first step. It is defined for all real t: before 0 it holds
    its first value, after `duration` its last. `t` may be a number (the result is a float) or an
    array of numpy, torch, jax (traced too) or any array-API library (the result is such an array).

    Schedules compose: `a >> b` runs b when a is over, `a * b` multiplies, `0.1 * a` scales.

    A family is one class: subclass, decorate with `@schedule`, state the fields, `kind`,
    `duration` and `_value`. A value is a *factor* (of the user's base value) unless
    the schedule says `is_absolute`.
    """

    __slots__ = ("__weakref__", "_prepared", "_scalar")
    kind: ClassVar[str]
    _own_time: ClassVar[bool] = False  # whether parts run in another time than the node's
    _scalar: Callable[[float], float]
    _prepared: Any

    @property
    @abc.abstractmethod
    def duration(self) -> float:
        """The time after which `>>` goes on; `inf` if never. Needs a resolved schedule."""

    @abc.abstractmethod
    def _value(self, t: Any, xp: Names) -> Any:
        """The formula, once, for every kind of t, in the names of `xp`."""

    @property
    def range(self) -> tuple[float, float]:
        """Bounds that the values never leave; `(0, inf)` for a family that does not say."""
        return (0.0, math.inf)

    @property
    def is_absolute(self) -> bool:
        """Whether the values replace the base value rather than multiply it."""
        return False

    def _check(self) -> None:
        """Raise `FieldError` for fields that are each right and wrong together."""

    def _prepare(self) -> Any:
        """Compute once, at construction, what the formula needs beside its fields."""

    def _room(self) -> float | str | Time | None:
        """What "rest" means inside this node, where it says so itself."""
        return None

    def _room_inside(self, room: float | None) -> float | None:
        """How much of the room around it a node leaves to what is inside."""
        return room

    def _begins_inside(self, begin: float) -> float | None:
        """When in the run the parts' time begins; None: their time is not the run's."""
        return None if self._own_time else begin

    def _quantized(self, quantum: float) -> "Schedule | None":
        """Give this node for time in jumps of `quantum`; None: only its parts may care."""

    def _settled(self, clock: Any, room: float | None, at: float) -> "Schedule | None":
        """Give this node in plain numbers; None: field by field, as most do (`walk.settled`)."""

    def _moments(self, until: float) -> "Iterable[float] | None":
        """When it may jump or bend before `until`; None: its fields say so (`moments_of`)."""

    def __post_init__(self) -> None:
        rules: dict[str, Any] = type(self)._rules  # type: ignore[attr-defined]  # noqa: SLF001 (set by @schedule)
        for name, (rule, optional) in rules.items():
            given = getattr(self, name)
            if given is not None or not optional:
                object.__setattr__(self, name, rule.admit(f"{type(self).__name__}.{name}", given))
        self._check()
        try:
            prepared = self._prepare()
        except UnitError:  # what still needs a horizon is never evaluated
            prepared = None
        object.__setattr__(self, "_prepared", prepared)

    def __reduce__(self) -> tuple[Any, ...]:
        return (type(self), tuple(fields_of(self).values()))

    def __call__(self, t: Any, /) -> Any:
        """Give the value at time t: a float for a number, an array for an array."""
        if type(t) is float or type(t) is int:
            scalar = getattr(self, "_scalar", None)
            if scalar is not None and -_FARTHEST < t < _FARTHEST:
                return scalar(float(t))
            return self._at(t)
        from stepsize.schedules.arrays import evaluate  # noqa: PLC0415 (numpy only when an array comes)

        return evaluate(self, t)

    def _at(self, t: float) -> float:
        if not -_FARTHEST < t < _FARTHEST:
            if t != t:  # noqa: PLR0124 (NaN; math.isnan fails on huge whole numbers)
                raise FieldError.of("t", "a real number", t)
            t = _FARTHEST if t > 0 else -_FARTHEST
        if not hasattr(self, "_scalar"):
            object.__setattr__(self, "_scalar", self.compile())
        return self._scalar(float(t))

    def compile(self, *, lowest: float = -math.inf) -> Callable[[float], float]:
        """Give the schedule as a plain function of a float, as fast as one written by hand.

        `lowest` promises that no t below it will come, which saves a comparison.
        """
        return compile_formula(self._value, lowest)

    def source(self) -> str:
        """Give the compiled function as Python text that stands alone, to paste anywhere.

        A user's function (`Custom`) is the one thing that the text can only name.

        >>> print(Cosine(100).cut(20).source())
        from math import sin
        <BLANKLINE>
        def value(t):
            x1 = sin((1.5707963267948966 * ((0.0 if t < 0.0 else 20.0 if t > 20.0 else t) / 100.0)))
            return (1.0 - (x1 * x1))
        <BLANKLINE>
        """
        return stand_alone(*write_source(self._value))

    def curve(self, steps: int, *, start: int = 0) -> Any:
        """Give the values of `steps` steps from `start` on as a float64 numpy array."""
        from stepsize.schedules.arrays import curve  # noqa: PLC0415 (numpy only when asked for)

        return curve(self, start, steps)

    # Composition --------------------------------------------------------------------------------

    def __rshift__(self, then: "Schedule") -> "Schedule":
        return _node("sequence", (self, then)) if isinstance(then, Schedule) else NotImplemented

    def __mul__(self, by: "Schedule | float") -> "Schedule":
        if isinstance(by, Schedule):
            return _node("product", (self, by))
        if isinstance(by, bool) or not isinstance(by, float | int):
            return NotImplemented
        return _node("scaled", self, by)

    def __rmul__(self, by: float) -> "Schedule":
        return self * by

    def absolute(self, peak: float = 1.0) -> "Schedule":
        """Turn factors into values: `peak` times the factor, written as it is."""
        return _node("absolute", self, peak)

    def between(self, low: float, high: float = 1.0) -> "Schedule":
        """Map 0..1 linearly onto low..high: a floor as a ratio of the peak."""
        return _node("between", self, low, high)

    def clipped(self, low: float = 0.0, high: float | None = None) -> "Schedule":
        """Cut values off below `low` and above `high`."""
        return _node("clipped", self, low, high)

    def cut(self, over: float | str | Time = REST) -> "Schedule":
        """End after a length: `Step("30ep").cut("60ep") >> ...`."""
        return _node("cut", self, over)

    def held(self, every: float | str | Time) -> "Schedule":
        """Change only every so often: `held("1ep")` is what stepping once per epoch means."""
        return _node("held", self, every)

    def stretched(self, by: float) -> "Schedule":
        """Run `by` times as long."""
        return _node("stretched", self, by)

    def shifted(self, by: float | str | Time) -> "Schedule":
        """Run `by` later (earlier if negative)."""
        return _node("shifted", self, by)

    def repeated(
        self,
        every: float | str | Time | None = None,
        *,
        times: int | None = None,
        growth: float = 1.0,
        factor: float = 1.0,
    ) -> "Schedule":
        """Start again and again: see `Repeated`."""
        return _node("repeated", self, every, times, growth, factor)

    # Showing ------------------------------------------------------------------------------------

    def __repr__(self) -> str:
        return code(self)

    # One for all families: what dataclasses would write for each takes most of the import.
    def __setattr__(self, name: str, value: object) -> None:
        if hasattr(self, "_prepared"):  # which construction sets last
            raise dataclasses.FrozenInstanceError(f"a schedule is frozen: make another {name!r}")
        object.__setattr__(self, name, value)

    def __delattr__(self, name: str) -> None:
        raise dataclasses.FrozenInstanceError(f"a schedule is frozen: {name!r} stays")

    def __eq__(self, other: object) -> bool:
        return type(self) is type(other) and _values(self) == _values(other)

    def __hash__(self) -> int:
        return hash((type(self), *_values(self)))

    def sketch(self, total: float | None = None, *, width: int = 60, height: int = 10) -> str:
        """Draw the curve as text, over `total` steps (default: its duration)."""
        from stepsize.sketch import text  # noqa: PLC0415 (drawing only when asked for)

        return text([("", self)], total, width=width, height=height)

    def _repr_svg_(self) -> str:
        from stepsize.sketch import svg  # noqa: PLC0415 (drawing only when asked for)

        return svg([("", self)])


Family = TypeVar("Family", bound=type[Schedule])

REGISTRY: Final[dict[str, type[Schedule]]] = {}
"""Every known family by its kind."""


@dataclass_transform(frozen_default=True)
def schedule(cls: Family) -> Family:
    """Make a class a family of schedules: a frozen dataclass, checked, registered by its `kind`.

    Raises `SpecError` where another class has the kind already.
    """
    make = dataclasses.dataclass(slots=True, repr=False, eq=False, match_args=False)
    made = make(cls)  # frozen and comparable by what Schedule says
    register(made, REGISTRY)
    type.__setattr__(made, "_rules", rules_of(made))  # the decorator completes the class
    return cast("Family", made)


def register(made: type[Any], registry: dict[str, Any]) -> None:
    """Enter a class in a registry by its `kind`; `SpecError` where it has none, or another's."""
    kind = getattr(made, "kind", None)
    if not isinstance(kind, str) or not kind:
        raise SpecError(f"{made.__name__} needs a `kind`: its name in files, a plain word")
    known = registry.get(kind)
    if known is not None and (known.__module__, known.__qualname__) != (
        made.__module__,
        made.__qualname__,
    ):
        raise SpecError(
            f"the kind {kind!r} of {made.__qualname__} is taken by {known.__qualname__}"
        )
    registry[kind] = made


def _node(kind: str, *fields: object) -> Schedule:
    make: Callable[..., Schedule] = REGISTRY[kind]
    return make(*fields)


def _values(node: object) -> list[Any]:
    return [getattr(node, name) for name, field in node.__dataclass_fields__.items() if field.init]  # type: ignore[attr-defined]  # every family is a dataclass


def fields_of(node: Schedule) -> dict[str, Any]:
    """Give the fields that a constructor takes, in order, with their values."""
    return {f.name: getattr(node, f.name) for f in dataclasses.fields(node) if f.init}  # type: ignore[arg-type]  # every family is a dataclass


def changed_fields(node: Schedule) -> dict[str, Any]:
    """Give the fields whose values are not the defaults."""
    defaults = {f.name: f.default for f in dataclasses.fields(node)}  # type: ignore[arg-type]  # every family is a dataclass
    return {
        name: value
        for name, value in fields_of(node).items()
        if value != _stored(type(node), name, defaults[name])
    }


def _stored(cls: type[Schedule], name: str, default: Any) -> Any:
    """Give a default in the form it is stored in ("rest" is stored as a `Time`)."""
    rule = cls._rules.get(name)  # type: ignore[attr-defined]  # set by @schedule
    if rule is None or default is None or default is dataclasses.MISSING:
        return default
    return rule[0].admit(name, default)


def code(value: Any) -> str:
    """Write a field's value, or a whole schedule, as the Python expression that makes it."""
    if isinstance(value, Schedule):
        return value._code() if hasattr(value, "_code") else _call(value)  # noqa: SLF001 (one protocol)
    if isinstance(value, Time):
        return repr(str(value))
    if isinstance(value, float) and not isinstance(value, bool):
        return number_text(value)
    if isinstance(value, tuple):
        return f"({', '.join(map(code, value))}{',' * (len(value) == 1)})"
    return getattr(value, "__qualname__", repr(value)) if callable(value) else repr(value)


def _call(node: Schedule) -> str:
    changed, positional = changed_fields(node), []
    for name in fields_of(node):
        if name not in changed:
            break
        positional.append(name)
    first = (
        positional[:2]
        if positional and isinstance(changed[positional[0]], Schedule)
        else positional[:1]
    )
    parts = [code(changed[n]) if n in first else f"{n}={code(changed[n])}" for n in changed]
    return f"{type(node).__name__}({', '.join(parts)})"
