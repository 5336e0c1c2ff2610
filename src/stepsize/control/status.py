"""What a run says about itself, and what an edit would do to it."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from stepsize.control.mailbox import Data
from stepsize.edits.carry import carried
from stepsize.edits.kinds import CoolDown, Edit, Replan
from stepsize.edits.moment import Moment
from stepsize.errors import FieldError, StepsizeError
from stepsize.files.description import from_dict, plain_data
from stepsize.horizon import Horizon
from stepsize.schedules.schedule import Schedule
from stepsize.units import Time


def told_data(told: Mapping[str, Schedule], moment: Moment) -> Data:
    """Give what `check` needs, as plain data for the status."""
    return {
        "step": int(moment.step),
        "shift": moment.shift,
        "seconds": moment.seconds,
        "plan": {name: plain_data(schedule) for name, schedule in told.items()},
        "horizon": None if moment.horizon is None else _horizon_data(moment.horizon),
    }


def _horizon_data(horizon: Horizon) -> Data:
    given = {f.name: getattr(horizon, f.name) for f in dataclasses.fields(horizon) if f.init}
    size = horizon.batch_size
    given["batch_size"] = plain_data(size) if isinstance(size, Schedule) else size
    given["total"] = str(horizon.total) if isinstance(horizon.total, Time) else horizon.total
    return given


def check(edit: Edit, status: Data) -> None:
    """Raise the error that an edit would meet in the run of a status, as far as it can be told."""
    keys = edit.keys if isinstance(edit, CoolDown) else ()
    keys = tuple(edit.plan) if isinstance(edit, Replan) else keys
    known = status.get("keys", [])
    for key in keys:
        if known and key not in known:
            rule = f"scheduled ({', '.join(known)})"
            raise FieldError.of(f"{edit.kind}: a key", rule, key)
    if isinstance(edit, CoolDown) and status.get("finished"):
        cure = "replan() gives it new schedules"
        rule = "of a run whose rates have not come to their end"
        raise FieldError.of("cool_down", rule, f"step {status.get('step')}", cure)
    try:
        told, moment = _told(status)
    except (StepsizeError, TypeError, KeyError, ValueError, AttributeError):
        return  # another version's, or with functions of the user's: the run itself will say
    if isinstance(edit, Replan) and not set(edit.plan) <= set(told):
        return
    carried(edit, told, moment)


def _told(status: Data) -> tuple[dict[str, Schedule], Moment]:
    plan: Any = from_dict({"format": 1, "plan": status["plan"]})
    given = dict(status["horizon"] or {})
    if isinstance(given.get("batch_size"), dict):
        given["batch_size"] = from_dict({"format": 1, "schedule": given["batch_size"]})
    horizon = None if status["horizon"] is None else Horizon(**given)
    where = (float(status["step"]), horizon, float(status["shift"]), float(status["seconds"]))
    return dict(plan), Moment(*where)
