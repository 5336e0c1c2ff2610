"""The hot path of a scheduler, written out as one closure: count, compute, write.

The formulas stand in it as text, each value is computed once however many groups take it, and
nothing is written while a value stays the same. Refused alternative: a function per formula and a
function per key, which costs a quarter more at one group.
"""

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

from torch import Tensor

from stepsize.schedules.formula import Expr, Names, Recorder
from stepsize.schedules.writer import Writer
from stepsize.torch.cell import ALARM, FIRED, KNOWN, LIMIT, STEPS, Cell
from stepsize.torch.groups import Group, Slot, is_beta, put

Hook = Callable[[Any, Any, Any], None]


class Pulled:
    """The places of a key that controllers reach: what scales each of them changes now and then.

    `floored`: whether a controller has floors by value, below which it takes nothing.
    """

    def __init__(self, places: "list[Place]", *, floored: bool) -> None:
        self.places, self.floored = places, floored
        self.groups: list[tuple[Any, ...]] = []
        self.tensors: list[tuple[Any, ...]] = []

    def set(self, pulls: list[tuple[float, float]]) -> None:
        """Take what each place is multiplied with, and its floor."""
        self.groups.clear()
        self.tensors.clear()
        for (group, slot), (pull, low) in zip(self.places, pulls, strict=True):
            scales = (slot.scale * pull, low, slot.scale) if self.floored else (slot.scale * pull,)
            if slot.tensor is None:
                self.groups.append((group, *scales))
            else:
                self.tensors.append((slot.tensor, *scales))


Place = tuple[Group, Slot]


@dataclass(frozen=True, slots=True)
class Lane:
    """One key of the groups that share a schedule: its formula of steps, and where it goes.

    `pulled` is None where no controller reaches the key.
    """

    key: str
    formula: Callable[[Any, Names], Any]
    places: list[Place]
    pulled: Pulled | None = None


@dataclass(frozen=True, slots=True)
class Calls:
    """What the hot path calls when something is not as usual.

    Args:
        stale: instead of writing, where the driver's list of groups was replaced or grew.
        look: `look(t)` when `cell[ALARM]` is reached; it says whether all is done already.
        observe: `observe(metrics, epoch)` where `step` is given any.
        unreal: `unreal(optimizer, kwargs)` where a call of the optimizer's step may be none.
        late: at the first step, and from `cell[LIMIT]` on.
        others: tells whether groups of other optimizers have changed.
        tick: `tick(t)` before every computation, for schedules over wall-clock time.
        careful: ask `unreal` always.
    """

    stale: Callable[[], None]
    look: Callable[[float], bool]
    observe: Callable[[Any, Any], None]
    unreal: Callable[[Any, Any], bool]
    late: Callable[[], None]
    others: Callable[[], bool] | None = None
    tick: Callable[[float], None] | None = None
    careful: bool = False


class HotPath(NamedTuple):
    """What is written out: the functions of a scheduler that cost something at every step.

    `advance()` goes where the cell is; while the steps are not the optimizer's own, a call counts
    one. `renew()` writes everything there. `followed` is a post-step hook that counts and advances
    in one frame: what it called would be compiled into the optimizer's graph by torch.compile.
    """

    advance: Callable[..., None]
    renew: Callable[[], None]
    followed: Hook


def hot_path(lanes: list[Lane], cell: Cell, driver: Any, calls: Calls) -> HotPath:
    """Write out the hot path for lanes."""
    writer = Writer()
    kept = ["done", *(f"{name}{i}" for i in range(len(lanes)) for name in ("last", "stair"))]
    bundles, held = _bundles(lanes), f"nonlocal {', '.join(kept)}"
    names = [field.name for field in dataclasses.fields(Calls)]
    writer.line(0, f"def make(cell, driver, known, size, {', '.join(names)}):")
    for name in kept:
        writer.line(1, f"{name} = None")
    heads = {
        "advance(metrics=None, epoch=None)": _ADVANCE,
        "followed(optimizer, args, kwargs)": _HOOK,
    }
    for head, before in heads.items():
        writer.line(1, f"def {head}:")
        others = " or others()" if calls.others else ""
        tick = ("if done is not None: tick(t)",) if calls.tick is not None else ()
        for text in (held, *before, *_MOVE, *tick, "done = t"):
            writer.line(2, text.format(others=others))
        for bundle in bundles:
            _write_bundle(writer, bundle)
    for text in ("def renew():", f"    {held}", f"    {' = '.join(kept)} = None", "    advance()"):
        writer.line(1, text)
    writer.line(1, "return advance, renew, followed")
    exec(compile("\n".join(writer.lines), "<scheduler>", "exec"), writer.names)  # noqa: S102 (our own text: operators, numbers and bound names)
    known = driver.param_groups
    given = [getattr(calls, name) for name in names]
    return HotPath(*writer.names.pop("make")(cell, driver, known, len(known), *given))


_ADVANCE = (
    "if metrics is not None or epoch is not None:",
    "    return observe(metrics, epoch)",
    f"t = cell[{STEPS}]",
    "if t == done:",
    f"    if cell[{FIRED}]: return",
    f"    t = cell[{STEPS}] = t + 1.0",
)
_HOOK = (
    f"if kwargs or careful or optimizer.param_groups is not cell[{KNOWN}]:",
    "    if unreal(optimizer, kwargs): return",
    f"t = cell[{STEPS}] = cell[{STEPS}] + 1.0",
    f"if t >= cell[{LIMIT}]:",
    "    late()",
    f"    t = cell[{STEPS}]",
)
_MOVE = (
    "if driver.param_groups is not known or len(known) != size{others}:",
    "    return stale()",
    f"if t >= cell[{ALARM}] and look(t):",
    "    return",
)


Bundle = list[tuple[int, Lane]]


def _bundles(lanes: list[Lane]) -> list[Bundle]:
    """Lanes that write numbers to the same groups share one loop over them."""
    found: dict[Any, Bundle] = {}
    for i, lane in enumerate(lanes):
        plain = not is_beta(lane.key) and all(slot.tensor is None for _, slot in lane.places)
        plain = plain and lane.pulled is None
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
    if lane.pulled is not None:
        _write_pulled(writer, i, lane.key, lane.pulled, depth)
        return
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
        writer.line(depth + 1, _put(writer, each.key, f"scale{i} * m{i}"))


def _put(writer: Writer, key: str, value: str) -> str:
    if is_beta(key):
        return f"{writer.bound(put)}(group, {key!r}, {value})"
    return f"group[{key!r}] = {value}"


def _write_pulled(writer: Writer, i: int, key: str, pulled: Pulled, depth: int) -> None:
    """Write a key that controllers reach; its rows are renewed in place when a factor changes."""
    names, value = "scale", f"scale * m{i}"
    if pulled.floored:  # a floor never lifts a value above what the schedule says
        names, value = "scale, low, told", f"max(scale * m{i}, min(low, told * m{i}))"
    writer.line(depth, f"for tensor, {names} in {writer.bound(pulled.tensors)}:")
    writer.line(depth + 1, f"tensor.fill_({value})")
    writer.line(depth, f"for group, {names} in {writer.bound(pulled.groups)}:")
    writer.line(depth + 1, _put(writer, key, value))
