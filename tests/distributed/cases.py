"""What every rank runs; each gives back plain data."""

import json
import sys
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
import torch.distributed.checkpoint as dcp
from torch import distributed, nn
from torch.distributed.checkpoint.state_dict import (
    get_model_state_dict,
    get_optimizer_state_dict,
    set_model_state_dict,
    set_optimizer_state_dict,
)
from torch.distributed.fsdp import fully_shard
from torch.nn.parallel import DistributedDataParallel
from torch.optim.lr_scheduler import ReduceLROnPlateau

from stepsize import (
    Constant,
    Cosine,
    Custom,
    FieldError,
    Horizon,
    Linear,
    Plan,
    SpecError,
    Warmup,
)
from stepsize.feedback import (
    Controller,
    Plateau,
    PlateauCooldown,
    SpikeGuard,
    Update,
    UpDown,
    controller,
)
from stepsize.torch import Scheduler

CONTROLLERS = {
    "plateau": lambda: Plateau(factor=0.5, patience=1, cooldown=1),
    "keras": lambda: Plateau(factor=0.5, patience=2, patience_convention="keras", nan="ignore"),
    "guard": lambda: SpikeGuard(cold=4, consecutive=1, cooldown=1, recover=4, cut=0.25),
    "up_down": lambda: UpDown(factor=0.5, patience=1, window=2),
    "stop": lambda: PlateauCooldown(patience=1, over=18),
    "both": lambda: [
        Plateau(factor=0.5, patience=1),
        SpikeGuard(cold=3, consecutive=1, recover=3),
    ],
}


def here():
    """This rank and the number of ranks; 0 of 1 outside a group."""
    if not distributed.is_initialized():
        return 0, 1
    return distributed.get_rank(), distributed.get_world_size()


def model_of(wrap):
    """A tiny model whose first dimensions no number of ranks divides."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 5), nn.Tanh(), nn.Linear(5, 3))
    if wrap == "ddp":
        return DistributedDataParallel(model)
    if wrap == "fsdp":
        for each in model:
            if isinstance(each, nn.Linear):
                fully_shard(each)
        fully_shard(model)
    return model


@dataclass
class Run:
    """A training whose scheduler is watched."""

    wrap: str = "none"
    optimizer: str = "adamw"
    tensor: bool = False
    steps: int = 0
    seen: list[Any] = field(default_factory=list)

    def __post_init__(self):
        self.model = model_of(self.wrap)
        rate = torch.tensor(0.125) if self.tensor else 0.125
        params = list(self.model.parameters())
        if self.optimizer == "adamw":
            self.opt = torch.optim.AdamW(params, lr=rate, weight_decay=0.0)
        else:
            momentum = 0.9 if self.optimizer == "momentum" else 0.0
            self.opt = torch.optim.SGD(params, lr=rate, momentum=momentum)

    def scheduled(self, **given):
        given = given or {"lr": Warmup(3) >> Cosine(60)}
        self.scheduler = Scheduler(self.opt, **given)
        return self

    def update(self):
        """Make one step of the optimizer, each rank on data of its own."""
        rank, _ = here()
        generator = torch.Generator().manual_seed(1000 * self.steps + rank)
        self.opt.zero_grad()
        loss = self.model(torch.randn(4, 3, generator=generator)).pow(2).mean()
        loss.backward()
        self.opt.step()
        self.steps += 1
        return loss

    def step(self):
        self.update()
        self.scheduler.step()

    def weights(self):
        """Give all weights that this rank holds, as text."""
        return repr([p.detach().tolist() for p in self.model.parameters()])

    def note(self):
        """Note everything that has to be the same on all ranks."""
        state = self.scheduler.state_dict()
        details = json.loads(state["details"])
        rates = [float(rate) for rate in self.scheduler.get_last_lr()]
        self.seen.append(
            {
                "rates": rates,
                "factors": [each["factor"] for each in details["controlled"]["states"]],
                "journal": json.dumps(self.scheduler.journal, sort_keys=True),
                "logs": repr(self.scheduler.logs()),
                "state": repr(state),
            }
        )


class Counted:
    """Counts the collectives that the library makes while it is open."""

    NAMES = ("all_reduce", "broadcast", "broadcast_object_list", "all_gather_object")

    def __enter__(self):
        self.calls, self._kept = 0, {name: getattr(distributed, name) for name in self.NAMES}
        for name in self.NAMES:
            setattr(distributed, name, self._counting(name))
        return self

    def _counting(self, name):
        def call(*args, **kwargs):
            self.calls += sys._getframe(1).f_globals["__name__"].startswith("stepsize")
            return self._kept[name](*args, **kwargs)

        return call

    def __exit__(self, *_):
        for name, kept in self._kept.items():
            setattr(distributed, name, kept)


# Controllers ------------------------------------------------------------------------------------


def fed(kind, wrap, feeds, sees="observe", reduce=True):
    """Show a controller this rank's numbers, one after every step."""
    rank, _ = here()
    run = Run(wrap).scheduled(lr=Warmup(3) >> Cosine(60), feedback=CONTROLLERS[kind]())
    for number in feeds[rank]:
        run.step()
        if sees == "both":
            run.scheduler.observe(loss=torch.tensor(number), metric=number, reduce=reduce)
        elif not reduce:
            run.scheduler.observe(number, metric=number, reduce=False)
        elif run.scheduler._binding.controlled.sees("metric"):
            run.scheduler.step(number)
        else:
            run.scheduler.observe(torch.tensor(number, dtype=torch.float64), reduce=reduce)
        run.note()
    return run.seen


