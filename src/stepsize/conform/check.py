"""The conformance test of a task: what stands on tasks relies on every rule here."""

import math
import pickle
from collections.abc import Iterable, Iterator, Mapping
from types import MappingProxyType
from typing import Any

from stepsize.conform.trial import Broken, Trial, differing, fault, parting
from stepsize.errors import FieldError, UnitError
from stepsize.lint.subject import Finding
from stepsize.schedules.fields import Bounds
from stepsize.schedules.names import nearest, shown
from stepsize.task import Metric, Task
from stepsize.time import Horizon

RULES: Mapping[str, str] = MappingProxyType(
    {
        "task": "It is no Task, its horizon no Horizon of a known length, its metric no Metric.",
        "run": "What build() gives lacks a method of a Run.",
        "raises": "A method raises an error.",
        "rates": "The optimizer has no param groups with a learning rate.",
        "loss": "step() gives no finite loss.",
        "metric": "evaluate() does not give the metric.",
        "same-seed": "Two runs of one seed differ.",
        "other-seed": "Runs of two seeds are the same.",
        "apart": "A run changes when another one trains beside it.",
        "evaluate": "evaluate() changes the training, or gives something else the second time.",
        "saving": "state_dict() changes the training, or cannot be pickled.",
        "resume": "A new run that loads a state does not go on as the one that was saved.",
        "rewind": "A run that loads an earlier state of its own does not go on from there.",
        "state-lives": "A state changes as the run it was taken from goes on.",
        "global-rng": "Random numbers are drawn from the process's own streams (a warning).",
    }
)
"""Every rule by its name, and what it finds."""
_SEVERAL = 8  # steps
_EPOCH = 64  # the most steps of an epoch of which a whole one is tried
_PAST = 3  # steps into the second one


def conformance(
    task: Task, *, steps: int | None = None, seed: int = 0, ignore: Iterable[str] = ()
) -> tuple[Finding, ...]:
    """Try a task and find what breaks the protocol; empty if nothing.

    Args:
        task: the task.
        steps: optimizer steps of each of the trainings it takes, a dozen; without it, three more
            than an epoch has where that is at most 64, else 8.
        seed: of the trainings; they use the next one, too.
        ignore: names of rules to leave out.

    Losses and evaluations are compared to the bit. One fault is told once: after a violation that
    others follow from, the test ends.

    >>> class Walk(Task):
    ...     horizon = Horizon(10)
    ...     def build(self, seed):
    ...         return None
    >>> for finding in conformance(Walk()):
    ...     print(finding)
    error [run]: build() gives a NoneType, which has no step; write step: see stepsize.task.Run
    """
    ignored = {ignore} if isinstance(ignore, str) else set(ignore)
    if unknown := sorted(ignored - RULES.keys()):
        cure = nearest(unknown[0], RULES)[2:]
        raise FieldError.of("conformance: ignore", f"of {', '.join(RULES)}", unknown[0], cure)
    found = tuple(_findings(task, steps, seed))
    return tuple(finding for finding in found if finding.rule not in ignored)


def _findings(task: Any, steps: int | None, seed: int) -> Iterator[Finding]:
    static = list(_declared(task))
    yield from static
    if static:
        return
    trial = Trial(task, task.metric.name)
    try:
        yield from _tried(trial, _length(task.horizon, steps), seed)
    except Broken as broken:
        yield broken.finding
    for call, names in trial.disturbed.items():
        what = f"{call}() moves {' and '.join(names)}, which the rest of the program draws from"
        cure = "draw within torch.random.fork_rng(), or from a generator of the run's own"
        yield fault("global-rng", what, cure, level="warning")


def _declared(task: Any) -> Iterator[Finding]:
    if not isinstance(task, Task):
        yield fault("task", f"{shown(task)} is no Task", "subclass stepsize.Task")
        return
    horizon, metric = getattr(task, "horizon", None), getattr(task, "metric", None)
    if not isinstance(horizon, Horizon):
        yield fault("task", f"horizon is {shown(horizon)}", "set horizon = Horizon(2000)")
    else:
        yield from _endless(horizon)
    if not isinstance(metric, Metric):
        yield fault("task", f"metric is {shown(metric)}", "set metric = Metric('loss', 'lower')")


def _endless(horizon: Horizon) -> Iterator[Finding]:
    try:
        horizon.steps  # noqa: B018 (it is asked whether it is known)
    except UnitError as error:
        yield fault("task", f"the horizon has no number of steps: {error}", "give it one")


