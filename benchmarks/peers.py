"""Other libraries' schedulers, set up for the same warmup and cosine; imported when asked for."""

import importlib
import importlib.util
import sys
import types
from collections.abc import Callable
from typing import Any

import torch
from floors import BASE, Step, warmup_cosine
from torch.optim.lr_scheduler import CosineAnnealingLR, LambdaLR, LinearLR, SequentialLR

Opt = torch.optim.Optimizer
Maker = Callable[[Opt, int, int], Step]


def torch_sequential(opt: Opt, warmup: int, total: int) -> Any:
    """Make torch SequentialLR of LinearLR and CosineAnnealingLR."""
    up = LinearLR(opt, start_factor=1 / (warmup + 1), total_iters=warmup)
    return SequentialLR(opt, [up, CosineAnnealingLR(opt, total - warmup)], [warmup])


def torch_lambda(opt: Opt, warmup: int, total: int) -> Any:
    """Make torch LambdaLR of a handwritten function."""
    return LambdaLR(opt, warmup_cosine(warmup, total))


def torch_cosine(opt: Opt, warmup: int, total: int) -> Any:
    """Make torch CosineAnnealingLR, without a warmup."""
    del warmup
    return CosineAnnealingLR(opt, total)


def transformers_cosine(opt: Opt, warmup: int, total: int) -> Any:
    """Make transformers get_cosine_schedule_with_warmup."""
    module = importlib.import_module("transformers.optimization")
    return module.get_cosine_schedule_with_warmup(opt, warmup, total)


def timm_cosine(opt: Opt, warmup: int, total: int) -> Step:
    """Make timm CosineLRScheduler, by updates."""
    _stub("timm")
    scheduler = importlib.import_module("timm.scheduler.cosine_lr").CosineLRScheduler(
        opt,
        t_initial=total - warmup,
        warmup_t=warmup,
        warmup_lr_init=BASE / (warmup + 1),
        warmup_prefix=True,
        t_in_epochs=False,
    )
    update, t = scheduler.step_update, 0

    def step() -> None:
        nonlocal t
        t += 1
        update(t)

    return step


def ignite_cosine(opt: Opt, warmup: int, total: int) -> Step:
    """Make ignite CosineAnnealingScheduler with create_lr_scheduler_with_warmup."""
    handlers = importlib.import_module("ignite.handlers.param_scheduler")
    handler = handlers.create_lr_scheduler_with_warmup(
        ignite_cosine_alone(opt, 0, total - warmup),
        warmup_start_value=BASE / (warmup + 1),
        warmup_duration=warmup + 1,
        warmup_end_value=BASE,
    )
    return _handler(handler)


def ignite_cosine_alone(opt: Opt, warmup: int, total: int) -> Any:
    """Make ignite CosineAnnealingScheduler, without a warmup."""
    handlers = importlib.import_module("ignite.handlers.param_scheduler")
    return handlers.CosineAnnealingScheduler(opt, "lr", BASE, 0.0, total - warmup)


def _handler(handler: Any) -> Step:
    handler(None)  # ignite writes before the first step

    def step() -> None:
        handler(None)

    return step


def fvcore_composite(opt: Opt, warmup: int, total: int) -> Step:
    """Make fvcore CompositeParamScheduler of linear and cosine; the write is this file's."""
    fv = importlib.import_module("fvcore.common.param_scheduler")
    parts = [fv.LinearParamScheduler(1 / (warmup + 1), 1.0), fv.CosineParamScheduler(1.0, 0.0)]
    lengths = [warmup / total, 1.0 - warmup / total]
    scheduler = fv.CompositeParamScheduler(parts, lengths, ["rescaled", "rescaled"])
    return _writing(opt, lambda t: scheduler(t / total))


def optax_cosine(opt: Opt, warmup: int, total: int) -> Step:
    """Make optax warmup_cosine_decay_schedule, eager; the write is this file's."""
    optax = importlib.import_module("optax")
    value = optax.warmup_cosine_decay_schedule(1 / (warmup + 1), 1.0, warmup, total)
    return _writing(opt, lambda t: float(value(t)))


def _writing(opt: Opt, value: Callable[[float], float]) -> Step:
    pairs, t = [(group, BASE) for group in opt.param_groups], 0

    def step() -> None:
        nonlocal t
        t += 1
        m = value(t)
        for group, base in pairs:
            group["lr"] = base * m

    return step


def _stub(package: str) -> None:
    """Let submodules be imported without the package's own `__init__`, which needs torchvision."""
    found = importlib.util.find_spec(package) if package not in sys.modules else None
    if found is not None:
        stub = types.ModuleType(package)
        stub.__path__ = list(found.submodule_search_locations or [])
        sys.modules[package] = stub


PEERS: dict[str, Callable[[Opt, int, int], Any]] = {
    "torch SequentialLR[Linear, Cosine]": torch_sequential,
    "torch CosineAnnealingLR (no warmup)": torch_cosine,
    "torch LambdaLR(handwritten)": torch_lambda,
    "transformers cosine_with_warmup": transformers_cosine,
    "timm CosineLRScheduler.step_update": timm_cosine,
    "ignite warmup + CosineAnnealing": ignite_cosine,
    "ignite CosineAnnealing (no warmup)": lambda o, w, t: _handler(ignite_cosine_alone(o, w, t)),
    "fvcore Composite[Linear, Cosine] + write": fvcore_composite,
    "optax eager + write": optax_cosine,
}


def installed(make: Callable[[Opt, int, int], Any], opt: Opt) -> bool:
    """Tell whether a peer can be imported."""
    try:
        make(opt, 10, 100)
    except ImportError:
        return False
    return True
