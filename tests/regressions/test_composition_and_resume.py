"""The pains of torch's own composition and resume (1-15), each beside the right outcome.

Where it is cheap the peer is shown too, with the number that is wrong: when a peer is mended, the
test says so.
"""

import copy
import io

import pytest
import torch
from tests.regressions.loops import adamw, go, parameter, rate, rates, sgd
from torch.optim import lr_scheduler as peers

from stepsize import (
    Constant,
    Cosine,
    Exponential,
    FieldError,
    Horizon,
    Linear,
    MismatchError,
    MultiStep,
    Sequence,
    Step,
    Warmup,
    one_cycle,
    resolve,
    sgdr,
)
from stepsize.feedback import Plateau
from stepsize.torch import Scheduler

SHAPE = Warmup(5, start=0.5) >> Exponential(0.99)


def torchs_shape(optimizer):
    """The same, of torch's parts."""
    parts = [peers.LinearLR(optimizer, 0.5, 1.0, 5), peers.ExponentialLR(optimizer, 0.99)]
    return peers.SequentialLR(optimizer, parts, milestones=[5])


# 1: Plateau cannot be composed --------------------------------------------------------------------


def test_pain_01_plateau_cannot_be_composed():
    """pytorch#68978, #68979, #110761; Lightning#10759; transformers#29417."""
    optimizer = sgd()
    for compose in (
        lambda parts: peers.SequentialLR(optimizer, parts, milestones=[5]),
        lambda parts: peers.ChainedScheduler(parts, optimizer),
    ):
        with pytest.raises(ValueError, match="does not support `ReduceLROnPlateau`"):
            compose([peers.LinearLR(optimizer), peers.ReduceLROnPlateau(optimizer)])

    optimizer = sgd()
    plateau = Plateau(factor=0.5, patience=1, after=10)
    scheduler = Scheduler(optimizer, lr=Warmup(10) >> Linear(90), feedback=plateau)
    for step in range(1, 41):
        optimizer.step()
        if step % 10 == 0:
            scheduler.step(1.0)  # never better
    assert (Warmup(10) >> Linear(90))(40) * 0.1 * 0.5 == rate(optimizer)


# 2, 3: nesting and the first rate -----------------------------------------------------------------


@pytest.mark.filterwarnings("ignore:Detected call of `lr_scheduler.step")
def test_pain_02_nesting_changes_the_schedule():
    """pytorch#196243: the inner sequence's first part is skipped."""
    optimizer = sgd()
    parts = [peers.ConstantLR(optimizer, 0.5, 2), peers.ConstantLR(optimizer, 0.2, 10)]
    inner = peers.SequentialLR(optimizer, parts, milestones=[2])
    outer = peers.SequentialLR(optimizer, [inner], milestones=[])
    assert go(optimizer, outer, 4) == pytest.approx([0.05, 0.02, 0.02, 0.02])  # 0.05 once

    inner = Sequence((Constant(2, 0.5), Constant(10, 0.2)))
    for nested in (inner, Sequence((inner, Constant())), Sequence((Constant(2, 0.5), inner))):
        assert nested(1) == 0.5
    optimizer = sgd()
    scheduler = Scheduler(optimizer, lr=inner >> Constant())
    assert go(optimizer, scheduler, 4) == pytest.approx([0.05, 0.05, 0.02, 0.02])


def test_pain_02_nested_parts_of_one_step():
    nested = Sequence((Sequence((Constant(1), Constant(1))), Constant(value=0.4)))
    assert [nested(t) for t in range(3)] == [1.0, 1.0, 0.4]


def test_pain_03_a_part_of_a_sequence_rewrites_the_rates_of_its_siblings():
    """pytorch#72874, #185872, #195984: OneCycleLR overwrites everybody's `initial_lr`."""
    optimizer = sgd(momentum=0.0)
    warmup = peers.LinearLR(optimizer, 0.5, 1.0, 5)
    cycle = peers.OneCycleLR(optimizer, 1.0, 10, cycle_momentum=False)
    peer = peers.SequentialLR(optimizer, [warmup, cycle], milestones=[5])
    assert go(optimizer, peer, 2) == pytest.approx([0.02, 0.024])  # told: 0.05, 0.06

    optimizer = sgd()
    scheduler = Scheduler(optimizer, lr=Warmup(5, start=0.5) >> one_cycle(10)["lr"])
    assert go(optimizer, scheduler, 6) == pytest.approx([0.05, 0.06, 0.07, 0.08, 0.09, 0.004])
    assert optimizer.param_groups[0]["initial_lr"] == 0.1


