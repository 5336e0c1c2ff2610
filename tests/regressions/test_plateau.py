"""The pains of what reacts to a metric (27), each beside the right outcome."""

import importlib
import importlib.util
import json
import math
import sys
import types

import pytest
from tests.regressions.loops import go, on_two_ranks, rate, rates, sgd
from torch.optim import lr_scheduler as peers

from stepsize import Constant, Cosine, Horizon, Linear, Warmup
from stepsize.feedback import Plateau, Seen, UpDown
from stepsize.torch import Scheduler


def evaluate(optimizer, scheduler, metrics):
    """Train and evaluate; give the rate after each evaluation."""
    found = []
    for metric in metrics:
        optimizer.step()
        scheduler.step(metric)
        found.append(rate(optimizer))
    return found


def halving(optimizer, **fields):
    plateau = Plateau(factor=0.5, **{"patience": 2, **fields})
    return Scheduler(optimizer, lr=Constant(), feedback=plateau)


def test_pain_27_plateau_is_no_scheduler_of_torchs_kind():
    """pytorch#121271: its constructor does not run the base's."""
    peer = peers.ReduceLROnPlateau(sgd())
    assert not hasattr(peer, "base_lrs")
    assert not hasattr(peer, "_step_count")

    scheduler = halving(sgd(0.1, 0.2))
    assert isinstance(scheduler, peers.ReduceLROnPlateau)  # frameworks route metrics to it
    assert isinstance(scheduler, peers.LRScheduler)
    assert (scheduler.base_lrs, scheduler._step_count) == ([0.1, 0.2], 1)
    assert scheduler.get_last_lr() == [0.1, 0.2]


def test_pain_27_ranks_disagree(monkeypatch):
    """DALLE-pytorch#268, Paddle#50589, disruptcnn#3: each rank decides from its own metric."""
    mine, theirs = [1.0, 0.9, 0.8, 0.7, 0.6], [1.0, 1.2, 1.1, 1.3, 1.2]
    optimizers = sgd(), sgd()
    for optimizer, metrics in zip(optimizers, (mine, theirs), strict=True):
        evaluate(optimizer, peers.ReduceLROnPlateau(optimizer, factor=0.5, patience=2), metrics)
    assert list(map(rate, optimizers)) == [0.1, 0.05]

    def run(rank):
        optimizer = sgd()
        return evaluate(optimizer, halving(optimizer), (mine, theirs)[rank])

    one, other = on_two_ranks(monkeypatch, run)
    assert one == other == [0.1, 0.1, 0.1, 0.1, 0.1]  # the mean has become better


@pytest.fixture
def timm(monkeypatch):
    """Its schedulers without its models, which need torchvision."""
    bare = types.ModuleType("timm")
    bare.__path__ = list(importlib.util.find_spec("timm").submodule_search_locations)
    monkeypatch.setitem(sys.modules, "timm", bare)
    return importlib.import_module("timm.scheduler")


@pytest.mark.filterwarnings("ignore:PlateauLRScheduler is deprecated:FutureWarning")
def test_pain_27_what_a_plateau_has_counted_is_not_saved(timm):
    """timm#871, fairseq PR#4071: `num_bad_epochs` begins anew after a resume."""

    def reductions(split):
        optimizer = sgd()
        peer = timm.PlateauLRScheduler(optimizer, decay_rate=0.5, patience_t=3, mode="min")
        for epoch in range(8):
            if epoch == split:
                state = peer.state_dict()
                peer = timm.PlateauLRScheduler(optimizer, decay_rate=0.5, patience_t=3, mode="min")
                peer.load_state_dict(state)
                resumed = peer.lr_scheduler.num_bad_epochs
            peer.step(epoch, 1.0)
        return resumed if split else None

    assert reductions(3) == 0  # it had counted 2

    metrics = [1.0, 0.9, 0.95, 0.9, 0.9, 0.9, 0.95, 0.9, 0.8, 0.8, 0.8, 0.8, 0.8]
    optimizer = sgd()
    straight = evaluate(optimizer, halving(optimizer), metrics)
    assert 0.025 in straight
    for split in range(len(metrics) + 1):
        optimizer = sgd()
        scheduler = halving(optimizer)
        used = evaluate(optimizer, scheduler, metrics[:split])
        saved = json.loads(json.dumps(scheduler.state_dict()))
        other = sgd()
        resumed = halving(other)
        other.load_state_dict(optimizer.state_dict())
        resumed.load_state_dict(saved)
        assert used + evaluate(other, resumed, metrics[split:]) == straight


