"""Finding a rate for a user's own task, and trying whether the task keeps its promises."""

import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import click

from stepsize.cli import show
from stepsize.cli.options import JSON, Over
from stepsize.errors import SpecError, StepsizeError

if TYPE_CHECKING:
    from stepsize.finding.report import RangeTest
    from stepsize.lint.subject import Finding
    from stepsize.task import Task

NO_RATE = 1  # exit status where the curve holds no answer
STOPPED = 130  # and after Ctrl-C, as a shell has it
_PICTURES = (".png", ".svg", ".pdf")
_EVEN = 1.01  # differences that rounding made unequal
_RAMP = ("start", "stop", "steps", "repeats", "ramp", "seed")
_COLUMNS: Mapping[str, str] = MappingProxyType({"rate_column": "rate", "loss_column": "loss"})
OnStep = Callable[[int, int, float, float], None]


@click.command(
    name="range-test",
    epilog="SOURCE: a TASK.py with a Task in it, or a recorded curve, .csv or .json. "
    "Exit status: 0 a rate was found, 1 the curve holds none, 2 the question was wrong.",
)
@click.argument("source", metavar="SOURCE")
@click.option("--task", "task", help="The task's name in TASK.py; default: task.")
@click.option("--start", type=float, help="The first rate.")
@click.option("--stop", type=float, help="The last rate.")
@click.option("--steps", type=int, help="Steps from one to the other.")
@click.option("--repeats", type=int, help="How often, each with another seed.")
@click.option("--ramp", type=click.Choice(["geometric", "linear"]), help="How the rate rises.")
@click.option("--seed", type=int, help="The first seed.")
@click.option("--rate-column", help="Of a recorded curve: where its rates stand.")
@click.option("--loss-column", help="Likewise its losses.")
@click.option(
    "--output",
    multiple=True,
    metavar="FILE",
    help="Write a picture (.png, .svg, .pdf), the result (.json) or the curve (.csv); "
    "may be repeated.",
)
@click.option("--dark", is_flag=True, help="Make picture files dark.")
@click.option("--quiet", is_flag=True, help="Show no progress.")
@JSON
def find_rate(
    *,
    source: str,
    output: tuple[str, ...],
    dark: bool,
    quiet: bool,
    as_json: bool,
    **asked: Any,
) -> None:
    """Raise the rate from step to step, and say which one to train with."""
    _check_endings(output)
    given = {key: value for key, value in asked.items() if value is not None}
    if source.endswith(".py"):
        _refuse(source, given, _COLUMNS, "is no recorded curve")
        found = _measured(source, given.pop("task", "task"), given, quiet=quiet)
    else:
        _refuse(source, given, ("task", *_RAMP), "is no TASK.py")
        found = _recorded(source, {_COLUMNS[key]: value for key, value in given.items()})
    for path in output:
        _written(found, path, dark=dark)
    show.range_test(found, as_json=as_json)
    if found.suggestion.rate is None:
        raise click.exceptions.Exit(NO_RATE)


def _refuse(source: str, given: Iterable[str], options: Iterable[str], why: str) -> None:
    if wrong := [key for key in options if key in given]:
        option = f"--{wrong[0].replace('_', '-')}"
        raise SpecError(f"{source} {why}: leave {option} out")


def _check_endings(output: tuple[str, ...]) -> None:
    """Refuse before the test what could not be written after it."""
    for path in output:
        if Path(path).suffix not in (*_PICTURES, ".json", ".csv"):
            raise SpecError(f"{path}: an output ends in .png, .svg, .pdf, .json or .csv")
        if not Path(path).absolute().parent.is_dir():
            raise SpecError(f"{path}: there is no such folder")


def _measured(source: str, name: str, settings: dict[str, Any], *, quiet: bool) -> "RangeTest":
    from stepsize.task_file import (  # noqa: PLC0415 (a command loads what it needs)
        in_the_file,
        load_task,
    )

    task = load_task(source, name)
    try:
        from stepsize.torch.finder import REPEATS, STEPS, range_test  # noqa: PLC0415 (as above)
    except ModuleNotFoundError as error:
        if error.name != "torch":
            raise
        raise StepsizeError("a range test needs torch: pip install 'stepsize[torch]'") from None
    steps, repeats = settings.get("steps", STEPS), settings.get("repeats", REPEATS)
    with _told(steps, repeats, quiet=quiet) as on_step:
        found: RangeTest = in_the_file(source, range_test, task, on_step=on_step, **settings)
    return found


