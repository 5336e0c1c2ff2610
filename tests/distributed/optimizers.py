"""What every rank runs for the optimizers that find their own step size; each gives plain data."""

import functools
import math
from unittest import mock

import torch
import torch.distributed.checkpoint as dcp
from tests.distributed.cases import here
from tests.distributed.sums import mesh_of
from tests.optim.cases import CASES, Case, Problem, delta_bar_delta, train
from torch import nn
from torch.distributed.checkpoint.state_dict import (
    get_model_state_dict,
    get_optimizer_state_dict,
    set_model_state_dict,
    set_optimizer_state_dict,
)
from torch.distributed.fsdp import FullyShardedDataParallel, fully_shard
from torch.distributed.tensor import DTensor, Shard, distribute_tensor
from torch.distributed.tensor.parallel import (
    ColwiseParallel,
    RowwiseParallel,
    SequenceParallel,
    parallelize_module,
)
from torch.nn.parallel import DistributedDataParallel

from stepsize import FieldError


def plain(value):
    """Give a number or a whole tensor as plain data; collective for a tensor that is split."""
    if isinstance(value, DTensor):
        value = value.full_tensor()
    return value.detach().clone() if isinstance(value, torch.Tensor) else value


# Training ---------------------------------------------------------------------------------------


def wrapped(model, wrap):
    """Split a model over the ranks."""
    if wrap.startswith("ddp"):
        return DistributedDataParallel(model, gradient_as_bucket_view=wrap == "ddp views")
    if wrap == "fsdp 1":
        return FullyShardedDataParallel(model, use_orig_params=True, device_id=torch.device("cpu"))
    mesh = mesh_of(2, 2) if wrap == "hsdp" else None
    if wrap in ("fsdp", "hsdp"):
        for layer in (model[0], model[2]):
            fully_shard(layer, mesh=mesh)
    return model if wrap == "none" else fully_shard(model, mesh=mesh)


class Share(Problem):
    """The problem of one process, of which every rank has its share of each minibatch.

    Samples count differently, so that the losses of the ranks are far apart.
    """

    def __init__(self, dtype, wrap, seed=0, share=None):
        super().__init__(dtype, seed)
        self.model = wrapped(self.model, wrap)
        self.rank, self.ranks = share or (here() if wrap != "none" else (0, 1))
        self.weights_of_samples = torch.linspace(0.2, 1.8, 8, dtype=dtype)
        self.calls, self.broken, self.steep = 0, (), 1.0

    def loss(self, step):
        self.calls += 1
        size = 8 // self.ranks
        mine = slice(self.rank * size, self.rank * size + size)
        at = slice(step % 8 * 8 + mine.start, step % 8 * 8 + mine.stop)
        found = self.model(self.x[at]).to(self.x.dtype)
        each = nn.functional.cross_entropy(found, self.y[at], reduction="none")
        last = self.rank == self.ranks - 1
        scale = math.nan if last and step in self.broken else self.steep
        return scale * (self.weights_of_samples[mine] * each).mean()


class Run:
    """An optimizer of CASES on a share; what the ranks draw by chance differs."""

    def __init__(self, name, wrap="none", dtype=torch.float64, seed=0, share=None):
        self.case = CASES[name]
        self.problem = Share(dtype, wrap, seed, share)
        # what looks at the loss has to find more than its greatest step size
        self.problem.steep = 20.0 if self.case.closure else 1.0
        # and AdGD would grow for tens of steps, as fast as it may, from where it begins
        fields = {"initial_step": 0.05} if name.startswith("AdGD") else {}
        self.optimizer = self.case.make(self.problem.model.parameters(), **fields)
        self.rows = []
        torch.manual_seed(1000 + self.problem.rank)

    def train(self, steps):
        for step in steps:
            self.problem.calls, told = 0, ""
            try:
                train(self.optimizer, self.problem, [step], closure=self.case.closure)
            except FieldError as error:  # every rank should see it
                told = str(error)
            sizes = [plain(self.optimizer.sizes_of(p)) for p in self.problem.model.parameters()]
            self.rows.append({"sizes": sizes, "calls": self.problem.calls, "told": told})
        return self

    def found(self):
        """Give what has to be the same on all ranks."""
        weights = [plain(p) for p in self.problem.model.parameters()]
        numbers = (int, float, torch.Tensor)
        groups = [
            {k: plain(v) for k, v in group.items() if isinstance(v, numbers)}
            for group in self.optimizer.param_groups
        ]
        told = [row.pop("told") for row in self.rows]
        return {"weights": weights, "rows": self.rows, "groups": groups}, told


