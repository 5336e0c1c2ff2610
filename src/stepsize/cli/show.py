"""What the commands print: text for people, JSON for scripts, picture files."""

import dataclasses
import inspect
import json
import os
import shutil
import sys
from typing import TYPE_CHECKING, Any

import click

from stepsize.errors import SpecError

if TYPE_CHECKING:
    from stepsize.finding.report import RangeTest
    from stepsize.lint.subject import Finding
    from stepsize.look.compare import Difference
    from stepsize.look.preview import Preview
    from stepsize.look.values import Table
    from stepsize.look.words import Description

_MARGIN = 12  # what a text picture has left of its columns


def _colours() -> bool:
    """Whether to write colours: to a terminal alone, and not where NO_COLOR says otherwise."""
    return (
        sys.stdout.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"
    )


def _json(data: Any) -> None:
    click.echo(json.dumps(data, indent=1))


def picture(
    found: "Preview",
    output: tuple[str, ...],
    *,
    dark: bool,
    width: int | None,
    height: int,
    as_json: bool,
) -> None:
    """Show a preview as text or JSON, or write it into files."""
    for path in output:
        picture_file(found, path, dark=dark)
    if as_json:
        _json(dataclasses.asdict(found))
    elif not output:
        wide = _columns() if width is None else width
        click.echo(found.text(width=wide, height=height, paint=_colours()), color=_colours())


def picture_file(found: "Preview | RangeTest", path: str, *, dark: bool) -> None:
    """Write a picture."""
    try:
        from stepsize.plot import save  # noqa: PLC0415 (matplotlib, where it is installed)
    except ImportError:
        cure = "pip install 'stepsize[plot]'"
        raise SpecError(f"{path}: picture files need matplotlib: {cure}") from None
    save(found, path, dark=dark)
    click.echo(f"wrote {path}", err=True)


def range_test(found: "RangeTest", *, as_json: bool) -> None:
    """Print what a range test found."""
    if as_json:
        _json(found.to_dict())
    else:
        click.echo(found.text(width=_columns()))


def _columns() -> int:
    return max(min(shutil.get_terminal_size().columns, 110) - _MARGIN, 20)


def rows(found: "Table", *, csv: bool, as_json: bool) -> None:
    """Print a table."""
    if as_json:
        _json({"columns": found.columns, "rows": found.rows})
    else:
        click.echo(found.csv() if csv else str(found))


def findings(found: "tuple[Finding, ...]", *, as_json: bool) -> None:
    """Print what the lint found."""
    if as_json:
        _json([dataclasses.asdict(finding) for finding in found])
        return
    for finding in found:
        colour = "red" if finding.level == "error" else "yellow"
        text = str(finding)
        head = text[: len(finding.level)]
        click.secho(head, fg=colour if _colours() else None, color=_colours(), nl=False)
        click.echo(text[len(head) :])
    if not found:
        click.echo("no findings")


def rules(context: click.Context, _: click.Parameter, wanted: bool) -> None:
    """List the rules for schedules, and those for tasks."""
    from stepsize.conform.check import RULES as OF_TASKS  # noqa: PLC0415 (as below)
    from stepsize.lint.check import RULES  # noqa: PLC0415 (a command loads what it needs)

    if wanted and not context.resilient_parsing:
        for name, rule in RULES.items():
            click.echo(f"{name:<16} {rule.__doc__}")
        click.echo("\nof a task:")
        for name, text in OF_TASKS.items():
            click.echo(f"{name:<16} {text}")
        context.exit()


def schema() -> None:
    """Print the JSON Schema."""
    from stepsize.files.schema import json_schema  # noqa: PLC0415 (a command loads what it needs)

    _json(json_schema())


def description(found: "Description", *, as_json: bool) -> None:
    """Print a description."""
    if as_json:
        _json([{**dataclasses.asdict(facts), "area": facts.area} for facts in found.facts])
    else:
        click.echo(str(found))


def difference(
    found: "Difference", output: tuple[str, ...], *, as_json: bool, **sizes: Any
) -> None:
    """Print how two schedules differ, and show it."""
    if as_json:
        _json([dataclasses.asdict(gap) for gap in found.gaps])
    else:
        click.echo(str(found))
    if output or not (as_json or found.same):
        picture(found.picture, output, as_json=False, **sizes)


def callables() -> dict[str, Any]:
    """Every family and recipe by its name, as an expression may call it."""
    from stepsize.files.expression import recipes_by_name  # noqa: PLC0415 (for some commands)
    from stepsize.schedules.names import class_names  # noqa: PLC0415 (as above)

    return {**dict(sorted(class_names().items())), **dict(sorted(recipes_by_name().items()))}


def families(name: str | None, *, as_json: bool) -> None:
    """Print every family and recipe in a line, or all about one."""
    known = callables()
    if name is not None:
        _explain(name, known, as_json=as_json)
        return
    lines = {each: (inspect.getdoc(made) or "").partition("\n")[0] for each, made in known.items()}
    if as_json:
        _json(lines)
        return
    wide = max(map(len, lines))
    for each, line in lines.items():
        click.echo(f"{each:<{wide}}  {line}")


def _explain(name: str, known: dict[str, Any], *, as_json: bool) -> None:
    from stepsize.schedules.names import nearest  # noqa: PLC0415 (as above)
    from stepsize.schedules.schedule import code  # noqa: PLC0415 (as above)

    by_kind = {getattr(made, "kind", each): made for each, made in known.items()}
    made = known.get(name) or by_kind.get(name)
    if made is None:
        raise SpecError(f"there is no family or recipe {name!r}{nearest(name, known)}")
    signature, text = inspect.signature(made), inspect.getdoc(made) or ""
    settings = {
        p.name: None if p.default is inspect.Parameter.empty else code(p.default)
        for p in signature.parameters.values()
    }
    if as_json:
        _json({"name": made.__name__, "doc": text, "settings": settings})
        return
    shown = ", ".join(key if value is None else f"{key}={value}" for key, value in settings.items())
    click.echo(f"{made.__name__}({shown})\n\n{text}")
