"""How second derivatives go back through one layer, by kind of layer; `bbprop` joins them."""

import abc
import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import Module

from stepsize.errors import FieldError


class Call(abc.ABC):
    """One call of a layer: what went in, and how a curvature of what came out goes back."""

    def __init__(self, layer: Module, x: Tensor, output: Tensor, *, bends: bool) -> None:
        del output, bends
        self.layer = layer
        self.x = x.detach()

    def own(self, curved: Tensor) -> dict[str, Tensor]:
        """Give the layer's parameters' part, summed over samples, by name."""
        del curved
        return {}

    @abc.abstractmethod
    def below(self, curved: Tensor) -> Tensor:
        """Give the curvature in what went in."""


class Weighted(Call):
    """y = Wx + b, convolutions too: the derivatives in W of W x^2, and in x of W^2 x."""

    def own(self, curved: Tensor) -> dict[str, Tensor]:
        """Give the curvature in the weights and the bias."""
        leaves = {n: p.detach().requires_grad_() for n, p in self.layer.named_parameters()}
        with torch.enable_grad():
            y = torch.func.functional_call(self.layer, leaves, self.x.to(curved.dtype).square())
        return dict(zip(leaves, torch.autograd.grad(y, list(leaves.values()), curved), strict=True))

    def below(self, curved: Tensor) -> Tensor:
        """Give the curvature in x."""
        squares = {n: p.detach().square() for n, p in self.layer.named_parameters()}
        x = self.x.to(curved.dtype, copy=True).requires_grad_()
        with torch.enable_grad():
            y = torch.func.functional_call(self.layer, squares, x)
        return torch.autograd.grad(y, x, curved)[0]


class Elementwise(Call):
    """x = phi(a): the square of the slope, and with `bends` the second derivative.

    Both are taken in the graph of the call itself: a dropout has its mask there.
    """

    def __init__(self, layer: Module, x: Tensor, output: Tensor, *, bends: bool) -> None:
        super().__init__(layer, x, output, bends=bends)
        self._slope: Tensor | None = None
        self._bend: Tensor | None = None
        self._gradient: Tensor | None = None
        if not (x.requires_grad and output.requires_grad):
            return  # nothing below it learns
        ones = torch.ones_like(output)
        (slope,) = torch.autograd.grad(output, x, ones, retain_graph=True, create_graph=bends)
        if bends:
            self._bend = torch.zeros_like(slope)
            if slope.requires_grad:
                (bend,) = torch.autograd.grad(
                    slope, x, ones, retain_graph=True, materialize_grads=True
                )
                self._bend = bend
            output.register_hook(self._keep)  # type: ignore[no-untyped-call]
        self._slope = slope.detach()

    def _keep(self, gradient: Tensor) -> None:
        self._gradient = gradient.detach()

    def below(self, curved: Tensor) -> Tensor:
        """Give the curvature in a."""
        if self._slope is None:
            raise FieldError("bbprop needs a forward pass with gradients enabled")
        found = self._slope.square() * curved
        if self._bend is None:
            return found
        if self._gradient is None:
            raise FieldError("with bends=True call backward() before asking for the diagonals")
        return found + self._bend * self._gradient * len(self.x)  # the loss is a mean


class Moved(Call):
    """Every output is one of the inputs: max pooling, flattening."""

    def below(self, curved: Tensor) -> Tensor:
        """Give the curvature back to where each element came from."""
        x = self.x.to(curved.dtype, copy=True).requires_grad_()
        with torch.enable_grad():
            y = self.layer(x)
        return torch.autograd.grad(y, x, curved)[0]


class Averaged(Moved):
    """Every output is the mean of k inputs, the same k everywhere."""

    def __init__(self, layer: Module, x: Tensor, output: Tensor, *, bends: bool) -> None:
        super().__init__(layer, x, output, bends=bends)
        self._count = _window(layer, x, output)

    def below(self, curved: Tensor) -> Tensor:
        """Give the curvature times the squares of the weights, 1 / k^2."""
        return super().below(curved) / self._count


def _window(layer: Any, x: Tensor, output: Tensor) -> float:
    """Give how many inputs an average pooling takes for an output."""
    sides = [a / b for a, b in zip(x.shape[2:], output.shape[2:], strict=True)]
    if not hasattr(layer, "kernel_size"):  # adaptive
        alike = all(side == round(side) for side in sides)
        count = math.prod(sides)
    else:
        padded = any(_each(layer.padding, len(sides)))
        alike = not layer.ceil_mode and (layer.count_include_pad or not padded)
        size = math.prod(_each(layer.kernel_size, len(sides)))
        count = getattr(layer, "divisor_override", None) or size
    if not alike:
        cure = "choose sizes that divide, no ceil_mode, count_include_pad=True"
        raise FieldError.of("average pooling", "over windows of one size", layer, cure)
    return count


def _each(size: int | tuple[int, ...], dimensions: int) -> tuple[int, ...]:
    return size if isinstance(size, tuple) else (size,) * dimensions


_WEIGHTED: tuple[type[Module], ...] = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)
_AVERAGED: tuple[type[Module], ...] = (
    nn.AvgPool1d,
    nn.AvgPool2d,
    nn.AvgPool3d,
    nn.AdaptiveAvgPool1d,
    nn.AdaptiveAvgPool2d,
    nn.AdaptiveAvgPool3d,
)
_MOVED: tuple[type[Module], ...] = (
    nn.Flatten,
    nn.Unflatten,
    nn.ZeroPad1d,
    nn.ZeroPad2d,
    nn.ZeroPad3d,
    nn.MaxPool1d,
    nn.MaxPool2d,
    nn.MaxPool3d,
    nn.AdaptiveMaxPool1d,
    nn.AdaptiveMaxPool2d,
    nn.AdaptiveMaxPool3d,
)
_ELEMENTWISE: tuple[type[Module], ...] = (
    nn.Identity,
    nn.Tanh,
    nn.Tanhshrink,
    nn.Sigmoid,
    nn.LogSigmoid,
    nn.Softplus,
    nn.Softsign,
    nn.ReLU,
    nn.ReLU6,
    nn.LeakyReLU,
    nn.ELU,
    nn.SELU,
    nn.CELU,
    nn.GELU,
    nn.SiLU,
    nn.Mish,
    nn.Hardtanh,
    nn.Hardswish,
    nn.Hardsigmoid,
    nn.Dropout,
    nn.Dropout1d,
    nn.Dropout2d,
    nn.Dropout3d,
)
KINDS: dict[type[Module], type[Call]] = {
    **dict.fromkeys(_WEIGHTED, Weighted),
    **dict.fromkeys(_AVERAGED, Averaged),
    **dict.fromkeys(_MOVED, Moved),
    **dict.fromkeys(_ELEMENTWISE, Elementwise),
}
"""Which rule a layer follows, by its exact class: a subclass may do anything."""


def kind_of(layer: Module, elementwise: tuple[type[Module], ...]) -> type[Call]:
    """Give the rule of a layer. Raises `FieldError` for one without."""
    kind = Elementwise if isinstance(layer, elementwise) else KINDS.get(type(layer))
    if kind is None:
        raise FieldError(
            f"bbprop knows no rule for {layer}; use hutchinson, or, if it acts on every element by "
            f"itself, give elementwise=({type(layer).__name__},)"
        )
    if getattr(layer, "inplace", False):
        raise FieldError.of("layers", "out of place", layer, "build it with inplace=False")
    return kind
