"""Every optimizer of the room, as the tests that hold for all of them build it."""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch

from stepsize import optim
from stepsize.optim.base import with_gradients


class Case(NamedTuple):
    make: Callable[..., torch.optim.Optimizer]  # (params, **fields of the group)
    closure: bool = False  # whether step needs one
    dtypes: tuple[torch.dtype, ...] = (torch.float32, torch.float64, torch.bfloat16)
    exact: bool = True  # whether foreach is the same to the bit (else within 2 ulp)
    common: tuple[str, ...] = ("weight_decay", "decoupled_weight_decay", "maximize", "foreach")
    batches: int = 8  # 1: it is made for full batches, and shrinks to nothing where they change
    apart: float = 1.0  # how much further than others rounding may drive two runs apart


def delta_bar_delta(params: Any, **fields: Any) -> torch.optim.Optimizer:
    return optim.DeltaBarDelta(params, **{"initial_step": 0.02, "delta": 0.005, **fields})


TORCHS = ("weight_decay", "maximize", "foreach")  # what torch's optimizers have of the common ones


def regrettable(inner: Any, lr: float, **settings: Any) -> Callable[..., torch.optim.Optimizer]:
    def make(params: Any, **fields: Any) -> torch.optim.Optimizer:
        return optim.RegrettableDBD(inner(params, **{"lr": lr, **fields}), **settings)

    return make


def adgd(**settings: Any) -> Case:
    closure = "stochastic" in settings or "search_initial" in settings
    make = lambda p, **f: optim.AdGD(p, **{**settings, **f})
    return Case(make, closure=closure, exact=False, batches=8 if "stochastic" in settings else 1)


def line_search(**settings: Any) -> Case:
    common = ("weight_decay", "maximize", "foreach")
    return Case(
        lambda p, **f: optim.LineSearch(p, **{**settings, **f}), closure=True, common=common
    )


def polyak(**settings: Any) -> Case:
    return Case(lambda p, **f: optim.PolyakSGD(p, **{**settings, **f}), closure=True)


DIGITS = (torch.float32, torch.float64)  # bfloat16 has too few to subtract gradients


def diagonal_newton(params: Any, **fields: Any) -> torch.optim.Optimizer:
    return optim.DiagonalNewton(params, **{"lr": 0.3, "damping": 0.1, "every": 2, **fields})


def vsgd(variant: str) -> Callable[..., torch.optim.Optimizer]:
    def look(optimizer: Any, *_: Any) -> None:
        optimizer.observe([torch.full_like(p, 0.5) for p in optimizer.everything()], reduce=False)

    def make(params: Any, **fields: Any) -> torch.optim.Optimizer:
        given = {"variant": variant, "curvature": "observed", "slow_start": 2, **fields}
        optimizer = optim.VSGD(params, **given)
        optimizer.register_step_pre_hook(look)
        return optimizer

    return make


class Observed(optim.DiagonalNewton):
    """Observes the squares of the gradients, which stand there in every run."""

    def _advance(self, closure: Any) -> Any:
        loss = self._first_gradients(closure)
        if self.due:
            with_gradients(self.everything())  # refuses sparse ones
            gradients = [p.grad for p in self.everything()]
            self.observe([None if g is None else g.detach().square() for g in gradients])
        super()._advance(None)
        return loss


CASES: dict[str, Case] = {
    "DeltaBarDelta": Case(delta_bar_delta),
    "DeltaBarDelta multiply": Case(
        lambda params, **fields: delta_bar_delta(params, decrease="multiply", **fields)
    ),
    "AdGD": adgd(),
    "AdGD exact": adgd(exact_displacement=True, max_norm=1.0),
    "AdGD tighter": adgd(rule="tighter"),
    "AdGD 2": adgd(rule="adgd2-2", norms="group"),
    "AdGD accelerated": adgd(accelerated=True, lr=0.5),
    "AdGD searching": adgd(rule="adgd2-1", search_initial=True, lr=0.05),
    "AdGD stochastic": adgd(stochastic=True, initial_step=0.05),
    "AdaDelta": Case(lambda p, **f: optim.AdaDelta(p, **{"eps": 1e-4, **f}), common=TORCHS),
    "RegrettableDBD SGD": Case(regrettable(torch.optim.SGD, 0.1), common=TORCHS),
    "RegrettableDBD Adam": Case(regrettable(torch.optim.Adam, 0.01), common=TORCHS),
    "RegrettableDBD inside the room": Case(
        regrettable(optim.DeltaBarDelta, 1.0, evidence="updates", increase="multiply", delta=0.05)
    ),
    "RegrettableDBD with all options": Case(
        regrettable(
            torch.optim.SGD, 0.1, per="group", undo="rate and parameters", apply_after_undo=True
        ),
        common=TORCHS,
    ),
    "LineSearch": line_search(lr=0.1, initial_step=16.0),
    "LineSearch warm": line_search(lr=0.1, start="warm", c=0.4),
    "LineSearch goldstein": line_search(lr=0.1, method="goldstein", c=0.3),
    # losses tell a minimum to the square root of their precision
    "LineSearch exact": line_search(lr=0.1, method="exact", max_step=8.0)._replace(apart=1e4),
    "PolyakSGD": polyak(),
    "PolyakSGD smoothed": polyak(smoothing=8, c=1.0),
    "PolyakSGD estimate": polyak(f_star="estimate", initial_step=0.1),
    "DiagonalNewton": Case(diagonal_newton, closure=True, dtypes=DIGITS),
    "DiagonalNewton behind": Case(
        lambda p, **f: diagonal_newton(
            p, **{"damping": 1.0, "behind": True, "initial_step": 0.1, "every": 3, **f}
        ),
        closure=True,
        dtypes=DIGITS,
    ),
    "DiagonalNewton observed": Case(
        lambda p, **f: Observed(
            p, **{"curvature": "observed", "every": 2, "average": "squared", **f}
        )
    ),
    "VSGD": Case(lambda p, **f: optim.VSGD(p, **{"slow_start": 2, **f}), closure=True),
    "VSGD observed": Case(vsgd("l")),
    "VSGD of blocks": Case(vsgd("b")),
    "VSGD of the whole": Case(vsgd("g")),
}


class Problem:
    """A small network on eight minibatches that are always the same."""

    def __init__(self, dtype: torch.dtype = torch.float32, seed: int = 0, batches: int = 8) -> None:
        self.size = 64 // batches
        data = torch.Generator().manual_seed(7)
        self.x = torch.randn(64, 5, generator=data).to(dtype)
        self.y = torch.randint(0, 3, (64,), generator=data)
        torch.manual_seed(seed)
        layers = torch.nn.Linear(5, 7), torch.nn.Tanh(), torch.nn.Linear(7, 3)
        self.model = torch.nn.Sequential(*layers).to(dtype)

    def loss(self, step: int) -> torch.Tensor:
        begin = step * self.size % 64
        at = slice(begin, begin + self.size)
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
