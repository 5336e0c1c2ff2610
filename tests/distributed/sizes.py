"""What every rank runs to look at step sizes; each gives back plain data."""

import torch
from tests.distributed.cases import Run
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor.parallel import (
    ColwiseParallel,
    RowwiseParallel,
    parallelize_module,
)

from stepsize.torch import StepSizes, step_sizes


def told(found):
    return {n: (s.count, s.elements, s.schedule, dict(s.quantiles)) for n, s in found.items()}


def whole(optimizer, p):
    """Give Adam's step sizes of all elements, from all ranks' parts of the state."""
    squares, group = optimizer.state[p]["exp_avg_sq"], optimizer.param_groups[0]
    squares = squares.full_tensor() if hasattr(squares, "full_tensor") else squares
    root = (squares.double() / (1 - 0.999 ** optimizer.state[p]["step"].item())).sqrt()
    return (group["lr"] / (root + group["eps"]))[squares > 0]


def replicated_and_split(model):
    """Split over pairs of ranks that have the same."""
    mesh = init_device_mesh("cpu", (2, 2), mesh_dim_names=("replicate", "shard"))
    fully_shard(model, mesh=mesh)


def split_twice(model):
    """Split what tensor parallelism has split: FSDP's strided shards."""
    mesh = init_device_mesh("cpu", (2, 2), mesh_dim_names=("dp", "tp"))
    parallelize_module(model, mesh["tp"], {"0": ColwiseParallel(), "2": RowwiseParallel()})
    fully_shard(model, mesh=mesh["dp"])


class Split:
    """A model that is split on a mesh of two dimensions; the same data on every rank."""

    def __init__(self, wrap):
        torch.manual_seed(0)
        self.model = nn.Sequential(nn.Linear(3, 6), nn.Tanh(), nn.Linear(6, 3))
        {"hsdp": replicated_and_split, "tp": split_twice}[wrap](self.model)
        self.opt = torch.optim.AdamW(self.model.parameters(), lr=0.125, weight_decay=0.0)
        self.data = torch.Generator().manual_seed(1)

    def update(self):
        self.opt.zero_grad()
        self.model(torch.randn(4, 3, generator=self.data)).pow(2).mean().backward()
        self.opt.step()


def looked_at(wrap, shares, samples=None):
    """Give what this rank is told, and what is right."""
    run = Split(wrap) if wrap in ("hsdp", "tp") else Run(wrap)
    history = StepSizes(run.opt, every=2, quantiles=shares)
    for _ in range(4):
        run.update()
    params = [p for group in run.opt.param_groups for p in group["params"]]
    rates = [whole(run.opt, p) for p in params]
    right = torch.cat([rate.reshape(-1) for rate in rates])
    settings = {"quantiles": shares, "samples": samples}
    return {
        "group": told(step_sizes(run.opt, **settings)),
        "layer": told(step_sizes(run.opt, run.model, per="layer", **settings)),
        "parameter": told(step_sizes(run.opt, run.model, per="parameter", **settings)),
        "history": history.to_dict(),
        "right": torch.quantile(right, torch.tensor(shares, dtype=right.dtype)).tolist(),
        "of each": [torch.quantile(r, torch.tensor(shares, dtype=r.dtype)).tolist() for r in rates],
        "rows": [getattr(p, "to_local", lambda p=p: p)().shape[0] for p in params],
    }


def large(samples):
    """Give the median of a large split tensor beside a whole one, from a sample."""
    torch.manual_seed(0)
    split, plain = nn.Linear(301, 203, bias=False), nn.Linear(30, 30, bias=False)
    ladder = torch.linspace(1.0, 2.0, 203)[:, None].expand(203, 301)  # gradients, by row
    fully_shard(split)
    optimizer = torch.optim.Adagrad([*split.parameters(), *plain.parameters()], lr=1.0, eps=0.0)
    (split.weight * _like(ladder, split.weight)).sum().backward()
    plain.weight.grad = torch.full_like(plain.weight, 0.25)
    optimizer.step()
    return told(step_sizes(optimizer, samples=samples, quantiles=(0.0, 0.5, 1.0)))["group 0"]


def _like(tensor, split):
    from torch.distributed.tensor import distribute_tensor

    return distribute_tensor(tensor.contiguous(), split.device_mesh, split.placements)