def counted(kind, feed, reduce):
    """Show all ranks the same; tell how many collectives that took."""
    with Counted() as collectives:
        seen = fed(kind, "ddp", [feed] * here()[1], reduce=reduce)
    return collectives.calls, seen


def shown_at_once():
    run = Run().scheduled(lr=Cosine(60), feedback=CONTROLLERS["both"]())
    with Counted() as collectives:
        run.scheduler.observe(1.0, metric=2.0, grad_norm=3.0)
    return collectives.calls


def shown_differently():
    rank, size = here()
    run = Run().scheduled(lr=Cosine(60), feedback=CONTROLLERS["both"]())
    try:
        run.scheduler.observe(1.0, grad_norm=None if rank else 3.0)
    except FieldError as error:
        told = {"error": str(error)}
    run.scheduler.observe(2.5 + rank - (size - 1) / 2)
    return told | {"then": run.scheduler._binding.controlled.states[1]["mean"]}


def plateaus(theirs):
    """Give every rank's rate and weights after metrics that only some ranks see getting better."""
    rank, _ = here()
    run = Run("ddp", "sgd")
    if theirs:
        scheduler = ReduceLROnPlateau(run.opt, factor=0.5, patience=1)
    else:
        feedback = Plateau(factor=0.5, patience=1)
        scheduler = Scheduler(run.opt, lr=Constant(), feedback=feedback)
    for t in range(12):
        run.update()
        scheduler.step(8 - t / 2 if rank % 2 else 8 + t)
    return run.opt.param_groups[0]["lr"], run.weights()


# Edits ------------------------------------------------------------------------------------------


def edited(wrap, rank=None):
    """Change the plan four times, with arguments that differ by rank."""
    r = here()[0] if rank is None else rank
    run = Run(wrap).scheduled(
        lr=Warmup("10%") >> Cosine(), extra={"ema": Constant(0.5)}, horizon=Horizon(40)
    )
    for t in range(32):
        run.step()
        if t == 5:
            run.scheduler.extend(60 + 10 * r, why=f"asked by {r}")
        if t == 11:
            run.scheduler.replan(lr=Linear(50 + r, start=1.5), over=4 + r, since="start")
        if t == 17:
            run.scheduler.replan(Plan(lr=Constant(1 + r / 4)), over="5%" if r else 0)
        if t == 23:
            run.scheduler.cool_down(4 + r, to=r / 8, along="cosine" if r else "linear")
        run.note()
    return run.seen


def falling(t):
    return 1.0 / (1.0 + t)


