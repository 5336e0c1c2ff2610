"""Changing the plan of a running job from outside."""

import json
import os
import platform
import time
from typing import TYPE_CHECKING, Any

import click

from stepsize.cli.options import JSON, SOURCE
from stepsize.cli.sources import length, read
from stepsize.errors import FieldError, SpecError, UnitError

if TYPE_CHECKING:
    from stepsize.control.mailbox import Answer, Mailbox
    from stepsize.edits.kinds import Edit

REFUSED = 1  # exit status where the run said no
UNANSWERED = 3  # and where it has not said anything yet
_POLL = 0.05  # seconds between two looks for the answer
_LATE = 3.0  # times the interval between two statuses after which nobody may be listening
_SHOWN = 5  # requests in the status

WAIT = click.option(
    "--wait", type=click.FloatRange(min=0), default=10.0, help="Seconds to wait for the answer."
)
WHY = click.option("--why", default="", help="A remark for the journal.")


@click.group(
    name="edit",
    epilog="Exit status: 0 accepted, 1 refused, 2 makes no sense, 3 no answer yet.",
    no_args_is_help=True,
    subcommand_metavar="CHANGE ...",
)
@click.argument("run", metavar="RUN")
@click.pass_context
def edit(context: click.Context, run: str) -> None:
    """Change the plan of the running job whose folder is RUN (see `scheduler.watch`)."""
    from stepsize.control.mailbox import Mailbox  # noqa: PLC0415 (a command loads what it needs)

    context.obj = Mailbox(run)


@edit.command("cool_down")
@click.option("--over", default="rest", help="How long: 5%, 2000, 1ep, or rest (the default).")
@click.option("--to", type=float, default=0.0, help="The last value, as a share of the present.")
@click.option("--along", default="linear", help="The ramp that gives the shape.")
@click.option("--key", multiple=True, default=("lr",), help="What cools down; may be repeated.")
@WHY
@WAIT
@click.pass_obj
def cool_down(
    box: "Mailbox", *, over: str, to: float, along: str, key: tuple[str, ...], why: str, wait: float
) -> None:
    """Go from the present value to a share of it, and stay there."""
    from stepsize.edits.kinds import CoolDown  # noqa: PLC0415 (a command loads what it needs)

    _ask(box, CoolDown(length(over) or 0.0, to, along, key, why), wait)


@edit.command("extend")
@click.argument("total")
@WHY
@WAIT
@click.pass_obj
def extend(box: "Mailbox", *, total: str, why: str, wait: float) -> None:
    """Make the whole run as long as TOTAL; only what lies ahead moves."""
    from stepsize.edits.kinds import Extend  # noqa: PLC0415 (a command loads what it needs)

    _ask(box, Extend(length(total) or 0.0, why), wait)


@edit.command("replan", epilog=SOURCE)
@click.argument("source", metavar="SOURCE")
@click.option("--key", help="The hyper-parameter that follows it; default: lr.")
@click.option("--over", help="The straight line from the present value; default: 1 %; 0 jumps.")
@click.option(
    "--since",
    type=click.Choice(["now", "start"]),
    default="now",
    help="Where its time counts from.",
)
@WHY
@WAIT
@click.pass_obj
def replan(
    box: "Mailbox", /, *, source: str, key: str | None, over: str | None, why: str, **rest: Any
) -> None:
    """Follow another schedule, or a plan, from now on."""
    from stepsize.edits.kinds import Replan  # noqa: PLC0415 (a command loads what it needs)
    from stepsize.schedules.plan import Plan  # noqa: PLC0415 (as above)

    found = read(source)
    if isinstance(found, Plan) and key is not None:
        raise FieldError.of("edit: --key", "left out with a plan, which names its keys", key)
    plan = found if isinstance(found, Plan) else Plan(**{key or "lr": found})
    _ask(box, Replan(plan, length(over), rest["since"], why), rest["wait"])


@edit.command("status")
@JSON
@click.pass_obj
def status(box: "Mailbox", *, as_json: bool) -> None:
    """Say where the run is, what it was asked, and what it made of it."""
    found = box.status()
    requests, _ = box.names()
    asked = {name: box.answer(name) for name in requests}
    if as_json:
        told = {name: answer and answer._asdict() for name, answer in asked.items()}
        click.echo(json.dumps({**found, "requests": told}, indent=1))
        return
    for line in _lines(found):
        click.echo(line)
    for name in requests[-_SHOWN:]:
        click.echo(f"asked     {name}: {_said(asked[name])}")
    _warn(found)


def _lines(found: dict[str, Any]) -> list[str]:
    total = "" if found.get("total") is None else f" of {found['total']}"
    rates = ", ".join(
        f"{rate:g}" for rate in dict.fromkeys(found.get("lr", [])) if rate is not None
    )
    pace = found.get("seconds_per_step")
    ended = ", finished" if found.get("finished") else ""
    lines = [
        f"step      {found.get('step')}{total}{ended}",
        f"lr        {rates}",
        f"process   {found.get('pid')} on {found.get('host')}, "
        f"told {_age(found):.0f} s ago" + ("" if pace is None else f", {pace:.3g} s per step"),
        f"keys      {', '.join(found.get('keys', []))}",
    ]
    for record in found.get("journal", []):
        remark = f" ({record['why']})" if record.get("why") else ""
        lines.append(f"journal   step {record.get('step')}: {record.get('kind')}{remark}")
    return lines


def _said(answer: "Answer | None") -> str:
    if answer is None:
        return "no answer yet"
    done = "accepted" if answer.accepted else "refused"
    return f"{done} at step {answer.step}" + (f": {answer.why}" if answer.why else "")


def _ask(box: "Mailbox", change: "Edit", wait: float) -> None:
    """Check a change against the status, ask for it, and say what the run answers."""
    from stepsize.control.status import check  # noqa: PLC0415 (a command loads what it needs)

    found = box.status()
    try:
        check(change, found)
    except UnitError as error:  # which `main` would answer with options that are none of these
        raise SpecError(f"in this run {error}") from None
    _warn(found)
    name, until = box.send(change), time.monotonic() + wait
    while (answer := box.answer(name)) is None and time.monotonic() < until:
        time.sleep(_POLL)
    if answer is None:
        click.echo(f"no answer yet: {box.folder / name}.json is carried out when the run looks")
        raise click.exceptions.Exit(UNANSWERED)
    click.echo(_said(answer))
    if not answer.accepted:
        raise click.exceptions.Exit(REFUSED)


def _age(found: dict[str, Any]) -> float:
    return max(time.time() - float(found.get("updated", 0.0)), 0.0)


def _warn(found: dict[str, Any]) -> None:
    """Say where nobody may be listening; a run that is resumed will find the request."""
    age, within = _age(found), float(found.get("within", 0.0))
    if not found.get("listening"):
        what = f"the run has stopped watching at step {found.get('step')}"
    elif found.get("host") == platform.node() and not _alive(int(found.get("pid", 0))):
        what = f"its process {found.get('pid')} is not there any more"
    elif age > _LATE * within + _LATE:
        what = f"its status is {age:.0f} s old, and was to be written every {within:.0f} s"
    else:
        return
    click.echo(
        f"stepsize: warning: nobody may be listening: {what}; a run that is resumed with "
        "watch(run=...) reads what it was asked",
        err=True,
    )


def _alive(pid: int) -> bool:
    if os.name != "posix":  # elsewhere this would be more than a question
        return True
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True  # another user's
    return pid > 0
