"""vSGD: rates from the variance of the gradients and the curvature, with nothing to tune."""

from collections.abc import Mapping
from typing import Any, ClassVar

from torch import Tensor

from stepsize.errors import FieldError
from stepsize.optim.base import settings
from stepsize.optim.vsgd_settings import RULES, check, settle
from stepsize.optim.vsgd_steps import VarianceSteps
from stepsize.torch.groups import Group


class VSGD(VarianceSteps):
    r"""Variance-based SGD: a rate falls where gradients are noise, and grows where they agree.

    With averages of the gradient, of its square and of the curvature, over the last $\tau$ steps
    (weight $1/\tau$ for the newest), for every element, in this order,

    $$\bar g,\ \bar v,\ \bar h \leftarrow \text{averages of } g,\ g^2,\ |h| \qquad
    \tau \leftarrow \left(1 - \frac{\bar g^2}{\bar v}\right)\tau + 1 \qquad
    \theta \leftarrow \theta - \mathrm{lr}\,\frac{\bar g^2}{\bar h\,\bar v}\,g$$

    This rate minimises the expected loss of the next step, greedily, where the Hessian is diagonal
    and the same for all samples, of which each has a minimum of its own. `variant="b"` has one rate
    for each tensor, $\sum\bar g_i^2 / (\max\bar h_i\,\bar l)$ where $\bar l$ is the average of
    $\|g\|^2$, and one $\tau$; `variant="g"` has one for all tensors.

    **Nothing moves in the first `slow_start` steps**: they begin the averages. Then $\bar v$ is
    multiplied by `slow_constant`, which makes the first steps small. This wears off in up to
    `slow_constant * initial_tau` steps: the paper's value, a tenth of the number of parameters, is
    for a great many steps of one sample. For a large model and few steps set it far lower.

    It is made for steps of one sample. With the mean gradient of a minibatch, $\bar v$ is the
    mean square of that mean, and the rule stays: then $\bar g^2/\bar v$ is, in expectation, the
    factor $n\bar g^2/(\bar v_1 + (n-1)\bar g^2)$ of the authors' code for n samples, where
    $\bar v_1$ is the mean square of one. So their number need not be told, but has to stay the
    same. Do not clip in the closure: the rates follow from the sizes of the gradients, and would
    follow from the clipped ones.

    Where the curvature comes from:

    * `curvature="fd"` (`variant="l"` alone): the follow-up's vSGD-fd. Each minibatch is evaluated
      again at $\theta+\bar g$; $h_i = |\Delta g_i / \bar g_i|$. $\bar h / \overline{h^2}$ stands
      for $1/\bar h$. First a test for outliers: $\tau$ grows by 1 where $g$ or $h$ is more than
      `outliers` standard deviations from its mean. This h mixes a whole row of the Hessian.
    * `curvature="observed"`: yours, before each step (or now and then):

          optimizer.observe(curvature.bbprop(...))  # from stepsize.torch
          loss.backward()
          optimizer.step()

    Args:
        params: parameters or groups of them.
        lr: multiplies every rate; a schedule goes here. 1 is the paper's.
        variant: "l" for elements, "b" for tensors, "g" for the whole model.
        curvature: "fd" (`step` needs a closure) or "observed".
        slow_start: steps without a move. The paper takes a thousandth of the samples; None: the
            root of the number of parameters, as the authors' code for the follow-up. Too few can
            spoil all that follows: 64-32-10 on digits ended at 14 % error after 10 instead of 2 %.
        slow_constant: C, what multiplies the averages of squares after it. None: a tenth of the
            number of parameters, at least 2.
        scale_curvature: multiply $\bar h$ by C, too (and $\overline{h^2}$ by its square), as the
            preprint's ports and the authors' Lua code do, and the paper does not.
        initial_tau: of the first step after the slow start, which the paper does not say. None:
            `slow_start`, as a port has it, since so many gradients stand in the averages. The
            authors' codes weigh the first one by 1/2, which forgets them: 24 % error there.
        least_tau: a floor for $\tau$; 1 is the paper's rule. Where gradients have no noise (of a
            weight that only decays) $\tau$ falls to 1, and one sample alone decides the next step.
            That ended in NaN in a network whose inputs are rarely on; 10 did not.
        least_curvature: a floor for $\bar h$, as strong as the L2 penalty by which the authors
            kept curvatures away from 0; no rate exceeds its reciprocal.
        outliers: how many standard deviations make one; 0: no test. None: 2 with "fd".
        weight_decay: L2 penalty, the authors' 1e-4; its curvature is added to observed ones.
        decoupled_weight_decay: weight decay takes part in the step alone.
        maximize: climb.
        foreach: take many tensors in one call; the same numbers to the bit.
        compiled: with "l", one compiled kernel over one flat vector after the slow start.

    Raises:
        FieldError: for a value outside its limits, and for settings that do not go together.

    Source: Schaul, Zhang, LeCun 2013, No more pesky learning rates (ICML), Algorithm 1 and eqs. 5
    to 8, which was read; the follow-up's (arXiv 1301.3764) rule as in its authors' codes d-vsgd-fd
    (Lua) and py-optim, which were read, and its text was not. They differ: outliers at 2 and 1
    standard deviations, by gradient and curvature (+1 each, or once as here).

    >>> import torch
    >>> w = torch.ones(2, dtype=torch.float64, requires_grad=True)
    >>> h = torch.tensor([1.0, 5.0])
    >>> fields = {"slow_start": 2, "slow_constant": 10, "least_tau": 1}
    >>> optimizer = VSGD([w], curvature="observed", **fields)
    >>> for _ in range(3):  # two steps that do not move, and one
    ...     optimizer.observe([h])
    ...     optimizer.zero_grad()
    ...     (0.5 * h * w * w).sum().backward()
    ...     optimizer.step()
    >>> optimizer.sizes_of(w), w.detach()
    (tensor([0.1818, 0.0364], dtype=torch.float64), tensor([0.8182, 0.8182], dtype=torch.float64))
    """

    rules: ClassVar[Mapping[str, Any]] = RULES

    def __init__(
        self,
        params: Any,
        lr: float | Tensor = 1.0,
        *,
        variant: str = "l",
        curvature: str = "fd",
        slow_start: int | None = None,
        slow_constant: float | None = None,
        scale_curvature: bool = False,
        initial_tau: float | None = None,
        least_tau: float = 10.0,
        least_curvature: float = 1e-4,
        outliers: float | None = None,
        weight_decay: float = 0.0,
        decoupled_weight_decay: bool = False,
        maximize: bool = False,
        foreach: bool = True,
        compiled: bool = False,
    ) -> None:
        super().__init__(params, settings(locals()))
        self._settle()

    def add_param_group(self, param_group: Group) -> None:
        """Add a group; its own fields obey the same rules. Raises `FieldError`."""
        super().add_param_group(param_group)
        if all(value is not None for value in self.defaults.values()):  # built already
            self._settle()

    def _settle(self) -> None:
        count = sum(p.numel() for p in self.everything())
        for fields in (self.defaults, *self.param_groups):
            settle(fields, count)
        try:
            for group in self.param_groups:
                check(group, self.defaults)
        except FieldError:
            self.param_groups.pop()
            raise
