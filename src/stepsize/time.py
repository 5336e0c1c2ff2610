"""How long training is, and what a length written in epochs, tokens or percent means in it."""

import math
from bisect import bisect_right
from collections.abc import Callable
from dataclasses import KW_ONLY, dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from stepsize.errors import FieldError, UnitError
from stepsize.schedules.fields import Bounds, LengthRule
from stepsize.schedules.schedule import Schedule
from stepsize.schedules.walk import (
    fitted,
    leaves_rest,
    on_whole_steps,
    quantized,
    settled,
    units_of,
)
from stepsize.units import SECONDS, Time, plain

if TYPE_CHECKING:
    from fractions import Fraction

    from stepsize.schedules.plan import Plan

__all__ = ["Horizon", "Time", "driving_unit", "resolve", "stepwise"]

_KEYS = ("batches_per_epoch", "samples_per_epoch", "tokens_per_sample", "accumulate", "replicas")
_NEEDED = {
    "steps_per_epoch": "batches_per_epoch=",
    "samples": "batch_size=",
    "tok": "tokens_per_sample=",
}


@dataclass(frozen=True, slots=True)
class Horizon:
    """How long training is, with the rates between units.

    Args:
        total: the length of the run: steps, or a text such as "90ep" or "2e9tok"; None: unknown.
        batches_per_epoch: batches that one replica's loader gives in an epoch.
        batch_size: samples per batch of one replica, or a schedule of them (a batch-size ramp).
        tokens_per_sample: the sequence length.
        samples_per_epoch: samples of all replicas together; needed only for epochs under a
            batch-size ramp, where batches per epoch are no constant.
        accumulate: batches per optimizer step.
        replicas: data-parallel replicas.
        last: what the batches left over at the end of an epoch do: "step" (a smaller optimizer
            step, as Lightning, Accelerate and transformers do), "drop", or "carry" into the next.

    The global batch, samples per optimizer step, is `batch_size * accumulate * replicas`; a smaller
    step at the end of an epoch counts as a whole one.

    >>> Horizon("90ep", batches_per_epoch=391).steps
    35190
    >>> Horizon("2e9tok", batch_size=256, tokens_per_sample=2048).steps
    3815
    """

    total: float | str | Time | None = None
    _: KW_ONLY
    batches_per_epoch: int | None = None
    batch_size: int | Schedule | None = None
    tokens_per_sample: int | None = None
    samples_per_epoch: int | None = None
    accumulate: int = 1
    replicas: int = 1
    last: Literal["step", "drop", "carry"] = "step"
    _runs: "tuple[tuple[int, int, int], ...]" = field(
        default=(), init=False, repr=False, compare=False
    )

    def __post_init__(self) -> None:
        whole = Bounds(ge=1, whole=True)
        for key in _KEYS:
            given = getattr(self, key)
            if given is not None:
                object.__setattr__(self, key, whole.admit(f"Horizon.{key}", given))
        if self.last not in ("step", "drop", "carry"):
            raise FieldError.of("Horizon.last", "'step', 'drop' or 'carry'", self.last)
        if self.total is not None:
            total = LengthRule(zero=True).admit("Horizon.total", self.total)
            if not (total.amount if isinstance(total, Time) else total):
                raise FieldError.of("Horizon.total", "a length > 0", self.total)
            if isinstance(total, Time) and total.unit in ("%", "rest"):
                cure = "give steps, epochs, samples, tokens or hours"
                raise FieldError.of("Horizon.total", "a length that stands alone", self.total, cure)
            object.__setattr__(self, "total", total)
        if isinstance(self.batch_size, Schedule):
            from stepsize.batch_ramp import batch_runs  # noqa: PLC0415 (numpy, and only for ramps)

            object.__setattr__(self, "_runs", batch_runs(self))
        elif self.batch_size is not None:
            size = whole.admit("Horizon.batch_size", self.batch_size)
            object.__setattr__(self, "batch_size", size)
            object.__setattr__(self, "_runs", ((0, 0, int(size) * self.per_step),))

    @classmethod
    def from_loader(  # noqa: D417 (the other arguments are the fields)
        cls, loader: Any, *, epochs: float | None = None, **fields: Any
    ) -> "Horizon":
        """Read batches and batch size off a data loader.

        Args:
            loader: anything with a length; `batch_size` is read where it has one.
            epochs: the length of the run, unless `total=` is given.
        """
        try:
            batches = len(loader)
        except TypeError:
            raise UnitError(
                f"the loader {type(loader).__name__} has no length, so an epoch has none: "
                "give Horizon(total=...) in steps, samples or tokens"
            ) from None
        sampler = getattr(loader, "batch_sampler", None)
        size = getattr(loader, "batch_size", None) or getattr(sampler, "batch_size", None)
        if epochs is not None and "total" in fields:
            raise FieldError.of("Horizon.from_loader: epochs", "left out beside total=", epochs)
        if epochs is not None:
            number = Bounds(gt=0).admit("Horizon.from_loader: epochs", epochs)
            fields["total"] = Time(float(number), "ep")
        return cls(**{"batches_per_epoch": batches, "batch_size": size, **fields})

    @property
    def per_step(self) -> int:
        """Batches of one replica's size per optimizer step."""
        return self.accumulate * self.replicas

    @property
    def steps_per_epoch(self) -> "Fraction":
        """Optimizer steps per epoch; a true fraction only with `last="carry"`."""
        from fractions import Fraction  # noqa: PLC0415 (keeps the import of the library light)

        if self.batches_per_epoch is None:
            raise UnitError(_missing("an epoch", "ep", "steps", "steps_per_epoch"))
        exact = Fraction(self.batches_per_epoch, self.accumulate)
        if self.last == "carry":
            return exact
        steps = Fraction(math.floor(exact) if self.last == "drop" else math.ceil(exact))
        if not steps:
            raise UnitError(
                f"an epoch of {self.batches_per_epoch} batches has no optimizer step when "
                f"{self.accumulate} are accumulated and the rest dropped"
            )
        return steps

    @property
    def steps(self) -> int:
        """The total in optimizer steps, rounded up; `UnitError` where it is unknown."""
        if self.total is None:
            raise UnitError("the horizon has no total: give Horizon(total=...)")
        return math.ceil(self.step_at(*_amount(self.total)))

    def position(self, step: float, unit: str) -> float:
        """Convert a number of optimizer steps since the start to `st`, `samples`, `tok` or `ep`."""
        if unit == "st":
            return step
        if unit == "ep":
            if isinstance(self.batch_size, Schedule):
                return self.position(step, "samples") / self._epoch_samples()
            return float(step / self.steps_per_epoch)
        if unit not in ("samples", "tok"):
            raise UnitError(f"steps cannot be converted to '{unit}': no rate connects them")
        runs = self._known_runs(unit)
        first, samples, size = runs[max(bisect_right(runs, step, key=lambda r: r[0]) - 1, 0)]
        return (samples + (step - first) * size) * self._per_sample(unit)

    def step_at(self, amount: float, unit: str) -> float:
        """Convert an amount of `st`, `ep`, `samples` or `tok` to optimizer steps, a real number."""
        if unit == "st":
            return amount
        if unit == "ep" and not isinstance(self.batch_size, Schedule):
            return _times(amount, self.steps_per_epoch)
        if unit == "ep":
            return self.step_at(amount * self._epoch_samples(), "samples")
        if unit not in ("samples", "tok"):
            raise UnitError(
                f"a length in '{unit}' cannot be converted to optimizer steps: "
                "write the schedule and the horizon both in wall-clock time, or neither"
            )
        samples = amount / self._per_sample(unit)
        runs = self._known_runs(unit)
        first, start, size = runs[max(bisect_right(runs, samples, key=lambda r: r[1]) - 1, 0)]
        return first + (samples - start) / size

    def resolve(self, schedule: Schedule, *, reach: Literal["end", "last"] = "end") -> Schedule:
        """Give the schedule in plain numbers: see `resolve`."""
        return resolve(schedule, self, reach=reach)

    def _known_runs(self, unit: str) -> tuple[tuple[int, int, int], ...]:
        if not self._runs:
            raise UnitError(_missing(f"'{unit}'", unit, "steps", "samples"))
        return self._runs

    def _per_sample(self, unit: str) -> int:
        if unit == "samples":
            return 1
        if self.tokens_per_sample is None:
            raise UnitError(_missing("'tok'", "tok", "samples", "tok"))
        return self.tokens_per_sample

    def _epoch_samples(self) -> int:
        if self.samples_per_epoch is None:
            raise UnitError(
                "an epoch has no fixed number of steps under a batch-size ramp: "
                "give Horizon(samples_per_epoch=...)"
            )
        return self.samples_per_epoch


