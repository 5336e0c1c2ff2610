"""One update of 10 million float32 parameters, gradients given: ours beside torch's own.

The limit of a row is the bytes that its update must read and write, at the rate at which the same
run streams memory (an addition in place, the fastest thing there is). "per byte" compares with
torch's Adadelta (foreach), which also keeps two numbers of every parameter.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import torch
from report import Table
from timing import Loop, calling, compare

from stepsize import optim

SIZE = 10_000_000
LAYOUTS = {"1 tensor": 1, "1,000 tensors": 1_000, "10,000 tensors": 10_000}
FLOOR, PEER = "x += y, streaming", "torch Adadelta (foreach)"


class Method(NamedTuple):
    """An optimizer and the bytes per parameter that its update must move."""

    make: Callable[[list[torch.Tensor]], torch.optim.Optimizer]
    bytes: int


def _observed(params: list[torch.Tensor], **fields: Any) -> torch.optim.Optimizer:
    optimizer = optim.VSGD(params, curvature="observed", slow_start=1, **fields)
    optimizer.observe([torch.ones_like(p) for p in params])
    return optimizer


METHODS: Mapping[str, Method] = {
    "torch SGD (foreach)": Method(lambda p: torch.optim.SGD(p, lr=1e-3, foreach=True), 12),
    "torch Adam (foreach)": Method(lambda p: torch.optim.Adam(p, foreach=True), 28),
    "torch Adam (fused)": Method(lambda p: torch.optim.Adam(p, fused=True), 28),
    PEER: Method(lambda p: torch.optim.Adadelta(p, foreach=True), 28),
    "DeltaBarDelta": Method(lambda p: optim.DeltaBarDelta(p, lr=1e-3), 28),
    "DeltaBarDelta, compiled": Method(lambda p: optim.DeltaBarDelta(p, lr=1e-3, compiled=True), 28),
    "VSGD, curvature observed": Method(_observed, 48),
    "VSGD, compiled": Method(lambda p: _observed(p, compiled=True), 48),
    "AdGD": Method(lambda p: optim.AdGD(p, lr=1e-3), 20),
}


def tables(*, quick: bool) -> Iterator[Table]:
    """One table for each layout of the parameters."""
    layouts = {"100 tensors": 100} if quick else LAYOUTS
    for title, count in layouts.items():
        yield _table(title, count, SIZE // 10 if quick else SIZE, rounds=3 if quick else 11)


def _table(title: str, count: int, size: int, rounds: int) -> Table:
    vector, other = torch.zeros(size), torch.randn(size)
    found = compare({FLOOR: calling(lambda: vector.add_(other, alpha=0.1))}, rounds, batch_ms=20)
    for name, method in METHODS.items():  # one at a time: their memories would crowd each other out
        found |= compare({name: _stepping(method, count, size)}, rounds, batch_ms=20)
    limit = found[FLOOR] / 12
    peer = found[PEER] / METHODS[PEER].bytes
    rows = [[FLOOR, "12", f"{found[FLOOR] / size:.3f}", "1.0x", ""]]
    for name, method in METHODS.items():
        per_byte = found[name] / method.bytes
        times = f"{found[name] / size:.3f}", f"{per_byte / limit:.1f}x", f"{per_byte / peer:.2f}x"
        rows.append([name, str(method.bytes), *times])
    columns = ["update", "bytes", "ns per parameter", "of the limit", "per byte, of Adadelta"]
    return Table(f"{size:,} parameters in {title}", columns, rows)


def _stepping(method: Method, count: int, size: int) -> Loop:
    """Give the steps of an optimizer; as in training, each finds gradients that are new tensors."""
    params = [torch.randn(size // count, requires_grad=True) for _ in range(count)]
    both = [[torch.randn_like(p) for p in params] for _ in range(2)]
    optimizer, turn = method.make(params), 0

    def step() -> None:
        nonlocal turn
        turn = 1 - turn
        for p, gradient in zip(params, both[turn], strict=True):
            p.grad = gradient
        optimizer.step()

    return calling(step)