def _length(horizon: Horizon, steps: int | None) -> tuple[int, list[int]]:
    """Give how many steps to try, and after which of them to save."""
    epoch = None if horizon.batches_per_epoch is None else math.floor(horizon.steps_per_epoch)
    if steps is None:
        several = epoch + _PAST if epoch is not None and epoch <= _EPOCH else _SEVERAL
        steps = max(min(max(several, _SEVERAL), horizon.steps), 2)
    count = int(Bounds(ge=2, whole=True).admit("conformance: steps", steps))
    moments = {count // 2, *([epoch] if epoch is not None and epoch < count else [])}
    return count, sorted(moments)


def _tried(trial: Trial, length: tuple[int, list[int]], seed: int) -> Iterator[Finding]:
    count, moments = length
    run = trial.build(seed)
    yield from _rates(run.optimizer)
    losses = trial.steps(run, 0, count)
    end = trial.evaluate(run, count)
    again = trial.steps(trial.build(seed), 0, count)
    if parted := parting(losses, again):
        cure = "draw all that is random from the seed; on a GPU, use deterministic algorithms"
        yield _two("same-seed", "two runs of one seed", parted, cure)
        return
    rest = [_beside(trial, losses, seed), _evaluated(trial, losses, seed)]
    rest += [_resumed(trial, losses, end, seed, moment) for moment in moments]
    for each in rest:
        found = list(each)
        yield from found
        if any(finding.rule != "other-seed" for finding in found):
            return


def _two(rule: str, who: str, parted: tuple[int, float, float], cure: str) -> Finding:
    step, one, other = parted
    return fault(rule, f"{who} give the losses {one!r} and {other!r}", cure, step)


def _rates(optimizer: Any) -> Iterator[Finding]:
    groups = getattr(optimizer, "param_groups", None)
    try:
        known = bool(groups) and all("lr" in group for group in groups or ())
    except TypeError:
        known = False
    if not known:
        what = f"the optimizer, a {type(optimizer).__name__}, has no param_groups with an 'lr' each"
        yield fault("rates", what, "give optimizer.param_groups = [{'lr': ...}]")


def _beside(trial: Trial, losses: list[float], seed: int) -> Iterator[Finding]:
    """Train two seeds in turns."""
    one, other = trial.build(seed), trial.build(seed + 1)
    taken = [(trial.step(one, i), trial.step(other, i)) for i in range(len(losses))]
    beside, others = map(list, zip(*taken, strict=True))
    if parted := parting(losses, beside):
        cure = "let runs share nothing that changes; draw from a generator of the run's own"
        yield _two("apart", "a run alone, and with another beside it,", parted, cure)
    elif others == losses:
        what = f"seeds {seed} and {seed + 1} give the same losses"
        cure = "let the seed choose the first weights and the order of the data"
        yield fault("other-seed", what, cure)


def _evaluated(trial: Trial, losses: list[float], seed: int) -> Iterator[Finding]:
    """Evaluate twice before every step."""
    run, taken = trial.build(seed), []
    for number in range(len(losses)):
        first, second = trial.evaluate(run, number), trial.evaluate(run, number)
        if told := differing(first, second):
            cure = "evaluate in eval mode, on the same samples"
            yield fault("evaluate", f"evaluated twice: {told}", cure, number)
            return
        taken.append(trial.step(run, number))
    if parted := parting(losses, taken):
        cure = "let evaluate() put back modes, buffers, iterators and random numbers"
        yield _two(
            "evaluate", "a run without, and with evaluate() before every step,", parted, cure
        )


def _resumed(
    trial: Trial, losses: list[float], end: dict[str, float], seed: int, moment: int
) -> Iterator[Finding]:
    """Save after some steps; go on in the same run, in a new one, and back in the first."""
    run, count = trial.build(seed), len(losses)
    trial.steps(run, 0, moment)
    state = trial.save(run, moment)
    try:
        packed = pickle.dumps(state)
    except Exception as error:  # noqa: BLE001 (whatever a user's object raises)
        what = f"the state cannot be pickled: {type(error).__name__}: {error}"
        yield fault("saving", what, "keep numbers, tensors, lists and dictionaries in it", moment)
        return
    if parted := parting(losses[moment:], trial.steps(run, moment, count), moment):
        cure = "let state_dict() only read"
        yield _two("saving", f"a run, and one saved after {moment} steps,", parted, cure)
        return
    for rule, goes_on, loaded, cure in (
        ("resume", trial.build(seed), pickle.loads(packed), _RESUME),  # noqa: S301 (packed above)
        ("rewind", run, pickle.loads(packed), "let load_state_dict() set all, also iterators"),  # noqa: S301
        ("state-lives", trial.build(seed), state, "let state_dict() give copies: copy.deepcopy"),
    ):
        trial.load(goes_on, loaded, moment)
        what = f"a run, and one that went on from a state saved after {moment} steps,"
        if parted := parting(losses[moment:], trial.steps(goes_on, moment, count), moment):
            yield _two(rule, what, parted, cure)
            return
        if told := differing(end, trial.evaluate(goes_on, count)):
            yield fault(rule, f"{what} evaluate differently: {told}", cure, count)
            return


_RESUME = (
    "save weights, buffers, optimizer, the position in the epoch, and random numbers that are no "
    "function of seed and step"
)
