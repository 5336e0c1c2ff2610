"""Lightning: the value used at every optimizer step, through loops, checkpoints and callbacks."""

import pytest
import torch
from tests.frameworks.watched import BASE, LOSSES, SHAPE, guarded, sgd, values, watched
from torch import nn
from torch.optim.lr_scheduler import CosineAnnealingLR, ReduceLROnPlateau
from torch.utils.data import DataLoader, IterableDataset

from stepsize import Cosine, FieldError, Horizon, Warmup
from stepsize.frameworks import horizon_from_lightning
from stepsize.torch import Scheduler

pytestmark = [
    pytest.mark.slow,  # importing Lightning takes 10 s
    pytest.mark.filterwarnings("ignore:.*does not have many workers"),
    pytest.mark.filterwarnings("ignore:You defined a `validation_step` but have no"),
    pytest.mark.filterwarnings("ignore:Be aware that when using `ckpt_path`"),
    pytest.mark.filterwarnings("ignore:You're resuming from a checkpoint that ended before"),
    pytest.mark.filterwarnings("ignore:.*LeafSpec.* is deprecated:FutureWarning"),
]

BATCHES = 8
EPOCHS = 3
STEPS = BATCHES * EPOCHS


@pytest.fixture(scope="module")
def lightning():
    import lightning.pytorch

    return lightning.pytorch


class Endless(IterableDataset):
    def __iter__(self):
        while True:
            yield torch.ones(2)


def loader(samples=2 * BATCHES, batch_size=2):
    return DataLoader(torch.ones(samples, 2), batch_size=batch_size)


def module(lightning, configure, *, training_step=None, metric=None, losses=None):
    """Three numbers: `configure(module)` gives the optimizers, `metric(module)` what is logged."""

    class Tiny(lightning.LightningModule):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(2, 1)
            self.automatic_optimization = training_step is None

        def loss(self, batch):
            return self.layer(batch).pow(2).mean()

        def configure_optimizers(self):
            return configure(self)

        def training_step(self, batch, index):
            if losses is not None:
                self.lr_schedulers().observe(torch.tensor(losses[self.trainer.global_step]))
            if training_step is not None:
                return training_step(self, batch, index)
            return self.loss(batch)

        def validation_step(self, *_):
            self.log("val", metric(self) if metric else 1.0)

    return Tiny()


def fitting(lightning, folder, **fields):
    quiet = {
        "accelerator": "cpu",
        "devices": 1,
        "logger": False,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "num_sanity_val_steps": 0,
        "max_epochs": EPOCHS,
        "default_root_dir": folder,
    }
    return lightning.Trainer(**(quiet | fields))


class Seen:
    """Builds the optimizer and the scheduler, and keeps what was used."""

    def __init__(self, make=lambda optimizer, module: Scheduler(optimizer, lr=SHAPE), **config):
        self.make, self.config = make, config

    def __call__(self, module):
        optimizer = sgd(module.parameters())
        self.used, self.after = watched(optimizer), watched(optimizer, after=True)
        self.scheduler = self.make(optimizer, module)
        return [optimizer], [{"scheduler": self.scheduler, **self.config}]


@pytest.fixture
def fit(lightning, tmp_path):
    """Fit with a configuration, give what was used."""

    def run(seen, *, val=None, train=None, again=None, **fields):
        told = {
            key: fields.pop(key) for key in ("training_step", "metric", "losses") if key in fields
        }
        where = {"ckpt_path": again} if again else {}
        trainer = fitting(lightning, tmp_path, **fields)
        train = loader() if train is None else train
        trainer.fit(module(lightning, seen, **told), train, val, **where)
        return seen.used

    return run


# When it is stepped -------------------------------------------------------------------------------


def test_every_step_uses_its_value(fit):
    assert fit(Seen(interval="step")) == values(SHAPE, STEPS)