def test_pain_03_one_cycle_inside_a_sequence():
    tree = Warmup(10, start=0.5) >> one_cycle(100)["lr"]
    assert tree(0) == 0.5
    assert tree(10) == 0.04


def test_pain_03_a_tensor_rate_in_a_sequence():
    """pytorch#195984: a rate that is a view of another tensor."""
    all_rates = torch.tensor([0.1, 0.2], dtype=torch.float64)
    optimizer = sgd(all_rates[0], all_rates[1])
    go(optimizer, Scheduler(optimizer, lr=SHAPE), 3)
    assert all_rates.tolist() == [0.1 * SHAPE(3), 0.2 * SHAPE(3)]


# 4-8: resume --------------------------------------------------------------------------------------


def trained(make, steps=20):
    optimizer = sgd()
    scheduler = make(optimizer)
    go(optimizer, scheduler, steps)
    file = io.BytesIO()
    torch.save({"o": optimizer.state_dict(), "s": scheduler.state_dict()}, file)
    file.seek(0)
    return torch.load(file, weights_only=True), optimizer, scheduler


def test_pain_04_resume_order_trap():
    """pytorch#119168, #65342, #29697, #156846: the optimizer is loaded, then the scheduler made."""
    saved, straight, peer = trained(torchs_shape)
    resumed = sgd()
    resumed.load_state_dict(saved["o"])
    late = torchs_shape(resumed)
    late.load_state_dict(saved["s"])
    assert rate(straight) == pytest.approx(0.086006, rel=1e-5)
    assert rate(resumed) == 0.05  # the rate of the warmup's first step
    assert go(resumed, late, 3)[-1] / go(straight, peer, 3)[-1] == pytest.approx(0.5814, rel=1e-4)

    saved, straight, scheduler = trained(lambda optimizer: Scheduler(optimizer, lr=SHAPE))
    resumed = sgd()
    resumed.load_state_dict(saved["o"])
    late = Scheduler(resumed, lr=SHAPE)
    late.load_state_dict(saved["s"])
    assert go(resumed, late, 3) == go(straight, scheduler, 3)


@pytest.mark.parametrize("schedule", [Cosine(50), MultiStep((10, 15, 25), factor=0.5)])
@pytest.mark.parametrize("order", ["os", "so"])
def test_pain_04_either_order_of_loading(schedule, order):
    saved, straight, scheduler = trained(lambda optimizer: Scheduler(optimizer, lr=schedule))
    resumed = sgd()
    late = Scheduler(resumed, lr=schedule)
    for part in order:
        (resumed if part == "o" else late).load_state_dict(saved[part])
    assert go(resumed, late, 10) == go(straight, scheduler, 10)


def test_pain_05_last_epoch_resumes_a_composite_wrongly():
    """pytorch#162591: SequentialLR has no closed form, so `last_epoch=19` starts anew."""
    optimizer = sgd()
    optimizer.param_groups[0]["initial_lr"] = 0.1
    parts = [peers.LinearLR(optimizer, 0.5, 1.0, 5, 19), peers.ExponentialLR(optimizer, 0.99, 14)]
    peers.SequentialLR(optimizer, parts, milestones=[5], last_epoch=19)
    assert rate(optimizer) == 0.1

    optimizer = sgd()
    Scheduler(optimizer, lr=SHAPE).last_epoch = 20
    assert rate(optimizer) == 0.1 * SHAPE(20) == pytest.approx(0.086006, rel=1e-5)


def test_pain_05_last_epoch_of_a_staircase_behind_a_warmup():
    scheduler = Scheduler(sgd(0.1), lr=Warmup(5) >> Step(10))
    scheduler.last_epoch = 15
    assert scheduler.get_last_lr() == [pytest.approx(0.01)]


def test_pain_06_key_error_initial_lr():
    """pytorch#160626, vllm-project/speculators#1048: the key gets lost on the way."""
    with pytest.raises(KeyError, match="param 'initial_lr' is not specified"):
        peers.CosineAnnealingLR(sgd(), 10, last_epoch=5)

    saved, straight, scheduler = trained(lambda optimizer: Scheduler(optimizer, lr=SHAPE))
    for group in saved["o"]["param_groups"]:
        del group["initial_lr"]  # as a checkpoint that was gathered from shards may
    resumed = sgd()
    late = Scheduler(resumed, lr=SHAPE)
    resumed.load_state_dict(saved["o"])
    late.load_state_dict(saved["s"])
    assert go(resumed, late, 5) == go(straight, scheduler, 5)
    Scheduler(sgd(), lr=Cosine(10)).last_epoch = 5  # and nothing needs it to be there


