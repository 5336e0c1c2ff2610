"""Evaluating a closure a second time on the same minibatch, as if it were the first time.

The random numbers are those of the first evaluation (dropout masks), and what modules keep in
buffers (running means of BatchNorm) is what the first evaluation left.
"""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.nn import Module
from torch.nn.modules.module import register_module_forward_pre_hook

from stepsize.torch.ranks import reshard

Closure = Callable[[], Any]


class Repeatable:
    """A closure that is evaluated first in earnest and then again, without a trace.

    torch's own generators are replayed, of the CPU and of the GPUs that hold parameters; a
    `torch.Generator` of the user's, NumPy and `random` are not. Buffers are kept of modules that
    are called; `functional.batch_norm` with tensors that belong to no module is not seen.
    """

    def __init__(self, closure: Closure, parameters: Iterable[Tensor]) -> None:
        self._closure = closure
        self._gpus = sorted({p.get_device() for p in parameters if p.is_cuda})
        self._random = self._generators()

    def first(self) -> Any:
        """Evaluate, with gradients; what it draws is remembered."""
        self._random = self._generators()
        with torch.enable_grad():
            return self._closure()

    def again(self, call: Closure | None = None, *, gradients: bool = True) -> Any:
        """Evaluate once more, or call something else on the same minibatch."""
        after = self._generators()
        self._replay(self._random)
        try:
            with torch.set_grad_enabled(gradients), _buffers_kept():
                return (self._closure if call is None else call)()
        finally:
            self._replay(after)

    def _generators(self) -> list[Tensor]:
        return [torch.get_rng_state(), *(torch.cuda.get_rng_state(gpu) for gpu in self._gpus)]

    def _replay(self, states: list[Tensor]) -> None:
        torch.set_rng_state(states[0])
        for gpu, state in zip(self._gpus, states[1:], strict=True):
            torch.cuda.set_rng_state(state, gpu)


@contextmanager
def _buffers_kept() -> Iterator[None]:
    """Put back the buffers of every module that is called meanwhile."""
    seen: dict[int, Module] = {}
    kept: list[tuple[Module, str, Tensor, Tensor]] = []

    def keep(called: Module, args: Any) -> None:
        del args
        if id(called) in seen:
            return
        for module in called.modules():
            if id(module) not in seen:
                seen[id(module)] = module
                held = module._buffers.items()  # noqa: SLF001 (named_buffers leaves out shared ones)
                kept.extend((module, n, b, b.detach().clone()) for n, b in held if b is not None)

    hook = register_module_forward_pre_hook(keep)
    try:
        yield
    finally:
        hook.remove()
        reshard(seen.values())
        with torch.no_grad():
            for module, name, buffer, value in kept:
                buffer.copy_(value)
                module._buffers[name] = buffer  # noqa: SLF001 (a forward may have put another)
