"""The commands: each reads sources and options, asks the library, and prints."""

import sys
from typing import Any

import click

from stepsize.cli import show
from stepsize.cli.edit import edit
from stepsize.cli.find import check_tasks, find_rate
from stepsize.cli.options import JSON, SOURCE, SOURCES, TRUST, UNIT, Over, over_a_run, pictured
from stepsize.cli.sources import length, named_source, needs_options, read, read_all
from stepsize.errors import SpecError, StepsizeError, UnitError

DIFFERS = 1  # exit status where something was found, as grep and diff have it
WRONG = 2  # and where the question was wrong


@click.group(
    epilog=f"{SOURCE} NAME=SOURCE names one of several.",
    context_settings={"help_option_names": ["-h", "--help"]},
    no_args_is_help=True,
)
@click.version_option(package_name="stepsize")
def app() -> None:
    """Look at learning-rate schedules before training, check them, compare and keep them."""


@app.command(epilog=SOURCE)
@SOURCES
@click.option("--log-x", is_flag=True, help="Show time by orders of magnitude.")
@click.option("--log-y", is_flag=True, help="Show values by orders of magnitude.")
@UNIT
@pictured
@JSON
@over_a_run
def plot(
    *, sources: tuple[str, ...], over: Over, unit: str, log_x: bool, log_y: bool, **shown: Any
) -> None:
    """Draw schedules, plans, or several to compare, as text or into files."""
    from stepsize.look.preview import preview  # noqa: PLC0415 (a command loads what it needs)

    scales = {"log_x": log_x, "log_y": log_y}
    what = read_all(sources, over.trust)
    show.picture(preview(what, over.horizon, unit=unit, **scales, **over.settings), **shown)


@app.command(epilog=SOURCE)
@SOURCES
@click.option("--every", help="Time between rows: 100, 1ep, 5%.")
@click.option("--rows", type=int, default=21, help="How many rows, without --every.")
@UNIT
@click.option("--csv", is_flag=True, help="Comma-separated, with every digit.")
@click.option("--golden", metavar="FILE", help="Compare with a file of values; status 1 if not.")
@click.option("--write", is_flag=True, help="Write that file.")
@click.option("--rtol", type=float, default=1e-9, help="How far a value may be off.")
@JSON
@over_a_run
def table(
    *,
    sources: tuple[str, ...],
    over: Over,
    golden: str | None,
    write: bool,
    rtol: float,
    every: str | None,
    rows: int,
    unit: str | None,
    csv: bool,
    as_json: bool,
) -> None:
    """Print the values of a run, or keep them in a golden file for tests."""
    what = read_all(sources, over.trust)
    if golden is not None:
        if csv or every or unit or as_json:
            raise SpecError("--golden holds steps of its own: leave --every, --unit and forms out")
        _golden(golden, what, over, write=write, rtol=rtol)
        return
    if write:
        raise SpecError("--write writes a golden file: give --golden FILE")
    from stepsize.look.values import table as values  # noqa: PLC0415 (a command loads what it needs)

    period = length(every)
    found = values(what, over.horizon, every=period, rows=rows, unit=unit, **over.settings)
    show.rows(found, csv=csv, as_json=as_json)


def _golden(path: str, what: object, over: Over, *, write: bool, rtol: float) -> None:
    from stepsize.look.golden import compare_golden, write_golden  # noqa: PLC0415 (as above)

    if write:
        write_golden(path, what, over.horizon, **over.settings)
        click.echo(f"wrote {path}")
        return
    found = compare_golden(path, what, over.horizon, rtol=rtol, **over.settings)
    for line in found:
        click.echo(line)
    if found:
        raise click.exceptions.Exit(DIFFERS)
    click.echo(f"the same values as {path}")


