"""What users of the field ask for and no peer has (gaps G1-G8, G12-G14, G17-G19), each shown once.

G9 needs the range test, G10 and G11 have suites of their own (parity, files), G15 and G16 too
(look, docs).
"""

import io
import itertools
import math
import pickle

import numpy as np
import pytest
import torch
from tests.regressions.loops import adamw, go, on_two_ranks, parameter, rate, rates, sgd
from torch.optim import lr_scheduler as peers

from stepsize import (
    Constant,
    Cosine,
    Horizon,
    Linear,
    MismatchError,
    Piecewise,
    Warmup,
    check,
    resolve,
    wsd,
)
from stepsize.feedback import Plateau, SpikeGuard
from stepsize.torch import Scheduler, StepsizeWarning

SHAPE = Warmup(5) >> Cosine(15)


def reloaded(state):
    file = io.BytesIO()
    torch.save(state, file)
    file.seek(0)
    return torch.load(file, weights_only=True)


def test_gap_01_one_object_that_is_closed_form_drives_any_key_and_is_a_torch_scheduler():
    """pytorch#68332, #83159, #22343; lightly PR#1643; optax#1426."""
    steps = np.arange(20.0)
    np.testing.assert_allclose(SHAPE(steps), [SHAPE(t) for t in range(20)], rtol=1e-15)
    optimizer = adamw(weight_decay=0.1)
    scheduler = Scheduler(optimizer, lr=SHAPE, weight_decay=SHAPE, beta1=SHAPE)
    assert isinstance(scheduler, peers.LRScheduler)
    assert type(scheduler).__init__ is not peers.LRScheduler.__init__
    go(optimizer, scheduler, 7)
    (group,) = optimizer.param_groups
    assert (group["lr"], group["weight_decay"]) == (1e-3 * SHAPE(7), 0.1 * SHAPE(7))
    assert group["betas"] == (0.9 * SHAPE(7), 0.999)


@pytest.mark.parametrize("split", range(0, 25, 3))
def test_gap_02_a_plateau_inside_a_composition_with_full_resume(split):
    """pytorch#68978, #68979, #195633; transformers#29417; timm#871."""
    shape = Warmup(4) >> Constant(12) >> Linear(8)

    def made():
        optimizer = sgd()
        plateau = Plateau(factor=0.5, patience=1, after=4, until=16)
        return optimizer, Scheduler(optimizer, lr=shape, feedback=plateau)

    def train(optimizer, scheduler, steps):
        used = []
        for t in steps:
            used.append(rate(optimizer))
            optimizer.step()
            scheduler.step(1.0 if t % 2 else None)
        return used

    straight = train(*made(), range(24))
    assert straight[3] == 0.1 * shape(3)
    assert straight[15] == 0.1 * 0.5**2  # two plateaus in the middle part
    assert straight[20] == pytest.approx(0.1 * shape(20) * straight[16] / 0.1)
    optimizer, scheduler = made()
    before = train(optimizer, scheduler, range(split))
    other, resumed = made()
    other.load_state_dict(optimizer.state_dict())
    resumed.load_state_dict(reloaded(scheduler.state_dict()))
    assert before + train(other, resumed, range(split, 24)) == straight


def extended_to(total):
    return lambda scheduler: scheduler.extend(total, why="more data")


@pytest.mark.parametrize(
    ("edit", "kind", "ends"),
    [
        (extended_to(200), "extend", 200),
        (extended_to(80), "extend", 80),
        (lambda s: s.cool_down("20%", along="cosine", why="more data"), "cool_down", 70),
        (lambda s: s.replan(lr=Linear(60), over="10%", why="more data"), "replan", 120),
    ],
    ids=["longer", "shorter", "cool down", "replan"],
)
def test_gap_03_replan_on_resume_with_a_continuous_value_and_an_audit_record(edit, kind, ends):
    """Lightning#19865, #20552; open_clip#413; F5-TTS#1029; rf-detr#1209; OLMo-core PR#671."""

    def made():
        optimizer = sgd()
        tree = Warmup("5%") >> Cosine()
        return optimizer, Scheduler(optimizer, lr=tree, horizon=Horizon(100))

    optimizer, scheduler = made()
    go(optimizer, scheduler, 50)
    optimizer, resumed = made()
    resumed.load_state_dict(reloaded(scheduler.state_dict()))
    before = rate(optimizer)
    edit(resumed)
    assert rate(optimizer) == pytest.approx(before, rel=1e-12)
    used = go(optimizer, resumed, ends - 50)
    steps = [abs(a - b) for a, b in itertools.pairwise(used)]
    assert max(steps) < 0.006  # no jump anywhere
    assert rate(optimizer) == pytest.approx(0.0, abs=1e-12)
    (record,) = resumed.journal
    assert (record["kind"], record["step"], record["why"]) == (kind, 50, "more data")
    again, replayed = made()
    replayed.load_state_dict(reloaded(resumed.state_dict()))
    assert (replayed.journal, rate(again)) == (resumed.journal, rate(optimizer))