INVALID = {
    "length": lambda s: s.cool_down(-1),
    "beyond the end": lambda s: s.cool_down("200%"),
    "unknown key": lambda s: s.cool_down(5, keys=("momentum",)),
    "unknown ramp": lambda s: s.cool_down(5, along="zigzag"),
    "behind": lambda s: s.extend(2),
    "no plan": lambda s: s.replan({"lr": Constant()}),
    "absolute": lambda s: s.replan(lr=Constant(0.1).absolute()),
    "a function without a name": lambda s: s.replan(lr=Custom(lambda t: 1.0)),
    "a type": lambda s: s.extend([3]),
}


def wrongly_edited(first):
    """Ask for what cannot be, on rank 0 alone or on all but it, beside something that can be."""
    found = {}
    for name, invalid in INVALID.items():
        run = Run("ddp").scheduled(lr=Warmup("10%") >> Cosine(), horizon=Horizon(40))
        for _ in range(8):
            run.step()
        before = run.scheduler.state_dict()
        try:
            if (here()[0] == 0) == first:
                invalid(run.scheduler)
            else:
                run.scheduler.cool_down(8)
        except (FieldError, SpecError) as error:
            told = f"{type(error).__name__}: {error}"
        else:
            told = ""
        same = run.scheduler.state_dict() == before
        run.scheduler.replan(lr=Linear(8), over=0)  # a collective call that has its own answer
        run.step()
        found[name] = (told, same, float(run.scheduler.get_last_lr()[0]))
    return found


# Norms of split gradients -----------------------------------------------------------------------


@controller
class NormWatch(Controller):
    """Keeps the norms it is shown."""

    kind: ClassVar[str] = "norm_watch_of_tests"
    sees: str = "loss"

    def init(self):
        return {"factor": 1.0, "norms": []}

    def update(self, state, seen):
        return Update(1.0, {**state, "norms": [*state["norms"], seen.grad_norm]})

    def _react(self, state, value):
        raise NotImplementedError


def norms(reduce):
    """Show the norm that FSDP gives; tell what was read, what is local, and what is right."""
    run = Run("fsdp").scheduled(lr=Constant(), feedback=NormWatch())
    local, right = [], []
    for _ in range(3):
        run.step()
        grad = run.model[0].weight.grad
        right.append(grad.full_tensor().norm().item())
        norm = grad.norm()
        local.append(float(norm))  # what float() makes of it
        run.scheduler.observe(grad_norm=norm, reduce=reduce)
    run.note()
    return {
        "read": run.scheduler._binding.controlled.states[0]["norms"],
        "local": local,
        "right": right,
        "rows": grad.to_local().shape[0],
        "state": run.seen[-1]["state"],
    }


# Wall clock -------------------------------------------------------------------------------------


class Hands:
    """A clock that is moved by hand, and takes some time to read."""

    def __init__(self, start, speed, reading=0.0):
        self.now, self.speed, self.reading = start, speed, reading

    def __call__(self):
        self.now += self.reading
        return self.now

    def pass_by(self, seconds):
        self.now += seconds * self.speed


def timed(steps, pace, reading=0.0, hiccup=0.0, resume=None):
    """Train over wall-clock time; every rank's clock starts and runs differently, 0's is right.

    `reading`: seconds that each look at it takes; `hiccup`: what the first agreement takes beside.
    """
    rank, _ = here()
    run = Run("none", "sgd")
    clock = Hands(1000.0 * rank, 1.0 + rank, reading)
    shape = Warmup("10%") >> Cosine()
    run.scheduled(lr=shape, horizon=Horizon("10 min"), clock=clock)
    if resume is not None:
        run.scheduler.load_state_dict(resume)
    began = clock.now - run.scheduler._clock.seconds
    rates, right = [], []
    with Counted() as collectives:
        for t in range(steps):
            clock.pass_by(pace)
            run.opt.step()
            run.scheduler.step()
            if t == 0:
                clock.pass_by(hiccup)
                run.scheduler._clock._cost += hiccup
            rates.append(run.scheduler.get_last_lr()[0])
            right.append(clock.now - began)
    return {
        "rates": rates,
        "seconds": right,  # of rank 0
        "collectives": collectives.calls,
        "state": run.scheduler.state_dict(),
        "next": run.scheduler.values(),
    }


# Checkpoints ------------------------------------------------------------------------------------

