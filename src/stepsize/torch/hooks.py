"""Counting the real steps of an optimizer by its own post-step hook."""

import inspect
import sys
import weakref
from collections.abc import Callable
from typing import Any

import torch
from torch.optim import Optimizer
from torch.utils.hooks import RemovableHandle

from stepsize.errors import StepsizeError
from stepsize.torch.cell import OWN, WRITE, Cell

_OWN_AND_TORCHS = 2  # Optimizer itself defines step, and the class at hand
_STAYS = "_stepsize_stays"  # marks a hook whose place `put_in_place` leaves alone
Hook = Callable[[Any, Any, Any], None]


def counting_hook(
    cell: Cell, unreal: Callable[[Any, Any], bool], late: Callable[[], None], *, careful: bool
) -> Hook:
    """Give a hook that counts a step; `HotPath.followed` is the one that also writes.

    One flat closure: what it called would be compiled into the optimizer's graph by torch.compile.
    `unreal(optimizer, kwargs)` is asked only where a call may be no step: another list of groups,
    keyword arguments, or always if `careful`. `late()` is called from `cell[LIMIT]` on, and at the
    first step. The numbers are STEPS, KNOWN and LIMIT: names would cost 10 ns each.
    """

    def counted(optimizer: Any, args: Any, kwargs: Any) -> None:
        del args
        doubtful = careful or kwargs or optimizer.param_groups is not cell[3]
        if doubtful and unreal(optimizer, kwargs):
            return
        t = cell[0] = cell[0] + 1.0
        if t >= cell[4]:
            late()

    return unseen(counted)


def forwarding_hook(cell: Cell) -> Hook:
    """Give a hook that calls what `cell[WRITE]` holds."""

    def forwarded(optimizer: Any, args: Any, kwargs: Any) -> None:
        cell[WRITE](optimizer, args, kwargs)

    return unseen(forwarded)


def put_in_place(handles: list[RemovableHandle], hook: Hook) -> None:
    """Let another hook have the place of the one that a handle stands for.

    torch may be going through its hooks right now, so none is taken off or added. Where steps are
    nested, `outermost` stays and calls what `cell[WRITE]` holds.
    """
    for handle in handles:
        held = handle.hooks_dict_ref()
        present = None if held is None else held.get(handle.id)
        if held is not None and present is not None and not hasattr(present, _STAYS):
            held[handle.id] = unseen(hook)


def watching_hook(cell: Cell) -> Hook:
    """Give a hook that only notes the optimizer's steps, where calls are what counts."""

    def watched(optimizer: Any, args: Any, kwargs: Any) -> None:
        del optimizer, args, kwargs
        cell[OWN] += 1.0

    return unseen(watched)


def outermost(hook: Hook) -> Hook:
    """Give a post-hook that calls `hook` once where a `step` calls `super().step()`.

    torch wraps the step of each class, and the hooks fire in both. An inner one is known by the
    outer one in the stack; nothing is remembered that an exception could leave open.
    """

    def closed(optimizer: Any, args: Any, kwargs: Any) -> None:
        wrapper = sys._getframe(1)  # noqa: SLF001 (what inspect uses, without its cost)
        frame = wrapper.f_back
        while frame is not None:
            if frame.f_code is wrapper.f_code and frame.f_locals.get("self") is optimizer:
                return
            frame = frame.f_back
        hook(optimizer, args, kwargs)

    closed.__dict__[_STAYS] = True
    return unseen(closed)


def unseen(hook: Hook) -> Hook:
    """Let torch.compile neither follow a hook nor compile its frame.

    As `torch.compiler.disable(recursive=False)`, which would wrap it in another function and triple
    its cost. torch has imported its compiler when it built the optimizer.
    """
    from torch._dynamo.decorators import skip  # noqa: PLC0415 (not at import)

    skip(hook)
    hook.__dict__.update(_torchdynamo_disable_recursive=False)
    return hook


def untraced(function: Callable[..., Any]) -> Callable[..., Any]:
    """Keep torch.compile from compiling what a hook calls now and then."""
    made: Callable[..., Any] = torch.compiler.disable(function)  # type: ignore[no-untyped-call]
    return made


def attach(optimizer: Optimizer, hook: Hook) -> list[RemovableHandle]:
    """Call the hook at the optimizer's steps; give its handle: none where it has no hooks."""
    steps = {inspect.unwrap(vars(c)["step"]) for c in type(optimizer).__mro__ if "step" in vars(c)}
    nested = len(steps) > _OWN_AND_TORCHS  # torch wraps the step of each class that it builds
    try:
        return [optimizer.register_step_post_hook(outermost(hook) if nested else hook)]
    except AttributeError:  # a wrapper that never ran Optimizer.__init__
        return []


def remove_all(removers: list[Callable[[], None]]) -> None:
    """Take all hooks off."""
    while removers:
        removers.pop()()


def calling(owner: Any, method: str) -> Callable[..., None]:
    """Give a function that calls a method of an owner without arguments, whatever it is given."""
    call = weakly(owner, method)

    def called(*given: Any) -> None:
        del given
        call()

    return called


def weakly(owner: Any, method: str, gone: str = "") -> Callable[..., Any]:
    """Give a method as a function that does not keep its owner alive; `gone`: what to say then."""
    alive = weakref.ref(owner)

    def call(*given: Any) -> Any:
        found = alive()
        if found is None and gone:
            raise StepsizeError(gone)
        return None if found is None else getattr(found, method)(*given)

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
