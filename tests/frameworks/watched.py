"""What the framework tests share: a shape, tiny optimizers, the value used at every real step."""

import torch
from torch import nn

from stepsize import Cosine, Warmup

BASE = 0.1
SHAPE = Warmup(5) >> Cosine(19)


def watched(optimizer, key="lr", *, after=False):
    """The first group's value at every step of the optimizer, read just before it is used.

    `after`: read at the end of the step instead, because a closure or another hook may change it in
    between; the optimizer must not be scheduled yet, or the scheduler's hook comes first.
    """
    used = []
    register = optimizer.register_step_post_hook if after else optimizer.register_step_pre_hook
    register(lambda optimizer, *_: used.append(float(optimizer.param_groups[0][key])))
    return used


def values(schedule, steps, start=0, base=BASE):
    return [base * schedule(t) for t in range(start, start + steps)]


LOSSES = [2.0, 2.1, 1.9, 2.0, 2.1, 2.0, 9.0, 2.0, 2.1, 1.9, 2.0, float("nan"), 2.0, 2.0, 2.0]


def guarded(losses=LOSSES):
    """A controller of the training loss, and its factor after each of these losses."""
    from stepsize.feedback import Seen, SpikeGuard

    guard, factors = SpikeGuard(cold=4, consecutive=1, cooldown=1, recover=2, cut=0.25), []
    state = guard.init()
    for t, loss in enumerate(losses):
        factor, state, *_ = guard.update(state, Seen(t, loss=loss))
        factors.append(factor)
    return guard, factors


def sgd(parameters=None, **fields):
    parameters = [nn.Parameter(torch.ones(2))] if parameters is None else parameters
    return torch.optim.SGD(parameters, **{"lr": BASE, "momentum": 0.9, **fields})


def step(optimizer):
    for group in optimizer.param_groups:
        for p in group["params"]:
            p.grad = torch.ones_like(p)
    optimizer.step()
