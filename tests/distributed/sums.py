"""Tensors that are split over the ranks in many ways, and sums over all of them."""

import functools
import math
from contextlib import nullcontext
from unittest import mock

import torch
from tests.distributed.cases import here
from torch import distributed
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import Replicate, Shard, distribute_tensor
from torch.distributed.tensor.placement_types import _StridedShard

from stepsize.optim.whole import Totals, local, mean_loss, over_ranks, split_of


@functools.cache
def mesh_of(*shape):
    names = ("replicate", "shard") if len(shape) == 2 else ("shard",)
    return init_device_mesh("cpu", shape, mesh_dim_names=names)


LAYOUTS = {  # by number of ranks: shape of the mesh, placements, shape of the tensor
    "rows": (2, (2,), [Shard(0)], (7, 5)),
    "rows of four": (4, (4,), [Shard(0)], (7, 5)),
    "columns": (2, (2,), [Shard(1)], (4, 5)),
    "fewer rows than ranks": (4, (4,), [Shard(0)], (2, 3)),
    "whole everywhere": (2, (2,), [Replicate()], (7, 5)),
    "hsdp": (4, (2, 2), [Replicate(), Shard(0)], (5, 3)),
    "hsdp turned": (4, (2, 2), [Shard(0), Replicate()], (5, 3)),
    "rows and columns": (4, (2, 2), [Shard(0), Shard(1)], (5, 3)),
    "rows twice": (4, (2, 2), [Shard(0), Shard(0)], (7, 3)),
    "fsdp over tp": (4, (2, 2), [_StridedShard(0, split_factor=2), Shard(0)], (7, 3)),
}


def pieces(layout):
    """Give two tensors as a layout splits them, and two that every rank has whole."""
    _, mesh, placements, shape = LAYOUTS[layout]
    generator = torch.Generator().manual_seed(3)
    split = [torch.randn(shape, generator=generator, dtype=torch.float64) for _ in range(2)]
    whole = [torch.randn(4, generator=generator, dtype=torch.float64) for _ in range(2)]
    mesh = mesh_of(*mesh)
    parts = [distribute_tensor(t, mesh, placements, src_data_rank=None) for t in split]
    return split, parts, whole


def totals(layout, blind=False):
    """Sum over tensors that are split and over whole ones beside them; tell what is right, too.

    `blind`: as if there were no other ranks.
    """
    split, (one, other), whole = pieces(layout)
    sums = Totals()
    sums.add_squares("squares", [local(one), local(other)], split_of(one))
    sums.add_products("products", [whole[0]], [whole[1]])
    sums.add_products("products", [local(one)], [local(other)], split_of(one))
    sums.add("counts", [torch.tensor(float(local(one).numel()))], split_of(one))
    sums.add_squares("squares", whole)
    sums.add_squares("squares of none", [], split_of(one))
    skipped = mock.patch.object(distributed, "all_reduce") if blind else nullcontext()
    with skipped:
        read = sums.read()
        peak = local(one).max() if local(one).numel() else torch.tensor(-math.inf)
        read["greatest"] = over_ranks(peak.double(), split_of(one), greatest=True).item()
    right = {
        "squares": sum(t.square().sum().item() for t in (*split, *whole)),
        "products": sum(a.flatten().dot(b.flatten()).item() for a, b in (split, whole)),
        "greatest": split[0].max().item(),
        "counts": float(split[0].numel()),
    }
    return read, right


def losses(values, reduce):
    """Read this rank's loss, as a number and as tensors."""
    value = values[here()[0]]
    return [mean_loss(v, reduce=reduce) for v in (value, torch.tensor(value, dtype=torch.float64))]
