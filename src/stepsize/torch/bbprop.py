"""Second derivatives sent back through a chain of layers: what LeCun's papers divide by."""

from collections.abc import Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

import torch
from torch import Tensor
from torch.nn import Module

from stepsize.errors import FieldError
from stepsize.torch.criteria import criterion
from stepsize.torch.derivatives import Call, kind_of

if TYPE_CHECKING:
    from torch.utils.hooks import RemovableHandle


def bbprop(
    model: Module,
    params: Sequence[Tensor],
    inputs: Any,
    targets: Tensor | None = None,
    *,
    loss: str = "cross_entropy",
    bends: bool = False,
    elementwise: tuple[type[Module], ...] = (),
) -> list[Tensor]:
    r"""Approximate the diagonal of the Gauss-Newton matrix of a chain of layers, at one pass' cost.

    With $\partial^2$ the second derivative of one sample's loss in something, from its known value
    in the outputs (softmax with cross-entropy: $p_k(1-p_k)$), layer by layer down:

    $$y = Wx + b:\quad \partial^2 W_{ij} = \partial^2 y_i\, x_j^2,\quad
    \partial^2 b_i = \partial^2 y_i,\quad \partial^2 x_j = \sum_i W_{ij}^2\,\partial^2 y_i$$
    $$x = \varphi(a):\quad \partial^2 a = \varphi'(a)^2\,\partial^2 x
    \;\bigl[{}+ \varphi''(a)\,\partial E/\partial x\bigr]$$

    and the mean over the samples. Exact for the last layer if it is linear. Below it, what one
    unit's outputs have to do with another's is left out (so are the positions of a convolution
    with each other): on small networks elements are then some times too large or too small
    (`benchmarks/papers/curvature.md`). Never negative without `bends`.

    Args:
        model: a Sequential, or a module that calls its layers one after the other and nothing
            between: linear, convolution, activations, dropout, average and max pooling, flatten.
        params: parameters of these layers.
        inputs: what the model is called with; the first axis counts samples.
        targets: needed with `bends`.
        loss: "cross_entropy", "mse" or "half_squares", as for `gauss_newton_diagonal`.
        bends: keep the term in brackets (Becker & LeCun), which sees the curvature of the
            activations; the result can be negative.
        elementwise: further classes of layers that act on every element by itself.

    Raises:
        FieldError: for a layer that is not known, for what happens between layers, for parameters
            that belong to none of them.

    Source: LeCun, Bottou, Orr & Mueller 1998, Efficient BackProp, and Becker & LeCun 1988 (the term
    in brackets); neither text could be read here. The rules are those of EBLearn's code
    (ebl_basic, ebl_nonlinearity), and they are checked against the exact diagonals in the tests.

    >>> layer = torch.nn.Linear(2, 1, bias=False).double()
    >>> x = torch.tensor([[1.0, 3.0]], dtype=torch.float64)
    >>> bbprop(layer, [layer.weight], x, loss="half_squares")
    [tensor([[1., 9.]], dtype=torch.float64)]
    """
    if bends and targets is None:
        raise FieldError("targets are needed with bends=True: its term has the gradient in it")
    with torch.enable_grad(), Beside(model, loss, bends=bends, elementwise=elementwise) as seen:
        outputs = model(inputs)
        if targets is not None and bends:
            value = criterion(loss).mean(outputs, targets)
            torch.autograd.grad(value, params)  # its hooks are what is wanted
    return seen.diagonals(params)


