"""Pictures as files: PNG, SVG, PDF."""

import io
from pathlib import Path
from typing import TYPE_CHECKING, Any

import matplotlib as mpl

from stepsize.errors import SpecError
from stepsize.files.disk import write_whole
from stepsize.finding.report import RangeTest
from stepsize.finding.stability import StabilityCourse
from stepsize.finding.studies import WarmupStudy
from stepsize.look.spreads import StepSizeHistory
from stepsize.plot.panels import plot
from stepsize.plot.rates import range_test
from stepsize.plot.sizes import step_sizes
from stepsize.plot.stable import stability

if TYPE_CHECKING:
    import os


_KINDS: dict[type, Any] = {
    StepSizeHistory: step_sizes,
    RangeTest: range_test,
    StabilityCourse: stability,
    WarmupStudy: stability,
}


def save(what: Any, path: "str | os.PathLike[str]", *given: Any, **settings: Any) -> None:
    """Draw into a .png, .svg or .pdf file: whatever has a picture.

    That is schedules, a history of step sizes, a range test, a warmup study or a run's stability.

    Raises `SpecError` for another ending, or where the file cannot be written.
    """
    target = Path(path)
    ending = target.suffix.lower()
    if ending not in (".png", ".svg", ".pdf"):
        raise SpecError(f"{target}: a picture ends in .png, .svg or .pdf")
    draws: Any = next((each for kind, each in _KINDS.items() if isinstance(what, kind)), plot)
    figure = draws(what, *given, **settings)
    # the same picture is the same file: no date, no random ids, and text that stays text
    fixed: dict[Any, Any] = {"svg.hashsalt": "stepsize", "svg.fonttype": "none"}
    dates = {".svg": {"Date": None}, ".pdf": {"CreationDate": None}}
    content = io.BytesIO()
    with mpl.rc_context(fixed):
        figure.savefig(content, dpi=150, format=ending[1:], metadata=dates.get(ending))
    write_whole(target, content.getvalue())
