"""Rules about lengths: the schedule and the run must mean the same time."""

import math
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from stepsize.drawing.series import Point, spoken
from stepsize.lint.subject import Found, Look
from stepsize.look.structure import placed
from stepsize.schedules.decays import MultiStep, Step
from stepsize.schedules.fields import LengthRule, MomentsRule, TableRule
from stepsize.schedules.ramps import Ramp
from stepsize.schedules.schedule import Schedule, fields_of
from stepsize.schedules.tables import Piecewise
from stepsize.schedules.walk import children_of, nodes, rebuilt, units_of
from stepsize.schedules.warmup import Constant, Warmup
from stepsize.time import Horizon
from stepsize.units import REST, Time, number_text, plain

_MOST_EPOCHS = 1000  # a number of steps that could be meant as one of epochs
_STAIRCASES = (MultiStep, Piecewise, Step)


def epochs_as_steps(look: Look) -> Found:
    """Epochs are counted as steps: a number without a unit counts steps."""
    epochs, tree = look.epochs, look.track.schedule
    if epochs is None:
        return
    longest = _over_after(tree)
    if not 0.0 < longest <= epochs + 1.0:
        return
    same = abs(longest - epochs) <= 1.0
    if not same and look.last >= 0.5 * look.peak:
        return  # a warmup, and then what the user wants
    count = "as many as there are epochs" if same else "fewer than there are epochs"
    over = f"after {spoken(longest)} of {spoken(look.total)} steps"
    what = f"{tree!r} counts steps, and is over {over}, {count} ({spoken(epochs)})"
    yield "error" if same else "warning", None, what, _in_epochs(tree)


def short_run(horizon: Horizon) -> Found:
    """A run in steps that is shorter than an epoch, and whose number may be one of epochs."""
    if horizon.batches_per_epoch is None or not isinstance(horizon.total, float):
        return
    epoch = float(horizon.steps_per_epoch)
    if horizon.total < epoch and horizon.total <= _MOST_EPOCHS:
        total = number_text(horizon.total)
        what = f"the run of {total} steps is shorter than one epoch of {spoken(epoch)}"
        yield "warning", None, what, f'if {total} counts epochs, write "{total}ep" for the total'


def _over_after(tree: Schedule) -> float:
    """When what is written in plain numbers changes for the last time; 0 if that is not said."""
    if not units_of(tree) and tree.duration < math.inf:
        return tree.duration
    if not units_of(tree) and any(map(_goes_on, nodes(tree))):
        return 0.0
    found: list[float] = []
    for node in nodes(tree):
        if isinstance(node, _STAIRCASES) and not units_of(node):
            _over_lengths(node, lambda length: found.append(length) or length)  # type: ignore[func-returns-value]  # collects
    return max(found, default=0.0)


def _goes_on(node: Schedule) -> bool:
    """Cycles, which may be as short as they like, and decays that no length ends."""
    endless = node.duration == math.inf and not isinstance(node, _STAIRCASES)
    return node._own_time or (endless and not list(children_of(node)))  # noqa: SLF001 (a walk is a friend)


def _over_lengths(node: Schedule, change: Callable[[Any], Any]) -> Schedule:
    """Give a node with every length of its own changed."""
    rules: dict[str, tuple[Any, bool]] = type(node)._rules  # type: ignore[attr-defined]  # noqa: SLF001 (set by @schedule)

    def field(name: str, value: Any) -> Any:
        rule = rules[name][0] if name in rules else None
        if isinstance(rule, LengthRule) and isinstance(value, float):
            return change(value)
        if isinstance(rule, MomentsRule):
            return tuple(map(change, value))
        if isinstance(rule, TableRule):
            return tuple((change(moment), level) for moment, level in value)
        return value

    return rebuilt(node, field)


def with_unit(tree: Schedule, unit: str) -> Schedule:
    """Give a schedule in plain numbers with every length in a unit.

    >>> with_unit(Warmup(5) * MultiStep((30, 60)), "ep")
    Warmup('5ep') * MultiStep(('30ep', '60ep'))
    """

    def child(_: str, value: Any) -> Any:
        if isinstance(value, Schedule):
            return with_unit(value, unit)
        if isinstance(value, tuple):
            return tuple(with_unit(v, unit) if isinstance(v, Schedule) else v for v in value)
        return value

    def change(length: Any) -> Any:
        return Time(length, unit) if isinstance(length, float) else length

    return rebuilt(_over_lengths(tree, change), child)