class Beside:
    """`bbprop` beside the ordinary passes: it watches one forward pass, and needs no other.

    Around the forward pass; ask before the parameters move, with `bends` after `backward()`:

    >>> model = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.Tanh(), torch.nn.Linear(4, 2))
    >>> x, y = torch.ones(5, 3), torch.tensor([0, 1, 1, 0, 1])
    >>> with Beside(model, "cross_entropy") as seen:
    ...     loss = torch.nn.functional.cross_entropy(model(x), y)
    >>> loss.backward()
    >>> [tuple(h.shape) for h in seen.diagonals(list(model.parameters()))]
    [(4, 3), (4,), (2, 4), (2,)]

    Args:
        model: as for `bbprop`.
        loss: which loss is computed from the outputs: its mean over the minibatch. With `bends` it
            has to be what `backward` is called on, not scaled.
        bends: as for `bbprop`.
        elementwise: as for `bbprop`.
    """

    def __init__(
        self,
        model: Module,
        loss: str = "cross_entropy",
        *,
        bends: bool = False,
        elementwise: tuple[type[Module], ...] = (),
    ) -> None:
        self._model = model
        self._criterion = criterion(loss)
        self._bends = bends
        self._elementwise = elementwise
        self._calls: list[Call] = []
        self._last: tuple[Module, Tensor] | None = None
        self._outputs: Tensor | None = None
        self._hooks: list[RemovableHandle] = []

    def __enter__(self) -> Self:
        """Begin to watch."""
        leaves = [m for m in self._model.modules() if not any(True for _ in m.children())]
        self._hooks = [self._model.register_forward_pre_hook(self._begins)]
        self._hooks += [leaf.register_forward_hook(self._called) for leaf in leaves]
        self._hooks.append(self._model.register_forward_hook(self._ends))
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """End it; what was seen is kept."""
        for hook in self._hooks:
            hook.remove()
        self._last = None  # and with it the graph

    def _begins(self, model: Module, args: Any) -> None:
        del model, args
        self._calls, self._last, self._outputs = [], None, None

    def _called(self, layer: Module, args: tuple[Any, ...], output: Any) -> None:
        kind = kind_of(layer, self._elementwise)
        if self._last is not None and args[0] is not self._last[1]:
            raise FieldError(
                f"bbprop goes through a chain of layers; between {self._last[0]} and {layer} there "
                "is something that is no layer. Write it as one (torch.nn.Flatten, torch.nn.ReLU); "
                "for a sum of branches use hutchinson"
            )
        self._last = layer, output
        self._calls.append(kind(layer, args[0], output, bends=self._bends))

    def _ends(self, model: Module, args: Any, output: Any) -> None:
        del model, args
        if self._last is None or output is not self._last[1]:
            raise FieldError(
                "bbprop goes through a chain of layers; after the last one the model does more. "
                "Write that as a layer, or use hutchinson"
            )
        if output.dim() != 2:  # noqa: PLR2004 (samples and outputs)
            shape = tuple(output.shape)
            raise FieldError.of("outputs", "of shape (samples, outputs)", shape, "use nn.Flatten")
        self._outputs = output.detach()

    def diagonals(self, params: Sequence[Tensor]) -> list[Tensor]:
        """Give the diagonals for these parameters, from the last forward pass that was watched."""
        if self._outputs is None:
            raise FieldError("nothing was seen: call the model inside the with block")
        found = {p: torch.zeros_like(p) for p in params}
        owners = self._owners(params)
        curved = self._criterion.diagonal(self._outputs.to(params[0].dtype))
        for number in reversed(range(min(owners), len(self._calls))):
            call = self._calls[number]
            if number in owners:
                own = call.own(curved)
                for name, p in call.layer.named_parameters():
                    if p in found:
                        found[p] += own[name] / len(curved)
            if number > min(owners):
                curved = call.below(curved)
        return list(found.values())

    def _owners(self, params: Sequence[Tensor]) -> set[int]:
        """Give which calls are of layers with these parameters. Raises `FieldError`."""
        of_call = [set(call.layer.parameters()) for call in self._calls]
        missing = [n for n, p in enumerate(params) if not any(p in own for own in of_call)]
        if missing or not params:
            raise FieldError(f"params {missing} belong to no layer that was called; leave them out")
        return {n for n, own in enumerate(of_call) if own & set(params)}