def test_gap_04_a_fingerprinted_state_refuses_and_explains():
    """mlc-ai/pith-train PR#55."""
    saved = Scheduler(sgd(), lr=Warmup(5) >> Cosine(95, stop=0.1)).state_dict()
    scheduler = Scheduler(sgd(), lr=Warmup(5) >> Cosine(195))
    with pytest.raises(MismatchError) as said:
        scheduler.load_state_dict(saved)
    text = str(said.value)
    assert "parts[1].over: saved 95, now 195" in text
    assert "parts[1].stop: saved 0.1, now nothing" in text
    assert "'keep'" in text
    assert "'adopt'" in text
    assert "'continue'" in text
    damaged = {**saved, "details": saved["details"].replace("0.1", "0.7")}
    with pytest.raises(MismatchError, match="damaged"):
        scheduler.load_state_dict(damaged)


@pytest.mark.filterwarnings("ignore:.*was over at step")
def test_gap_05_a_time_axis_that_knows_a_batch_size_ramp():
    """Megatron-Bridge#2609, bigscience#132, nanochat#851, OLMo#411: the tail lands exactly."""
    ramp = Piecewise({0: 1, 100: 2, 300: 4})
    horizon = Horizon("2e5 tok", batch_size=ramp, tokens_per_sample=100)
    assert horizon.steps == 100 + 200 + 375
    optimizer = sgd(1.0)
    scheduler = Scheduler(optimizer, lr=wsd("5%", "2e4 tok"), horizon=horizon)
    used = go(optimizer, scheduler, horizon.steps)
    tokens = np.array([horizon.position(t, "tok") for t in range(horizon.steps)])
    tail = tokens > 1.8e5
    np.testing.assert_allclose(np.array(used)[tail], (2e5 - tokens[tail]) / 2e4, rtol=1e-12)
    assert set(np.array(used)[(tokens > 1e4) & ~tail]) == {1.0}
    assert rate(optimizer) == 0.0
    assert scheduler.finished


def test_gap_06_a_wall_clock_unit():
    """autocast PR#388: anneal to zero when the 12 h job ends, however fast the steps are."""
    now = [0.0]
    optimizer = sgd(1.0)
    scheduler = Scheduler(
        optimizer,
        lr=Constant("rest") >> Linear("2h"),
        horizon=Horizon("12h"),
        clock=lambda: now[0],
    )
    found = {}
    for pace in (3600.0, 600.0, 1800.0):
        while now[0] < {3600.0: 4, 600.0: 10.5, 1800.0: 13}[pace] * 3600:
            optimizer.step()
            now[0] += pace
            scheduler.step()
            found[now[0] / 3600] = rate(optimizer)
    assert found[10.0] == 1.0
    assert found[10.5] == 0.75
    assert found[11.0] == 0.5
    assert found[12.0] == found[13.0] == 0.0


def test_gap_07_the_wrong_number_of_steps_is_noticed():
    """accelerate#2142, LTX#67, villa#1495, probly#557, prime-rl#968, Megatron-Bridge#2857."""
    rules = {
        "epochs-as-steps": (Cosine(90), Horizon("90ep", batches_per_epoch=100)),
        "long-warmup": (Warmup(2000) >> Constant(), Horizon(1000)),
        "cut-off": (Cosine(1500), Horizon(1000)),
    }
    for rule, (tree, horizon) in rules.items():
        assert rule in [found.rule for found in check(tree, horizon)]
    assert check(Warmup("5%") >> Cosine(), Horizon(1000)) == ()

    optimizer = sgd()
    counted_by_calls = Scheduler(optimizer, lr=Cosine(100), counts="calls")
    with pytest.warns(StepsizeWarning, match="times for .* optimizer steps"):
        go(optimizer, counted_by_calls, 20, calls=4)
    optimizer = sgd()
    with pytest.warns(StepsizeWarning, match="was over at step 10"):
        go(optimizer, Scheduler(optimizer, lr=Cosine(10)), 30)
    optimizer = sgd()
    go(optimizer, Scheduler(optimizer, lr=Cosine(100)), 20, calls=4)  # harmless, so silent
    assert rate(optimizer) == 0.1 * Cosine(100)(20)


