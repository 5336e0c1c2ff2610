"""Whole curves: time, memory beside the result, and agreement with the scalar function."""

import math
import tracemalloc
from collections.abc import Callable, Mapping
from typing import Any

import families
import numpy as np
from floors import warmup_cosine
from report import Table
from timing import cpu

Array = np.ndarray[Any, np.dtype[np.float64]]
Curve = Callable[[int], Any]
WARMUP = 1000
CHUNK = 8192
LISTED = 200_000
"""So many steps of the Python list are measured; the rest is extrapolated."""


def tables(*, quick: bool) -> list[Table]:
    """Give the tables of this section."""
    steps = 500_000 if quick else 10_000_000
    rounds = 3 if quick else 9
    return [_methods(steps, rounds), _families(steps // 5, rounds)]


def chunked(steps: int) -> Array:
    """Write the curve by hand, in place, in chunks that stay in the cache."""
    out, first = np.empty(steps), np.arange(CHUNK, dtype=np.float64)
    for begin in range(0, steps, CHUNK):
        part = out[begin : begin + CHUNK]
        np.add(first[: part.size], begin, out=part)
        split = min(max(WARMUP - begin, 0), part.size)
        up, down = part[:split], part[split:]
        up += 1.0
        up /= WARMUP + 1
        down -= WARMUP
        down *= math.pi
        down /= steps - WARMUP
        np.cos(down, out=down)
        down += 1.0
        down *= 0.5
    return out


def naive(steps: int) -> Array:
    """Write the curve the short way: both branches over everything."""
    t = np.arange(steps, dtype=np.float64)
    down = 0.5 * (1.0 + np.cos(math.pi * (t - WARMUP) / (steps - WARMUP)))
    return np.where(t < WARMUP, (t + 1) / (WARMUP + 1), down)


def filled(steps: int) -> Array:
    """Only write memory: no curve can be faster."""
    out = np.empty(steps)
    out.fill(0.5)
    return out


def _listed(steps: int) -> list[float]:
    value = families.warmup_cosine(WARMUP, steps).compile()
    return [value(float(t)) for t in range(min(steps, LISTED))]


def _methods(steps: int, rounds: int) -> Table:
    ours, by_hand = families.warmup_cosine(WARMUP, steps), warmup_cosine(WARMUP, steps)
    methods: dict[str, tuple[Curve, Callable[[float], float] | None]] = {
        "numpy by hand, in place by chunks": (chunked, by_hand),
        "the same again (its twin)": (chunked, by_hand),
        "stepsize, `schedule.curve(n)`": (ours.curve, ours),
        "stepsize, `schedule(array)`": (lambda n: ours(np.arange(n, dtype=np.float64)), ours),
        "numpy by hand, `np.where`": (naive, by_hand),
        "limit: filling fresh memory": (filled, None),
    }
    times = _least({name: curve for name, (curve, _) in methods.items()}, steps, rounds)
    listed = min(cpu(lambda _: _listed(steps)) for _ in range(3)) / min(steps, LISTED) * steps
    floor, sample = next(iter(times.values())), _sample(steps)
    rows = []
    for name, (curve, scalar) in methods.items():
        kept, peak = _memory(curve, steps)
        same = "" if scalar is None else f"{_equal(kept, scalar, sample):.2%}"
        rows.append([name, *_timed(times[name], floor, steps), f"{peak:.3f}", same])
    rows.append(["Python list of the scalar function", *_timed(listed, floor, steps), "", ""])
    columns = ["method", "CPU time", "ns per step", "ratio", "peak extra memory", "bit-equal"]
    notes = (
        "Peak extra memory: what was allocated beside the result at the worst moment, in multiples "
        "of the result. Bit-equal: the share of "
        f"{sample.size:,} steps (the first ones, the last ones, random ones) on which the curve is "
        "the method's own scalar function to the last bit. The list is extrapolated from "
        f"{LISTED:,} steps."
    )
    return Table(f"{steps:,} float64 values of warmup and cosine", columns, rows, notes)


def _timed(time_ns: float, floor: float, steps: int) -> list[str]:
    return [f"{time_ns / 1e6:,.1f} ms", f"{time_ns / steps:.2f}", f"{time_ns / floor:.2f}x"]


def _least(curves: Mapping[str, Curve], steps: int, rounds: int) -> dict[str, float]:
    """Give each curve's least CPU time; each round in a new order."""
    best, random = dict.fromkeys(curves, math.inf), np.random.default_rng()
    for _ in range(rounds):
        for name in random.permutation(list(curves)):
            curve = curves[name]
            best[name] = min(best[name], cpu(lambda _, curve=curve: curve(steps)))
    return best


def _memory(curve: Curve, steps: int) -> tuple[Array, float]:
    """Give the curve, and the peak of memory beside it in multiples of it."""
    curve(2 * WARMUP)  # what is imported or kept on first use is no memory of the curve
    tracemalloc.start()
    try:
        kept = curve(steps)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    return kept, (peak - kept.nbytes) / kept.nbytes


def _sample(steps: int) -> np.ndarray[Any, np.dtype[np.int64]]:
    edge = 20_000
    middle = np.random.default_rng(0).integers(0, steps, 200_000)
    return np.concatenate([np.arange(edge), middle, np.arange(steps - edge, steps)])


def _equal(values: Array, scalar: Callable[[float], float], sample: Any) -> float:
    expected = np.array([scalar(float(t)) for t in sample])
    return float(np.mean(values[sample] == expected))


def _families(steps: int, rounds: int) -> Table:
    curves = {name: each.curve for name, each in families.families(steps).items()}
    times = _least({**curves, "limit": filled}, steps, rounds)
    rows = [
        [name, *_timed(times[name], times["limit"], steps), f"{_memory(curve, steps)[1]:.3f}"]
        for name, curve in curves.items()
    ]
    columns = ["schedule", "CPU time", "ns per step", "ratio to filling memory"]
    return Table(f"{steps:,} values of other schedules", [*columns, "peak extra memory"], rows)