def test_the_default_interval_holds_the_value_over_an_epoch_and_shrinks_no_schedule(fit):
    """A torch scheduler written in steps and called once per epoch covers 3 of its 24 steps."""
    used = fit(Seen())
    assert used == [BASE * SHAPE(t // BATCHES * BATCHES) for t in range(STEPS)]
    theirs = fit(Seen(lambda optimizer, _: CosineAnnealingLR(optimizer, T_max=STEPS)))
    assert theirs[-1] > 0.98 * BASE  # at the last epoch of three, where ours is at a third
    assert used[-1] == BASE * SHAPE(16)


def test_holding_the_value_over_an_epoch_on_purpose(fit):
    def make(optimizer, module):
        shape = (Warmup("1ep") >> Cosine()).held("1ep")
        return Scheduler(optimizer, lr=shape, horizon=horizon_from_lightning(module.trainer))

    by_step, by_epoch = fit(Seen(make, interval="step")), fit(Seen(make, interval="epoch"))
    assert by_step == by_epoch
    assert [len({*by_step[i : i + BATCHES]}) for i in range(0, STEPS, BATCHES)] == [1, 1, 1]
    assert by_step[::BATCHES] == [0.5 * BASE, BASE, pytest.approx(0.5 * BASE)]


def test_a_frequency_makes_it_coarser_and_never_slower(fit):
    """Lightning counts batches within the epoch: after batches 3 and 6 of 8, each epoch anew."""
    called = [t for t in range(STEPS) if t % BATCHES in (3, 6)]
    latest = [max((c for c in called if c <= t), default=0) for t in range(STEPS)]
    assert fit(Seen(interval="step", frequency=3)) == [BASE * SHAPE(t) for t in latest]


@pytest.mark.parametrize("accumulate", [2, 3])  # 3 does not divide the 8 batches of an epoch
def test_accumulated_batches_are_one_step(fit, accumulate):
    steps = EPOCHS * -(-BATCHES // accumulate)
    used = fit(Seen(interval="step"), accumulate_grad_batches=accumulate)
    assert used == values(SHAPE, steps)


@pytest.mark.parametrize("config", [{}, {"interval": "step", "frequency": 3}])
def test_following_the_optimizer_leaves_nothing_to_an_interval(fit, config):
    seen = Seen(lambda optimizer, _: Scheduler(optimizer, lr=SHAPE, follow=True), **config)
    assert fit(seen) == values(SHAPE, STEPS)


@pytest.mark.parametrize("every_batch", [False, True])
def test_manual_optimization(fit, every_batch):
    def training_step(module, batch, index):
        optimizer = module.optimizers()
        module.manual_backward(module.loss(batch))
        if index % 2:  # accumulating by hand
            optimizer.step()
            optimizer.zero_grad()
        if index % 2 or every_batch:
            module.lr_schedulers().step()

    seen = Seen()
    fit(seen, training_step=training_step)
    assert seen.after == values(SHAPE, STEPS // 2)
    assert seen.scheduler.last_epoch == STEPS // 2


def test_two_optimizers_and_one_scheduler_that_follows_the_first(fit):
    class Both(Seen):
        def __call__(self, module):
            first, second = sgd([module.layer.weight]), sgd([module.layer.bias])
            self.used, self.other = watched(first), watched(second)
            return [first, second], [Scheduler([first, second], lr=SHAPE)]

    def training_step(module, batch, index):
        first, second = module.optimizers()
        module.manual_backward(module.loss(batch))
        if index % 4 == 0:
            second.step()
        first.step()
        module.lr_schedulers().step()

    seen = Both()
    assert fit(seen, training_step=training_step) == values(SHAPE, STEPS)
    assert seen.other == [BASE * SHAPE(t) for t in range(0, STEPS, 4)]


# How long the run is ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "steps"),
    [
        ({}, 24),
        ({"accumulate_grad_batches": 3}, 9),
        ({"limit_train_batches": 5}, 15),
        ({"limit_train_batches": 5, "accumulate_grad_batches": 2}, 9),
        ({"max_steps": 11}, 11),
        ({"max_steps": 11, "max_epochs": -1}, 11),
        ({"max_steps": 999}, 24),
        ({"overfit_batches": 2}, 6),
    ],
)
def test_the_horizon_is_what_lightning_does(fit, fields, steps):
    found = []

    def make(optimizer, module):
        found.append(horizon_from_lightning(module.trainer))
        assert found[0].steps == module.trainer.estimated_stepping_batches
        assert found[0].batch_size == 2
        return Scheduler(optimizer, lr=Warmup("20%") >> Cosine(), horizon=found[0])

    used = fit(Seen(make, interval="step"), **fields)
    assert found[0].steps == steps == len(used)
    resolved = found[0].resolve(Warmup("20%") >> Cosine())
    assert used == values(resolved, steps)


def test_accumulation_that_a_callback_sets_is_in_the_horizon(fit):
    from lightning.pytorch.callbacks import GradientAccumulationScheduler

    found = []

    def make(optimizer, module):
        found.append(horizon_from_lightning(module.trainer))
        assert module.trainer.estimated_stepping_batches == 24  # not yet known to the trainer
        return Scheduler(optimizer, lr=SHAPE)

    used = fit(
        Seen(make, interval="step"), callbacks=[GradientAccumulationScheduler(scheduling={0: 4})]
    )
    assert found[0].steps == 6
    assert used == values(SHAPE, 6)


def test_data_without_a_length_and_a_run_by_the_clock(lightning, fit):
    found = []

    class Stop(lightning.Callback):
        def on_train_batch_end(self, trainer, *_):
            trainer.should_stop = True

    def make(optimizer, module):
        found.append(horizon_from_lightning(module.trainer))
        return Scheduler(optimizer, lr=SHAPE)

    seen, endless = Seen(make, interval="step"), DataLoader(Endless(), batch_size=2)
    assert fit(seen, train=endless, max_steps=7, max_epochs=None) == values(SHAPE, 7)
    assert found[-1] == Horizon(7, batch_size=2)
    assert fit(seen, max_time={"hours": 2}, max_epochs=None, callbacks=[Stop()]) == [BASE / 6]
    assert found[-1] == Horizon("7200s", batch_size=2, batches_per_epoch=BATCHES)
    fit(seen, train=endless, max_epochs=1, callbacks=[Stop()])
    assert found[-1] == Horizon(batch_size=2)


def test_a_trainer_before_its_fit(lightning, tmp_path):
    with pytest.raises(FieldError, match="must be one that is fitting"):
        horizon_from_lightning(fitting(lightning, tmp_path))


def test_a_horizon_bound_at_the_first_step(fit):
    def make(optimizer, module):
        horizon = lambda: horizon_from_lightning(module.trainer, tokens_per_sample=16)
        return Scheduler(optimizer, lr=Warmup("20%") >> Cosine(), horizon=horizon)

    seen = Seen(make, interval="step")
    fit(seen, accumulate_grad_batches=2)
    horizon = Horizon("3ep", batches_per_epoch=BATCHES, accumulate=2)
    assert seen.after == values(horizon.resolve(Warmup("20%") >> Cosine()), 12)


def test_a_horizon_from_a_trainer_by_its_constructor(fit):
    def make(optimizer, module):
        horizon = Horizon.from_lightning(module.trainer)
        return Scheduler(optimizer, lr=Warmup("20%") >> Cosine(), horizon=horizon)

    horizon = Horizon("3ep", batches_per_epoch=BATCHES)
    expected = values(horizon.resolve(Warmup("20%") >> Cosine()), STEPS)
    assert fit(Seen(make, interval="step")) == expected


# What is shown ------------------------------------------------------------------------------------


def test_the_learning_rate_monitor_logs_what_is_used(fit, tmp_path):
    import csv

    from lightning.pytorch.callbacks import LearningRateMonitor
    from lightning.pytorch.loggers import CSVLogger

    logger = CSVLogger(tmp_path, name="run", version="0")
    callback = LearningRateMonitor("step", log_momentum=True, log_weight_decay=True)

    def make(optimizer, _):
        momentum = Cosine(24, start=0.9, stop=0.8).absolute()
        return Scheduler(optimizer, lr=SHAPE, momentum=momentum)

    used = fit(
        Seen(make, interval="step"),
        logger=logger,
        callbacks=[callback],
        log_every_n_steps=1,
    )
    with (tmp_path / "run" / "0" / "metrics.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if row["lr-SGD"]]
    assert [float(row["lr-SGD"]) for row in rows] == used == values(SHAPE, STEPS)
    momentum = Cosine(24, start=0.9, stop=0.8)
    assert [float(row["lr-SGD-momentum"]) for row in rows] == [momentum(t) for t in range(STEPS)]


# Checkpoints --------------------------------------------------------------------------------------


@pytest.mark.parametrize("config", [{"interval": "step"}, {"interval": "epoch"}])
@pytest.mark.parametrize("at", [5, 8, 13])  # in an epoch, at the end of one, in the second
def test_its_own_checkpoint_goes_on_at_the_same_value(fit, tmp_path, at, config):
    from lightning.pytorch.callbacks import ModelCheckpoint

    saves = ModelCheckpoint(tmp_path, filename="{step}", every_n_train_steps=at, save_top_k=-1)
    fields = {"callbacks": [saves], "enable_checkpointing": True}
    whole = fit(Seen(**config), **fields)
    seen = Seen(**config)
    resumed = fit(seen, again=tmp_path / f"step={at}.ckpt")
    assert seen.scheduler.last_epoch == STEPS
    if config["interval"] == "step":
        assert resumed == whole[at:] == values(SHAPE, STEPS - at, start=at)
    else:  # the saved position is where it goes on, and from then on once per epoch
        ends = [at, *range(at // BATCHES * BATCHES + BATCHES, STEPS, BATCHES)]
        held = [max(end for end in ends if end <= t) for t in range(at, STEPS)]
        assert resumed == [BASE * SHAPE(t) for t in held]


def test_the_checkpoint_at_the_end_of_every_epoch(fit, tmp_path):
    from lightning.pytorch.callbacks import ModelCheckpoint

    saves = ModelCheckpoint(tmp_path, filename="{epoch}", save_top_k=-1)
    fit(Seen(interval="step"), callbacks=[saves], enable_checkpointing=True)
    resumed = fit(Seen(interval="step"), again=tmp_path / "epoch=1.ckpt")
    assert resumed == values(SHAPE, BATCHES, start=2 * BATCHES)


def test_a_longer_run_goes_on_from_the_checkpoint(fit, tmp_path):
    """The same schedule in steps, more epochs: it holds its last value."""
    from lightning.pytorch.callbacks import ModelCheckpoint

    saves = ModelCheckpoint(tmp_path, filename="last")
    fit(Seen(interval="step"), callbacks=[saves], enable_checkpointing=True)
    resumed = fit(Seen(interval="step"), again=tmp_path / "last.ckpt", max_epochs=EPOCHS + 1)
    assert resumed == values(SHAPE, BATCHES, start=STEPS) == [0.0] * BATCHES


def test_fitting_twice(lightning, tmp_path):
    """A trainer asks for the optimizers at every fit: new ones begin anew, the same ones go on."""
    seen = Seen(interval="step")
    kept = []

    def same(module):
        kept[:] = kept or [seen(module)]
        return kept[0]

    for configure, start in ((seen, 0), (same, 2 * BATCHES)):
        trainer = fitting(lightning, tmp_path, max_epochs=2)
        tiny = module(lightning, configure)
        trainer.fit(tiny, loader())
        first = list(seen.used)
        trainer.fit_loop.max_epochs = EPOCHS
        trainer.fit(tiny, loader())
        assert first == values(SHAPE, 2 * BATCHES)
        assert seen.used[-BATCHES:] == values(SHAPE, BATCHES, start=start)


# Metrics ------------------------------------------------------------------------------------------


def halved(metrics):
    """What torch's own plateau makes of the metrics: the factor after each of them."""
    optimizer = torch.optim.SGD([nn.Parameter(torch.ones(1))], lr=1.0)
    theirs = ReduceLROnPlateau(optimizer, factor=0.5, patience=1)
    factors = []
    for metric in metrics:
        theirs.step(metric)
        factors.append(optimizer.param_groups[0]["lr"])
    return factors


def metric_driven(optimizer, _):
    from stepsize.feedback import Plateau

    return Scheduler(optimizer, lr=SHAPE, feedback=Plateau(patience=1, factor=0.5))


@pytest.mark.parametrize("config", [{}, {"reduce_on_plateau": True}])  # set by Lightning itself
def test_a_metric_is_routed_and_every_step_has_the_schedules_value(fit, config):
    seen = Seen(metric_driven, monitor="val", interval="epoch", **config)
    used = fit(seen, val=loader(4), max_epochs=6, limit_train_batches=4)
    factors = [1.0, *halved([1.0] * 6)]
    assert factors[:6] == [1.0, 1.0, 1.0, 0.5, 0.5, 0.25]
    assert used == [BASE * SHAPE(t) * factors[t // 4] for t in range(24)]


def test_a_metric_that_improves_changes_nothing(fit):
    falling = lambda module: 1.0 / (1 + module.trainer.current_epoch)
    seen = Seen(metric_driven, monitor="val", interval="epoch")
    assert fit(seen, val=loader(4), metric=falling) == values(SHAPE, STEPS)


@pytest.mark.parametrize("at", [10, 12])  # in an epoch of 4 steps, and at the end of one
def test_what_a_controller_knows_is_in_the_checkpoint(fit, tmp_path, at):
    """Its factor is that of torch's plateau, which loses what Lightning loses.

    That is one metric: Lightning shows no metric at the end of the epoch in which it resumes.
    """
    from lightning.pytorch.callbacks import ModelCheckpoint

    def both_runs(make, folder):
        config = {"monitor": "val", "interval": "epoch"}
        fields = {"val": loader(4), "max_epochs": 6, "limit_train_batches": 4}
        saves = ModelCheckpoint(folder, filename="{step}", every_n_train_steps=at, save_top_k=-1)
        saving = {"callbacks": [saves], "enable_checkpointing": True}
        whole = fit(Seen(make, **config), **fields, **saving)
        return whole + fit(Seen(make, **config), **fields, again=folder / f"step={at}.ckpt")

    plateau = lambda optimizer, _: ReduceLROnPlateau(optimizer, factor=0.5, patience=1)
    ours, theirs = both_runs(metric_driven, tmp_path / "a"), both_runs(plateau, tmp_path / "b")
    shape = values(SHAPE, 24) + values(SHAPE, 24 - at, start=at)
    assert ours == [rate / BASE * value for rate, value in zip(theirs, shape, strict=True)]
    assert theirs[at:24] != theirs[24:]


def test_a_metric_driven_scheduler_needs_a_monitor(fit):
    from lightning.fabric.utilities.exceptions import MisconfigurationException

    with pytest.raises(MisconfigurationException, match="must include a monitor"):
        fit(Seen(metric_driven, interval="epoch"), val=loader(4))


def test_a_loss_is_observed_in_the_training_step(fit):
    """Which runs in the optimizer's closure: what it changes, this very step uses."""
    guard, factors = guarded()
    seen = Seen(
        lambda optimizer, _: Scheduler(optimizer, lr=SHAPE, feedback=guard), interval="step"
    )
    fit(seen, losses=LOSSES, max_steps=len(LOSSES))
    assert {1.0, 0.25, 0.5} <= set(factors)
    assert seen.after == [BASE * SHAPE(t) * factor for t, factor in enumerate(factors)]
    assert type(seen.scheduler) is Scheduler  # no metric is asked for: it needs no monitor