@pytest.mark.filterwarnings("ignore:.*was over at step 100")
def test_pain_07_horizon_cannot_change_on_resume():
    """Lightning#19865, #20552, #4044; kohya-ss/sd-scripts#1999; open_clip#413; rf-detr#1209."""
    saved, *_ = trained(lambda optimizer: peers.CosineAnnealingLR(optimizer, 100), 50)
    optimizer = sgd()
    peer = peers.CosineAnnealingLR(optimizer, 200)
    optimizer.load_state_dict(saved["o"])
    peer.load_state_dict(saved["s"])
    assert peer.T_max == 100  # the old one is back
    peer.T_max = 200
    assert go(optimizer, peer, 60)[-1] == pytest.approx(0.0251624, rel=1e-5)
    long, short = (0.1 * Cosine(over)(109) for over in (200, 100))
    assert (long, short) == pytest.approx((0.0429549, 0.0), abs=1e-6)  # neither curve

    saved, *_ = trained(lambda optimizer: Scheduler(optimizer, lr=Cosine(100)), 50)
    found = {}
    for way in ("keep", "continue", "adopt"):
        optimizer = sgd()
        scheduler = Scheduler(optimizer, lr=Cosine(200))
        scheduler.load_state_dict(saved["s"], on_mismatch=way)
        found[way] = rate(optimizer), go(optimizer, scheduler, 101)[-1]
    assert found["keep"] == (0.1 * Cosine(200)(50), 0.1 * Cosine(200)(150))
    assert found["adopt"] == (0.1 * Cosine(100)(50), 0.0)
    assert found["continue"] == (0.1 * Cosine(100)(50), 0.1 * Cosine(200)(150))  # joined


def test_pain_07_a_longer_run_goes_on_from_the_value_it_had():
    saved, *_ = trained(
        lambda optimizer: Scheduler(optimizer, lr=Warmup("10%") >> Cosine(), horizon=Horizon(100)),
        50,
    )
    optimizer = sgd()
    scheduler = Scheduler(optimizer, lr=Warmup("10%") >> Cosine(), horizon=Horizon(200))
    scheduler.load_state_dict(saved["s"], on_mismatch="continue")
    used = go(optimizer, scheduler, 150)
    assert used[0] == pytest.approx(0.1 * Cosine(90)(40))
    assert used == sorted(used, reverse=True)
    assert rate(optimizer) == 0.0
    assert [record["kind"] for record in scheduler.journal] == ["extend"]


def test_pain_07_loading_overwrites_the_new_settings_of_torch_and_timm():
    old, new = Scheduler(sgd(0.1), lr=Cosine(10)), Scheduler(sgd(0.1), lr=Cosine(100))
    new.load_state_dict(old.state_dict(), on_mismatch="keep")
    new.last_epoch = 50
    assert new.get_last_lr() == [0.05]


def test_pain_08_silent_structural_mismatch_on_load():
    """mlc-ai/pith-train PR#55: another list of phases silently corrupts the rate."""

    def phases(optimizer, milestones, *factors):
        parts = [peers.ConstantLR(optimizer, factor, 1000) for factor in factors]
        return peers.SequentialLR(optimizer, parts, milestones=milestones)

    saved, *_ = trained(lambda optimizer: phases(optimizer, [2], 0.5, 0.2), 5)
    optimizer = sgd()
    peer = phases(optimizer, [10, 20], 1.0, 0.6, 0.1)
    peer.load_state_dict(saved["s"])
    assert (peer._milestones, len(peer._schedulers)) == ([2], 3)  # of two runs at once
    assert go(optimizer, peer, 30)[-1] == 0.1  # told: 0.01 from step 20 on

    saved, *_ = trained(lambda o: Scheduler(o, lr=Constant(2, 0.5) >> Constant(value=0.2)), 5)
    scheduler = Scheduler(sgd(), lr=Constant(10) >> Constant(10, 0.6) >> Constant(value=0.1))
    before = scheduler.state_dict()
    with pytest.raises(MismatchError, match=r"lr.parts.* saved .*, now ") as said:
        scheduler.load_state_dict(saved["s"])
    assert "on_mismatch='keep'" in str(said.value)
    assert scheduler.state_dict() == before


