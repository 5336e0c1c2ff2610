"""How long training is, with the rates between the units of time."""

import math
from bisect import bisect_right
from dataclasses import KW_ONLY, dataclass, field, fields
from typing import TYPE_CHECKING, Any, Literal

from stepsize.errors import FieldError, UnitError
from stepsize.schedules.fields import Bounds, LengthRule
from stepsize.schedules.schedule import Schedule
from stepsize.units import SECONDS, Time, plain

if TYPE_CHECKING:
    from fractions import Fraction

_KEYS = ("batches_per_epoch", "samples_per_epoch", "tokens_per_sample", "accumulate", "replicas")
_NEEDED = {
    "steps_per_epoch": "batches_per_epoch=",
    "samples": "batch_size=",
    "tok": "tokens_per_sample=",
}


@dataclass(frozen=True, slots=True, repr=False)
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
        open_end: with no total: the end will be announced later, and a part that stays at one
            value and takes the "rest" goes on until then.
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
    open_end: bool = False
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
        if not isinstance(self.open_end, bool) or (self.open_end and self.total is not None):
            cure = "leave the total out: it is announced by extend()"
            raise FieldError.of("Horizon.open_end", "a flag of a horizon without total", self, cure)
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

    def __repr__(self) -> str:
        shown = [] if self.total is None else [repr(_written(self.total))]
        for each in fields(self):
            value = getattr(self, each.name)
            if each.init and each.name != "total" and value != each.default:
                shown.append(f"{each.name}={value!r}")
        return f"Horizon({', '.join(shown)})"

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

    @classmethod
    def from_lightning(cls, trainer: Any, **fields: Any) -> "Horizon":
        """Read the length of a run off a Lightning trainer: see `horizon_from_lightning`."""
        from stepsize.frameworks import horizon_from_lightning  # noqa: PLC0415 (only forwards)

        return horizon_from_lightning(trainer, **fields)

    @classmethod
    def from_training_args(cls, args: Any, dataset: Any = None, **fields: Any) -> "Horizon":
        """Read it off transformers' TrainingArguments: see `horizon_from_training_args`."""
        from stepsize.frameworks import horizon_from_training_args  # noqa: PLC0415 (only forwards)

        return horizon_from_training_args(args, dataset, **fields)

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
        return math.ceil(self.step_at(*amount_of(self.total)))

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
        from stepsize.time import resolve  # noqa: PLC0415 (a method that only forwards)

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


def _written(total: float | str | Time) -> float | int | str:
    if isinstance(total, Time):
        return str(total)
    return int(total) if isinstance(total, float) and total == int(total) else total


def _times(amount: float, rate: "Fraction") -> float:
    return amount * rate.numerator / rate.denominator


def _missing(what: str, unit: str, other: str, need: str) -> str:
    return f"{what} cannot be converted ('{unit}' to {other}): give Horizon({_NEEDED[need]}...)"


def amount_of(total: float | str | Time) -> tuple[float, str]:
    """Give a length as a number and its unit, wall-clock time in seconds."""
    if isinstance(total, Time):
        if total.unit in SECONDS:
            return total.amount * SECONDS[total.unit], "s"
        return total.amount, total.unit
    return plain(total), "st"
