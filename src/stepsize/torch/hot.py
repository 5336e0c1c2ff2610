"""The hot path of a scheduler, written out as one closure: count, compute, write.

The formulas stand in it as text, each value is computed once however many groups take it, and
nothing is written while a value stays the same. Refused alternative: a function per formula and a
function per key, which costs a quarter more at one group.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from stepsize.schedules.formula import Expr, Names, Recorder
from stepsize.schedules.writer import Writer
from stepsize.torch.groups import Group, Slot, is_beta, put


@dataclass(frozen=True, slots=True)
class Lane:
    """One key of the groups that share a schedule: its formula of steps, and where it goes."""

    key: str
    formula: Callable[[Any, Names], Any]
    places: list[tuple[Group, Slot]]


def advancer(
    lanes: list[Lane],
    count: list[float],
    driver: Any,
    stale: Callable[[], None],
    others: Callable[[], bool] | None,
) -> tuple[Callable[[], None], Callable[[], None]]:
    """Give `advance()`, which goes where `count` is, and `renew()`, which writes everything there.

    `count` is `[steps, whether they are the optimizer's own, ...]`: while they are not, a call
    counts one. `stale()` is called instead of writing where the driver's list of groups was
    replaced or grew, or `others()` says so.
    """
    writer = Writer()
    kept = ["done", *(f"{name}{i}" for i in range(len(lanes)) for name in ("last", "stair"))]
    writer.line(0, "def make(count, driver, known, size, stale, others):")
    for name in kept:
        writer.line(1, f"{name} = None")
    writer.line(1, "def advance():")
    writer.line(2, f"nonlocal {', '.join(kept)}")
    for text in _ADVANCE:
        writer.line(2, text.format(others=" or others()" if others else ""))
    for bundle in _bundles(lanes):
        _write_bundle(writer, bundle)
    writer.line(1, "def renew():")
    writer.line(2, f"nonlocal {', '.join(kept)}")
    writer.line(2, f"{' = '.join(kept)} = None")
    writer.line(2, "advance()")
    writer.line(1, "return advance, renew")
    exec(compile("\n".join(writer.lines), "<scheduler>", "exec"), writer.names)  # noqa: S102 (our own text: operators, numbers and bound names)
    known = driver.param_groups
    made: tuple[Callable[[], None], Callable[[], None]]
    made = writer.names["make"](count, driver, known, len(known), stale, others)
    return made


_ADVANCE = (
    "t = count[0]",
    "if t == done:",
    "    if count[1]: return",
    "    t = count[0] = t + 1.0",
    "done = t",
    "if driver.param_groups is not known or len(known) != size{others}:",
    "    return stale()",
)


Bundle = list[tuple[int, Lane]]


def _bundles(lanes: list[Lane]) -> list[Bundle]:
    """Lanes that write numbers to the same groups share one loop over them."""
    found: dict[Any, Bundle] = {}
    for i, lane in enumerate(lanes):
        plain = not is_beta(lane.key) and all(slot.tensor is None for _, slot in lane.places)
        groups = tuple(id(group) for group, _ in lane.places)
        found.setdefault(groups if plain else i, []).append((i, lane))
    return list(found.values())


def _write_bundle(writer: Writer, bundle: Bundle) -> None:
    depth = 2
    for i, lane in bundle:
        result, known = lane.formula(Expr("t", low=0.0), Recorder()), {}
        stairs = _stairs(result)
        if len(bundle) == len(stairs) == 1:  # nothing to compute while the one stair is the same
            (stair,) = stairs
            writer.assign(f"n{i}", stair, depth, {})
            known[id(stair)] = f"n{i}"
            writer.line(depth, f"if n{i} != stair{i}:")
            depth += 1
            writer.line(depth, f"stair{i} = n{i}")
        writer.assign(f"m{i}", result, depth, known)
    changed = " or ".join(f"m{i} != last{i}" for i, _ in bundle)
    writer.line(depth, f"if {changed}:")
    for i, _ in bundle:
        writer.line(depth + 1, f"last{i} = m{i}")
    _write_places(writer, bundle, depth + 1)


def _stairs(result: Any) -> list[Expr]:
    """Give the whole-numbered nodes through which alone a result depends on time, if any."""
    found: dict[int, Expr] = {}
    left = [result]
    while left:
        node = left.pop()
        if not isinstance(node, Expr):
            continue
        if node.op == "t":
            return []
        if node.op in ("floor", "search"):
            found[id(node)] = node
        else:
            left += node.args
    return list(found.values())


def _write_places(writer: Writer, bundle: Bundle, depth: int) -> None:
    i, lane = bundle[0]
    tensors = [(s.tensor, s.scale) for _, s in lane.places if isinstance(s.tensor, Tensor)]
    if tensors:
        writer.line(depth, f"for tensor, scale in {writer.bound(tensors)}:")
        writer.line(depth + 1, f"tensor.fill_(scale * m{i})")
    scales = zip(*([s.scale for _, s in each.places] for _, each in bundle), strict=True)
    groups = [
        (group, *row)
        for (group, slot), row in zip(lane.places, scales, strict=True)
        if slot.tensor is None
    ]
    if not groups:
        return
    names = ", ".join(f"scale{i}" for i, _ in bundle)
    writer.line(depth, f"for group, {names} in {writer.bound(groups)}:")
    for i, each in bundle:
        value = f"scale{i} * m{i}"
        if is_beta(each.key):
            writer.line(depth + 1, f"{writer.bound(put)}(group, {each.key!r}, {value})")
        else:
            writer.line(depth + 1, f"group[{each.key!r}] = {value}")
