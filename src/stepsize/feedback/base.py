"""What a controller is: a frozen value that turns what was seen into a factor, and its registry."""

import abc
import dataclasses
import sys
from collections.abc import Mapping
from typing import Any, ClassVar, Final, NamedTuple, TypeVar, cast, dataclass_transform

from stepsize.edits.kinds import Edit
from stepsize.errors import FieldError, UnitError
from stepsize.feedback.rules import Keys, Moment, RatioFloor, Sees, ValueFloor
from stepsize.schedules.fields import Rule, rules_of
from stepsize.schedules.schedule import code, register

State = dict[str, Any]
"""What a controller remembers: None, bool, int, float, str and lists of them, by name."""
_SMALLEST: Final = sys.float_info.min  # a factor that underflows to 0 could never rise again


@dataclasses.dataclass(frozen=True, slots=True)
class Seen:
    """What a controller is shown: the position in optimizer steps, and what was measured there."""

    t: float
    metric: float | None = None
    loss: float | None = None
    grad_norm: float | None = None


class Update(NamedTuple):
    """What a controller answers.

    `factor` multiplies the schedule's value from now on, `edit` is a change of plan for the binding
    to carry out, and `note` says why, where there is something to say.
    """

    factor: float
    state: State
    edit: Edit | None = None
    note: str = ""


@dataclasses.dataclass(frozen=True, slots=True, repr=False, kw_only=True, weakref_slot=True)
class Controller(abc.ABC):
    """A pure reaction to what is seen, as a value: comparable, hashable, printed as code.

    `state = init()`, then `factor, state, edit, note = update(state, seen)` at each observation.
    A state is plain data that goes through JSON unchanged, and none is ever mutated.

    A kind is one class: subclass, decorate with `@controller`, state the fields, `kind`, what
    `init` adds to `{"factor": 1.0}`, and `_react`.

    Args:
        sees: whether it looks at the "metric" of an evaluation or at the training "loss".
        after: it sees nothing before this moment ("5%": after the warmup).
        until: nor from this moment on; its factor stays.
        keys: the hyper-parameters that the factor multiplies.
        floor: the factor is never below this; by group, a group that is not named has the lowest.
        floor_value: what is written is never below this, but never above what the schedule says.
    """

    kind: ClassVar[str]
    _rules: ClassVar[dict[str, tuple[Rule, bool]]]
    sees: Sees = "metric"
    after: Moment = 0.0
    until: Moment | None = None
    keys: Keys = ("lr",)
    floor: RatioFloor = dataclasses.field(default=0.0, hash=False)  # a mapping has no hash
    floor_value: ValueFloor = dataclasses.field(default=0.0, hash=False)

    def __post_init__(self) -> None:
        for name, (rule, optional) in self._rules.items():
            given = getattr(self, name)
            if given is not None or not optional:
                self._set(name, rule.admit(f"{type(self).__name__}.{name}", given))
        after, until = self.after, self.until
        if isinstance(after, float) and isinstance(until, float) and until <= after:
            field = f"{type(self).__name__}.until"
            raise FieldError.of(field, f"later than after ({after:g})", until)
        self._check()

    def _set(self, name: str, value: object) -> None:
        object.__setattr__(self, name, value)

    def _check(self) -> None:
        """Raise `FieldError` for fields that are each right and wrong together."""

    def init(self) -> State:
        """Give the state before anything was seen."""
        return {"factor": 1.0}

    def update(self, state: State, seen: Seen) -> Update:
        """Give the factor from now on, and the state to come back with.

        Raises `UnitError` where `after` or `until` still needs a horizon.
        """
        value: float | None = getattr(seen, self.sees)
        if value is None or not self._watches(seen.t):
            return Update(state["factor"], dict(state))
        made = self._react(dict(state), float(value))
        factor = max(made.factor, self.lowest, _SMALLEST)
        told = factor != state["factor"] or made.edit is not None
        new = {**made.state, "factor": factor}
        return Update(factor, new, made.edit, made.note if told else "")

    @abc.abstractmethod
    def _react(self, state: State, value: float) -> Update:
        """Answer one observation within its time; `state` is a copy."""

    @property
    def lowest(self) -> float:
        """The lowest factor that any group has."""
        floor = self.floor
        return min(floor.values()) if isinstance(floor, Mapping) else floor

    def _watches(self, t: float) -> bool:
        return self._moment("after") <= t and (self.until is None or t < self._moment("until"))

    def _moment(self, name: str) -> float:
        moment = getattr(self, name)
        if isinstance(moment, float):
            return moment
        field = f"{type(self).__name__}.{name}"
        cure = f"the scheduler resolves it; alone, dataclasses.replace(controller, {name}=500)"
        raise UnitError(f"{field} is '{moment}', which needs a horizon to become steps: {cure}")

    def __repr__(self) -> str:
        told = ", ".join(f"{name}={code(value)}" for name, value in changed_fields(self).items())
        return f"{type(self).__name__}({told})"


Kind = TypeVar("Kind", bound=type[Controller])

CONTROLLERS: Final[dict[str, type[Controller]]] = {}
"""Every known controller by its kind."""


@dataclass_transform(
    frozen_default=True, kw_only_default=True, field_specifiers=(dataclasses.field,)
)
def controller(cls: Kind) -> Kind:
    """Make a class a controller: a frozen dataclass, checked, registered by its `kind`.

    Raises `SpecError` where another class has the kind already.
    """
    made = fielded(cls)
    register(made, CONTROLLERS)
    return made


@dataclass_transform(
    frozen_default=True, kw_only_default=True, field_specifiers=(dataclasses.field,)
)
def fielded(cls: Kind) -> Kind:
    """Give a class its fields and their rules: all that a base of several controllers needs."""
    make = dataclasses.dataclass(frozen=True, slots=True, repr=False, kw_only=True)
    made = make(cls)
    rules: dict[str, tuple[Rule, bool]] = {}
    for each in reversed(made.__mro__):
        if issubclass(each, Controller):
            rules |= rules_of(each)
    type.__setattr__(made, "_rules", rules)  # the decorator completes the class
    return cast("Kind", made)


def changed_fields(made: Controller) -> dict[str, Any]:
    """Give the fields whose values are not the defaults, a controller's own first."""
    names = sorted(dataclasses.fields(made), key=lambda field: field.name in _COMMON)
    values = {field.name: (getattr(made, field.name), field.default) for field in names}
    return {name: value for name, (value, default) in values.items() if value != default}


_COMMON: Final = frozenset(field.name for field in dataclasses.fields(Controller))
