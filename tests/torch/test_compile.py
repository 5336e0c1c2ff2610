"""torch.compile: how often a compiled step is compiled again while its settings move.

Measured rules: never for tensor rates and betas; once for plain floats (torch makes them symbolic),
twice at most; once more when a value becomes exactly 0, where torch itself branches.
"""

import copy

import pytest
import torch
from torch import nn, tensor

from stepsize import Constant, Cosine, Horizon, Linear
from stepsize.feedback import Plateau, SpikeGuard
from stepsize.torch import Scheduler

pytestmark = pytest.mark.slow

BETA = Linear(100, start=0.95, stop=0.85).absolute()
RATE = {"lr": Cosine(100)}
TO_ZERO = Cosine(30) >> Constant(value=0)
TOKENS = {
    "lr": Linear("1e6tok"),
    "horizon": Horizon("1e6tok", batch_size=10, tokens_per_sample=100),
}


def adam(**settings):
    return lambda p: torch.optim.AdamW([p], **copy.deepcopy(settings))


def sgd(**settings):
    return lambda p: torch.optim.SGD([p], **copy.deepcopy(settings))


def compilations(make, *, follow, **told):
    """Give how many graphs there are after the first step, and after the 60th."""
    torch.compiler.reset()
    p = nn.Parameter(torch.ones(4))
    optimizer = make(p)
    scheduler = Scheduler(optimizer, follow=follow, **told)
    graphs = []

    def backend(graph, inputs):
        del inputs
        graphs.append(graph)
        return graph.forward

    step, first = torch.compile(optimizer.step, backend=backend), 0
    for i in range(60):
        p.grad = torch.full((4,), 0.1)
        step()
        if not follow:
            scheduler.step()
        first = first if i else len(graphs)
    assert scheduler.last_epoch == 60
    held = [float(g["lr"]) for g in optimizer.param_groups]
    assert held == [pytest.approx(x) for x in scheduler.get_lr()]
    return first, len(graphs)


@pytest.mark.parametrize("follow", [False, True])
@pytest.mark.parametrize(
    ("make", "told"),
    [
        (adam(lr=tensor(0.1)), RATE),
        (sgd(lr=tensor(0.1)), RATE),
        (adam(lr=tensor(0.1)), {"lr": TO_ZERO}),
        (adam(lr=tensor(0.1)), TOKENS),
        (adam(lr=tensor(0.1)), {**RATE, "feedback": [SpikeGuard(), Plateau(sees="loss")]}),
        (
            adam(lr=tensor(0.1), betas=(tensor(0.9), tensor(0.99)), foreach=False),
            {**RATE, "beta1": BETA},
        ),
    ],
    ids=["adam", "sgd", "to 0", "tokens", "controllers", "betas"],
)
@pytest.mark.filterwarnings("ignore:.*seen no")
@pytest.mark.filterwarnings("ignore:.*was over at step")
def test_tensor_rates_and_betas_are_never_compiled_again(make, told, follow):
    assert compilations(make, follow=follow, **told) == (1, 1)


@pytest.mark.parametrize("follow", [False, True])
@pytest.mark.parametrize(
    ("make", "told"),
    [
        (adam(lr=0.1), RATE),
        (sgd(lr=0.1), RATE),
        (sgd(lr=0.1, momentum=0.9), {**RATE, "momentum": BETA}),
        (adam(lr=tensor(0.1)), {**RATE, "beta1": BETA}),
        (adam(lr=0.1), {**RATE, "weight_decay": Linear(100, start=0.1, stop=0.01).absolute()}),
    ],
    ids=["adam", "sgd", "momentum", "betas", "weight decay"],
)
def test_plain_floats_cost_at_most_two_more_compilations_in_a_whole_run(make, told, follow):
    first, last = compilations(make, follow=follow, **told)
    assert first == 1
    assert last <= 3


def test_a_float_that_becomes_0_costs_one_more():
    decay = (Linear(30) >> Constant(value=0)).absolute(0.1)
    first, last = compilations(adam(lr=0.1), follow=False, lr=Constant(), weight_decay=decay)
    assert first == 1
    assert last <= 4


@pytest.mark.parametrize("follow", [False, True])
@pytest.mark.parametrize("rate", [0.1, tensor(0.1)], ids=["float", "tensor"])
def test_a_fused_optimizer_trains_as_the_plain_one(rate, follow):
    trained = []
    for fused in (False, True):
        p = nn.Parameter(torch.linspace(-1, 1, 8))
        held = rate.clone() if isinstance(rate, torch.Tensor) else rate
        optimizer = torch.optim.AdamW([p], lr=held, fused=fused)
        scheduler = Scheduler(optimizer, lr=Cosine(20), follow=follow)
        for _ in range(15):
            p.grad = p.detach().clone()
            optimizer.step()
            if not follow:
                scheduler.step()
        assert scheduler.last_epoch == 15
        trained.append(p.detach())
    torch.testing.assert_close(*trained)
