"""Counting the real steps of an optimizer by its own post-step hook."""

import sys
import weakref
from collections.abc import Callable
from typing import Any

from torch.optim import Optimizer

from stepsize.torch.cell import OWN, Cell

_OWN_AND_TORCHS = 2  # Optimizer itself defines step, and the class at hand
Hook = Callable[[Any, Any, Any], None]


def counting_hook(
    cell: Cell,
    unreal: Callable[[Any, Any], bool],
    late: Callable[[], None],
    *,
    follows: bool,
    careful: bool,
) -> Hook:
    """Give a hook that counts a step, and writes the new values where the scheduler follows.

    One flat closure: what it called would be compiled into the optimizer's graph by torch.compile.
    `unreal(optimizer, kwargs)` is asked only where a call may be no step: another list of groups,
    keyword arguments, or always if `careful`. `late()` is called from `cell[LIMIT]` on, and at the
    first step. The numbers are STEPS, KNOWN, LIMIT and WRITE: names would cost 10 ns each.
    """

    def counted(optimizer: Any, args: Any, kwargs: Any) -> None:
        del args
        if (kwargs or optimizer.param_groups is not cell[3]) and unreal(optimizer, kwargs):
            return
        t = cell[0] = cell[0] + 1.0
        if t >= cell[4]:
            late()

    def followed(optimizer: Any, args: Any, kwargs: Any) -> None:
        del args
        doubtful = kwargs or careful or optimizer.param_groups is not cell[3]
        if doubtful and unreal(optimizer, kwargs):
            return
        t = cell[0] = cell[0] + 1.0
        if t >= cell[4]:
            late()
        if follows:
            cell[7]()

    return unseen(followed if follows or careful else counted)


def watching_hook(cell: Cell) -> Hook:
    """Give a hook that only notes the optimizer's steps, where calls are what counts."""

    def watched(optimizer: Any, args: Any, kwargs: Any) -> None:
        del optimizer, args, kwargs
        cell[OWN] += 1.0

    return unseen(watched)


def outermost(hook: Hook) -> tuple[Hook, Hook]:
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

    return unseen(opened), unseen(closed)


def _stack_depth() -> int:
    frame, depth = sys._getframe(1), 0  # noqa: SLF001 (what inspect uses, without its cost)
    while frame.f_back is not None:
        frame, depth = frame.f_back, depth + 1
    return depth


def unseen(hook: Hook) -> Hook:
    """Mark a hook for torch.compile as `torch.compiler.disable(recursive=False)` marks it.

    That call itself would wrap it in another function, which triples its cost.
    """
    hook.__dict__.update(_torchdynamo_disable=True, _torchdynamo_disable_recursive=False)
    return hook


def attach(optimizer: Optimizer, hook: Hook) -> list[Callable[[], None]]:
    """Call the hook at the optimizer's steps; give what stops it: nothing where it has no hooks."""
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


def calling(owner: Any, method: str) -> Callable[..., None]:
    """Give a function that calls a method of an owner, as long as the owner lives."""
    alive = weakref.ref(owner)

    def call(*given: Any) -> None:
        del given
        found = alive()
        if found is not None:
            getattr(found, method)()

    return call


def after_loading(optimizer: Optimizer, call: Callable[..., None]) -> list[Callable[[], None]]:
    """Call a function after every `optimizer.load_state_dict`."""
    try:
        return [optimizer.register_load_state_dict_post_hook(call).remove]
    except AttributeError:
        return []


def before_steps(optimizer: Optimizer, call: Callable[..., None]) -> list[Callable[[], None]]:
    """Call a function before every step."""
    try:
        return [optimizer.register_step_pre_hook(unseen(call)).remove]
    except AttributeError:
        return []
