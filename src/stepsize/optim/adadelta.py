"""AdaDelta with its paper's settings, over torch's own."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.optim import Adadelta

from stepsize.errors import FieldError
from stepsize.optim.base import NOT_NEGATIVE, POSITIVE, SHARE, Flag, Optional, Rate, wide
from stepsize.torch.groups import Group

RULES: Mapping[str, Any] = {
    "lr": Rate(),
    "rho": SHARE,
    "eps": POSITIVE,
    "weight_decay": NOT_NEGATIVE,
    "foreach": Optional(Flag()),
    "maximize": Flag(),
    "capturable": Flag(),
}


class AdaDelta(Adadelta):
    r"""Steps as large as recent steps were, over gradients as large as recent gradients were.

    For every element, from $E[g^2]_0 = E[\Delta x^2]_0 = 0$:

    $$E[g^2]_t = \rho E[g^2]_{t-1} + (1-\rho) g_t^2 \qquad
    \Delta x_t = -\frac{\sqrt{E[\Delta x^2]_{t-1}+\epsilon}}{\sqrt{E[g^2]_t+\epsilon}}\, g_t$$

    $$E[\Delta x^2]_t = \rho E[\Delta x^2]_{t-1} + (1-\rho) \Delta x_t^2 \qquad
    x_{t+1} = x_t + \mathrm{lr}\,\Delta x_t$$

    The update is torch's; here are the paper's $\rho = 0.95$ (torch: 0.9), checked groups, and the
    step size that can be read.

    It needs no tuning to do well, and is seldom the best. `eps` sets the unit: the first step is
    $\sqrt{\epsilon/(1-\rho)}$ whatever the gradient (0.0045), and under a constant gradient step t
    is about $\sqrt{\epsilon(1+(1-\rho)t)}$: a slow start, which a larger `eps` shortens. Where
    gradients are below $\sqrt\epsilon$, as for a loss that is divided by much, `eps` rules.

    Args:
        params: parameters or groups of them.
        lr: multiplies every step; a schedule goes here. The paper has none, which is 1. What is
            remembered of steps is without it, so 0.001 makes every step a thousandth for good.
        rho: $\rho$, what both averages keep of the past.
        eps: $\epsilon$, in both roots.
        weight_decay: L2 penalty.
        foreach: take many tensors in one call; None: where torch thinks it faster.
        maximize: climb.
        capturable: may be captured in a CUDA graph.

    Raises:
        FieldError: for a value outside its limits: with `eps` 0 nothing would ever move.

    Source: Zeiler 2012, ADADELTA: An adaptive learning rate method, arXiv 1212.5701, Algorithm 1:
    equal to it to rounding at `lr` 1. The averages have the dtype of the parameter, as torch keeps
    them: in bfloat16 they follow changes of $g^2$ only beyond about 0.4 % / $(1-\rho)$, 8 % here.

    >>> import torch
    >>> w = torch.ones(2, dtype=torch.float64, requires_grad=True)
    >>> optimizer = AdaDelta([w])
    >>> (w * torch.tensor([1.0, 1000.0])).sum().backward()
    >>> optimizer.step()
    >>> 1 - w.detach()  # the root of 1e-6 / 0.05, whatever the gradient
    tensor([0.0045, 0.0045], dtype=torch.float64)
    """

    def __init__(
        self,
        params: Any,
        lr: float | Tensor = 1.0,
        *,
        rho: float = 0.95,
        eps: float = 1e-6,
        weight_decay: float = 0.0,
        foreach: bool | None = None,
        maximize: bool = False,
        capturable: bool = False,
    ) -> None:
        given = {name: value for name, value in locals().items() if name in RULES}
        super().__init__(params, **_admitted(given))

    def add_param_group(self, param_group: Group) -> None:
        """Add a group; its own fields obey the same rules. Raises `FieldError`."""
        super().add_param_group(_admitted(param_group))
        for p in self.param_groups[-1]["params"]:
            if p.is_complex():
                self.param_groups.pop()
                cure = "give complex parameters as torch.view_as_real(p)"
                raise FieldError.of("params", "real", p.dtype, cure)

    @torch.no_grad()
    def sizes_of(self, parameter: Tensor) -> Tensor | None:
        r"""Give $\sqrt{E[\Delta x^2]_t+\epsilon}/\sqrt{E[g^2]_t+\epsilon}$; None before a step.

        The rate that follows from the last step. The one that it had is of $E[\Delta x^2]_{t-1}$,
        which is gone: this is $\sqrt\rho$ to $\sqrt 2$ times that.
        """
        state = self.state.get(parameter, {})
        if "acc_delta" not in state:
            return None
        groups = (g for g in self.param_groups if any(p is parameter for p in g["params"]))
        eps, dtype = next(groups)["eps"], wide(parameter)
        steps, squares = (state[n].to(dtype) for n in ("acc_delta", "square_avg"))
        size: Tensor = (steps + eps).div_(squares + eps).sqrt_()
        return size


def _admitted(fields: Mapping[str, Any]) -> dict[str, Any]:
    return {n: RULES[n].admit(n, v) if n in RULES else v for n, v in fields.items()}