@pytest.mark.parametrize("fused", [False, True])
def test_gap_08_a_step_only_where_the_optimizer_really_stepped(fused):
    """pytorch#44511, #55585, #67590; Lightning#16228, #21339; torchtune#2681."""
    optimizer = sgd(fused=fused)
    untouched = optimizer.step
    scheduler = Scheduler(optimizer, lr=Cosine(20))
    assert optimizer.step == untouched
    scaler = torch.amp.GradScaler("cpu", init_scale=4.0)
    for t in range(9):
        (p,) = optimizer.param_groups[0]["params"]
        optimizer.zero_grad()
        scaler.scale((p * (math.inf if t in (0, 4) else 1.0)).sum()).backward()
        scaler.step(optimizer)
        scaler.update()
        scheduler.step()
    assert scheduler.last_epoch == 7
    assert rate(optimizer) == 0.1 * Cosine(20)(7)


def test_gap_12_one_scheduler_over_several_optimizers_keeps_each_base():
    """tt-metal#56027, DeepSpeed#7713, sparsify PR#62: Muon and AdamW."""
    matrices, rest = sgd(0.02), adamw(3e-4, 1e-3)
    scheduler = Scheduler([matrices, rest], lr=SHAPE, weight_decay=Constant(value=0.1).absolute())
    for _ in range(8):
        matrices.step()
        rest.step()
        scheduler.step()
    assert rates(matrices) + rates(rest) == [base * SHAPE(8) for base in (0.02, 3e-4, 1e-3)]
    assert scheduler.base_lrs == [0.02, 3e-4, 1e-3]
    assert scheduler.optimizer is matrices  # what frameworks look at, and what is counted
    state = reloaded(scheduler.state_dict())
    matrices, rest = sgd(0.02), adamw(3e-4, 1e-3)
    other = Scheduler([matrices, rest], lr=SHAPE, weight_decay=Constant(value=0.1).absolute())
    other.load_state_dict(state)
    assert rates(matrices) + rates(rest) == [base * SHAPE(8) for base in (0.02, 3e-4, 1e-3)]


def test_gap_13_floors_and_peaks_relative_and_by_group_and_groups_by_name():
    """mmdet3d#3059, pytorch#79888, #63488; transformers#26209; katsura-jp#14."""
    groups = [
        {"params": [parameter()], "lr": 1.0, "name": "body"},
        {"params": [parameter()], "lr": 0.1, "name": "head"},
    ]
    optimizer = torch.optim.SGD(groups, lr=1.0)
    scheduler = Scheduler(
        optimizer,
        lr=Warmup(5) >> Cosine(15, stop=0.1),
        groups={"head": {"lr": Warmup(5) >> Cosine(15, start=2.0, stop=0.5)}},
        floor=0.05,
    )
    go(optimizer, scheduler, 5)
    assert rates(optimizer) == [1.0, 0.2]  # the head's peak is twice its base
    scheduler.add_param_group({"params": [parameter()], "lr": 0.4, "name": "late"}, clock="own")
    assert rates(optimizer) == pytest.approx([1.0, 0.2, 0.4 / 6])
    go(optimizer, scheduler, 5)
    assert rates(optimizer)[2] == 0.4  # after its own warmup
    go(optimizer, scheduler, 10)
    assert rates(optimizer)[:2] == [0.1, 0.05]  # a tenth and a half of their base values
    optimizer = sgd(1.0, 0.1)
    scheduler = Scheduler(optimizer, lr=Cosine(10), floor={"lr": [0.2, None]})
    go(optimizer, scheduler, 10)
    assert rates(optimizer) == [0.2, 0.0]
    with pytest.raises(ValueError, match="the group must be one of .*'body', 'head'.* got 'neck'"):
        Scheduler(torch.optim.SGD(groups, lr=1.0), lr=SHAPE, groups={"neck": {"lr": SHAPE}})


def test_gap_14_smoothing_signs_nan_and_ranks_of_a_plateau(monkeypatch):
    """schnetpack#751, accelerate#3797, Paddle#50589."""

    def reduced(metrics, **fields):
        optimizer = sgd()
        plateau = Plateau(factor=0.5, **{"patience": 2, **fields})
        scheduler = Scheduler(optimizer, lr=Constant(), feedback=plateau)
        for metric in metrics:
            optimizer.step()
            scheduler.step(metric)
            scheduler.step(metric)  # as a framework calls it once per process
        return rate(optimizer) / 0.1

    lucky = [2.0, 1.0, 1.6, 1.5, 1.4, 1.3, 1.2, 1.1]  # one of them, at the second evaluation
    assert reduced(lucky, patience=3) == 0.5
    assert reduced(lucky, patience=3, ema=0.8) == 1.0
    assert reduced(lucky, patience=3, window=4) == 1.0
    assert reduced([-5.0, -4.9, -4.8, -4.7]) == 0.5
    assert reduced([-5.0, -5.1, -5.2, -5.3]) == 1.0
    assert reduced([1.0, math.nan, math.nan, math.nan], nan="ignore") == 1.0
    assert reduced([1.0, math.nan, math.nan, math.nan], nan="bad") == 0.5
    better, worse = [0.4, 0.3, 0.2, 0.1], [0.4, 0.5, 0.6, 0.7]
    assert (reduced(better), reduced(worse)) == (1.0, 0.5)
    both = on_two_ranks(monkeypatch, lambda rank: reduced((better, worse)[rank]))
    assert both == [0.5, 0.5]  # the mean is the same all the time


