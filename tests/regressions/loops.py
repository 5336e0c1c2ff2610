"""What these tests share: a tiny optimizer, and the rates that a loop has used."""

import threading

import torch
from torch import nn


def parameter():
    return nn.Parameter(torch.ones(1))


def sgd(*lrs, **fields):
    groups = [{"params": [parameter()], "lr": lr} for lr in lrs or (0.1,)]
    return torch.optim.SGD(groups, **{"lr": 0.1, "momentum": 0.9, **fields})


def adamw(*lrs, **fields):
    groups = [{"params": [parameter()], "lr": lr} for lr in lrs or (1e-3,)]
    return torch.optim.AdamW(groups, **{"lr": 1e-3, **fields})


def rates(optimizer):
    return [float(group["lr"]) for group in optimizer.param_groups]


def rate(optimizer):
    return rates(optimizer)[0]


def go(optimizer, scheduler, steps, calls=1):
    """Train; give the first group's rate at every step."""
    used = []
    for _ in range(steps):
        used.append(rate(optimizer))
        optimizer.step()
        for _ in range(calls):
            scheduler.step()
    return used


def on_two_ranks(monkeypatch, run):
    """Call `run(rank)` on two threads, whose collective calls meet; give both answers."""
    own, meeting = threading.local(), threading.Barrier(2, timeout=30)
    sent, found = [None, None], [None, None]

    def exchanged(value):
        sent[own.rank] = value
        meeting.wait()
        both = list(sent)
        meeting.wait()
        return both

    def all_reduce(tensor, **_):
        tensor.copy_(sum(exchanged(tensor.clone())))

    def broadcast_object_list(objects, **_):
        objects[:] = exchanged(list(objects))[0]

    simulated = {
        "is_initialized": lambda: True,
        "get_world_size": lambda *_: 2,
        "get_rank": lambda *_: own.rank,
        "get_backend": lambda *_: "gloo",
        "all_reduce": all_reduce,
        "broadcast_object_list": broadcast_object_list,
    }
    for name, function in simulated.items():
        monkeypatch.setattr(torch.distributed, name, function)

    def work(rank):
        own.rank = rank
        found[rank] = run(rank)

    threads = [threading.Thread(target=work, args=(rank,)) for rank in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return found
