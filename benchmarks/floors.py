"""Floors: what a person would write by hand for one fixed case, with no check at all."""

import math
from collections.abc import Callable

import torch

BASE = 0.1
Step = Callable[[], None]


def optimizer(groups: int, *, tensor: bool = False, momentum: float = 0.0) -> torch.optim.Optimizer:
    """Give an SGD with so many param groups of one number each."""
    rates = [torch.tensor(BASE) if tensor else BASE for _ in range(groups)]
    named = [{"params": [torch.nn.Parameter(torch.zeros(1))], "lr": rate} for rate in rates]
    return torch.optim.SGD(named, lr=BASE, momentum=momentum)


def warmup_cosine(warmup: int, total: int) -> Callable[[float], float]:
    """Give warmup and cosine as a function of the step, for those who take functions."""
    cos, pi = math.cos, math.pi

    def value(t: float) -> float:
        if t < warmup:
            return (t + 1) / (warmup + 1)
        return 0.5 * (1.0 + cos(pi * (t - warmup) / (total - warmup)))

    return value


def write_rate(opt: torch.optim.Optimizer, warmup: int, total: int) -> Step:
    """Count, compute warmup and cosine once, write it in every group."""
    pairs = [(group, BASE) for group in opt.param_groups]
    cos, pi, t = math.cos, math.pi, 0

    def step() -> None:
        nonlocal t
        t += 1
        if t < warmup:
            m = (t + 1) / (warmup + 1)
        else:
            m = 0.5 * (1.0 + cos(pi * (t - warmup) / (total - warmup)))
        for group, base in pairs:
            group["lr"] = base * m

    return step


def fill_rate(opt: torch.optim.Optimizer, warmup: int, total: int) -> Step:
    """Do the same where every group holds its rate as a tensor: one `fill_` each."""
    pairs = [(group["lr"], BASE) for group in opt.param_groups]
    cos, pi, t = math.cos, math.pi, 0

    def step() -> None:
        nonlocal t
        t += 1
        if t < warmup:
            m = (t + 1) / (warmup + 1)
        else:
            m = 0.5 * (1.0 + cos(pi * (t - warmup) / (total - warmup)))
        for tensor, base in pairs:
            tensor.fill_(base * m)

    return step


def write_stairs(opt: torch.optim.Optimizer, every: int, factor: float) -> Step:
    """Count, and write a step decay only where it changed."""
    pairs = [(group, BASE) for group in opt.param_groups]
    t, last = 0, None

    def step() -> None:
        nonlocal t, last
        t += 1
        stair = t // every
        if stair != last:
            last = stair
            for group, base in pairs:
                group["lr"] = base * factor**stair

    return step


def write_one_cycle(opt: torch.optim.Optimizer, total: int) -> Step:
    """Count, and write torch's one-cycle rate and the inverse cycle of the momentum."""
    pairs = [(group, BASE) for group in opt.param_groups]
    cos, pi, t, peak, last = math.cos, math.pi, 0, 0.3 * total - 1, total - 1

    def step() -> None:
        nonlocal t
        t += 1
        if t <= peak:
            up = 0.5 * (1.0 - cos(pi * t / peak))
            m = 0.04 + 0.96 * up
        else:
            up = 0.5 * (1.0 + cos(pi * (t - peak) / (last - peak)))
            m = 4e-6 + (1.0 - 4e-6) * up
        momentum = 0.95 - 0.1 * up
        for group, base in pairs:
            group["lr"] = base * m
            group["momentum"] = momentum

    return step
