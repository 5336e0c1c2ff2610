"""The models and optimizers that `Task.from_arrays` has by name."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import pairwise
from types import MappingProxyType
from typing import Any

from torch import nn, optim

from stepsize.errors import FieldError
from stepsize.schedules.fields import Bounds
from stepsize.schedules.names import nearest
from stepsize.torch.tasks.table import Table

_NARROW, _WIDE = 16, 256  # hidden units
_RATES: Mapping[str, float] = MappingProxyType({"adamw": 1e-3, "sgd": 0.1})


@dataclass(frozen=True, slots=True)
class Choices:
    """The model and the optimizer, and what they are in words."""

    model_fn: Callable[[], nn.Module]
    optimizer_fn: Callable[[Any], optim.Optimizer]
    about: str

    @classmethod
    def of(cls, table: Table, model: Any, optimizer: Any, lr: float | None) -> "Choices":
        """Choose by name, or take what the user makes."""
        model_fn, shape = _model(table, model)
        optimizer_fn, rule = _optimizer(optimizer, lr)
        return cls(model_fn, optimizer_fn, f"{shape}; {rule}")


def _model(table: Table, model: Any) -> tuple[Callable[[], nn.Module], str]:
    if callable(model):
        return model, f"model {getattr(model, '__name__', type(model).__name__)}"
    names = ["mlp", "logistic" if table.classes else "linear"]
    if model not in names:
        rule = f"{names[0]!r}, {names[1]!r} or a function that makes a module"
        raise FieldError.of("model", rule, model, nearest(model, names)[2:])
    width = [] if model != "mlp" else 2 * [_width(len(table.train[0]))]
    sizes = [table.features, *width, table.outputs]
    shape = f"mlp {'-'.join(map(str, sizes))}" if width else str(model)
    return lambda: _stacked(sizes), shape


def _width(samples: int) -> int:
    """Give the power of two next to the square root of the samples, within limits."""
    power: int = 2 ** round(math.log2(samples) / 2)
    return min(max(power, _NARROW), _WIDE)


def _stacked(sizes: list[int]) -> nn.Module:
    layers: list[nn.Module] = [nn.Flatten()]
    for before, after in pairwise(sizes):
        layers += [nn.Linear(before, after), nn.ReLU()]
    return nn.Sequential(*layers[:-1])


def _optimizer(optimizer: Any, lr: float | None) -> tuple[Callable[[Any], optim.Optimizer], str]:
    if callable(optimizer):
        if lr is not None:
            raise FieldError.of("lr", "left out beside a function that makes the optimizer", lr)
        return optimizer, f"optimizer {getattr(optimizer, '__name__', type(optimizer).__name__)}"
    if optimizer not in _RATES:
        rule = "'adamw', 'sgd' or a function of the parameters"
        raise FieldError.of("optimizer", rule, optimizer, nearest(optimizer, _RATES)[2:])
    rate = float(Bounds(ge=0).admit("lr", _RATES[optimizer] if lr is None else lr))
    about = f"{optimizer}, lr {rate:g}"
    if optimizer == "adamw":
        return lambda params: optim.AdamW(params, lr=rate), about
    return lambda params: optim.SGD(params, lr=rate, momentum=0.9), f"{about}, momentum 0.9"
