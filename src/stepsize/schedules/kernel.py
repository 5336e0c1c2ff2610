"""A formula over a long numpy array: the recorded formula, run chunk by chunk in a few buffers.

The same record as the scalar function's, so the values are the same bit for bit (within 1 ulp where
numpy's exp, log and pow differ from math's). A record knows the interval its time lies in, so a
stretch that lies inside one part of a sequence runs that part alone: stretches are halved until
nothing is left to decide. No array of the length of the result is made beside it.
"""

import math
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from stepsize.schedules.formula import FUNCTIONS, Expr, Recorder

if TYPE_CHECKING:
    from stepsize.schedules.schedule import Schedule

_CHUNK: Final = 16384  # float64 values of a chunk: a few such buffers fit the second-level cache
_MOST_RECORDS: Final = 400  # halvings before branches are evaluated on both sides instead
Array = np.ndarray[Any, np.dtype[Any]]


def _clip(x: Any, low: float, high: float, out: Array) -> Array:
    np.maximum(x, low, out=out)
    return np.minimum(out, high, out=out)


def _where(condition: Any, then: Any, otherwise: Any, out: Array) -> Array:
    result = np.where(condition, then, otherwise)  # out may be one of the three
    np.copyto(out, result)
    return out


def _search(table: Array, x: Any, out: Array) -> Array:
    out[:] = np.searchsorted(table, x, side="right")
    return out


def _take(table: Array, index: Any, out: Array) -> Array:
    out[:] = np.asarray(table)[np.asarray(index).astype(np.int64)]
    return out


def _call(function: Callable[[float], float], x: Any, out: Array) -> Array:
    out[:] = [float(function(float(each))) for each in np.broadcast_to(x, out.shape)]
    return out


_UFUNCS: Final[dict[str, Any]] = {
    "+": np.add,
    "-": np.subtract,
    "*": np.multiply,
    "/": np.true_divide,
    "**": np.power,
    "<": np.less,
    "<=": np.less_equal,
    ">": np.greater,
    ">=": np.greater_equal,
    "floor": np.floor,
    "clip": _clip,
    "where": _where,
    "search": _search,
    "take": _take,
    "call": _call,
    **{name: getattr(np, name) for name in FUNCTIONS},
}
_CONDITIONS: Final = {"<", "<=", ">", ">="}


class Program:
    """The steps of a record, each writing into a buffer that an earlier one no longer needs."""

    def __init__(self, result: Any) -> None:
        self.registers: list[Any] = [None]  # the first is time
        self.steps: list[tuple[Any, int, tuple[int, ...]]] = []
        self.branches = False
        self._buffers: set[int] = set()  # the registers that are buffers of a chunk
        self._places: dict[int, int] = {}
        self._uses: dict[int, int] = {}
        self._free: dict[type, list[int]] = {np.float64: [], np.bool_: []}
        self._count(result)
        self.result = self._place(result)

    def _count(self, node: Any) -> None:
        if isinstance(node, Expr):
            self._uses[id(node)] = self._uses.get(id(node), 0) + 1
            if self._uses[id(node)] == 1:
                for arg in node.args:
                    self._count(arg)

    def _place(self, node: Any) -> int:
        """Write the steps that compute a node; give its register."""
        if not isinstance(node, Expr):
            self.registers.append(np.array(node) if isinstance(node, tuple) else node)
            return len(self.registers) - 1
        if node.op == "t":
            return 0
        if id(node) in self._places:
            return self._places[id(node)]
        self.branches |= node.op in ("where", "clip")
        arguments = tuple(map(self._place, node.args))
        kind = np.bool_ if node.op in _CONDITIONS else np.float64
        self._release(node)
        out = self._buffer(kind)
        self.steps.append((_UFUNCS[node.op], out, arguments))
        self._places[id(node)] = out
        return out

    def _release(self, node: Expr) -> None:
        for arg in node.args:
            if isinstance(arg, Expr) and arg.op != "t":
                self._uses[id(arg)] -= 1
                if self._uses[id(arg)] == 0:
                    kind = np.bool_ if arg.op in _CONDITIONS else np.float64
                    self._free[kind].append(self._places[id(arg)])

    def _buffer(self, kind: type) -> int:
        if self._free[kind]:
            return self._free[kind].pop()
        self.registers.append(np.empty(_CHUNK, kind))
        self._buffers.add(len(self.registers) - 1)
        return len(self.registers) - 1

    def run(self, t: Array, target: Array) -> None:
        """Write the values at the times of one chunk to the target."""
        registers = self.registers
        if t.size < _CHUNK:
            buffers = self._buffers
            registers = [r[: t.size] if i in buffers else r for i, r in enumerate(registers)]
        registers[0] = t
        for function, out, arguments in self.steps:
            function(*[registers[a] for a in arguments], out=registers[out])
        target[:] = registers[self.result]


class Times:
    """The times of a curve: an array, or the steps from `start` on without an array of them."""

    def __init__(self, start: int, size: int, array: Array | None = None) -> None:
        self.start, self.size, self._array = start, size, array
        self._first = None if array is not None else np.arange(min(size, _CHUNK), dtype=np.float64)

    def bounds(self, first: int, last: int) -> tuple[float, float]:
        """The lowest and highest time of a stretch."""
        if self._array is None:
            return float(self.start + first), float(self.start + last - 1)
        part = self._array[first:last]
        return float(part.min()), float(part.max())

    def chunks(self, first: int, last: int) -> Iterator[tuple[int, int, Array]]:
        """The stretch in chunks: where each begins and ends, and its times as float64."""
        for begin in range(first, last, _CHUNK):
            end = min(begin + _CHUNK, last)
            if self._array is not None:
                yield begin, end, self._array[begin:end].astype(np.float64, copy=False)
            elif self._first is not None:
                yield begin, end, self._first[: end - begin] + float(self.start + begin)


def fill(schedule: "Schedule", times: Times, values: Array) -> None:
    """Write the schedule's values at the times into `values`, a flat array of that size."""
    stretches, records = [(0, times.size)], 0
    with np.errstate(all="ignore"):  # a branch that is not taken may leave its domain
        while stretches:
            first, last = stretches.pop()
            program = _record(schedule, *times.bounds(first, last))
            records += 1
            if program.branches and last - first > _CHUNK and records < _MOST_RECORDS:
                middle = first + max((last - first) // (2 * _CHUNK) * _CHUNK, _CHUNK)
                stretches += [(first, middle), (middle, last)]
                continue
            for begin, end, t in times.chunks(first, last):
                program.run(t, values[begin:end])


def _record(schedule: "Schedule", low: float, high: float) -> Program:
    known = not (math.isnan(low) or math.isnan(high))
    t = Expr("t", low=low, high=high) if known else Expr("t")
    return Program(schedule._value(t, Recorder()))  # noqa: SLF001 (the array half of __call__)