# 9, 10: past the end ------------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore:.*was over at step 9")
def test_pain_09_one_cycle_tried_to_step_n_times():
    """pytorch#38170: one step too many is let through with a high rate, the next one raises."""
    optimizer = sgd(momentum=0.0)
    peer = peers.OneCycleLR(optimizer, 1.0, 10, cycle_momentum=False)
    assert go(optimizer, peer, 10)[-1] == pytest.approx(4e-6)
    assert rate(optimizer) == pytest.approx(0.0495, rel=1e-2)  # 12000 times as high
    with pytest.raises(ValueError, match="Tried to step 11 times"):
        peer.step()

    optimizer = sgd(1.0)
    scheduler = Scheduler(optimizer, one_cycle(10))
    assert go(optimizer, scheduler, 40)[10:] == [pytest.approx(4e-6)] * 30
    lr = one_cycle(100)["lr"]
    assert lr(99) == lr(100) == lr(10**6) == pytest.approx(4e-6)


@pytest.mark.filterwarnings("ignore:.*was over at step 10")
def test_pain_10_cosine_goes_back_up_after_its_end():
    """probly#557, ScrollPrize/villa PR#1495, burn#5128: torch's cosine is periodic."""
    optimizer = sgd(1.0)
    assert max(go(optimizer, peers.CosineAnnealingLR(optimizer, 10), 25)[11:]) == pytest.approx(1)

    optimizer = sgd(1.0)
    assert max(go(optimizer, Scheduler(optimizer, lr=Cosine(10)), 25)[10:]) == 0.0
    assert [Cosine(100)(t) for t in (100, 150, 200, 10**9)] == [0.0] * 4


# 11-15: what is scheduled -------------------------------------------------------------------------


def test_pain_11_warm_restarts_without_peak_decay_warmup_or_a_reached_floor():
    """pytorch#195009, #80308, #62640, #47560, #129565."""
    optimizer = sgd(1.0)
    used = go(optimizer, peers.CosineAnnealingWarmRestarts(optimizer, 5), 20)
    assert min(used) == pytest.approx(0.0955, rel=1e-3)  # eta_min=0 is never reached
    assert max(used[5:]) == 1.0
    optimizer = sgd(1.0)
    parts = [peers.CosineAnnealingWarmRestarts(optimizer, 5), peers.ExponentialLR(optimizer, 0.9)]
    used = go(optimizer, peers.ChainedScheduler(parts), 12)
    assert used[5] == used[10] == 0.9  # restarts forget what was chained; told: 0.59, 0.35

    optimizer = sgd(1.0)
    shape = sgdr(5, growth=1.0) * Exponential(0.9)
    used = go(optimizer, Scheduler(optimizer, lr=shape), 12)
    assert (used[5], used[10]) == pytest.approx((0.9**5, 0.9**10))
    floor = resolve(Cosine(), Horizon(5), reach="last")
    assert floor(4) == 0.0


def test_pain_11_restarts_with_peak_decay_warmup_and_a_floor():
    tree = sgdr(20, growth=1.0, factor=0.5, stop=0.1, warmup=4)
    assert tree(4) == 1.0
    assert tree(24) == pytest.approx(0.1 + 0.9 * 0.5)
    assert tree(0) == pytest.approx(0.1 + 0.9 / 5)
    assert tree(19.999999) == pytest.approx(0.1)


def test_pain_12_only_lr_and_no_functional_form():
    """pytorch#83159, #22343, #68332, #125531."""
    optimizer = adamw(weight_decay=0.1)
    scheduler = Scheduler(
        optimizer,
        lr=SHAPE,
        weight_decay=Linear(10, start=1.0, stop=0.0),
        beta2=Linear(10, start=0.95, stop=0.999).absolute(),
        eps=Constant(5, 10.0) >> Constant(),
        extra={"loss_weight": Linear(10, start=0.0, stop=1.0)},
    )
    go(optimizer, scheduler, 5)
    (group,) = optimizer.param_groups
    assert group["weight_decay"] == pytest.approx(0.05)
    assert group["betas"] == (0.9, pytest.approx(0.9745))
    assert group["eps"] == 1e-8
    assert scheduler.values()["loss_weight"] == 0.5
    assert [SHAPE(t) for t in (0, 5, 105)] == pytest.approx([0.5, 1.0, 0.99**100])
    steps = torch.tensor([0.0, 5.0, 105.0], dtype=torch.float64)
    assert SHAPE(steps).tolist() == pytest.approx([SHAPE(t) for t in (0, 5, 105)])
    assert not hasattr(peers.SequentialLR, "_get_closed_form_lr")


