"""Controllers as plain data. Reading them never imports and never evaluates."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from stepsize.errors import FieldError, SpecError
from stepsize.feedback.base import CONTROLLERS, Controller, changed_fields
from stepsize.schedules.names import nearest, shown
from stepsize.schedules.schedule import Schedule
from stepsize.units import Time


def controller_data(made: Controller) -> dict[str, Any]:
    """Give a controller as plain data: its kind, and the fields that differ from the defaults.

    Numbers by group are a list of pairs, because the keys of a JSON object are texts.

    >>> from stepsize.feedback import Plateau
    >>> controller_data(Plateau(factor=0.5, after="5%", floor={0: 0.1}))
    {'kind': 'plateau', 'factor': 0.5, 'after': '5%', 'floor': [[0, 0.1]]}
    """
    data = {name: _plain(value) for name, value in changed_fields(made).items()}
    return {"kind": made.kind, **data}


def _plain(value: Any) -> Any:
    if isinstance(value, Time):
        return str(value)
    if isinstance(value, Mapping):
        return [list(pair) for pair in value.items()]
    if isinstance(value, tuple):
        return list(value)
    return value.kind if isinstance(value, type) and issubclass(value, Schedule) else value


def controller_from(data: Any) -> Controller:
    """Build the controller that the data describe.

    Raises `SpecError` for anything that is not such a description.

    >>> controller_from({"kind": "plateau", "patience": 5})
    Plateau(patience=5)
    """
    if not isinstance(data, Mapping) or not isinstance(data.get("kind"), str):
        raise SpecError(f"expected an object with the 'kind' of a controller, got {shown(data)}")
    kind = data["kind"]
    cls = CONTROLLERS.get(kind)
    if cls is None:
        known = nearest(kind, CONTROLLERS) or f"; known are {', '.join(sorted(CONTROLLERS))}"
        raise SpecError(f"unknown kind of controller {shown(kind)}{known}")
    names = [each.name for each in dataclasses.fields(cls)]
    given = {name: value for name, value in data.items() if name != "kind"}
    for name in given:
        if name not in names:
            raise SpecError(f"{kind!r} has no field {shown(name)}{nearest(name, names)}")
    try:
        return cls(**given)
    except FieldError as error:
        raise SpecError(f"{kind}: {error}") from error
