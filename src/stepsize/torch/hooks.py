"""Counting the real steps of an optimizer by its own post-step hook."""

import weakref
from collections.abc import Callable
from typing import Any

import torch
from torch.optim import Optimizer


def counting_hook(count: list[float]) -> Callable[[Any, Any, Any], None]:
    """Give a hook that adds one to `count[0]`, and sets it to `count[2] + 1` the first time.

    `count` is `[steps, whether a hook has fired, steps at the start]`. One flat closure: anything
    it called would be compiled into the optimizer's graph by torch.compile.
    """

    def counted(optimizer: Any, args: Any, kwargs: Any) -> None:
        del optimizer, args, kwargs
        if count[1]:
            count[0] += 1.0
        else:
            count[0] = count[2] + 1.0
            count[1] = 1.0

    return torch.compiler.disable(counted, recursive=False)


def attach(optimizer: Optimizer, count: list[float]) -> Callable[[], None] | None:
    """Count the optimizer's steps; give the function that stops it, None where hooks are unknown."""
    try:
        return optimizer.register_step_post_hook(counting_hook(count)).remove
    except AttributeError:  # a wrapper that never ran Optimizer.__init__
        return None


def after_loading(optimizer: Optimizer, owner: Any) -> Callable[[], None] | None:
    """Call `owner.rebind()` after every `optimizer.load_state_dict`, as long as the owner lives."""
    alive = weakref.ref(owner)

    def loaded(optimizer: Any) -> None:
        del optimizer
        found = alive()
        if found is not None:
            found.rebind()

    try:
        return optimizer.register_load_state_dict_post_hook(loaded).remove
    except AttributeError:
        return None
