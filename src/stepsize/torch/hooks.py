"""Counting the real steps of an optimizer by its own post-step hook."""

import weakref
from collections.abc import Callable
from typing import Any

from torch.optim import Optimizer


def counting_hook(count: list[float]) -> Callable[[Any, Any, Any], None]:
    """Give a hook that adds one to `count[0]`, and sets it to `count[2] + 1` the first time.

    `count` is `[steps, whether a hook has fired, steps at the start]`. One flat closure, marked for
    torch.compile as `torch.compiler.disable(recursive=False)` marks; that call itself would wrap it
    in another function, which triples its cost.
    """

    def counted(optimizer: Any, args: Any, kwargs: Any) -> None:
        del optimizer, args, kwargs
        if count[1]:
            count[0] += 1.0
        else:
            count[0] = count[2] + 1.0
            count[1] = 1.0

    counted.__dict__.update(_torchdynamo_disable=True, _torchdynamo_disable_recursive=False)
    return counted


def attach(optimizer: Optimizer, count: list[float]) -> Callable[[], None] | None:
    """Count the optimizer's steps; give what stops it, None where the optimizer has no hooks."""
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