def test_pain_13_floors_are_absolute_or_of_the_wrong_group():
    """pytorch#67761, #63488; mmdetection3d#3059; transformers' cosine_with_min_lr."""
    from transformers import get_cosine_with_min_lr_schedule_with_warmup

    optimizer = sgd(1.0, 0.01)
    go(optimizer, peers.CosineAnnealingLR(optimizer, 10, eta_min=0.05), 10)
    assert rates(optimizer) == pytest.approx([0.05, 0.05])  # the second one has risen
    optimizer = sgd(1e-3, 1e-4, lr=1.0)
    go(optimizer, get_cosine_with_min_lr_schedule_with_warmup(optimizer, 0, 10, min_lr=1e-5), 10)
    assert rates(optimizer) == pytest.approx([1e-8, 1e-9])  # asked for: 1e-5

    optimizer = sgd(1.0, 0.01)
    go(optimizer, Scheduler(optimizer, lr=Cosine(10, stop=0.05)), 10)
    assert rates(optimizer) == [0.05, 0.0005]
    optimizer = sgd(1e-3, 1e-4, lr=1.0)
    go(optimizer, Scheduler(optimizer, lr=Cosine(10), floor=1e-5), 10)
    assert rates(optimizer) == pytest.approx([1e-5, 1e-5])
    optimizer = sgd(1e-3, 1e-4)
    go(optimizer, Scheduler(optimizer, lr=Cosine(10), groups={1: {"lr": Linear(20)}}), 10)
    assert rates(optimizer) == [0.0, 5e-5]


@pytest.mark.parametrize(
    "make",
    [
        lambda optimizer: peers.LambdaLR(optimizer, lambda t: 0.9**t),
        lambda optimizer: peers.CosineAnnealingWarmRestarts(optimizer, 20),
    ],
)
def test_pain_14_add_param_group_after_construction(make):
    """pytorch#79888, #62475, #104361; Lightning#12141."""
    optimizer = sgd(0.1)
    peer = make(optimizer)
    go(optimizer, peer, 2)
    optimizer.add_param_group({"params": [parameter()], "lr": 0.5})
    with pytest.raises(ValueError, match=r"zip\(\) argument 2 is shorter"):
        peer.step()

    optimizer = sgd(0.1)
    scheduler = Scheduler(optimizer, lr=Linear(20))
    go(optimizer, scheduler, 2)
    optimizer.add_param_group({"params": [parameter()], "lr": 0.5})
    go(optimizer, scheduler, 2)
    assert rates(optimizer) == pytest.approx([0.1 * 0.8, 0.5 * 0.8])
    scheduler.add_param_group({"params": [parameter()], "lr": 0.3}, clock="own")
    assert rates(optimizer) == pytest.approx([0.1 * 0.8, 0.5 * 0.8, 0.3])


@pytest.mark.filterwarnings("ignore:.*initial_lr = 0.1 was taken")
def test_pain_15_a_scheduler_made_anew_is_stuck_at_zero():
    """pytorch#78003: what is chained multiplies the 0 that the last one has left."""
    optimizer = sgd(0.1)
    go(optimizer, peers.LinearLR(optimizer, 1.0, 0.0, 10), 10)
    assert go(optimizer, peers.LinearLR(optimizer, 1.0, 0.0, 10), 9) == [0.0] * 9

    optimizer = sgd(0.1)
    first = Scheduler(optimizer, lr=Linear(10))
    go(optimizer, first, 10)
    first.detach()
    used = go(optimizer, Scheduler(optimizer, lr=Linear(10)), 10)
    assert used == [0.1 * Linear(10)(t) for t in range(10)]


def test_pain_15_which_of_two_rates_is_the_base_is_said():
    """A rate set by hand between two schedulers: torch goes on from both, by family."""
    optimizer = sgd(0.1)
    first = Scheduler(optimizer, lr=Linear(10))
    first.last_epoch = 10
    first.detach()
    optimizer.param_groups[0]["lr"] = 0.03
    kept = copy.deepcopy(optimizer)
    scheduler = Scheduler(optimizer, lr=Linear(10))
    assert rate(optimizer) == 0.1
    with pytest.warns(UserWarning, match="initial_lr = 0.1 was taken .* not the present lr = 0.03"):
        go(optimizer, scheduler, 1)
    Scheduler(kept, lr=Linear(10), base=0.03)
    assert rate(kept) == 0.03


def test_pain_15_a_second_scheduler_on_one_key_is_no_accident():
    optimizer = sgd(0.1)
    first = Scheduler(optimizer, lr=Linear(10))
    with pytest.raises(FieldError, match="the only one to write a key of a group"):
        Scheduler(optimizer, lr=Cosine(10))
    assert first.last_epoch == 0
