"""The lint itself: what a careful colleague would point out, with the cure.

Each rule is one function that looks at one scheduled value over the run. A rule that cannot be sure
keeps quiet: the recipes of this library over a fitting run have no finding.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from stepsize.drawing.series import listed
from stepsize.errors import FieldError, NoRoomError
from stepsize.lint import course, lengths
from stepsize.lint.subject import Finding, Found, Look
from stepsize.look.entries import Bases
from stepsize.look.preview import AXES, axis_unit
from stepsize.look.runs import given_horizon, run_of
from stepsize.look.scan import points_in
from stepsize.look.tracks import Run, Track
from stepsize.time import Horizon

if TYPE_CHECKING:
    from stepsize.schedules.schedule import Schedule

RULES: Mapping[str, Callable[[Look], Found]] = MappingProxyType(
    {
        "epochs-as-steps": lengths.epochs_as_steps,
        "under-a-step": lengths.under_a_step,
        "factor-is-rate": course.factor_is_rate,
        "zero-start": course.zero_start,
        "long-warmup": lengths.long_warmup,
        "cut-off": lengths.cut_off,
        "ends-early": lengths.ends_early,
        "jump": course.jump,
        "late-restart": course.late_restart,
        "freezes": course.freezes,
        "never-falls": course.never_falls,
        "momentum": course.momentum,
        "decays-all": course.decays_all,
    }
)
"""Every rule by its name; its docstring says what it finds."""
_LOOKED_AT = 100_000  # steps that are looked at one by one
# What one fault also causes: the consequence is not told beside the cause.
_CONSEQUENCES: Mapping[str, set[str]] = MappingProxyType(
    {
        "epochs-as-steps": {"long-warmup", "cut-off", "ends-early", "freezes", "never-falls"},
        "long-warmup": {"cut-off", "never-falls"},
        "under-a-step": {"zero-start"},
        "cut-off": {"never-falls"},
        "jump": {"late-restart"},
        "late-restart": {"never-falls"},
    }
)


def check(
    what: Any,
    horizon: Horizon | None = None,
    *,
    base: Bases = None,
    seconds_per_step: float | None = None,
    ignore: Iterable[str] = (),
) -> tuple[Finding, ...]:
    """Find what a careful colleague would point out about schedules over a run; empty if nothing.

    Args:
        what: a schedule, a plan, several by name, or a bound `Scheduler`.
        horizon: how long training is.
        base: what the factors multiply: a number for lr, or numbers by hyper-parameter.
        seconds_per_step: the rate between steps and wall-clock time, where both occur.
        ignore: names of rules to leave out.

    A scheduler that has been told to cool down has ended early on purpose.

    >>> from stepsize import Cosine, Horizon, Warmup, check
    >>> run = Horizon("90ep", batches_per_epoch=391)
    >>> for finding in check(Warmup(5) >> Cosine(85), run):
    ...     print(finding)
    error [epochs-as-steps]: Warmup(5) >> Cosine(85) counts steps, and is over after 90 of 35,190 \
steps, as many as there are epochs (90); if the numbers are epochs, write \
Warmup('5ep') >> Cosine('85ep'); if Warmup is in steps and Cosine fills the run, write \
Warmup(5) >> Cosine()
    """
    ignored = {ignore} if isinstance(ignore, str) else set(ignore)
    if unknown := sorted(ignored - RULES.keys()):
        raise FieldError.of("check: ignore", f"of {', '.join(RULES)}", unknown[0])
    if any(record.get("kind") == "cool_down" for record in getattr(what, "journal", ())):
        ignored.add("ends-early")
    given = given_horizon(what, horizon)
    short = tuple(_short_run(given)) if "epochs-as-steps" not in ignored else ()
    try:
        run = run_of(what, given, base=base, seconds_per_step=seconds_per_step)
    except NoRoomError as error:
        told, _, cure = str(error).partition(": ")
        return (*short, Finding("no-room", "error", "", "", told, cure))
    tracks = _distinct(run.tracks)
    return (*short, *(found for track in tracks for found in _findings(run, track, ignored)))


def _distinct(tracks: Iterable[Track]) -> Iterator[Track]:
    """One track for all groups with the same schedule, the highest: one fault is told once."""
    same: dict[tuple[str, Schedule], list[Track]] = {}
    for track in tracks:
        same.setdefault((track.key, track.schedule), []).append(track)
    for each in same.values():
        highest = max(each, key=lambda track: track.scale)
        yield replace(highest, name=listed([track.name for track in each if track.name], 3))


def _short_run(horizon: Horizon | None) -> Iterator[Finding]:
    if horizon is not None:
        for level, _, what, cure in lengths.short_run(horizon):
            yield Finding("epochs-as-steps", level, "", "", what, cure)


def _findings(run: Run, track: Track, ignored: set[str]) -> Iterator[Finding]:
    seen = [(time, track.scale * factor) for time, factor in points_in(run, track, _LOOKED_AT, 500)]
    peak = max(value for _, value in seen)
    look = Look(run, track, tuple(seen), peak, track.value(run.last))
    silent, unit = set(ignored), axis_unit(run, None)
    for name, rule in RULES.items():
        if name in silent:
            continue
        for level, time, what, cure in rule(look):
            silent |= _CONSEQUENCES.get(name, set())
            where = "" if time is None else look.moment(time)
            at = None if time is None else run.to(unit, time)
            yield Finding(name, level, track.title, where, what, cure, at, AXES[unit])
