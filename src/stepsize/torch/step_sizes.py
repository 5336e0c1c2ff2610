"""The step size that every element really has, whatever the optimizer: as numbers, over a run."""

from collections.abc import Iterable, Sequence
from typing import Any

from torch import Tensor, nn
from torch.optim import Optimizer

from stepsize.errors import FieldError
from stepsize.look.spreads import Spreads, StepSizeHistory
from stepsize.schedules.fields import Bounds
from stepsize.torch import hooks
from stepsize.torch.known_rates import check_known, inside
from stepsize.torch.looking import Look, present
from stepsize.torch.real import makes_state

_PER = ("group", "layer", "parameter")
QUARTILES = (0.0, 0.25, 0.5, 0.75, 1.0)
Optimizers = Optimizer | Sequence[Optimizer]


def step_sizes(
    optimizer: Optimizers,
    model: nn.Module | None = None,
    *,
    per: str = "group",
    quantiles: Sequence[float] = QUARTILES,
    samples: int | None = 4096,
    scheduled: bool = True,
) -> Spreads:
    r"""Give the effective step size of the parameters: how it spreads over their elements.

    It is the number $r_i$ with which the last step moved an element, $\theta_i \leftarrow \theta_i
    - r_i d_i$, where $d$ is the gradient, or the average of gradients that the method takes for it:

    | optimizer | $r_i$ | $d_i$ |
    | --- | --- | --- |
    | `SGD` | lr | gradient, or momentum buffer |
    | `Adam`, `AdamW`, `NAdam` | lr / (√v̂ + eps) | corrected average |
    | `RAdam` | lr · rectification · √(1-β₂ᵗ) / (√v + eps); lr at first | corrected average |
    | `Adamax` | lr / u | corrected average |
    | `Adagrad` | lr / (1 + (t-1) lr_decay) / (√sum + eps) | gradient |
    | `RMSprop` | lr / (√avg + eps) | gradient, before momentum |
    | `Adadelta` | lr · √(E[Δ²] + eps) / √(E[g²] + eps) | gradient |
    | `Rprop`, `Muon` | its step size | sign; orthogonal matrix |
    | `ASGD` | η | gradient |
    | one with `sizes_of` | lr · sizes_of(parameter) | as it says |

    Weight decay comes on top. Of Adadelta the movements, and of ASGD η, are those that the next
    step begins with: the last ones are overwritten. An optimizer around another (one with an
    attribute `optimizer`) multiplies that one's step size with its own `sizes_of`, or leaves it.

    An element whose gradient was 0 at every step so far has none (`lr / eps` moves nothing), and
    neither has a frozen one, nor any before the optimizer's first step, except under SGD.

    `lr` is that of the group now: call it before the scheduler writes the next one, or let
    `StepSizes` do so. It reads the optimizer and writes nothing. Under torch.distributed every rank
    must call it where parameters are DTensors: their elements are gathered.

    Args:
        optimizer: an optimizer, or several.
        model: gives the names of parameters and layers.
        per: "group", "layer" (the module that holds the parameter; needs `model`), "parameter".
        quantiles: shares between 0 and 1. 0 is the least, 1 the greatest.
        samples: how many elements of each tensor are looked at, at even distances; None: all.
        scheduled: False: with the base value (`initial_lr`, which schedulers keep) in place of the
            present `lr`. What the schedule does is in `schedule` in either case.

    Raises:
        FieldError: for an optimizer that it knows nothing of (see `rate_of`), and wrong settings.

    >>> import torch
    >>> w = torch.ones(3, dtype=torch.float64, requires_grad=True)
    >>> optimizer = torch.optim.Adagrad([w], lr=0.1)
    >>> (torch.tensor([1.0, 2.0, 0.0]) * w).sum().backward()
    >>> optimizer.step()
    >>> print(step_sizes(optimizer))
             elements   min     p25  median     p75  max  without
    group 0         3  0.05  0.0625   0.075  0.0875  0.1        1
    """
    look = _look(optimizer, model, per, quantiles, samples, scheduled=scheduled)
    return look.now(present)


