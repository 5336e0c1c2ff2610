"""The options that the commands share, and what they say together."""

import functools
import string
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import click

from stepsize.cli.sources import bases, horizon_of
from stepsize.time import Horizon

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

Command = Callable[..., Any]
_WORD = f"{string.ascii_letters}{string.digits}_"


@dataclass(frozen=True, slots=True)
class Over:
    """What a command looks at schedules over: a horizon, and the other settings of `preview`."""

    horizon: Horizon | None
    settings: dict[str, Any]
    trust: tuple[str, ...]


_RUN = (
    click.option("--total", help="How long the run is: 35190 (steps), 90ep, 2e9tok, 12h."),
    click.option("--batches-per-epoch", type=int, help="Batches of one replica in an epoch."),
    click.option("--batch-size", help="Samples per batch of one replica, or a ramp of them."),
    click.option("--tokens-per-sample", type=int, help="The sequence length."),
    click.option("--samples-per-epoch", type=int, help="For epochs under a batch-size ramp."),
    click.option("--accumulate", type=int, default=1, help="Batches per optimizer step."),
    click.option("--replicas", type=int, default=1, help="Data-parallel replicas."),
    click.option(
        "--last",
        type=click.Choice(["step", "drop", "carry"]),
        default="step",
        help="What the batches left over at the end of an epoch do.",
    ),
)
_HORIZON = (
    "total",
    "batches_per_epoch",
    "batch_size",
    "tokens_per_sample",
    "samples_per_epoch",
    "accumulate",
    "replicas",
    "last",
)
TRUST = click.option(
    "--trust", multiple=True, help="A package whose code may load; may be repeated."
)
_MORE = (
    click.option(
        "--base",
        multiple=True,
        help="What factors multiply: 3e-4 for lr, or momentum=0.9; may be repeated.",
    ),
    click.option("--seconds-per-step", type=float, help="Where wall-clock time is shown."),
    TRUST,
)


def _suggested(
    context: click.Context, parameter: click.Parameter, incomplete: str
) -> "list[CompletionItem]":
    """Complete the last name of an expression, or a file."""
    from click.shell_completion import CompletionItem  # noqa: PLC0415 (only for completion)

    from stepsize.cli.show import callables  # noqa: PLC0415 (as above)

    del context, parameter
    written = incomplete.rstrip(_WORD)
    word = incomplete[len(written) :]
    names = [f"{written}{name}(" for name in callables() if word and name.startswith(word)]
    return [*map(CompletionItem, names), CompletionItem(incomplete, type="file")]


SOURCES = click.argument(
    "sources", nargs=-1, required=True, metavar="SOURCE...", shell_complete=_suggested
)
SOURCE = (
    "SOURCE: an expression such as 'Warmup(\"5%\") >> Cosine()', or a .json, .yaml or .toml file."
)
JSON = click.option("--json", "as_json", is_flag=True, help="Print JSON, for scripts.")
UNIT = click.option(
    "--unit", help="Of time: steps, epochs, samples, tokens, %, hours, ... or time."
)
_PICTURE = (
    click.option(
        "--output", multiple=True, help="Write a .png, .svg or .pdf file; may be repeated."
    ),
    click.option("--dark", is_flag=True, help="Make picture files dark."),
    click.option("--width", type=int, help="Columns of the text picture."),
    click.option("--height", type=int, default=12, help="Rows of the text picture."),
)


def over_a_run(command: Command) -> Command:
    """Give a command the options about the run; its argument `over` is what they say."""

    @functools.wraps(command)
    def run(**given: Any) -> Any:
        fields = {name: given.pop(name) for name in _HORIZON}
        names = ("base", "seconds_per_step", "trust")
        base, seconds_per_step, trust = (given.pop(name) for name in names)
        settings = {"base": bases(base), "seconds_per_step": seconds_per_step}
        over = Over(horizon_of(fields.pop("total"), trust, **fields), settings, trust)
        return command(over=over, **given)

    return _with(run, (*_RUN, *_MORE))


def pictured(command: Command) -> Command:
    """Give a command the options about its picture."""
    return _with(command, _PICTURE)


def _with(command: Command, options: tuple[Callable[[Command], Command], ...]) -> Command:
    for option in reversed(options):
        command = option(command)
    return command
