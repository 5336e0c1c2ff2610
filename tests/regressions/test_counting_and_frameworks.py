"""The pains of counting steps and of frameworks (16-26), each beside the right outcome.

Where it is cheap the peer is shown too, with the number that is wrong. Several processes are
simulated here: what a framework does to a scheduler is done to it.
"""

from types import SimpleNamespace

import pytest
import torch
from tests.regressions.loops import adamw, go, parameter, rate, rates, sgd
from torch import nn
from torch.optim import lr_scheduler as peers

from stepsize import (
    Constant,
    Cosine,
    Exponential,
    FieldError,
    Horizon,
    Linear,
    Logarithmic,
    Plan,
    Warmup,
    driving_unit,
    one_cycle,
    resolve,
    wsd,
)
from stepsize.feedback import Plateau
from stepsize.torch import Scheduler

SHAPE = Warmup(5) >> Cosine(15)


# 16: Accelerate -----------------------------------------------------------------------------------


@pytest.fixture
def on_four(monkeypatch):
    """Wrap a scheduler as Accelerate does on one of four processes."""
    from accelerate import scheduler as module
    from accelerate.state import AcceleratorState, GradientState, PartialState

    PartialState(cpu=True)
    monkeypatch.setattr(module, "AcceleratorState", lambda: SimpleNamespace(num_processes=4))
    stepped = SimpleNamespace(step_was_skipped=False)
    yield lambda scheduler: module.AcceleratedScheduler(scheduler, stepped)
    AcceleratorState._reset_state(reset_partial_state=True)
    GradientState._reset_state()


def test_pain_16_accelerate_steps_num_processes_times(on_four):
    """accelerate#2142, #2773, #2926, #1398, #662, #963; diffusers#3954."""
    optimizer = sgd(1.0)
    used = go(optimizer, on_four(peers.CosineAnnealingLR(optimizer, 20)), 20)
    assert used[5] == pytest.approx(0.0)  # the end of the first of two periods
    assert used[10] == pytest.approx(1.0)

    optimizer = sgd(1.0)
    used = go(optimizer, on_four(Scheduler(optimizer, lr=Cosine(20))), 20)
    assert used == [Cosine(20)(t) for t in range(20)]


def test_pain_16_one_cycle_ends_after_a_quarter_and_stays_too_high(on_four):
    optimizer = sgd(1.0, momentum=0.0)
    go(optimizer, on_four(peers.OneCycleLR(optimizer, 1.0, 20, cycle_momentum=False)), 20)
    assert rate(optimizer) == pytest.approx(0.0125, rel=0.02)  # told: 4e-6

    optimizer = sgd(1.0)
    go(optimizer, on_four(Scheduler(optimizer, one_cycle(20))), 20)
    assert rate(optimizer) == pytest.approx(4e-6)


def test_pain_16_a_metric_is_seen_once(on_four):
    """accelerate#3797: every evaluation counted as one per process."""
    optimizer = sgd(1.0)
    peer = on_four(peers.ReduceLROnPlateau(optimizer, factor=0.5, patience=3))
    peer.step(1.0)
    peer.step(1.0)
    assert rate(optimizer) == 0.5  # after the second evaluation; its patience is 3

    optimizer = sgd(1.0)
    plateau = Plateau(factor=0.5, patience=3)
    wrapped = on_four(Scheduler(optimizer, lr=Constant(), feedback=plateau))
    halved = []
    for _ in range(5):
        optimizer.step()
        wrapped.step(1.0)
        halved.append(rate(optimizer))
    assert halved == [1.0, 1.0, 1.0, 1.0, 0.5]


# 17: epochs and steps -----------------------------------------------------------------------------