class StepSizes(StepSizeHistory):
    """Step sizes over a run: what `step_sizes` gives, taken at every so many steps.

    ```python
    history = StepSizes(optimizer, every=10)
    ...  # train
    print(history)
    stepsize.plot.save(history, "step_sizes.svg")
    ```

    It looks right after the optimizer's step and counts with the `lr` that this step had, whatever
    a scheduler has written since. In a CUDA graph no Python runs: call `record()` between replays.
    Under torch.distributed it is built on every rank.

    A copy, and a pickle, is the history alone, without the optimizer; `to_dict` is for JSON and for
    checkpoints.

    Args:
        optimizer, model, per, quantiles, samples, scheduled: as in `step_sizes`. The steps of the
            first optimizer are counted.
        every: look after the first step and after each of so many; None: `record()` alone does.
        history: what was recorded before: rows and count go on from there.

    Raises:
        FieldError: as `step_sizes`.
    """

    def __init__(
        self,
        optimizer: Optimizers,
        model: nn.Module | None = None,
        *,
        every: int | None = 10,
        per: str = "group",
        quantiles: Sequence[float] = QUARTILES,
        samples: int | None = 4096,
        scheduled: bool = True,
        history: StepSizeHistory | None = None,
    ) -> None:
        before = StepSizeHistory() if history is None else history
        super().__init__(before.rows, before.steps)
        self._look = _look(optimizer, model, per, quantiles, samples, scheduled=scheduled)
        rule = Bounds(ge=1, whole=True)
        self._every = None if every is None else int(rule.admit("StepSizes: every", every))
        self._used: dict[int, Any] = {}
        driver = self._look.optimizers[0]
        self._removers = hooks.before_steps(driver, hooks.calling(self, "_before"))
        handles = hooks.attach(driver, hooks.unseen(hooks.weakly(self, "_after")))
        self._removers += [handle.remove for handle in handles]

    def record(self, step: int | None = None) -> Spreads:
        """Look now, and give what was found.

        Args:
            step: which step it was; by default as many as were counted.
        """
        found = self._look.now(lambda group: self._used.get(id(group), present(group)))
        self.rows.append((self.steps if step is None else step, found))
        return found

    def detach(self) -> None:
        """Look no more."""
        hooks.remove_all(self._removers)

    def _is_due(self, step: int) -> bool:
        return self._every is not None and (step == 1 or step % self._every == 0)

    def _before(self) -> None:
        """Keep the rates of a step that will be looked at."""
        if self._is_due(self.steps + 1):
            groups = [g for each in self._look.optimizers for g in each.param_groups]
            self._used = {id(group): _copy(present(group)) for group in groups}

    def _after(self, optimizer: Any, args: Any, kwargs: Any) -> None:
        del args
        if kwargs.get("closure", kwargs) is None and makes_state(optimizer):
            return
        self.steps += 1
        if self._is_due(self.steps):
            self.record()
            self._used = {}

    def __reduce__(self) -> Any:
        return StepSizeHistory.from_dict, (self.to_dict(),)


def _copy(lr: Any) -> Any:
    return lr.detach().clone() if isinstance(lr, Tensor) else lr


def _look(
    optimizer: Any, model: Any, per: str, shares: Any, samples: Any, *, scheduled: bool
) -> Look:
    """Check what was given."""
    several = optimizer if isinstance(optimizer, list | tuple) else [optimizer]
    for each in several:
        check_known(each)
    if per not in _PER:
        raise FieldError.of("step_sizes: per", f"one of {', '.join(map(repr, _PER))}", per)
    if per == "layer" and model is None:
        cure = "layers have their names from it: step_sizes(optimizer, model, per='layer')"
        raise FieldError.of("step_sizes: model", "given for per='layer'", model, cure)
    if not isinstance(shares, Iterable):
        raise FieldError.of("step_sizes: quantiles", "several numbers between 0 and 1", shares)
    share, whole = Bounds(ge=0, le=1), Bounds(ge=2, whole=True)
    asked = tuple(float(share.admit("step_sizes: quantiles", q)) for q in shares)
    most = None if samples is None else int(whole.admit("step_sizes: samples", samples))
    return Look(tuple(map(inside, several)), model, per, asked, most, scheduled)