@app.command(epilog=SOURCE)
@SOURCES
@click.option("--ignore", multiple=True, help="Leave out a rule; may be repeated.")
@click.option(
    "--fail-on",
    type=click.Choice(["warning", "error", "never"]),
    default="warning",
    help="What makes the exit status 1.",
)
@click.option("--rules", is_flag=True, is_eager=True, callback=show.rules, help="List the rules.")
@JSON
@over_a_run
def check(
    *,
    sources: tuple[str, ...],
    over: Over,
    ignore: tuple[str, ...],
    fail_on: str,
    as_json: bool,
    rules: None,
) -> None:
    """Point out what a careful colleague would, each with its cure; of a TASK.py, try the task."""
    del rules  # its callback has printed them
    if any(source.endswith(".py") for source in sources):
        found = check_tasks(sources, over, ignore)
    else:
        from stepsize.lint.check import check as lint  # noqa: PLC0415 (as above)

        found = lint(read_all(sources, over.trust), over.horizon, ignore=ignore, **over.settings)
    show.findings(found, as_json=as_json)
    levels = {"warning": {"warning", "error"}, "error": {"error"}, "never": set()}[fail_on]
    if any(finding.level in levels for finding in found):
        raise click.exceptions.Exit(DIFFERS)


@app.command(epilog=SOURCE)
@SOURCES
@JSON
@over_a_run
def describe(*, sources: tuple[str, ...], over: Over, as_json: bool) -> None:
    """Say in words what schedules do: peak, ends, quarters, half-life, area."""
    from stepsize.look.words import describe as words  # noqa: PLC0415 (a command loads what it needs)

    found = words(read_all(sources, over.trust), over.horizon, **over.settings)
    show.description(found, as_json=as_json)


@app.command(epilog=SOURCE)
@click.argument("first", metavar="SOURCE")
@click.argument("second", metavar="SOURCE")
@UNIT
@pictured
@JSON
@over_a_run
def diff(*, first: str, second: str, over: Over, unit: str | None, **shown: Any) -> None:
    """Compare two schedules or plans; status 1 where their values differ."""
    from stepsize.look.compare import difference  # noqa: PLC0415 (a command loads what it needs)

    named = [named_source(source) for source in (first, second)]
    one, other = (read(text, over.trust) for _, text in named)
    given = [name for name, text in named if name != text]
    names = (given[0], given[1]) if len(set(given)) == len(named) else ("first", "second")
    found = difference(one, other, over.horizon, names=names, unit=unit, **over.settings)
    show.difference(found, **shown)
    if not found.same:
        raise click.exceptions.Exit(DIFFERS)


@app.command(epilog=SOURCE)
@click.argument("source", metavar="SOURCE")
@click.argument("target", metavar="FILE")
@TRUST
def convert(*, source: str, target: str, trust: tuple[str, ...]) -> None:
    """Keep a schedule or a plan in a .json, .yaml or .toml FILE."""
    from stepsize.files.disk import dump  # noqa: PLC0415 (a command loads what it needs)

    dump(read(source, trust), target)
    click.echo(f"wrote {target}")


@app.command()
@click.argument("name", required=False)
@JSON
def families(*, name: str | None, as_json: bool) -> None:
    """List the families and recipes, or explain the one of that NAME."""
    show.families(name, as_json=as_json)


@app.command()
def schema() -> None:
    """Print the JSON Schema of schedule files, for editors."""
    show.schema()


@app.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion(*, shell: str) -> None:
    """Print the completion script of a SHELL: eval "$(stepsize completion bash)"."""
    from click.shell_completion import get_completion_class  # noqa: PLC0415 (as above)

    made = get_completion_class(shell)
    if made is not None:
        click.echo(made(app, {}, "stepsize", "_STEPSIZE_COMPLETE").source())


app.add_command(edit)
app.add_command(find_rate)


def main() -> None:
    """Run a command; an error is one sentence and exit status 2."""
    for stream in (sys.stdout, sys.stderr):  # a terminal without braille shows question marks
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")
    try:
        status = app(prog_name="stepsize", standalone_mode=False)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except click.exceptions.Abort:
        sys.exit(WRONG)
    except UnitError as error:
        _fail(needs_options(error))
    except StepsizeError as error:
        _fail(str(error))
    except OSError as error:
        _fail(f"cannot write: {error.strerror}")
    sys.exit(status if isinstance(status, int) else 0)


def _fail(sentence: str) -> None:
    click.echo(f"stepsize: {sentence}", err=True)
    sys.exit(WRONG)
