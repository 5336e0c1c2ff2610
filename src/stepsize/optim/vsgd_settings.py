"""The settings of vSGD: their rules, and what follows from the number of parameters."""

import math
from collections.abc import Mapping
from typing import Any

from stepsize.errors import FieldError
from stepsize.optim.base import NOT_NEGATIVE, POSITIVE, Choice, Flag, Optional
from stepsize.schedules.fields import Bounds

AT_LEAST_1 = Bounds(ge=1)

RULES: Mapping[str, Any] = {
    "variant": Choice("l", "b", "g"),
    "curvature": Choice("fd", "observed"),
    "slow_start": Optional(Bounds(ge=0, whole=True)),
    "slow_constant": Optional(AT_LEAST_1),
    "scale_curvature": Flag(),
    "initial_tau": Optional(AT_LEAST_1),
    "least_tau": AT_LEAST_1,
    "least_curvature": POSITIVE,
    "outliers": Optional(NOT_NEGATIVE),
    "foreach": Flag(),
    "compiled": Flag(),
}


def settle(fields: dict[str, Any], count: int) -> None:
    """Put numbers where None was given; `count`: of all elements."""
    found = {
        "slow_start": max(1, math.isqrt(count)),
        "slow_constant": max(2.0, count / 10),
        "outliers": 2.0 if fields["curvature"] == "fd" else 0.0,
    }
    for name, value in found.items():
        if fields[name] is None:
            fields[name] = value
    if fields["initial_tau"] is None:
        fields["initial_tau"] = max(1.0, 1.0 * fields["slow_start"])


def check(fields: Mapping[str, Any], defaults: Mapping[str, Any]) -> None:
    """Refuse settings that do not go together. Raises `FieldError`."""
    for name in ("variant", "curvature"):
        if fields[name] != defaults[name]:
            raise FieldError.of(name, f"{defaults[name]!r} as in all groups", fields[name])
    if fields["outliers"] and fields["curvature"] != "fd":
        raise FieldError.of("outliers", "0 with curvature='observed'", fields["outliers"])
    if fields["variant"] == "l":
        return
    if fields["curvature"] == "fd":
        cure = "give curvatures by observe(...), or take variant='l'"
        rule = "'observed' with variant 'b' or 'g': differences are defined for every element alone"
        raise FieldError.of("curvature", rule, "fd", cure)
    if fields["compiled"]:
        raise FieldError.of("compiled", "False with variant 'b' or 'g'", True)