def test_pain_17_a_schedule_in_epochs_and_a_loop_in_steps():
    """Lightning#6948, #5631, #3205, #20436, #19534; pytorch#65417; solo-learn#264, #271."""
    optimizer = sgd(1.0)
    peer = peers.CosineAnnealingLR(optimizer, 3)  # meant: epochs
    used = go(optimizer, peer, 8)
    assert used[6] == pytest.approx(1.0)  # once up and down within the first epoch

    horizon = Horizon("3ep", batches_per_epoch=8)
    told = Warmup("1ep") >> Cosine()
    per_step, per_epoch = (sgd(1.0), sgd(1.0))
    often = Scheduler(per_step, lr=told, horizon=horizon)
    seldom = Scheduler(per_epoch, lr=told, horizon=horizon)
    for _ in range(3):
        go(per_step, often, 8)
        for _ in range(8):
            per_epoch.step()
        seldom.step()
        assert rate(per_epoch) == rate(per_step)
    assert rate(per_step) == 0.0


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*does not have many workers")
@pytest.mark.filterwarnings("ignore:.*LeafSpec.* is deprecated:FutureWarning")
def test_pain_17_a_frequency_counts_within_the_epoch(tmp_path):
    """Lightning#6948: 8 batches, 2 epochs, frequency 3 make 4 steps of the peer, not 5."""
    import lightning.pytorch as lightning

    class Tiny(lightning.LightningModule):
        def __init__(self, make):
            super().__init__()
            self.layer, self.make = nn.Linear(2, 1), make

        def training_step(self, batch, index):
            del index
            return self.layer(batch).pow(2).mean()

        def configure_optimizers(self):
            optimizer = torch.optim.SGD(self.parameters(), lr=0.1)
            self.scheduler = self.make(optimizer)
            told = {"scheduler": self.scheduler, "interval": "step", "frequency": 3}
            return [optimizer], [told]

    def fit(make):
        trainer = lightning.Trainer(
            accelerator="cpu",
            devices=1,
            max_epochs=2,
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            default_root_dir=tmp_path,
        )
        module = Tiny(make)
        trainer.fit(module, torch.utils.data.DataLoader(torch.ones(8, 2)))
        return module.scheduler

    assert fit(lambda optimizer: peers.StepLR(optimizer, 1)).last_epoch == 4
    scheduler = fit(lambda optimizer: Scheduler(optimizer, lr=Linear(100)))
    assert scheduler.last_epoch == 16
    scheduler.step()
    assert scheduler.get_last_lr() == [0.1 * Linear(100)(16)]


# 18, 19, 20: skipped steps, wrapped steps, recompiles ---------------------------------------------


def amp_loop(optimizer, scheduler, infinite, steps):
    """Train under a GradScaler; the losses at `infinite` overflow."""
    scaler = torch.amp.GradScaler("cpu", init_scale=4.0)
    for t in range(steps):
        (p,) = optimizer.param_groups[0]["params"]
        optimizer.zero_grad()
        scaler.scale((p * (float("inf") if t in infinite else 1.0)).sum()).backward()
        scaler.step(optimizer)
        scaler.update()
        scheduler.step()


def test_pain_18_step_before_optimizer_step_under_amp():
    """pytorch#44511, #55585, #67590; Lightning#16228, #21339."""
    optimizer = sgd(1.0)
    peer = peers.CosineAnnealingLR(optimizer, 20)
    with pytest.warns(UserWarning, match="lr_scheduler.step.* before `optimizer.step"):
        amp_loop(optimizer, peer, infinite={0, 2}, steps=6)
    assert peer.last_epoch == 6  # of 4 steps

    optimizer = sgd(1.0)
    scheduler = Scheduler(optimizer, lr=Cosine(20))
    amp_loop(optimizer, scheduler, infinite={2, 4}, steps=6)
    assert scheduler.last_epoch == 4
    assert rate(optimizer) == Cosine(20)(4)


def test_pain_18_the_first_step_is_skipped():
    """With a GradScaler it usually is: its first scale is too high."""
    optimizer = sgd(1.0)
    scheduler = Scheduler(optimizer, lr=Cosine(20))
    amp_loop(optimizer, scheduler, infinite={0}, steps=6)
    assert scheduler.last_epoch == 5
    assert rate(optimizer) == Cosine(20)(5)


@pytest.mark.slow
def test_pain_19_a_scheduler_breaks_a_compiled_optimizer_step():
    """torchtune#2263, #2931, PR#2681: torch's constructor patches `optimizer.step`."""
    from torch._dynamo.testing import CompileCounter

    torch.compiler.reset()
    optimizer, counter = sgd(torch.tensor(0.1)), CompileCounter()
    optimizer.step = torch.compile(optimizer.step, backend=counter)
    with pytest.raises(AttributeError, match="no attribute '__func__'"):
        peers.CosineAnnealingLR(optimizer, 20)

    compiled = optimizer.step
    scheduler = Scheduler(optimizer, lr=Cosine(20))
    assert optimizer.step is compiled
    for _ in range(10):
        optimizer.param_groups[0]["params"][0].grad = torch.ones(1)
        optimizer.step()
        scheduler.step()
    assert scheduler.last_epoch == 10
    assert rate(optimizer) == pytest.approx(0.05)


def test_pain_19_a_wrapped_step_stays_what_it_is():
    optimizer = sgd()
    seen = []
    inner = optimizer.step
    optimizer.step = lambda *given: seen.append(1) or inner(*given)
    wrapped = optimizer.step
    scheduler = Scheduler(optimizer, lr=Cosine(20))
    go(optimizer, scheduler, 4)
    assert (optimizer.step is wrapped, len(seen), scheduler.last_epoch) == (True, 4, 4)


