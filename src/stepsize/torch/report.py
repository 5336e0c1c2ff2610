# ruff: noqa: SLF001 (a part of the scheduler that stands in a file of its own)
"""What a scheduler says about itself in the status of its run."""

import os
import platform
import time
from typing import TYPE_CHECKING, Any

from stepsize.control.status import told_data
from stepsize.units import number_text

if TYPE_CHECKING:
    from stepsize.torch.edited import Edited


def report(core: "Edited") -> dict[str, Any]:
    """Give where a scheduler is and what it was told, as plain data."""
    bound, moment = core._binding, core._moment()
    told, total = bound.told, None if bound.told.horizon is None else bound.told.horizon.total
    keys = {slot.key for slot in bound.slots}
    return {
        "pid": os.getpid(),
        "host": platform.node(),
        "updated": time.time(),
        "total": number_text(total) if isinstance(total, float) else total and str(total),
        "unit": told.unit,
        "keys": sorted(keys | set(told.extra)),
        "lr": bound.at(moment.step)["lr"],
        "finished": "lr" in keys and core.finished,
        "journal": core.journal,
        **told_data({**told.common, **told.extra}, moment),
    }