def _times(amount: float, rate: "Fraction") -> float:
    return amount * rate.numerator / rate.denominator


def _missing(what: str, unit: str, other: str, need: str) -> str:
    return f"{what} cannot be converted ('{unit}' to {other}): give Horizon({_NEEDED[need]}...)"


def _amount(total: float | str | Time) -> tuple[float, str]:
    if isinstance(total, Time):
        if total.unit in SECONDS:
            return total.amount * SECONDS[total.unit], "s"
        return total.amount, total.unit
    return plain(total), "st"


def driving_unit(schedule: "Schedule | Plan", horizon: "Horizon | None" = None) -> str:
    """Give the unit whose passing moves a schedule: `st`, `samples`, `tok` or `s`.

    It is the unit the schedule is written in: a cosine over tokens is another curve than one over
    steps as soon as the batch size changes. One that is written in shares of the horizon alone is
    moved by wall-clock time where the horizon is so long.

    >>> from stepsize import Cosine, Horizon, Warmup
    >>> driving_unit(Warmup("5%") >> Cosine()), driving_unit(Warmup("1e6 tok") >> Cosine())
    ('st', 'tok')
    >>> driving_unit(Warmup("5%") >> Cosine(), Horizon("12h"))
    's'
    """
    units = units_of(schedule) if isinstance(schedule, Schedule) else schedule.units
    for unit in ("tok", "samples"):
        if unit in units:
            return unit
    total = None if horizon is None else horizon.total
    timed = isinstance(total, Time) and total.unit in SECONDS
    shares = bool(units) and units <= {"%", "rest"}
    return "s" if units & SECONDS.keys() or (timed and shares) else "st"


