"""Two tasks on scikit-learn's digits; the first is the one that commands take.

stepsize check examples/digits_task.py
stepsize range-test examples/digits_task.py --output digits.png
stepsize range-test examples/digits_task.py --task convolutional
"""

import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.nn.functional import cross_entropy

from stepsize import Task

X, y = load_digits(return_X_y=True)
task = Task.from_arrays(X, y, optimizer="sgd", metric="accuracy", epochs=20)

images, digits = torch.tensor(X, dtype=torch.float32).reshape(-1, 1, 8, 8) / 16, torch.tensor(y)
convolutional = Task.from_torch(
    lambda: nn.Sequential(nn.Conv2d(1, 16, 3), nn.ReLU(), nn.Flatten(), nn.Linear(576, 10)),
    cross_entropy,
    train=(images[:1437], digits[:1437]),
    valid=(images[1437:], digits[1437:]),
    optimizer_fn=lambda params: torch.optim.AdamW(params, lr=1e-3),
    epochs=20,
    batch_size=64,
)
