"""Trying things out on a model that is to be afterwards exactly as it was."""

import copy
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

from torch import Tensor
from torch.nn import Module
from torch.nn.modules.lazy import LazyModuleMixin
from torch.optim import Optimizer

from stepsize.errors import FieldError
from stepsize.torch.claims import writers
from stepsize.torch.kept import ATOMS, Kept, is_open
from stepsize.torch.loading import keep_loader
from stepsize.torch.ranks import reshard
from stepsize.torch.streams import keep_streams

_TORCHS = ("torch.distributed", "torch.nn.parallel", "torch._dynamo")  # wrappers of modules


@contextmanager
def preserved(
    model: Module, optimizer: Optimizer, *, loader: Any = None, also: Iterable[Any] = ()
) -> Iterator[Kept]:
    """Do anything in the block: afterwards everything is as it was before it, to the bit.

    Also after an exception and after Ctrl-C. That is: parameters, gradients and buffers (the same
    tensors, filled in place), `requires_grad`, the mode of every module, the optimizer's state and
    groups with all their keys, what optimizers keep in attributes, stepsize's own Schedulers of
    that optimizer, the global random numbers of Python, NumPy and torch on every device, and a
    loader's next order. Where one piece cannot be put back, all others are, and then it is raised.

    Not seen: what a forward pass writes elsewhere (files, objects of your own), and schedulers that
    the block steps and that are not given in `also`.

    Args:
        model: the module that is trained.
        optimizer: its optimizer.
        loader: the loader from which the block takes batches.
        also: more that the block changes: other modules and optimizers, torch's schedulers, a
            GradScaler, or anything with `state_dict` and `load_state_dict`.

    Gives an object whose `restore()` goes back at any time, as often as it is called.

    Raises:
        FieldError: for a model that is no module or has lazy parameters, for something in `also`
            without a state, and for a loader that is an iterator and cannot go back.

    >>> import torch
    >>> model = torch.nn.Linear(2, 1, bias=False)
    >>> _ = torch.nn.init.constant_(model.weight, 0.25)
    >>> optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
    >>> with preserved(model, optimizer):
    ...     model(torch.ones(1, 2)).sum().backward()
    ...     optimizer.step()
    ...     model.weight.tolist()
    [[-0.25, -0.25]]
    >>> model.weight.tolist(), model.weight.grad
    ([[0.25, 0.25]], None)
    """
    if not isinstance(model, Module):
        raise FieldError.of("model", "a torch.nn.Module", type(model).__name__)
    if not isinstance(optimizer, Optimizer):
        raise FieldError.of("optimizer", "a torch.optim.Optimizer", type(optimizer).__name__)
    if not isinstance(also, Iterable):
        raise FieldError.of("also", "a list of things", type(also).__name__, "write also=[...]")
    kept = Kept()
    try:
        keep_streams(kept)
        if loader is not None:
            keep_loader(kept, loader)
        for each in (*also, optimizer, *writers(optimizer), model):
            _keep(kept, each)
        yield kept
    finally:
        kept.restore()


def _keep(kept: Kept, each: Any) -> None:
    if isinstance(each, Module):
        _keep_model(kept, each)
    elif is_open(each):
        kept.note(each)
    elif hasattr(each, "state_dict") and hasattr(each, "load_state_dict"):
        state = copy.deepcopy(each.state_dict())
        kept.then(lambda: each.load_state_dict(copy.deepcopy(state)))
    else:
        rule = "modules, optimizers, schedulers, or things with state_dict and load_state_dict"
        raise FieldError.of("also", rule, type(each).__name__)


def _keep_model(kept: Kept, model: Module) -> None:
    modules = list(model.modules())
    reshard(modules)
    for module in modules:
        if isinstance(module, LazyModuleMixin) and module.has_uninitialized_params():
            cure = "call it once with a batch before"
            given = type(module).__name__
            raise FieldError.of("model", "one whose lazy parameters are there", given, cure)
        _keep_module(kept, module)
    kept.then(partial(reshard, modules))


def _keep_module(kept: Kept, module: Module) -> None:
    """Note its parameters, buffers and children, its mode, and the plain values in attributes."""
    held = vars(module)
    for name in ("_parameters", "_buffers", "_modules"):
        if isinstance(held.get(name), dict):
            kept.shallow(held[name])
    kept.note(*module._parameters.values(), *module._buffers.values())  # noqa: SLF001 (as they are)
    if type(module).__module__.startswith(_TORCHS):  # whose attributes stand for more elsewhere
        kept.then(partial(held.update, training=module.training))
        return
    plain = {name: value for name, value in held.items() if type(value) in ATOMS}
    for name, value in held.items():
        if isinstance(value, Tensor):
            plain[name] = value
            kept.note(*([value] if value.is_leaf else []))
        elif isinstance(value, list | dict | set) and not name.startswith("_"):
            kept.shallow(value)
    kept.then(partial(held.update, plain))