@pytest.mark.slow
def test_pain_20_recompiles():
    """pytorch#133898: OneCycleLR replaces a tensor beta1 by a float; #107076, #120934, #196286."""
    from torch._dynamo.testing import CompileCounter

    def graphs(make):
        torch.compiler.reset()
        p, counter = parameter(), CompileCounter()
        betas = (torch.tensor(0.9), torch.tensor(0.999))
        optimizer = torch.optim.AdamW([p], torch.tensor(0.1), betas, foreach=False)
        scheduler, step = make(optimizer), torch.compile(optimizer.step, backend=counter)
        for _ in range(20):
            p.grad = torch.ones(1)
            step()
            scheduler.step()
        return counter.frame_count, optimizer.param_groups[0]["betas"][0]

    count, beta = graphs(lambda optimizer: peers.OneCycleLR(optimizer, 0.1, 100))
    assert (count, type(beta)) == (2, float)
    plan = one_cycle(100).renamed(momentum="beta1")
    count, beta = graphs(lambda optimizer: Scheduler(optimizer, plan))
    assert (count, type(beta)) == (1, torch.Tensor)
    assert beta.item() == pytest.approx(plan["beta1"](20))


# 21: low precision --------------------------------------------------------------------------------


def test_pain_21_a_low_precision_rate_that_is_multiplied_step_by_step():
    """No thread found. bfloat16: 0.999 times the rate rounds back to the rate."""
    held = torch.tensor(0.1, dtype=torch.bfloat16)
    optimizer = sgd(held)
    go(optimizer, peers.ExponentialLR(optimizer, 0.999), 2000)
    assert rate(optimizer) == held.item() == torch.tensor(0.1).bfloat16().item()  # unmoved

    start = torch.tensor(0.1, dtype=torch.bfloat16)
    base = start.item()
    optimizer = sgd(start)
    go(optimizer, Scheduler(optimizer, lr=Exponential(0.999)), 2000)
    assert rate(optimizer) == torch.tensor(base * 0.999**2000).bfloat16().item()


def test_pain_21_a_float32_rate_drifts():
    steps, gamma = 20_000, 1.0 - 1e-5
    exact = 0.1 * gamma**steps

    def error(make):
        optimizer = sgd(torch.tensor(0.1))
        scheduler = make(optimizer)
        optimizer.step()
        for _ in range(steps):
            scheduler.step()
        return abs(rate(optimizer) / exact - 1.0)

    assert error(lambda optimizer: peers.ExponentialLR(optimizer, gamma)) > 2e-4
    optimizer = sgd(torch.tensor(0.1))
    scheduler = Scheduler(optimizer, lr=Exponential(gamma))
    scheduler.last_epoch = steps
    assert abs(rate(optimizer) / exact - 1.0) < 1e-7


# 22, 23: tokens, and what Megatron resumes --------------------------------------------------------


RAMP = Horizon("1e6 tok", batch_size=Constant(400, 1.0) >> Constant(400, 2.0) >> Constant(value=4),
               tokens_per_sample=100)  # fmt: skip


@pytest.mark.filterwarnings("ignore:.*was over at step")
def test_pain_22_a_batch_size_ramp_breaks_the_schedule():
    """Megatron-Bridge#2609: the decay of a WSD never finishes; nanochat PR#851, OLMo PR#411."""
    told = wsd("1e4 tok", "2e5 tok")
    assert driving_unit(told, RAMP) == "tok"
    assert RAMP.steps == 400 + 400 + 2200
    steps = resolve(wsd(100, 2000), Horizon(10_000))  # planned in steps of the first batch size
    assert steps(RAMP.steps) == 1.0  # not even cooling down when the tokens are used up

    optimizer = sgd(1.0)
    scheduler = Scheduler(optimizer, lr=told, horizon=RAMP)
    used = go(optimizer, scheduler, RAMP.steps)
    begins = RAMP.steps - 500  # 2e5 tokens of 400 each
    assert used[begins] == 1.0 > used[begins + 1]
    assert used[-1] == pytest.approx(1 / 500)
    assert rate(optimizer) == 0.0


def test_pain_22_warmup_in_tokens_is_longer_in_steps_under_a_ramp():
    tree, steps = Warmup("8e4 tok") >> Constant(), Horizon("1e6 tok", batch_size=1,
                                                           tokens_per_sample=100)  # fmt: skip
    scheduler = Scheduler(sgd(1.0), lr=tree, horizon=RAMP)
    assert scheduler.at(400)["lr"][0] == pytest.approx(0.5, rel=2e-3)
    assert scheduler.at(600)["lr"] == [1.0]
    assert resolve(tree, steps).duration > 600


