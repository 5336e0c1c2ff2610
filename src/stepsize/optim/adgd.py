"""Adaptive gradient descent without descent: the step size from how gradients change."""

from collections.abc import Mapping
from typing import Any, ClassVar

from torch import Tensor

from stepsize.optim.adgd_settings import FIELDS, completed
from stepsize.optim.adgd_steps import SecantSteps
from stepsize.optim.base import settings


class AdGD(SecantSteps):
    r"""Gradient descent with the step size that the change of the gradient allows.

    From two points and their gradients, over all parameters,

    $$L_k = \frac{\|g_k - g_{k-1}\|}{\|x_k - x_{k-1}\|} \qquad
    \lambda_k = \min\left(\sqrt{1 + \theta_{k-1}}\,\lambda_{k-1},\; \frac{\alpha}{L_k}\right)
    \qquad \theta_k = \frac{\lambda_k}{\lambda_{k-1}} \qquad
    x_{k+1} = x_k - \mathrm{lr}\,\lambda_k g_k$$

    One gradient a step, no losses, nothing to tune. For full batches of a convex loss it converges
    whatever the curvature, which it learns as it goes; the loss does not fall at every step. On
    minibatches use `stochastic=True` and nothing else: between two minibatches the gradients differ
    by noise, $L_k$ measures that, and the step size collapses.

    `stochastic`: both gradients on the minibatch of this step, so two evaluations a step, by the
    closure; dropout masks and the buffers of BatchNorm are those of the first. Then
    $\lambda_k = \min(\sqrt{1 + \gamma\theta_{k-1}}\,\lambda_{k-1}, \alpha / L_k) + \varepsilon$.
    There is no guarantee for it, and $\alpha$ is to be tuned.

    It keeps the last gradients, and the last parameters too where it has to: with weight decay that
    is not decoupled, with `accelerated` and `stochastic`, for float16 and bfloat16, and from the
    first time that somebody else writes to a parameter (a projection, an average put in its place)
    or that one has no gradient any more. That one step keeps its step size. Gradients are kept
    where they are, without a copy, if `zero_grad` sets them to None and there is one process.

    Where gradients are not all finite, `step` raises and changes nothing. `lr=0` holds everything.

    In `param_groups`, after a step: `step_size`, `ratio` ($\theta$).

    Args:
        params: parameters or groups of them; a group may have its own `lr` and `weight_decay`.
        lr: multiplies the step size; a schedule goes here.
        rule: "adgd": as above, $\theta_0=\infty$, so the first step size hardly matters.
            "known-lipschitz": the second term is
            $1 / (\lambda_{k-1} L^2) + \alpha / L_k$ with `lipschitz`, $L$.
            "tighter": it is $\|x_k - x_{k-1}\| / \sqrt{3\|g_k\|^2 - 4\langle g_k, g_{k-1}\rangle}$
            where that is real, after ten steps of "adgd". "adgd2-1": $\alpha=1/\sqrt 2$,
            $\theta_0=1/3$. "adgd2-2": $\theta_0=1/3$ and
            $\min(\sqrt{2/3+\theta}\lambda, \lambda/\sqrt{[2\lambda^2 L_k^2 - 1]_+})$.
        stochastic: for minibatches; the closure is required.
        accelerated: with momentum from a second estimate, of strong convexity. A heuristic.
        norms: "global": one step size for all. "group": each group its own; no analysis covers it.
        alpha: $\alpha$; by default 1/2, and $1/\sqrt 2$ of "adgd2-1". 1 with `stochastic`, where it
            is 1 / `damping` of the authors' code: smaller is more cautious.
        initial_step: $\lambda_0$; by default 1e-4, $1/L$ where it is known, 0.2 with `stochastic`.
        search_initial: find $\lambda_0$ with further evaluations at the first step, from
            `initial_step`: times 10 while $\lambda L \le 2$ and it is at most 10, then halved until
            it holds. For "adgd2-1" and "adgd2-2", whose first step sizes grow slowly. The closure
            is required.
        lipschitz: the greatest curvature, for "known-lipschitz".
        amplifier: $\gamma$ of `stochastic`; by default 0.02.
        eps: $\varepsilon$ of `stochastic`; by default 1e-5.
        max_norm: the greatest length of the direction that is stepped along. Use it instead of
            `clip_grad_norm_`: what is measured must not be clipped.
        exact_displacement: keep the last parameters from the start. Needed where somebody writes to
            `p.data`, which cannot be seen; else it is turned on by itself.
        weight_decay: L2 penalty.
        decoupled_weight_decay: weight decay takes part in the step alone, not in the gradients that
            are compared (so it is in the authors' stochastic code).
        maximize: climb.
        foreach: take many tensors in one call; the same numbers but for rounding.

    Raises:
        FieldError: for a value outside its limits, for options that exclude each other, and at a
            step with gradients that are not finite.

    Source: Malitsky and Mishchenko 2020, Adaptive gradient descent without descent, and 2023,
    Adaptive proximal gradient method for convex optimization. The papers were not read; the
    authors' code was (ymalitsky/adaptive_GD, ymalitsky/AdProxGD). Ours differs where nothing has
    been measured yet and the gradient does not change: the step size is tenfold. The search stops
    at the last step size that it tried, the authors' at ten times that; "accelerated" begins
    with `initial_step` in place of $10^{-5}/\|g_0\|$.

    >>> import torch
    >>> w = torch.ones(2, dtype=torch.float64, requires_grad=True)
    >>> optimizer = AdGD([w], initial_step=1e-3)
    >>> for _ in range(9):
    ...     optimizer.zero_grad()
    ...     (0.5 * (w[0] ** 2 + 10 * w[1] ** 2)).backward()
    ...     optimizer.step()
    >>> round(optimizer.sizes_of(w), 8)  # twice what 1/L would be
    0.21557454
    """

    rules: ClassVar[Mapping[str, Any]] = FIELDS

    def __init__(
        self,
        params: Any,
        lr: float | Tensor = 1.0,
        *,
        rule: str = "adgd",
        stochastic: bool = False,
        accelerated: bool = False,
        norms: str = "global",
        alpha: float | None = None,
        initial_step: float | None = None,
        search_initial: bool = False,
        lipschitz: float | None = None,
        amplifier: float | None = None,
        eps: float | None = None,
        max_norm: float | None = None,
        exact_displacement: bool = False,
        weight_decay: float = 0.0,
        decoupled_weight_decay: bool = False,
        maximize: bool = False,
        foreach: bool = True,
    ) -> None:
        super().__init__(params, completed(settings(locals())))

    @property
    def needs_closure(self) -> bool:  # type: ignore[override]  # it depends on the options
        """Whether a step evaluates the minibatch more than once."""
        needed: bool = self.defaults["stochastic"] or self.defaults["search_initial"]
        return needed
