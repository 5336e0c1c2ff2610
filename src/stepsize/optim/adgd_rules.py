"""The rules by which AdGD chooses a step size: plain numbers in, plain numbers out."""

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

RULES = ("adgd", "known-lipschitz", "tighter", "adgd2-1", "adgd2-2")
LEADING = 10
"""Steps that "tighter" takes by "adgd" before its own, as the authors' code does."""


class Seen(NamedTuple):
    """What one step size is chosen by: lengths over all parameters that it moves."""

    taken: float
    """lr * step size * |direction| of the last step; NaN before the first."""
    moved: float
    """|x_k - x_(k-1)|, by whatever moved it; NaN where that is not known."""
    change: float
    """|g_k - g_(k-1)|."""
    square: float = 0.0
    """|g_k|^2, for "tighter" alone."""
    product: float = 0.0
    """<g_k, g_(k-1)>, for "tighter" alone."""


Numbers = dict[str, float]


def first_numbers(group: Mapping[str, Any]) -> Numbers:
    """Give what runs along with a step size, as it is before the first step."""
    step: float = group["initial_step"]
    finite = 1.0 if group["stochastic"] else 1 / 3 if group["rule"].startswith("adgd2") else 0.0
    ratio = finite or math.inf
    convex = {"convexity": 1 / step, "convexity_ratio": math.inf}
    return {"step_size": step, "ratio": ratio, "measured": 0, "distance": math.nan, **convex}


def next_numbers(group: Mapping[str, Any], seen: Seen) -> Numbers:
    """Give the numbers of this step.

    Where nothing can be concluded the step size is held: before the first step, where nobody knows
    how far the parameters moved, and where they did not move.
    """
    if group["stochastic"]:
        return _stochastic(group, seen)
    if math.isnan(seen.taken) or (seen.taken == 0 and seen.moved == 0):
        return {}
    if math.isnan(seen.moved) or (seen.moved == 0 and seen.change > 0):
        return _held(group)
    if seen.change == 0:  # a step below the resolution of the numbers, or no curvature at all
        return _grown(group)
    found = _chosen(group, seen)
    convex = _convexity(group, seen) if group["accelerated"] else {}
    return {**found, **convex, "measured": group["measured"] + 1}


def _held(group: Mapping[str, Any]) -> Numbers:
    return {} if math.isinf(group["ratio"]) else {"ratio": 1.0}


def _grown(group: Mapping[str, Any]) -> Numbers:
    """Give the numbers where the curvature seems 0."""
    if math.isinf(group["ratio"]):  # nothing to go by: tenfold, as the authors look for a first one
        return _stepped(group, 10 * group["step_size"]) | {"ratio": math.inf}
    return _stepped(group, _growth(group) * group["step_size"])


def _stepped(group: Mapping[str, Any], wanted: float) -> Numbers:
    """Take a step size, unless it is beyond what numbers can hold."""
    if not 0 < wanted < math.inf:
        return {}
    return {"step_size": wanted, "ratio": wanted / group["step_size"]}


def _growth(group: Mapping[str, Any]) -> float:
    """Give how many times larger the step size may become."""
    ratio: float = group["ratio"]
    if group["stochastic"]:
        return math.sqrt(1 + group["amplifier"] * ratio)
    if group["accelerated"]:
        return math.sqrt(1 + ratio / 2)
    return math.sqrt((2 / 3 if group["rule"] == "adgd2-2" else 1) + ratio)


def _chosen(group: Mapping[str, Any], seen: Seen) -> Numbers:
    """Give the smaller one of what growth and what curvature allows."""
    tighter = group["rule"] == "tighter"
    if tighter and group["measured"] == LEADING:
        return {"ratio": 1.0}
    limit = _tighter if tighter and group["measured"] > LEADING else _LIMITS[group["rule"]]
    return _stepped(group, min(_growth(group) * group["step_size"], limit(group, seen)))


def _halved(group: Mapping[str, Any], seen: Seen) -> float:
    """Give alpha / L: 1/2 for AdGD, 1/sqrt(2) for AdGD-2."""
    return float_of(group["alpha"] * seen.moved, seen.change)


def _known(group: Mapping[str, Any], seen: Seen) -> float:
    lipschitz, step = group["lipschitz"], group["step_size"]
    return float_of(1.0, step * lipschitz * lipschitz) + _halved(group, seen)


def _tighter(group: Mapping[str, Any], seen: Seen) -> float:
    del group
    below = 3 * seen.square - 4 * seen.product
    return float_of(seen.moved, math.sqrt(below)) if below > 0 else math.inf


def _second(group: Mapping[str, Any], seen: Seen) -> float:
    steepness = group["step_size"] * float_of(seen.change, seen.moved)
    below = 2 * steepness * steepness - 1
    return float_of(group["step_size"], math.sqrt(below)) if below > 0 else math.inf


_LIMITS = {
    "adgd": _halved,
    "tighter": _halved,
    "adgd2-1": _halved,
    "known-lipschitz": _known,
    "adgd2-2": _second,
}


def _convexity(group: Mapping[str, Any], seen: Seen) -> Numbers:
    """Give the estimate of strong convexity: the same rule, for 1 / the step size."""
    before, ratio = group["convexity"], group["convexity_ratio"]
    wanted = min(math.sqrt(1 + ratio / 2) * before, group["alpha"] * seen.change / seen.moved)
    if not 0 < wanted < math.inf:
        return {}
    return {"convexity": wanted, "convexity_ratio": wanted / before}


def momentum(group: Mapping[str, Any]) -> float:
    """Give beta of the accelerated form."""
    speed, friction = math.sqrt(1 / group["step_size"]), math.sqrt(group["convexity"])
    return (speed - friction) / (speed + friction)


def _stochastic(group: Mapping[str, Any], seen: Seen) -> Numbers:
    grown = _growth(group) * group["step_size"]
    if math.isnan(seen.taken):
        return _stepped(group, grown)
    if math.isnan(seen.moved):
        return {"ratio": 1.0}
    if seen.taken == 0 and seen.moved == 0:  # a warmup from 0 would otherwise grow without end
        return {}
    if seen.moved == 0 or seen.change == 0:
        return _stepped(group, grown)
    limit = float_of(group["alpha"] * seen.moved, seen.change)
    return _stepped(group, min(grown, limit) + group["eps"])


def float_of(above: float, below: float) -> float:
    """Divide; by a number that is 0 in floating point the result is inf."""
    return above / below if below else math.inf