@contextmanager
def _told(steps: int, repeats: int, *, quiet: bool) -> Iterator[OnStep]:
    """Show on a terminal how far it is, and end without a traceback where it is interrupted."""
    seen: list[tuple[int, int]] = [(0, 0)]
    hidden = quiet or not sys.stderr.isatty()
    with click.progressbar(
        length=max(steps * repeats, 1),
        label="range test",
        file=sys.stderr,
        item_show_func=lambda shown: shown,
        hidden=hidden,
    ) as bar:

        def on_step(repeat: int, step: int, rate: float, loss: float) -> None:
            seen[0] = (repeat, step)
            done = repeat * steps + step + 1
            bar.update(done - bar.pos, f"rate {rate:.2g}, loss {loss:.3g}")

        try:
            yield on_step
        except KeyboardInterrupt:
            repeat, step = seen[0]
            place = f"step {step + 1} of {steps}, repeat {repeat + 1} of {repeats}"
            click.echo(
                f"{'' if hidden else chr(10)}stepsize: stopped at {place}; nothing was written",
                err=True,
            )
            raise click.exceptions.Exit(STOPPED) from None
        bar.update(bar.length - bar.pos if bar.length else 0)


def _recorded(source: str, columns: dict[str, str]) -> "RangeTest":
    from stepsize.finding.reading import read_curve  # noqa: PLC0415 (a command loads what it needs)
    from stepsize.finding.report import RangeTest  # noqa: PLC0415 (as above)

    if Path(source).suffix not in (".csv", ".json"):
        raise SpecError(f"{source}: give a TASK.py, or a recorded curve that ends in .csv or .json")
    try:
        curve = read_curve(source, **columns)
    except SpecError as error:
        raise SpecError(_in_options(str(error))) from None
    if source.endswith(".json") and '"curve"' in Path(source).read_text(encoding="utf-8"):
        return RangeTest.load(source)
    return RangeTest(curve, _ramp(curve.rates), len(curve.rates))


def _in_options(text: str) -> str:
    for option, name in _COLUMNS.items():
        text = text.replace(f"name it with {name}=,", f"name it with --{option.replace('_', '-')},")
    return text


def _ramp(rates: Sequence[float]) -> str:
    """Tell equal differences from equal ratios, for the axis of the picture."""
    between = [after - before for before, after in pairwise(rates)]
    even = bool(between) and max(between) < _EVEN * min(between)
    return "linear" if even else "geometric"


def _written(found: "RangeTest", path: str, *, dark: bool) -> None:
    ending = Path(path).suffix
    if ending in _PICTURES:
        show.picture_file(found, path, dark=dark)
        return
    if ending == ".json":
        found.save(path)
    else:
        from stepsize.finding.reading import write_curve  # noqa: PLC0415 (as above)

        write_curve(found.curve, path)
    click.echo(f"wrote {path}", err=True)


def check_tasks(
    sources: tuple[str, ...], over: Over, ignore: tuple[str, ...]
) -> "tuple[Finding, ...]":
    """Try the tasks in files: `TASK.py`, or `NAME=TASK.py` for one that has another name."""
    from stepsize.cli.sources import named_source  # noqa: PLC0415 (a command loads what it needs)
    from stepsize.conform.check import conformance  # noqa: PLC0415 (as above)

    if over.horizon is not None or any(value is not None for value in over.settings.values()):
        raise SpecError("a task has a horizon of its own: leave the options about the run out")
    named = [named_source(source) for source in sources]
    found = [(path, conformance(_task(path, name), ignore=ignore)) for name, path in named]
    if len(found) == 1:
        return found[0][1]
    return tuple(replace(each, title=path) for path, several in found for each in several)


def _task(path: str, name: str) -> "Task":
    from stepsize.task_file import load_task  # noqa: PLC0415 (a command loads what it needs)

    if not path.endswith(".py"):
        raise SpecError(f"{path} is no task: check schedules and tasks one after the other")
    return load_task(path, "task" if name == path else name)