def test_pain_27_negative_metrics_that_get_worse_pass_as_better():
    """No thread found: `best * (1 - threshold)` lies on the wrong side of a negative best."""
    worse = [-1.0 + 5e-5 * i for i in range(12)]
    optimizer = sgd()
    assert evaluate(optimizer, peers.ReduceLROnPlateau(optimizer, factor=0.5, patience=2), worse)[
        -1
    ] == pytest.approx(0.1)  # never reduced

    optimizer = sgd()
    assert evaluate(optimizer, halving(optimizer), worse)[-1] == 0.1 * 0.5**3


def test_pain_27_nan_and_infinity_have_a_policy():
    """torch counts NaN as a bad epoch, and takes -inf for the best value for ever."""
    optimizer = sgd()
    peer = peers.ReduceLROnPlateau(optimizer, factor=0.5, patience=2)
    evaluate(optimizer, peer, [1.0, -math.inf, 0.5, 0.4, 0.3])
    assert (peer.best, rate(optimizer)) == (-math.inf, 0.05)  # while it got better

    broken = [1.0, math.nan, math.nan, math.nan, 0.9]
    found = {}
    for policy in ("bad", "ignore", "reset"):
        optimizer = sgd()
        found[policy] = evaluate(optimizer, halving(optimizer, nan=policy), broken)[-1]
    assert found == {"bad": 0.05, "ignore": 0.1, "reset": 0.1}
    optimizer = sgd()
    with pytest.raises(ValueError, match="the metric seen must be finite, got nan"):
        evaluate(optimizer, halving(optimizer, nan="raise"), broken)
    optimizer = sgd()
    assert evaluate(optimizer, halving(optimizer), [1.0, -math.inf, 0.5, 0.4, 0.3])[-1] == 0.1


def test_pain_27_a_moving_average_that_is_used():
    """schnetpack PR#751: the average was computed and the raw value compared."""
    lucky = [2.0, 1.0, 1.6, 1.5, 1.4, 1.3, 1.2, 1.1]
    raw, smooth = Plateau(factor=0.5, patience=3), Plateau(factor=0.5, patience=3, ema=0.8)
    found = []
    for plateau in (raw, smooth):
        state = plateau.init()
        for t, metric in enumerate(lucky):
            factor, state, *_ = plateau.update(state, Seen(t, metric))
        found.append(factor)
    assert found == [0.5, 1.0]


def test_pain_27_a_plateau_over_a_schedule():
    """tensorflow#36612: with a schedule set, Keras' plateau raises."""
    shape = Warmup(3) >> Cosine(17)
    optimizer = sgd(0.1, 0.2)
    plateau = Plateau(factor=0.5, patience=1, after="15%")
    scheduler = Scheduler(optimizer, lr=shape, feedback=plateau, horizon=Horizon(20))
    evaluate(optimizer, scheduler, [1.0] * 6)
    assert rates(optimizer) == [0.1 * shape(6) * 0.5, 0.2 * shape(6) * 0.5]


def test_pain_27_greedy_with_a_floor_above_the_rate():
    """GreedyLR's min_lr=1e-3 is above 5e-5, so nothing can go down."""
    from transformers.optimization import GreedyLR

    worse = [1.1**i for i in range(60)]
    optimizer = sgd(5e-5)
    assert min(evaluate(optimizer, GreedyLR(optimizer), worse)) == 5e-5

    optimizer = sgd(5e-5)
    scheduler = Scheduler(optimizer, lr=Constant(), feedback=UpDown(window=None))
    for loss in worse:
        scheduler.observe(loss)
        optimizer.step()
        scheduler.step()
    assert rate(optimizer) == pytest.approx(5e-5 * 0.95**5)


def test_pain_27_time_steps_go_on_between_evaluations():
    """A framework that makes no steps of time on a plateau (transformers) leaves it where it is."""
    optimizer = sgd()
    scheduler = Scheduler(optimizer, lr=Linear(20), feedback=Plateau(factor=0.5, patience=0))
    used = []
    for step in range(10):
        used.append(rate(optimizer))
        optimizer.step()
        if step in (4, 7):
            scheduler.step(1.0)
    told = [0.1 * Linear(20)(t) for t in range(10)]
    assert used == told[:8] + [0.5 * value for value in told[8:]]


def test_pain_27_going_on_without_a_metric_changes_nothing():
    optimizer = sgd()
    go(optimizer, halving(optimizer), 10)
    assert rate(optimizer) == 0.1
