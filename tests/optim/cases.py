"""Every optimizer of the room, as the tests that hold for all of them build it."""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch

from stepsize import optim


class Case(NamedTuple):
    make: Callable[..., torch.optim.Optimizer]  # (params, **fields of the group)
    closure: bool = False  # whether step needs one
    dtypes: tuple[torch.dtype, ...] = (torch.float32, torch.float64, torch.bfloat16)
    exact: bool = True  # whether foreach is the same to the bit (else within 2 ulp)
    common: tuple[str, ...] = ("weight_decay", "decoupled_weight_decay", "maximize", "foreach")


def delta_bar_delta(params: Any, **fields: Any) -> torch.optim.Optimizer:
    return optim.DeltaBarDelta(params, **{"initial_step": 0.02, "delta": 0.005, **fields})


CASES: dict[str, Case] = {
    "DeltaBarDelta": Case(delta_bar_delta),
    "DeltaBarDelta multiply": Case(
        lambda params, **fields: delta_bar_delta(params, decrease="multiply", **fields)
    ),
}


class Problem:
    """A small network on eight minibatches that are always the same."""

    def __init__(self, dtype: torch.dtype = torch.float32, seed: int = 0) -> None:
        data = torch.Generator().manual_seed(7)
        self.x = torch.randn(64, 5, generator=data).to(dtype)
        self.y = torch.randint(0, 3, (64,), generator=data)
        torch.manual_seed(seed)
        layers = torch.nn.Linear(5, 7), torch.nn.Tanh(), torch.nn.Linear(7, 3)
        self.model = torch.nn.Sequential(*layers).to(dtype)

    def loss(self, step: int) -> torch.Tensor:
        at = slice(step % 8 * 8, step % 8 * 8 + 8)
        return torch.nn.functional.cross_entropy(self.model(self.x[at]).float(), self.y[at])

    def weights(self) -> list[torch.Tensor]:
        return [p.detach().clone() for p in self.model.parameters()]

    def groups(self, **fields: Any) -> list[dict[str, Any]]:
        """Give the layers as two groups, the second with fields of its own."""
        first, _, last = self.model
        return [
            {"params": list(first.parameters())},
            {"params": list(last.parameters()), "name": "last", **fields},
        ]


def train(
    optimizer: Any, problem: Problem, steps: Any, *, closure: bool, sign: float = 1.0
) -> list[float]:
    """Take steps; give the losses that were seen."""
    seen = []
    for step in steps:

        def evaluate(step: int = step) -> torch.Tensor:
            optimizer.zero_grad()
            value = sign * problem.loss(step)
            value.backward()
            return value

        if closure:
            seen.append(optimizer.step(evaluate).item())
        else:
            seen.append(evaluate().item())
            optimizer.step()
    return seen
