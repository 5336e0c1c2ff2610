"""Diagonal Newton: every element's step is its gradient over its own curvature."""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor

from stepsize.errors import FieldError
from stepsize.optim.again import Closure, Repeatable
from stepsize.optim.base import (
    NOT_NEGATIVE,
    POSITIVE,
    SHARE,
    Choice,
    Flag,
    settings,
    wide,
    with_gradients,
)
from stepsize.optim.differenced import Signs, gradients_kept, sampled_diagonal
from stepsize.optim.formula import Tensors
from stepsize.optim.observing import Observing, due
from stepsize.schedules.fields import Bounds
from stepsize.torch.groups import Group

_SPREAD = 0x9E3779B1  # odd, so that every seed begins elsewhere


class DiagonalNewton(Observing):
    r"""Divide every element's gradient by its own curvature: Newton's step for a diagonal Hessian.

    With $h$ the diagonal of the Hessian, or what is measured in its place, averaged over steps,

    $$\theta_i \leftarrow \theta_i - \mathrm{lr}\,\frac{g_i}{|h_i| + \mu}$$

    The absolute value keeps it a descent where the curvature is negative; $\mu$ bounds the step
    where there is none. Coupled weight decay adds its own curvature, `weight_decay`, to $|h_i|$.

    In one dimension, and wherever the Hessian is diagonal, `lr=1` steps to the minimum of a
    quadratic. **Otherwise it may not even converge**: on a quadratic it does only if the greatest
    eigenvalue of $D^{-1}H$ is below `2 / lr`, D the diagonal of H. For n parameters that are all
    correlated by 0.95 this eigenvalue is 2.9 (n = 3) and 9.55 (n = 10). So in a network `lr` is to
    be well below 1, or the damping large, and a schedule goes on top. Nor does dividing by the
    diagonal always make a problem better conditioned.

    Where the curvature comes from:

    * `curvature="hutchinson"`: measured here, every `every` steps, by one more evaluation of the
      closure: $z \odot (\nabla(\theta+\epsilon z)-\nabla(\theta))/\epsilon$ with signs z drawn from
      `seed`. On average this is the diagonal; the noise of an element is the rest of its row, and
      it takes many measurements to average it away. Where activations have kinks (ReLU), a
      difference sees them and derivatives do not: it is then noisier, less with a greater
      `difference`.
    * `curvature="observed"`: by you, with any function of `stepsize.torch.curvature`, the nearest
      of which is `bbprop` with `bends`, for a chain of layers:

          loss = criterion(model(x), y)
          if optimizer.due:                 # every `every` steps
              optimizer.observe(curvature.hutchinson(loss, params))
          loss.backward()
          optimizer.step()

      Observing after `step` makes the curvature one step old: that of the previous minibatch.

    Args:
        params: parameters or groups of them.
        lr: multiplies every rate; a schedule goes here.
        curvature: "hutchinson" or "observed".
        damping: $\mu$; no rate is above 1 / damping. 1 is cautious: where curvatures are smaller,
            it is nearly plain gradient descent. With 0.1 the best `lr` of a digits network was 0.1
            to 0.3; there nothing beat SGD at its best rate (`benchmarks/papers/newton.py`).
        average: what is averaged: "absolute" |h|, "signed" h, or "squared" h^2 (its root is
            taken). Under noise, |h| and h^2 come out greater than the diagonal (h^2: the norm of
            the row), so steps are smaller; h finds the diagonal, and steps are as it says.
        beta: what the average keeps of the past; the first observations count alike.
        every: how many steps a measurement serves.
        behind: step with the curvature of the measurement before, of another minibatch than the
            gradient's; else the two have the same noise. For "hutchinson".
        initial_step: the rate before anything was measured; 0: nothing moves until then.
        max_step: the greatest rate, where `damping` is small.
        difference: $\epsilon$, as a share of the root mean square of the parameters.
        seed: which signs are drawn; torch's own random numbers are left alone.
        weight_decay: L2 penalty.
        decoupled_weight_decay: weight decay takes part in the step alone.
        maximize: climb.
        foreach: take many tensors in one call; the same numbers to the bit.
        compiled: one compiled kernel over one flat vector.

    Raises:
        FieldError: for a value outside its limits; for bfloat16 and float16 parameters with
            "hutchinson", whose gradients have too few digits to be subtracted.

    Source: the rule, after Becker & LeCun 1988, is eq. 6 of Zeiler, arXiv 1212.5701, which was
    read; averaged and with $\mu$ = 0.02 it is the "stochastic diagonal Levenberg-Marquardt" of
    EBLearn (compute_epsilons), whose code was read, there with `bbprop` for h. The papers of LeCun
    and his co-authors were not. Hutchinson's estimate by a difference of gradients is ours: it
    takes no second backward pass, so that it works with what has none, and with split parameters.

    >>> import torch
    >>> w = torch.tensor([1.0, 2.0], dtype=torch.float64, requires_grad=True)
    >>> optimizer = DiagonalNewton([w], curvature="observed", damping=0.0)
    >>> (0.5 * (w[0] ** 2 + 10 * w[1] ** 2)).backward()
    >>> optimizer.observe([torch.tensor([1.0, 10.0])])
    >>> optimizer.step()
    >>> optimizer.sizes_of(w), w.detach()
    (tensor([1.0000, 0.1000], dtype=torch.float64), tensor([0., 0.], dtype=torch.float64))
    """

    memory: ClassVar[tuple[str, ...]] = ("curvature", "rate")
    rooms: ClassVar[int] = 0
    rules: ClassVar[Mapping[str, Any]] = {
        "curvature": Choice("hutchinson", "observed"),
        "damping": NOT_NEGATIVE,
        "average": Choice("absolute", "signed", "squared"),
        "beta": SHARE,
        "every": Bounds(ge=1, whole=True),
        "behind": Flag(),
        "initial_step": NOT_NEGATIVE,
        "max_step": POSITIVE,
        "difference": POSITIVE,
        "seed": Bounds(ge=0, lt=2**31, whole=True),
        "foreach": Flag(),
        "compiled": Flag(),
    }

    def __init__(
        self,
        params: Any,
        lr: float | Tensor = 1.0,
        *,
        curvature: str = "hutchinson",
        damping: float = 1.0,
        average: str = "absolute",
        beta: float = 0.9,
        every: int = 10,
        behind: bool = False,
        initial_step: float = 0.0,
        max_step: float = 1e3,
        difference: float = 3e-2,
        seed: int = 0,
        weight_decay: float = 0.0,
        decoupled_weight_decay: bool = False,
        maximize: bool = False,
        foreach: bool = True,
        compiled: bool = False,
    ) -> None:
        given = settings(locals())
        # how many measurements there were, and how many steps ago the last one was
        super().__init__(params, {**given, "measured": 0, "age": 0})

    def add_param_group(self, param_group: Group) -> None:
        """Add a group; its own fields obey the same rules. Raises `FieldError`."""
        super().add_param_group(param_group)
        try:
            _check(self.param_groups[-1])
        except FieldError:
            self.param_groups.pop()
            raise

    @property
    def needs_closure(self) -> bool:  # type: ignore[override]
        """Whether anything is measured here."""
        return any(group["curvature"] == "hutchinson" for group in self.param_groups)

    @classmethod
    def begin(cls, group: Group, name: str) -> Any:
        """Give the curvature that makes the first rate `initial_step`; infinite for 0."""
        if name == "rate":
            return group["initial_step"]
        if not group["initial_step"]:
            return torch.inf
        found = max(1 / group["initial_step"] - group["damping"], 0.0)
        return found**2 if group["average"] == "squared" else found

    @classmethod
    def rates(
        cls,
        group: Mapping[str, Any],
        gradients: Tensors,
        memory: Mapping[str, Tensors],
        rooms: Sequence[Tensors],
    ) -> Tensors:
        """Give 1 / (|h| + damping)."""
        del gradients, rooms
        rates = memory["rate"]
        torch._foreach_copy_(rates, memory["curvature"])
        if group["average"] == "squared":
            torch._foreach_sqrt_(rates)
        else:
            torch._foreach_abs_(rates)
        decay = 0.0 if group["decoupled_weight_decay"] else group["weight_decay"]
        torch._foreach_add_(rates, decay + group["damping"])
        torch._foreach_reciprocal_(rates)
        torch._foreach_clamp_max_(rates, group["max_step"])
        return rates

    def _advance(self, closure: Closure | None) -> Any:
        self._expect_observations()
        if closure is None or not self.needs_closure:
            loss = super()._advance(closure)
        else:
            loss = self._measuring_step(closure)
        for group in self.param_groups:
            group["age"] += 1
        return loss

    def _measuring_step(self, closure: Closure) -> Any:
        groups = [g for g in self.param_groups if g["curvature"] == "hutchinson"]
        repeat = Repeatable(closure, self.everything())
        loss = repeat.first()
        if not any(map(due, groups)):
            super()._advance(None)
            return loss
        found = self._measured(repeat, groups)
        self._take_up(found, [g for g in groups if not g["behind"]])
        super()._advance(None)
        self._take_up(found, [g for g in groups if g["behind"]])
        return loss

    def _measured(self, repeat: Repeatable, groups: list[Group]) -> dict[Tensor, Tensor]:
        params = [p for group in groups for p in with_gradients(group["params"])]
        number = sum(group["measured"] for group in groups)
        # torch's generator for the CPU takes 32 bits of a seed
        signs = Signs((groups[0]["seed"] * _SPREAD + number) % 2**32)
        with gradients_kept(self.everything()) as first:
            return sampled_diagonal(
                repeat, {p: first[p] for p in params}, signs, groups[0]["difference"]
            )

    def _expect_observations(self) -> None:
        for group in self.param_groups:
            told = group["curvature"] == "hutchinson" or group["measured"] or group["initial_step"]
            if not told:
                raise FieldError(
                    "DiagonalNewton(curvature='observed') has observed nothing yet: call "
                    "optimizer.observe(diagonals) before step(), or give initial_step, the rate "
                    "until then"
                )


def _check(group: Group) -> None:
    measures = group["curvature"] == "hutchinson"
    if group["behind"] and not measures:
        cure = "with curvature='observed' call observe() after step()"
        raise FieldError.of("behind", "False", True, cure)
    for p in group["params"]:
        if measures and wide(p) != p.dtype:
            cure = "use curvature='observed', or keep the parameters in float32"
            rule = "float32 or float64 for curvature='hutchinson'"
            raise FieldError.of("params", rule, p.dtype, cure)
