"""The rate against the stability limit along a run: measured beside the training, not in it."""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from stepsize.finding.stability import Moment, StabilityCourse
from stepsize.schedules.fields import Bounds
from stepsize.torch import hooks
from stepsize.torch.hessian import twice_differentiable
from stepsize.torch.known_rates import check_known
from stepsize.torch.lanczos import NotFiniteError
from stepsize.torch.limits import preconditioner_of, stability_limit
from stepsize.torch.looking import present
from stepsize.torch.ranks import scalar
from stepsize.torch.real import makes_state
from stepsize.torch.sharpness import sharpness

Scales = list[Tensor | float]
_COUNT = Bounds(ge=1, whole=True)


class StabilityLog:
    """Sharpness, stability limit and rate over a run, measured right before the steps.

    ```python
    log = StabilityLog(model, optimizer, lambda: loss_fn(model(x), y), every=10)
    ...  # train
    print(log.course)
    ```

    Before a step the rate is the one that this step will have, whatever a scheduler wrote last, and
    the optimizer's state is what the last step left: of Adam nothing is known before the first one,
    so its limit begins at the second. After the step its size is added.

    Training goes on bit by bit as without it: `.grad`, buffers, modes and torch's random numbers
    are afterwards what they were. It costs up to `most` backward passes each time, twice as many
    for an optimizer that scales elements. A loss or curvature that is not finite is a moment
    without a limit.

    Args:
        model: whose buffers and modes are put back.
        optimizer: one that `step_sizes` knows; its parameters are what is measured.
        probe: gives the loss of one fixed batch with its graph, from the model as it is, and not
            within torch.compile or DistributedDataParallel (`model.module`).
        every: look before the first step and after each of so many; None: `record()` alone does.
        until: look no more after so many steps.
        tolerance: as of `sharpness`.
        most: as of `sharpness`.

    Raises:
        FieldError: for an optimizer that is not known; and while training, as `sharpness`.

    >>> w = torch.tensor([1.0, 1.0], dtype=torch.float64, requires_grad=True)
    >>> model = torch.nn.ParameterList([w])
    >>> optimizer = torch.optim.SGD([w], lr=0.25)
    >>> log = StabilityLog(model, optimizer, lambda: w[0] ** 2 + 5 * w[1] ** 2)
    >>> for _ in range(2):
    ...     optimizer.zero_grad()
    ...     (w[0] ** 2 + 5 * w[1] ** 2).backward()
    ...     optimizer.step()
    >>> [(m.step, m.rate, round(m.limit, 9), round(m.loss, 9)) for m in log.course]
    [(0, 0.25, 0.2, 6.0), (1, 0.25, 0.2, 11.5)]
    """

    def __init__(
        self,
        model: nn.Module,
        optimizer: Optimizer,
        probe: Callable[[], Tensor],
        *,
        every: int | None = 1,
        until: int | None = None,
        tolerance: float = 0.01,
        most: int = 28,
    ) -> None:
        check_known(optimizer)
        self._every = None if every is None else int(_COUNT.admit("StabilityLog: every", every))
        self._until = None if until is None else int(_COUNT.admit("StabilityLog: until", until))
        self._model, self._optimizer, self._probe = model, optimizer, probe
        self._settings = {"tolerance": tolerance, "most": most}
        self._moments: list[Moment] = []
        self._pending: tuple[Moment, list[Tensor]] | None = None
        self.steps = 0
        self._removers = hooks.before_steps(optimizer, hooks.calling(self, "_before"))
        handles = hooks.attach(optimizer, hooks.unseen(hooks.weakly(self, "_after")))
        self._removers += [handle.remove for handle in handles]

    @property
    def course(self) -> StabilityCourse:
        """What was measured so far, as plain data."""
        return StabilityCourse(tuple(self._moments))

    def record(self) -> Moment:
        """Measure now, such as after the last step, and give what was found."""
        moment = self._measured()
        self._enter(moment)
        return moment

    def detach(self) -> None:
        """Look no more."""
        hooks.remove_all(self._removers)

    def _is_due(self) -> bool:
        over = self._until is not None and self.steps >= self._until
        return self._every is not None and not over and self.steps % self._every == 0

    def _before(self) -> None:
        if self._is_due() and self._pending is None:  # a step may call its parent's
            self._pending = self._measured(), [p.detach().clone() for p in self._params()]

    def _after(self, optimizer: Any, args: Any, kwargs: Any) -> None:
        del args
        pending, self._pending = self._pending, None
        if kwargs.get("closure", kwargs) is None and makes_state(optimizer):
            return
        self.steps += 1
        if pending is not None:
            self._enter(_moved(*pending, self._params()))

    def _enter(self, moment: Moment) -> None:
        self._moments = [*(m for m in self._moments if m.step < moment.step), moment]

    def _params(self) -> list[Tensor]:
        return [p for group in self._optimizer.param_groups for p in group["params"]]

    def _measured(self) -> Moment:
        rate = scalar(present(self._optimizer.param_groups[0]))
        with _untouched(self._model, self._params()):
            with twice_differentiable():
                loss = self._probe()
            try:
                plain, own = self._eigenvalues(loss)
            except NotFiniteError:
                plain = own = None
        limit = None if own is None else stability_limit(own, self._optimizer)
        return Moment(self.steps, rate, limit, plain, own, float(loss.detach()))

    def _eigenvalues(self, loss: Tensor) -> tuple[float | None, float | None]:
        """Give the sharpness, and as the optimizer sees it; once where that is the same."""
        params = self._params()
        plain = sharpness(loss, params, **self._settings).value  # type: ignore[arg-type]
        scales = preconditioner_of(self._optimizer)
        if scales is None:
            return plain, None
        if all(isinstance(scale, float) and scale == 1.0 for scale in scales):
            return plain, plain
        found = sharpness(loss, params, preconditioner=scales, **self._settings)  # type: ignore[arg-type]
        return plain, found.value


def _moved(moment: Moment, before: list[Tensor], after: list[Tensor]) -> Moment:
    """Add how far the step went."""
    with torch.no_grad():
        parts = [(a - b).double().square().sum().cpu() for a, b in zip(after, before, strict=True)]
    squares, count = float(torch.stack(parts).sum()), sum(p.numel() for p in after)
    relative = math.sqrt(squares / count) / moment.rate if moment.rate else None
    told = (moment.step, moment.rate, moment.limit, moment.sharpness, moment.preconditioned)
    return Moment(*told, moment.loss, math.sqrt(squares), relative)


@contextmanager
def _untouched(model: nn.Module, params: list[Tensor]) -> Iterator[None]:
    """Put back what evaluating a model may change: random numbers, buffers, modes."""
    gpus = sorted({p.get_device() for p in params if p.is_cuda})
    modes = [(module, module.training) for module in model.modules()]
    buffers = [(buffer, buffer.detach().clone()) for buffer in model.buffers()]
    try:
        with torch.random.fork_rng(gpus):
            yield
    finally:
        for module, training in modes:
            module.training = training
        with torch.no_grad():
            for buffer, value in buffers:
                buffer.copy_(value)