def _in_epochs(tree: Schedule) -> str:
    """Write the cure as code: all in epochs, or the first parts in steps and then the rest."""
    cure = f"if the numbers are epochs, write {with_unit(tree, 'ep')!r}"
    parts = getattr(tree, "parts", ())
    started = all(isinstance(part, Warmup | Constant) for part in parts[:-1])
    if parts and started and "over" in fields_of(parts[-1]):
        last = rebuilt(parts[-1], lambda name, value: REST if name == "over" else value)
        mixed = rebuilt(tree, lambda name, v: (*parts[:-1], last) if name == "parts" else v)
        early = " and ".join(type(part).__name__ for part in parts[:-1])
        cure += f"; if {early} is in steps and {type(last).__name__} fills the run, write {mixed!r}"
    return cure


def under_a_step(look: Look) -> Found:
    """A part lasts less than one step: a share of the run is written as a percentage."""
    for node in nodes(look.track.schedule):
        over = fields_of(node).get("over")
        if isinstance(over, float) and 0.0 < over < 1.0:
            share = rebuilt(node, lambda name, v: Time(100.0 * v, "%") if name == "over" else v)
            what = f"{node!r} lasts less than one step"
            yield "error", None, what, f"if it is a share of the run, write {share!r}"


def long_warmup(look: Look) -> Found:
    """The warmup takes the whole run, or most of it."""
    if not look.is_rate:
        return
    for begin, node in placed(look.track.resolved):
        end = 0.0
        if isinstance(node, Warmup) or (not begin and _rises(node)):
            end = look.run.time_at(begin + node.duration, look.track.unit)
        if end >= look.total:
            what = f"the warmup lasts {look.length(end)}, the run {look.length(look.total)}"
            yield "error", 0.0, what, 'write it as a share of the run: Warmup("5%")'
        elif end > 0.5 * look.total:
            what = f"the warmup takes {100 * end / look.total:.3g} % of the run"
            yield "warning", end, what, 'a few percent are usual: Warmup("5%")'


def _rises(node: Schedule) -> bool:
    return isinstance(node, Ramp) and node.start < node.stop


def cut_off(look: Look) -> Found:
    """The run ends before the schedule does, or before one of its changes."""
    ends, last = look.track.ends, look.last
    slack = max(1.0, 1e-3 * look.total) if look.run.whole else 1e-3 * look.total
    final = look.track.value(ends) if ends < math.inf else last
    if look.total + slack < ends < math.inf and abs(final - last) > 0.01 * look.peak:
        what = (
            f"the schedule of {look.length(ends)} is cut off after {100 * look.total / ends:.3g} % "
            f"of it, at {spoken(last)} instead of {spoken(final)}"
        )
        cure = 'fit it to the run: leave the last length out, or write "rest" or a share: "20%"'
        yield "warning", look.run.last, what, cure
    for time, change in _moments(look):
        if time > look.total:
            what = f"the change at {look.length(time)} comes after the end of the run"
            yield "warning", look.run.last, what, f"move it or leave it out ({change})"


def _moments(look: Look) -> Iterator[tuple[float, str]]:
    """The moments of tables in the run's time, and what they set."""
    for begin, node in placed(look.track.resolved):
        rows: Iterable[Point] = ()
        if isinstance(node, MultiStep):
            rows = [(plain(moment), node.factor) for moment in node.at]
        elif isinstance(node, Piecewise):
            rows = node.points  # type: ignore[assignment]  # stored as pairs
        for moment, value in rows:
            sign = "factor " if isinstance(node, MultiStep) else "value "
            yield look.run.time_at(begin + moment, look.track.unit), f"{sign}{spoken(value)}"


def ends_early(look: Look) -> Found:
    """The schedule is over long before the run: what is left trains at its last value."""
    ends, last = look.track.ends, look.last
    if not look.is_rate or last >= 0.5 * look.peak:
        return
    if last == 0.0:  # also where a constant 0 fills the run
        moving = [time for time, value in look.points if value > 0.0]
        ends = min(ends, moving[-1] + look.run.whole)
    idle = look.total - ends
    few = max(1.0, 0.01 * look.total) if last == 0.0 else 0.25 * look.total
    if idle <= few:
        return
    what = (
        f"the schedule is over, and the last {look.length(idle)} of the run "
        f"({100 * idle / look.total:.3g} %) train at {spoken(last)}"
    )
    cure = 'let it fill the run: leave the last length out, or write "rest"'
    yield "error" if last == 0.0 else "warning", ends, what, cure