@dataclass(frozen=True, slots=True)
class _HorizonClock:
    """Turns lengths into numbers of one driving unit, with what a horizon knows."""

    horizon: Horizon
    unit: str

    def number(self, time: float | Time, field: str, at: float) -> float:
        if isinstance(time, Time) and time.unit == "%":
            return self.total(field) * time.amount / 100.0
        amount, unit = _amount(time)
        if unit == self.unit:
            return amount
        try:
            return self._converted(amount, unit, at, period=field.endswith(".every"))
        except UnitError as error:
            raise UnitError(f"{field} = {time!s}: {error}") from None

    def _converted(self, amount: float, unit: str, at: float, *, period: bool) -> float:
        if self.unit == "s" or unit == "s":
            raise UnitError(
                f"'{unit}' and wall-clock time cannot be mixed: their rate is known only live"
            )
        if unit == "ep" and self.unit != "st" and self.horizon.samples_per_epoch is not None:
            samples = amount * self.horizon.samples_per_epoch
            return samples * self.horizon._per_sample(self.unit)  # noqa: SLF001 (its own clock)
        if not isinstance(self.horizon.batch_size, Schedule):  # rates are constant
            return self.horizon.position(self.horizon.step_at(amount, unit), self.unit)
        if period:
            raise UnitError(f"'{unit}' is no fixed length in '{self.unit}' under a batch-size ramp")
        began = self.horizon.step_at(at, self.unit)
        ended = began + amount
        if unit != "st":
            ended = self.horizon.step_at(self.horizon.position(began, unit) + amount, unit)
        return self.horizon.position(ended, self.unit) - at

    def total(self, field: str) -> float:
        if self.horizon.total is None:
            raise UnitError(
                f"{field} is a part of the horizon, which has no total: give Horizon(total=...)"
            )
        total = self.horizon.total
        written = total if isinstance(total, Time) else plain(total)
        return self.number(written, "Horizon.total", 0.0)

    @property
    def quantum(self) -> float:
        """One optimizer step, at the start."""
        return 1.0 if self.unit in ("st", "s") else self.horizon.position(1, self.unit)

    def rounded(self, position: float) -> float:
        if self.unit == "s" or position == 0.0:
            return position
        total = None if self.horizon.total is None else self.total("rest")
        if total is not None and math.isclose(position, total, rel_tol=1e-12):
            return self.horizon.position(self.horizon.steps, self.unit)
        step = math.floor(self.horizon.step_at(position, self.unit) + 0.5)
        return self.horizon.position(step, self.unit)


