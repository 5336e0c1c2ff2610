"""Products of the Hessian of a loss with vectors, counted by backward passes."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeAlias

import torch
from torch import Tensor

from stepsize.errors import FieldError
from stepsize.torch.lanczos import Vector

Evaluation: TypeAlias = Callable[[], Tensor]
Loss: TypeAlias = Tensor | Evaluation | Sequence[Evaluation]
Weighted: TypeAlias = list[tuple[Tensor | Evaluation, float]]
_ALIKE = 1e-3  # two evaluations of one loss may differ by so much of it, by their rounding
_UNCOMPILED = "evaluate the model as it was before torch.compile"
_MATH = (
    "evaluate it within torch.nn.attention.sdpa_kernel(SDPBackend.MATH), or give a function that "
    "evaluates it: for those it is done"
)


def weighted(loss: Loss, weights: Sequence[float] | None) -> Weighted:
    """Give each evaluation with its share of the mean."""
    several: list[Any] = list(loss) if isinstance(loss, list | tuple) else [loss]
    if not several or not all(isinstance(x, Tensor) or callable(x) for x in several):
        rule = "a tensor, a function that gives one, or a list of such functions"
        raise FieldError.of("loss", rule, loss)
    if len(several) > 1 and any(isinstance(x, Tensor) for x in several):
        cure = "give their mean, or functions"
        raise FieldError.of("loss", "one tensor, or several functions", loss, cure)
    counts = [1.0] * len(several) if weights is None else [float(w) for w in weights]
    if len(counts) != len(several) or not all(w >= 0 for w in counts) or not sum(counts) > 0:
        raise FieldError.of("weights", f"{len(several)} numbers >= 0, not all of them 0", weights)
    return [(x, w / sum(counts)) for x, w in zip(several, counts, strict=True)]


@contextmanager
def twice_differentiable() -> Iterator[None]:
    """Let attention take the form that has a second derivative; the fused ones have none."""
    from torch.nn.attention import SDPBackend, sdpa_kernel  # noqa: PLC0415 (takes long to import)

    with torch.enable_grad(), sdpa_kernel(SDPBackend.MATH):
        yield


class Hessian:
    """The Hessian, by its products.

    A tensor's gradient is taken once and its graph kept; a function is evaluated for each product.
    """

    def __init__(self, losses: Weighted, params: Vector) -> None:
        self._losses, self._params = losses, params
        self._seen: list[float] = []
        self.passes = 0
        first, _ = losses[0]
        self._gradients = self._slopes(first) if isinstance(first, Tensor) else None

    def times(self, vector: Vector) -> Vector:
        """Give the product, in the vector's dtype."""
        along = [v.to(p.dtype) for v, p in zip(vector, self._params, strict=True)]
        if self._gradients is not None:
            found = self._product(self._gradients, along, keep=True)
            return [h.to(v.dtype) for h, v in zip(found, vector, strict=True)]
        total = [torch.zeros_like(v) for v in vector]
        for number, (evaluate, weight) in enumerate(self._losses):
            with twice_differentiable():
                loss: Tensor = evaluate()  # type: ignore[operator]  # no tensor, or it was above
            gradients = self._slopes(loss)
            self._compare(number, float(loss.detach()))
            product = self._product(gradients, along, keep=False)
            for t, h in zip(total, product, strict=True):
                t.add_(h.to(t.dtype), alpha=weight)
        return total

    def _compare(self, number: int, now: float) -> None:
        """Refuse a loss with dropout, which has another Hessian each time."""
        if number == len(self._seen):
            self._seen.append(now)
        before = self._seen[number]
        if abs(now - before) > _ALIKE * max(abs(before), abs(now)):
            cure = "evaluate one fixed batch, and dropout in eval mode"
            raise FieldError.of("loss", f"the same each time, {before:g}", now, cure)

    def _slopes(self, loss: Tensor) -> Sequence[Tensor | None]:
        if not isinstance(loss, Tensor) or loss.numel() != 1 or not loss.requires_grad:
            cure = "give it before loss.backward(), from a model evaluated with gradients enabled"
            given = tuple(loss.shape) if isinstance(loss, Tensor) and loss.numel() > 1 else loss
            raise FieldError.of("loss", "one number with a graph", given, cure)
        self.passes += 1
        found = torch.autograd.grad(
            loss.reshape(()), self._params, create_graph=True, allow_unused=True
        )
        if all(g is None for g in found):
            cure = "give those of the model that it was computed with"
            raise FieldError.of("params", "some that the loss depends on", "others", cure)
        return found

    def _product(
        self, gradients: Sequence[Tensor | None], along: Vector, *, keep: bool
    ) -> Sequence[Tensor]:
        pairs = zip(gradients, along, strict=True)
        curved = [(g, v) for g, v in pairs if g is not None and g.requires_grad]
        if not curved:  # the loss is linear in everything
            return [torch.zeros_like(p) for p in self._params]
        outputs, vectors = zip(*curved, strict=True)
        self.passes += 1
        try:
            return torch.autograd.grad(
                outputs, self._params, vectors, retain_graph=keep, materialize_grads=True
            )
        except RuntimeError as error:
            raise _told(error) from error


def _told(error: RuntimeError) -> Exception:
    """Say what to do where a second derivative is missing."""
    text = str(error).partition("\n")[0]
    cures = {"double backward": _UNCOMPILED, "is not implemented": _MATH}
    for sign, cure in cures.items():
        if sign in text:
            return FieldError.of("loss", "one that can be differentiated twice", text, cure)
    return error