def test_gap_17_the_horizon_is_unknown_at_the_start():
    """datasets#5773, ms-swift#6827, composer#1335: a stream whose end is announced later."""
    optimizer = sgd(1.0)
    scheduler = Scheduler(optimizer, lr=wsd(5, "20%"), horizon=Horizon(open_end=True))
    assert go(optimizer, scheduler, 60)[5:] == [1.0] * 55
    assert not scheduler.finished
    saved = reloaded(scheduler.state_dict())
    optimizer = sgd(1.0)
    resumed = Scheduler(optimizer, lr=wsd(5, "20%"), horizon=Horizon(open_end=True))
    resumed.load_state_dict(saved)
    resumed.extend(100, why="the stream ends")
    used = go(optimizer, resumed, 40)
    assert used[:21] == [1.0] * 21
    assert used[30] == pytest.approx(0.5)
    assert rate(optimizer) == 0.0
    assert resumed.finished


def test_gap_18_a_live_edit_of_a_running_schedule_is_logged():
    """rf-detr#1209, espnet#3805."""
    optimizer = sgd()
    scheduler = Scheduler(optimizer, lr=Warmup("5%") >> Cosine(), horizon=Horizon(100))
    go(optimizer, scheduler, 30)
    scheduler.extend(200, why="the loss still falls")
    go(optimizer, scheduler, 100)
    scheduler.cool_down("5%", along="cosine", why="the deadline")
    go(optimizer, scheduler, 10)
    assert [(r["kind"], r["step"], r["why"]) for r in scheduler.journal] == [
        ("extend", 30, "the loss still falls"),
        ("cool_down", 130, "the deadline"),
    ]
    assert rate(optimizer) == 0.0
    copied = pickle.loads(pickle.dumps((optimizer, scheduler)))[1]  # noqa: S301 (our own bytes)
    assert copied.journal == scheduler.journal
    assert [copied.at(t)["lr"] for t in range(200)] == [scheduler.at(t)["lr"] for t in range(200)]


def test_gap_19_effective_rates_of_every_group_are_logged():
    """SimpleTuner PR#2658; Lightning#18117, #7981; schedule_free#16, #33."""
    groups = [
        {"params": [parameter()], "lr": 1e-3, "name": "body", "d": 2.0},
        {"params": [parameter()], "lr": 1e-4, "name": "head"},
    ]
    optimizer = torch.optim.AdamW(groups, lr=1e-3, weight_decay=0.1)
    scheduler = Scheduler(
        optimizer,
        lr=SHAPE,
        weight_decay=Linear(20),
        beta1=Linear(20, start=0.95, stop=0.85).absolute(),
        extra={"ema": Linear(20, start=0.9, stop=1.0).absolute()},
        feedback=[SpikeGuard(), Plateau(factor=0.5, patience=0)],
    )
    for _ in range(5):
        optimizer.step()
    scheduler.step(1.0)
    optimizer.step()
    scheduler.step(1.0)
    lr = SHAPE(6) * 0.5
    assert scheduler.logs() == {
        "lr/body": pytest.approx(1e-3 * lr),
        "lr/head": pytest.approx(1e-4 * lr),
        "effective_lr/body": pytest.approx(2e-3 * lr),
        "weight_decay/body": pytest.approx(0.07),
        "weight_decay/head": pytest.approx(0.07),
        "beta1/body": pytest.approx(0.92),
        "beta1/head": pytest.approx(0.92),
        "ema": pytest.approx(0.93),
        "factor/spike_guard": 1.0,
        "factor/plateau": 0.5,
    }
    assert all(type(value) is float for value in scheduler.logs().values())


def test_gap_03_a_resolved_tree_shows_what_an_edit_will_do():
    scheduler = Scheduler(sgd(), lr=Warmup("5%") >> Cosine(), horizon=Horizon(100))
    assert scheduler.at(50)["lr"] == [0.1 * resolve(Warmup("5%") >> Cosine(), Horizon(100))(50)]
