"""What AdGD can be told, and which of it excludes which."""

import math
from collections.abc import Mapping
from typing import Any

from stepsize.errors import FieldError
from stepsize.optim.adgd_rules import RULES, first_numbers
from stepsize.optim.base import NOT_NEGATIVE, POSITIVE, Choice, Flag
from stepsize.optim.ray import Ceiling

FIELDS: Mapping[str, Any] = {
    "rule": Choice(*RULES),
    "stochastic": Flag(),
    "accelerated": Flag(),
    "norms": Choice("global", "group"),
    "alpha": POSITIVE,
    "initial_step": POSITIVE,
    "search_initial": Flag(),
    "lipschitz": NOT_NEGATIVE,
    "amplifier": NOT_NEGATIVE,
    "eps": NOT_NEGATIVE,
    "max_norm": Ceiling(),
    "exact_displacement": Flag(),
    "foreach": Flag(),
}


def completed(given: Mapping[str, Any]) -> dict[str, Any]:
    """Give settings with the defaults of their rule, and the numbers that run along with them."""
    for name, rule in FIELDS.items():
        if given[name] is not None:
            rule.admit(name, given[name])
    _check(given)
    chosen = {name: value for name, value in given.items() if value is not None}
    settings = {**_defaults(given), **chosen}
    return {**settings, **first_numbers(settings), "gradients": "unknown"}


def _defaults(given: Mapping[str, Any]) -> dict[str, Any]:
    """Give what a field is where it was not given."""
    stochastic, known = given["stochastic"], given["rule"] == "known-lipschitz"
    usual = math.sqrt(0.5) if given["rule"] == "adgd2-1" else 0.5
    first = 1 / given["lipschitz"] if known else 1e-4
    return {
        "alpha": 1.0 if stochastic else usual,
        "initial_step": 0.2 if stochastic else first,
        "lipschitz": 0.0,
        "amplifier": 0.02,
        "eps": 1e-5,
        "max_norm": math.inf,
    }


def _check(given: Mapping[str, Any]) -> None:
    """Refuse what makes no sense together."""
    rule, stochastic = given["rule"], given["stochastic"]
    for name in ("stochastic", "accelerated"):
        if given[name] and rule != "adgd":
            raise FieldError.of("rule", f"'adgd' with {name}=True", rule)
    for name in ("accelerated", "search_initial"):
        if given[name] and stochastic:
            raise FieldError.of(name, "False with stochastic=True", given[name])
    if given["search_initial"] and given["accelerated"]:
        raise FieldError.of("search_initial", "False with accelerated=True", True)
    if given["search_initial"] and given["norms"] == "group":
        raise FieldError.of("norms", "'global' with search_initial=True", "group")
    for name in ("amplifier", "eps"):
        if given[name] is not None and not stochastic:
            raise FieldError.of(name, "left out without stochastic=True", given[name])
    if given["alpha"] is not None and rule == "adgd2-2":
        raise FieldError.of("alpha", "left out of rule='adgd2-2', which has none", given["alpha"])
    _check_lipschitz(rule, given["lipschitz"])


def _check_lipschitz(rule: str, value: float | None) -> None:
    if rule == "known-lipschitz":
        if value is None:
            cure = "with it goes the greatest curvature, as lipschitz=..."
            raise FieldError.of("lipschitz", "given with rule='known-lipschitz'", value, cure)
        POSITIVE.admit("lipschitz", value)
    elif value is not None:
        raise FieldError.of("lipschitz", "left out unless rule='known-lipschitz'", value)