LENGTH, SAVED_AT = 30, 12


def _trained(run, steps):
    """Go on, with numbers that differ by rank and have the same mean on any number of them."""
    rank, size = here()
    for _ in range(steps):
        run.step()
        off = (rank - (size - 1) / 2) / 4
        t = run.steps
        run.scheduler.observe(2.0 + off + (64.0 if t == 10 else 0.0), metric=1.0 + off)
        if t == 4:
            run.scheduler.extend(LENGTH)
        if t == 7:
            run.scheduler.replan(lr=Linear(LENGTH, start=1.5), over=3, since="start")
        run.note()
    return run


def _checkpointed(optimizer, tensor):
    feedback = [Plateau(factor=0.5, patience=6), SpikeGuard(cold=3, consecutive=1, recover=9)]
    run = Run("fsdp", optimizer, tensor=tensor)
    return run.scheduled(
        lr=Warmup("10%") >> Cosine(),
        weight_decay=Constant(0.25).absolute(),
        extra={"ema": Linear()},
        horizon=Horizon(20),
        feedback=feedback,
    )


def _parts(run):
    return {
        "model": get_model_state_dict(run.model),
        "optimizer": get_optimizer_state_dict(run.model, run.opt),
        "scheduler": run.scheduler,
    }


def _whole(run):
    return [p.full_tensor().tolist() for p in run.model.parameters()]


def saved(folder, optimizer="adamw", tensor=False, how="save"):
    """Train, save, and go on; tell what was saved, and what came then."""
    run = _trained(_checkpointed(optimizer, tensor), SAVED_AT)
    at, weights = run.seen[-1], _whole(run)
    if how == "save":
        dcp.save(_parts(run), checkpoint_id=folder)
        run.scheduler.step()
        assert run.scheduler.last_epoch == SAVED_AT
        _trained(run, LENGTH - SAVED_AT)
    else:
        group = distributed.new_group(backend="gloo")
        pending = dcp.async_save(_parts(run), checkpoint_id=folder, process_group=group)
        _trained(run, LENGTH - SAVED_AT)  # while it is written
        pending.result()
        distributed.destroy_process_group(group)
    return {"at": at, "weights": weights, "then": run.seen[SAVED_AT:]}


def loaded(folder, optimizer="adamw", tensor=False, scheduler="in the middle"):
    """Load into a fresh run, and go on; tell what was loaded, and what came then."""
    run = _checkpointed(optimizer, tensor)
    rates = [id(group["lr"]) for group in run.opt.param_groups]
    parts = _parts(run)
    own = parts.pop("scheduler")
    if scheduler == "first":
        dcp.load({"scheduler": own}, checkpoint_id=folder)
    if scheduler == "in the middle":
        parts["scheduler"] = own
    dcp.load(parts, checkpoint_id=folder)
    set_model_state_dict(run.model, parts["model"])
    set_optimizer_state_dict(run.model, run.opt, parts["optimizer"])
    if scheduler == "last":
        dcp.load({"scheduler": own}, checkpoint_id=folder)
    run.note()
    run.steps = SAVED_AT
    at, weights = run.seen.pop(), _whole(run)
    _trained(run, LENGTH - SAVED_AT)
    same = [id(group["lr"]) for group in run.opt.param_groups] == rates
    return {"at": at, "weights": weights, "then": run.seen, "same": same or not tensor}


def initialized(wrap, optimizer, tensor, follow):
    """Ask for the optimizer's state, which makes fake steps, among real ones; tell the counts."""
    run = Run(wrap, optimizer, tensor=tensor)
    run.scheduled(lr=Linear(10), follow=follow)
    calls = []
    run.opt.register_step_post_hook(lambda *_: calls.append(None))
    found = []

    def look():
        before = len(calls)
        state = get_optimizer_state_dict(run.model, run.opt)
        set_optimizer_state_dict(run.model, run.opt, state)
        rate = float(run.opt.param_groups[0]["lr"])
        found.append((len(calls) - before, run.scheduler.last_epoch, rate))

    look()
    look()
    for _ in range(3):
        run.update()
        if not follow:
            run.scheduler.step()
        run.opt.zero_grad()
        look()
    return found
