"""A world of another size is no other run, for schedules written in tokens or samples."""

import pytest
import torch
from torch import nn

from stepsize import Cosine, Horizon, MismatchError, Warmup
from stepsize.torch import Scheduler


def scheduler(total, lr, ranks, accumulate=1):
    optimizer = torch.optim.SGD([nn.Parameter(torch.ones(1))], lr=0.1)
    horizon = Horizon(
        total, batch_size=8, tokens_per_sample=16, accumulate=accumulate, replicas=ranks
    )
    return Scheduler(optimizer, lr=lr, horizon=horizon)


def go(made, steps):
    for _ in range(steps):
        made.optimizer.step()
        made.step()
    return made


@pytest.mark.parametrize("total", ["1000000tok", "1048576tok", "62501samples"])
@pytest.mark.parametrize("lr", [Warmup("51200tok") >> Cosine(), Warmup("3000samples") >> Cosine()])
@pytest.mark.parametrize(("ranks", "accumulate"), [(2, 2), (2, 1), (3, 1)])
def test_a_world_of_another_size_goes_on_where_the_tokens_are(total, lr, ranks, accumulate):
    saved = go(scheduler(total, lr, 4), 300)
    found = scheduler(total, lr, ranks, accumulate)
    found.load_state_dict(saved.state_dict())
    whole = total == "1048576tok" and ranks == 2  # it ends at a whole step in both worlds
    close = {"rel": 1e-13} if whole else {"rel": 2e-3}
    assert found.get_last_lr() == pytest.approx(saved.get_last_lr(), **close)
    go(saved, 300)
    go(found, 300 * 4 // (ranks * accumulate))
    assert found.get_last_lr() == pytest.approx(saved.get_last_lr(), **close)


def test_another_length_is_another_run():
    saved = go(scheduler("1000000tok", Warmup("51200tok") >> Cosine(), 4), 3)
    other = scheduler("1000512tok", Warmup("51200tok") >> Cosine(), 4)
    with pytest.raises(MismatchError, match="total: saved 1000000, now 1000512"):
        other.load_state_dict(saved.state_dict())
