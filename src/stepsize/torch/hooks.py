"""Counting the real steps of an optimizer by its own post-step hook."""

import sys
import weakref
from collections.abc import Callable
from typing import Any

from torch.optim import Optimizer

_OWN_AND_TORCHS = 2  # Optimizer itself defines step, and the class at hand


def counting_hook(count: list[float]) -> Callable[[Any, Any, Any], None]:
    """Give a hook that adds one to `count[0]`, and sets it to `count[2] + 1` the first time.

    `count` is `[steps, whether a hook has fired, steps at the start]`. One flat closure: what it
    called would be compiled into the optimizer's graph by torch.compile.
    """

    def counted(optimizer: Any, args: Any, kwargs: Any) -> None:
        del optimizer, args, kwargs
        if count[1]:
            count[0] += 1.0
        else:
            count[0] = count[2] + 1.0
            count[1] = 1.0

    return _unseen(counted)


def outermost(hook: Callable[..., None]) -> tuple[Callable[..., None], Callable[..., None]]:
    """Give a pre- and a post-hook that call `hook` once where a `step` calls `super().step()`.

    torch fires the hooks of both. Open calls are told apart by how deep they stand in the stack, so
    that one an exception has left open is forgotten at the next call from outside.
    """
    open_calls: list[int] = []

    def opened(optimizer: Any, args: Any, kwargs: Any) -> None:
        del optimizer, args, kwargs
        depth = _stack_depth()
        while open_calls and open_calls[-1] >= depth:
            open_calls.pop()
        open_calls.append(depth)

    def closed(optimizer: Any, args: Any, kwargs: Any) -> None:
        if open_calls:  # none, where the hooks were put on in the middle of a step
            open_calls.pop()
        if not open_calls:
            hook(optimizer, args, kwargs)

    return _unseen(opened), _unseen(closed)


def _stack_depth() -> int:
    frame, depth = sys._getframe(1), 0  # noqa: SLF001 (what inspect uses, without its cost)
    while frame.f_back is not None:
        frame, depth = frame.f_back, depth + 1
    return depth


def _unseen(hook: Callable[..., None]) -> Callable[..., None]:
    """Mark a hook for torch.compile as `torch.compiler.disable(recursive=False)` marks it.

    That call itself would wrap it in another function, which triples its cost.
    """
    hook.__dict__.update(_torchdynamo_disable=True, _torchdynamo_disable_recursive=False)
    return hook


def attach(optimizer: Optimizer, count: list[float]) -> list[Callable[[], None]]:
    """Count the optimizer's steps; give what stops it: nothing where the optimizer has no hooks."""
    hook = counting_hook(count)
    try:
        if sum("step" in vars(cls) for cls in type(optimizer).__mro__) <= _OWN_AND_TORCHS:
            return [optimizer.register_step_post_hook(hook).remove]
        before, after = outermost(hook)
        return [
            optimizer.register_step_pre_hook(before).remove,
            optimizer.register_step_post_hook(after).remove,
        ]
    except AttributeError:  # a wrapper that never ran Optimizer.__init__
        return []


def remove_all(removers: list[Callable[[], None]]) -> None:
    """Take all hooks off."""
    while removers:
        removers.pop()()


def after_loading(optimizer: Optimizer, owner: Any) -> list[Callable[[], None]]:
    """Call `owner.rebind()` after every `optimizer.load_state_dict`, as long as the owner lives."""
    alive = weakref.ref(owner)

    def loaded(optimizer: Any) -> None:
        del optimizer
        found = alive()
        if found is not None:
            found.rebind()

    try:
        return [optimizer.register_load_state_dict_post_hook(loaded).remove]
    except AttributeError:
        return []