def test_pain_23_weight_decay_is_stale_after_a_load():
    """Megatron-LM PR#7468, NeMo Automodel#3882: loaded values stay until the next step."""
    plan = Plan(lr=SHAPE, weight_decay=Linear(20, start=0.1, stop=0.0).absolute())
    optimizer = adamw()
    scheduler = Scheduler(optimizer, plan)
    go(optimizer, scheduler, 10)
    saved, state = scheduler.state_dict(), optimizer.state_dict()
    state["param_groups"][0]["weight_decay"] = 0.7
    for order in ("so", "os"):
        resumed = adamw()
        late = Scheduler(resumed, plan)
        for part in order:
            late.load_state_dict(saved) if part == "s" else resumed.load_state_dict(state)
        assert resumed.param_groups[0]["weight_decay"] == 0.05
        assert rate(resumed) == rate(optimizer)


def test_pain_23_stepping_once_more_on_resume_changes_nothing():
    """THUDM/slime PR#1547, miles PR#1627: the loader steps the scheduler up to where it was."""
    optimizer = adamw()
    scheduler = Scheduler(optimizer, lr=SHAPE)
    go(optimizer, scheduler, 7)
    resumed = adamw()
    late = Scheduler(resumed, lr=SHAPE)
    late.load_state_dict(scheduler.state_dict())
    for _ in range(7):
        late.step()
    assert (late.last_epoch, rate(resumed)) == (7, rate(optimizer))


def test_pain_23_warmup_is_not_subtracted_twice():
    """AReaL PR#1289: `lr_decay_steps` is absolute in one engine and a length in another."""
    tree = resolve(Warmup(100) >> Cosine(), Horizon(1000))
    assert tree == Warmup(100) >> Cosine(900)
    assert tree.duration == 1000


# 24, 25, 26: lengths, first steps, rates ----------------------------------------------------------


def test_pain_24_whether_a_decay_includes_the_warmup_is_never_a_question():
    """optax#835, timm#1242: optax, Megatron and transformers include it, Keras does not."""
    tree = Warmup(100) >> Linear(900)
    assert (tree.duration, tree(100), tree(550), tree(1000)) == (1000, 1.0, 0.5, 0.0)


def test_pain_25_the_first_step_is_not_at_rate_0():
    """verl#3674, google-research/bert#1293, torchtitan PR#1261, timm#2125."""
    from transformers import get_linear_schedule_with_warmup

    optimizer = adamw()
    get_linear_schedule_with_warmup(optimizer, 10, 100)
    assert rate(optimizer) == 0.0

    optimizer = adamw()
    Scheduler(optimizer, lr=Warmup(10) >> Linear(90))
    assert rate(optimizer) == pytest.approx(1e-3 / 11)
    assert Warmup(1000)(0) > 0
    assert resolve(Warmup("5%") >> Cosine(), Horizon(1000))(0) > 0


def test_pain_26_absolute_rates_replace_those_of_the_groups():
    """DeepSpeed#7303, #7713, PR#8171; transformers#35428: WarmupLR and OneCycle set one rate."""
    optimizer = sgd(0.02, 3e-4, momentum=0.0)
    go(optimizer, peers.OneCycleLR(optimizer, 0.02, 100, cycle_momentum=False), 30)
    assert rates(optimizer) == pytest.approx([0.02, 0.02], rel=1e-2)  # torch's does so too

    optimizer = sgd(0.02, 3e-4)
    scheduler = Scheduler(optimizer, lr=Warmup(10) >> Cosine(90))
    scheduler.last_epoch = 10
    assert scheduler.get_last_lr() == [0.02, 3e-4]
    Scheduler(optimizer, lr=(Warmup(10) >> Cosine(90)).absolute(0.1), take_over=True, base=0.5)
    assert rates(optimizer) == pytest.approx([0.1 / 11, 0.1 / 11])  # where one asks for it


def test_pain_26_the_shape_of_a_warmup_is_linear_unless_told():
    """DeepSpeed#1298: its default is logarithmic."""
    assert Warmup(9, start=0.1)(3) == pytest.approx(0.4)
    assert Warmup(9, start=0.1, along=Logarithmic)(3) > 0.4


def test_pain_26_a_beta_beyond_1_is_refused():
    """DeepSpeed PR#8589: OneCycle lets beta1 rise above 1."""
    too_high = Linear(10, start=0.85, stop=1.05).absolute()
    with pytest.raises(FieldError, match="beta1: its peak must be below 1, got 1.05"):
        Scheduler(adamw(), beta1=too_high)
