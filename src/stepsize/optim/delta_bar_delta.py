"""Delta-Bar-Delta: a rate for every weight, which grows while its gradient keeps its sign."""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor

from stepsize.errors import FieldError
from stepsize.optim.base import NOT_NEGATIVE, POSITIVE, SHARE, Choice, Flag, settings
from stepsize.optim.elementwise import Elementwise
from stepsize.optim.formula import Tensors
from stepsize.schedules.fields import Bounds
from stepsize.torch.groups import Group


class DeltaBarDelta(Elementwise):
    r"""A rate of its own for every element; signs of gradients raise and lower it.

    With $g$ the gradient and $\bar g$ its average over the past, for every element

    $$\Delta\lambda = \begin{cases} +\delta & \bar g(t-1)\,g(t) > 0 \\
    -\varepsilon\lambda(t) & \bar g(t-1)\,g(t) < 0 \\ 0 & \text{otherwise}\end{cases}
    \qquad \lambda \leftarrow \lambda + \Delta\lambda \qquad
    \theta \leftarrow \theta - \mathrm{lr}\,\lambda\,g$$

    and then $\bar g(t) = (1-\beta)\,g(t) + \beta\,\bar g(t-1)$, from $\bar g = 0$: the first step
    changes no rate. The rate is changed before the step is taken with it.

    It is made for full batches: where noise decides the signs, as many rises as falls are seen and
    the rates shrink (`RegrettableDBD` takes that up). `delta` is in units of the rate, so it has to
    be far below `2 / h` for the greatest curvature h, or one rise makes the step unstable.

    Args:
        params: parameters or groups of them.
        lr: multiplies every rate; a schedule goes here.
        initial_step: the rate that every element begins with.
        delta: $\delta$, added where the signs agree.
        epsilon: $\varepsilon$, the share that is taken away where they differ.
        beta: $\beta$, what $\bar g$ keeps of the past.
        decrease: "subtract": the rate becomes $(1-\varepsilon)\lambda$, as Jacobs says it;
            "multiply": it becomes $\varepsilon\lambda$, the other reading of "a factor for
            decreasing".
        bounds: the least and the greatest rate.
        weight_decay: L2 penalty.
        decoupled_weight_decay: weight decay takes part in the step alone, not in what is compared.
        maximize: climb.
        foreach: take many tensors in one call; the same numbers to the bit.
        compiled: one compiled kernel over one flat vector: faster for large models and for many
            tensors. It takes some seconds at the first step. Within 2 units in the last place.

    Raises:
        FieldError: for a value outside its limits.

    Source: Jacobs 1988, Increased rates of convergence through learning rate adaptation, Neural
    Networks 1. Its text could not be read; the rule is as cited in the code of hbrouwer/mesh, where
    the step uses the rate before the change. Jacobs' $\kappa,\phi,\theta$ are $\delta,\varepsilon,
    \beta$ here; his $\delta(t)$ is the gradient and his $\varepsilon(t)$ the rate. The paper's own
    settings are unknown to us: the defaults are ours.

    >>> import torch
    >>> w = torch.ones(2, dtype=torch.float64, requires_grad=True)
    >>> optimizer = DeltaBarDelta([w], initial_step=0.05, delta=0.01, epsilon=0.5, beta=0.7)
    >>> for _ in range(8):
    ...     optimizer.zero_grad()
    ...     (0.5 * (w[0] ** 2 + 10 * w[1] ** 2)).backward()
    ...     optimizer.step()
    >>> optimizer.sizes_of(w)  # one element crossed zero, and met it exactly
    tensor([0.1200, 0.1000], dtype=torch.float64)
    """

    memory: ClassVar[tuple[str, ...]] = ("rate", "bar")
    rooms: ClassVar[int] = 2
    rules: ClassVar[Mapping[str, Any]] = {
        "initial_step": POSITIVE,
        "delta": NOT_NEGATIVE,
        "epsilon": Bounds(gt=0, lt=1),
        "beta": SHARE,
        "decrease": Choice("subtract", "multiply"),
        "foreach": Flag(),
        "compiled": Flag(),
    }

    def __init__(
        self,
        params: Any,
        lr: float | Tensor = 1.0,
        *,
        initial_step: float = 0.01,
        delta: float = 1e-3,
        epsilon: float = 0.1,
        beta: float = 0.5,
        decrease: str = "subtract",
        bounds: tuple[float, float] = (0.0, 10.0),
        weight_decay: float = 0.0,
        decoupled_weight_decay: bool = False,
        maximize: bool = False,
        foreach: bool = True,
        compiled: bool = False,
    ) -> None:
        super().__init__(params, settings(locals()))

    @classmethod
    def _admitted(cls, fields: Mapping[str, Any]) -> dict[str, Any]:
        found = super()._admitted(fields)
        if "bounds" in found:
            low, high = found["bounds"] = tuple(found["bounds"])
            if not 0 <= low < high:
                raise FieldError.of("bounds", "two numbers with 0 <= low < high", found["bounds"])
        return found

    @classmethod
    def begin(cls, group: Group, name: str) -> Any:
        """Give the first rate; the average begins at 0."""
        return group["initial_step"] if name == "rate" else 0.0

    @classmethod
    def rates(
        cls,
        group: Mapping[str, Any],
        gradients: Tensors,
        memory: Mapping[str, Tensors],
        rooms: Sequence[Tensors],
    ) -> Tensors:
        """Apply the rule."""
        rates, bars, (up, down) = memory["rate"], memory["bar"], rooms
        epsilon, (low, high) = group["epsilon"], group["bounds"]
        taken = epsilon if group["decrease"] == "subtract" else 1 - epsilon
        torch._foreach_copy_(up, bars)
        torch._foreach_sign_(up)  # before the product, which could underflow
        torch._foreach_mul_(up, gradients)
        torch._foreach_sign_(up)  # 1, 0 or -1
        torch._foreach_copy_(down, up)
        torch._foreach_clamp_max_(down, 0.0)
        torch._foreach_addcmul_(rates, rates, down, value=taken)
        torch._foreach_clamp_min_(up, 0.0)
        torch._foreach_add_(rates, up, alpha=group["delta"])
        torch._foreach_clamp_max_(rates, high)
        if low:
            torch._foreach_clamp_min_(rates, low)
        torch._foreach_lerp_(bars, gradients, 1 - group["beta"])
        return rates