def trained(name, wrap="none", dtype=torch.float64, share=None, broken=()):
    """Train; outside a group, as one process."""
    run = Run(name, wrap, dtype, share=share)
    run.problem.broken = broken
    return run.train(range(10)).found()


# Checkpoints ------------------------------------------------------------------------------------


def _parts(run):
    model = run.problem.model
    return {
        "model": get_model_state_dict(model),
        "optimizer": get_optimizer_state_dict(model, run.optimizer),
    }


def _load(run, folder):
    parts = _parts(run)
    dcp.load(parts, checkpoint_id=folder)
    set_model_state_dict(run.problem.model, parts["model"])
    set_optimizer_state_dict(run.problem.model, run.optimizer, parts["optimizer"])


def saved(name, wrap, folder, stop=5):
    """Train, save, and go on."""
    run = Run(name, wrap).train(range(stop))
    dcp.save(_parts(run), checkpoint_id=folder)
    run.rows.clear()
    return run.train(range(stop, 10)).found()[0]


def loaded(name, wrap, folder, stop=5):
    """Load into a fresh run, and go on."""
    run = Run(name, wrap, seed=1)
    _load(run, folder)
    return run.train(range(stop, 10)).found()[0]


def asked(name, wrap, at):
    """Train; before some steps ask for the state, which makes torch take steps that are none."""
    run = Run(name, wrap)
    for step in range(8):
        if step in at:
            run.optimizer.zero_grad()
            get_optimizer_state_dict(run.problem.model, run.optimizer)
        run.train([step])
    return run.found()[0]


# Tensor parallelism -----------------------------------------------------------------------------


class Slices(nn.Module):
    """A block whose norm is given a slice of every sequence, so that its gradients are parts."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.norm, self.up, self.down = nn.LayerNorm(4), nn.Linear(4, 6), nn.Linear(6, 4)

    def forward(self, x):
        return self.down(self.up(self.norm(x)).tanh())


PARALLEL = {
    "norm": lambda: SequenceParallel(),
    "up": lambda: ColwiseParallel(input_layouts=Shard(1)),
    "down": lambda: RowwiseParallel(),
}


def parallel(name, wrap, steps=6):
    """Train a block whose layers are split, as one process or over the ranks."""
    model = Slices().double()
    torch.manual_seed(5)
    inputs = torch.randn(3, 4, 4, dtype=torch.float64)
    if wrap != "none":
        mesh = mesh_of(2) if wrap == "tp" else mesh_of(2, 2)
        tensor = mesh if wrap == "tp" else mesh["shard"]
        parallelize_module(model, tensor, {n: make() for n, make in PARALLEL.items()})
        if wrap == "fsdp tp":
            fully_shard(model, mesh=mesh["replicate"])
    case = CASES[name]
    optimizer = case.make(model.parameters())

    def closure():
        optimizer.zero_grad()
        x = inputs
        if wrap != "none":
            x = distribute_tensor(inputs, tensor, [Shard(1)])
        y = model(x)
        loss = (y - 1).square().mean()
        loss.backward()
        return loss

    for _ in range(steps):
        if case.closure:
            optimizer.step(closure)
        else:
            closure()
            optimizer.step()
    return [plain(p) for p in model.parameters()]


# The compiled form ------------------------------------------------------------------------------


def compiled(wrap, folder):
    """Train Delta-Bar-Delta as one compiled kernel; half of the steps after a checkpoint."""
    with mock.patch.dict(CASES, compiled=Case(functools.partial(delta_bar_delta, compiled=True))):
        first = Run("compiled", wrap).train(range(5))
        dcp.save(_parts(first), checkpoint_id=folder)
        run = Run("compiled", wrap, seed=1)
        _load(run, folder)
        run.rows = first.rows
        return run.train(range(5, 10)).found()[0]


# Trials without a backward pass -----------------------------------------------------------------


def searched(wrap, apart):
    """Search along a line; `apart`: trials evaluate the loss alone."""
    run = Run("LineSearch", wrap)
    run.problem.steep = 20.0
    for step in range(6):

        def closure(step=step):
            run.optimizer.zero_grad()
            loss = run.problem.loss(step)
            loss.backward()
            return loss

        run.optimizer.step(closure, (lambda step=step: run.problem.loss(step)) if apart else None)
        run.rows.append({"told": "", "trials": run.optimizer.param_groups[0]["trials"]})
    return run.found()[0]