def resolve(
    schedule: Schedule, horizon: Horizon, *, reach: Literal["end", "last"] = "end"
) -> Schedule:
    """Give the schedule in plain numbers of its `driving_unit`, with all that a horizon knows.

    Boundaries between parts fall on whole steps (rounded half up, cumulatively). `schedule(t)`
    reaches its end at t = total, one step after the last: with `reach="last"` the whole is
    stretched so that the last of the N steps, t = N-1, sees the end.

    Raises `UnitError` for a unit that the horizon cannot convert, a rest of nothing, or a part of
    an unknown total.

    >>> from stepsize import Cosine, Warmup
    >>> resolve(Warmup("5%") >> Cosine(stop=0.1), Horizon("90ep", batches_per_epoch=391))
    Warmup(1760) >> Cosine(33430, stop=0.1)
    """
    if reach not in ("end", "last"):
        raise FieldError.of("reach", "'end' or 'last'", reach)
    if not isinstance(schedule, Schedule):
        raise FieldError.of(
            "schedule", "a schedule (a Plan resolves itself: plan.resolved(horizon))", schedule
        )
    clock = _HorizonClock(horizon, driving_unit(schedule, horizon))
    room = clock.total("rest") if horizon.total is not None else None
    if room is None and leaves_rest(schedule):
        clock.total('a "rest"')
    tree = settled(schedule, clock, room)
    if units_of(schedule):  # plain numbers mean what they say
        tree = on_whole_steps(tree, clock)
        if tree.duration < math.inf:
            tree = fitted(tree, max(clock.rounded(tree.duration), clock.quantum)) or tree
    if clock.quantum != 1.0:
        tree = quantized(tree, clock.quantum)
    if reach == "last":
        if horizon.steps == 1:
            raise UnitError('reach="last" needs at least 2 steps: the only one sees the start')
        total = clock.total('reach="last"')
        last = horizon.position(horizon.steps - 1, clock.unit)
        tree = tree.stretched(last / total)
    return tree


def stepwise(schedule: Schedule, horizon: Horizon | None) -> Callable[[float], float]:
    """Give the value as a function of optimizer steps, whatever the schedule is written in.

    >>> from stepsize import Linear
    >>> value = stepwise(Linear("1e6 samples"), Horizon(batch_size=100))
    >>> value(2500)
    0.75
    """
    if horizon is None:
        return schedule.compile()
    unit = driving_unit(schedule, horizon)
    value = resolve(schedule, horizon).compile()
    if unit == "st":
        return value
    return lambda step: value(horizon.position(step, unit))
