"""What must be the same after something was tried out, as plain data that can be compared."""

import random

import numpy as np
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset


def bits(tensor):
    """Give a tensor's identity, kind and bits, and the same of its gradient."""
    if tensor is None:
        return None
    grad = bits(tensor.grad) if tensor.is_leaf else None
    raw = tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()
    kind = (id(tensor), str(tensor.dtype), tuple(tensor.shape), tensor.requires_grad)
    return (*kind, tensor._version, raw, grad)


def told(value):
    """Give everything in containers as plain data."""
    if isinstance(value, torch.Tensor):
        return bits(value)
    if isinstance(value, dict):
        return id(value), [(told(k), told(v)) for k, v in value.items()]
    if isinstance(value, list | tuple):
        return [told(each) for each in value]
    return value if isinstance(value, bool | int | float | str | None) else id(value)


def streams():
    """Give where the global streams of random numbers are."""
    numbers = np.random.get_state()  # noqa: NPY002 (the global one is what must be as it was)
    state = (numbers[0], numbers[1].tobytes(), *numbers[2:])
    return random.getstate(), state, torch.get_rng_state().numpy().tobytes()


def everything(model, optimizer):
    """Give all that is kept of a model and its optimizer, and the streams."""
    modules = [
        (name, module.training, told(module._parameters), told(module._buffers))
        for name, module in model.named_modules()
    ]
    own = [(name, told(value)) for name, value in vars(optimizer).items()]
    return modules, own, streams()


class Net(nn.Module):
    """BatchNorm, dropout, and a buffer that every forward pass replaces."""

    def __init__(self, dtype=torch.float32):
        super().__init__()
        self.a, self.norm, self.drop = nn.Linear(6, 8), nn.BatchNorm1d(8), nn.Dropout(0.3)
        self.b = nn.Linear(8, 3)
        self.register_buffer("calls", torch.zeros(1), persistent=False)
        self.seen = 0
        self.to(dtype)

    def forward(self, x):
        self.calls = self.calls + 1
        self.seen += 1
        return self.b(self.drop(torch.tanh(self.norm(self.a(x)))))


def data(count=64):
    """Give inputs and classes that are always the same."""
    drawn = torch.Generator().manual_seed(3)
    x = torch.randn(count, 6, generator=drawn)
    return x, (x[:, 0] > 0).long() + (x[:, 1] > 0).long()


def loader_of(**given):
    """Give a loader in random order."""
    return DataLoader(TensorDataset(*data()), **{"batch_size": 16, "shuffle": True, **given})


class Position:
    """A loader with a position of its own, in the protocol of torchdata's StatefulDataLoader."""

    def __init__(self):
        self.inner = [0]  # which no walk over attributes changes back
        self.batches = list(zip(*(part.split(16) for part in data()), strict=True))

    def __iter__(self):
        while self.inner[0] < len(self.batches):
            self.inner[0] += 1
            yield self.batches[self.inner[0] - 1]
        self.inner[0] = 0

    def state_dict(self):
        return {"at": self.inner[0]}

    def load_state_dict(self, state):
        self.inner[0] = state["at"]


class Cursor(Position):
    """The same, with its position where nothing but its methods finds it."""

    def __init__(self):
        super().__init__()
        place = [2]
        self._place = lambda: place
        del self.inner

    @property
    def inner(self):
        return self._place()

    @inner.setter
    def inner(self, value):
        self._place = lambda: value

    @inner.deleter
    def inner(self):
        pass


def classify(model, optimizer, batch):
    """Take an ordinary training step; give its loss."""
    optimizer.zero_grad()
    loss = nn.functional.cross_entropy(model(batch[0]).float(), batch[1])
    loss.backward()
    optimizer.step()
    return loss
