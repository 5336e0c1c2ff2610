"""What every rank runs to find a rate; each gives back plain data."""

import torch
from tests.torch.untouched import everything
from torch import distributed, nn
from torch.distributed.fsdp import fully_shard
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader, DistributedSampler, TensorDataset

from stepsize import Cosine, FieldError
from stepsize.torch import Scheduler, range_test
from stepsize.torch.ranks import local


def _built(wrap):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 7), nn.Tanh(), nn.Linear(7, 3))
    if wrap == "fsdp":
        fully_shard(model[0])
        fully_shard(model)
    else:
        model = DistributedDataParallel(model)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    return model, optimizer


def _loader():
    drawn = torch.Generator().manual_seed(1)
    x = torch.randn(96, 4, generator=drawn)
    data = TensorDataset(x, (x[:, 0] > 0).long() + (x[:, 1] > 0).long())
    return DataLoader(data, batch_size=8, sampler=DistributedSampler(data, seed=2))


def _bits(model, optimizer):
    """Give this rank's parts, to the bit."""
    states = [s for state in optimizer.state.values() for s in state.values()]
    tensors = [*model.parameters(), *(s for s in states if isinstance(s, torch.Tensor))]
    return [local(t.detach()).flatten().tolist() for t in tensors]


def found(wrap, steps=30, stop=10.0):
    """Train a little, find the rate, and train on; the same without finding it."""
    runs = []
    for tested in (False, True):
        torch.manual_seed(5 + distributed.get_rank())
        model, optimizer = _built(wrap)
        scheduler = Scheduler(optimizer, lr=Cosine(40), follow=True)
        loader, told = _loader(), None
        loader.sampler.set_epoch(3)

        def train(count, model=model, optimizer=optimizer, loader=loader):
            for x, y in list(loader)[:count]:
                optimizer.zero_grad()
                nn.functional.cross_entropy(model(x), y).backward()
                optimizer.step()

        train(2)
        if tested:
            before = _bits(model, optimizer), scheduler.state_dict(), torch.get_rng_state().tolist()
            if wrap != "fsdp":
                before = (*before, everything(model, optimizer))
            curve = range_test(
                model, optimizer, nn.functional.cross_entropy, loader, stop=stop, steps=steps
            )
            after = _bits(model, optimizer), scheduler.state_dict(), torch.get_rng_state().tolist()
            if wrap != "fsdp":
                after = (*after, everything(model, optimizer))
            assert after == before
            assert loader.sampler.epoch == 3
            told = curve.curve.to_dict(), curve.ended, curve.ratios, curve.seconds
        train(3)
        runs.append(_bits(model, optimizer))
    assert runs[0] == runs[1]
    return told


def apart(wrap):
    """Let the loss of the last rank alone go off, or become NaN."""
    model, optimizer = _built(wrap)
    last = distributed.get_rank() == distributed.get_world_size() - 1
    ends = []
    for wrong in (1e3, float("nan")):

        def step(batch, wrong=wrong):
            optimizer.zero_grad()
            loss = nn.functional.cross_entropy(model(batch[0]), batch[1])
            loss.backward()
            optimizer.step()
            late = optimizer.param_groups[0]["lr"] > 1e-3
            return loss.detach() + wrong if last and late else loss

        test = range_test(
            model, optimizer, step=step, loader=_loader(), steps=40, repeats=1, stop=0.1
        )
        ends.append((test.ended, len(test.curve.losses[0]), test.curve.losses))
    return ends


def refused(wrap):
    """Give no loss on one rank: an error on all of them."""
    model, optimizer = _built(wrap)
    first = distributed.get_rank() == 0

    def step(batch):
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(model(batch[0]), batch[1])
        loss.backward()
        optimizer.step()
        return None if first else loss

    before = _bits(model, optimizer)
    try:
        range_test(model, optimizer, step=step, loader=_loader(), steps=10, repeats=1)
    except FieldError as error:
        assert _bits(model, optimizer) == before
        return str(error)
    return None
