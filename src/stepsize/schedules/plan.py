"""Several hyper-parameters' schedules as one value."""

import keyword
from collections.abc import Iterator, Mapping
from typing import Any

from stepsize.errors import FieldError
from stepsize.schedules.schedule import Schedule, code
from stepsize.schedules.walk import units_of


class Plan(Mapping[str, Schedule]):
    """What `lr`, `momentum`, `weight_decay` and others do over training, as one value.

    A mapping from the hyper-parameter's name to its schedule: frozen, comparable, hashable, printed
    as code. Called with a time it gives all the values. Names are `lr`, `momentum`, `beta1`,
    `beta2`, `weight_decay` or any other key of a param group.

    >>> from stepsize import Constant, Linear
    >>> plan = Plan(lr=Linear(100), momentum=Linear(100, start=0.95, stop=0.85).absolute())
    >>> plan(50), plan["lr"]
    ({'lr': 0.5, 'momentum': 0.8999999999999999}, Linear(100))
    """

    __slots__ = ("_schedules",)

    def __init__(self, /, **schedules: Schedule) -> None:
        """Check that every value is a schedule.

        Raises:
            FieldError: for an empty plan or a value that is no schedule.
        """
        if not schedules:
            raise FieldError("Plan must have at least one schedule, such as Plan(lr=Cosine(1000))")
        for name, each in schedules.items():
            if not name.isidentifier() or keyword.iskeyword(name):
                raise FieldError.of("Plan: a name", "one that Python can write", name)
            if not isinstance(each, Schedule):
                cure = "a function is wrapped as Custom(function)"
                if isinstance(each, float | int):
                    cure = f"Constant(value={each!r}).absolute() sets a constant"
                raise FieldError.of(f"Plan.{name}", "a schedule", each, cure)
        object.__setattr__(self, "_schedules", dict(sorted(schedules.items())))

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError(f"a Plan is frozen: use plan.replaced({name}=...)")

    def __getitem__(self, name: str) -> Schedule:
        found: dict[str, Schedule] = object.__getattribute__(self, "_schedules")
        return found[name]

    def __iter__(self) -> Iterator[str]:
        found: dict[str, Schedule] = object.__getattribute__(self, "_schedules")
        return iter(found)

    def __len__(self) -> int:
        return len(list(iter(self)))

    def __hash__(self) -> int:
        return hash(tuple(self.items()))

    def __call__(self, t: Any, /) -> dict[str, Any]:
        """Give every hyper-parameter's value at time t."""
        return {name: each(t) for name, each in self.items()}

    def __repr__(self) -> str:
        return f"Plan({', '.join(f'{name}={code(each)}' for name, each in self.items())})"

    def __reduce__(self) -> tuple[Any, ...]:
        return (_plan, (dict(self),))

    @property
    def units(self) -> set[str]:
        """The units that the schedules are written in."""
        return set().union(*map(units_of, self.values()))

    def resolved(self, horizon: Any) -> "Plan":
        """Give the plan in plain numbers, each schedule in its own driving unit: see `resolve`."""
        return Plan(**{name: horizon.resolve(each) for name, each in self.items()})

    def replaced(self, **schedules: Schedule) -> "Plan":
        """Give the plan with some schedules replaced or added."""
        return Plan(**{**self, **schedules})

    def renamed(self, **names: str) -> "Plan":
        """Give the plan with new names: `plan.renamed(momentum="beta1")` for Adam."""
        for old, new in names.items():
            if old not in self:
                raise FieldError.of("Plan.renamed", f"of {', '.join(self)}", old)
            if new in self and new not in names:
                raise FieldError.of(f"Plan.renamed({old}=...)", "a name that is free", new)
        return Plan(**{names.get(name, name): each for name, each in self.items()})

    def sketch(self, total: float | None = None, *, width: int = 60, height: int = 8) -> str:
        """Draw every schedule as text, one below the other, over the same steps."""
        drawn = [
            f"{name}\n{s.sketch(total, width=width, height=height)}" for name, s in self.items()
        ]
        return "\n".join(drawn)

    def _repr_svg_(self) -> str:
        from stepsize.sketch import svg  # noqa: PLC0415 (drawing only when asked for)

        return svg(list(self.items()))


def _plan(schedules: dict[str, Schedule]) -> Plan:
    return Plan(**schedules)
