"""Horizons read off a framework's objects: what the frameworks themselves will do."""

import math
from types import SimpleNamespace

import pytest
import torch
from torch.utils.data import DataLoader, TensorDataset

from stepsize import Cosine, FieldError, Horizon, UnitError, Warmup
from stepsize.frameworks import horizon_from_lightning, horizon_from_training_args
from stepsize.units import Time

# transformers, by attribute -----------------------------------------------------------------------


def arguments(**fields):
    told = {
        "max_steps": -1,
        "num_train_epochs": 3.0,
        "train_batch_size": 4,
        "gradient_accumulation_steps": 1,
        "world_size": 1,
    }
    return SimpleNamespace(**(told | fields))


def test_epochs_of_a_dataset():
    args = arguments(gradient_accumulation_steps=4, world_size=2)
    horizon = horizon_from_training_args(args, range(50), tokens_per_sample=128)
    assert horizon == Horizon(
        "3ep", batches_per_epoch=7, batch_size=4, tokens_per_sample=128, accumulate=4, replicas=2
    )
    assert horizon.steps == 3 * 2
    assert horizon.position(1, "samples") == 4 * 4 * 2


def test_steps_need_no_dataset():
    horizon = horizon_from_training_args(arguments(max_steps=100))
    assert (horizon.total, horizon.batches_per_epoch) == (100.0, None)
    assert horizon_from_training_args(arguments(max_steps=100), iter(())).steps == 100


def test_fields_come_before_what_is_read():
    horizon = horizon_from_training_args(arguments(), range(10), total="2ep", batch_size=1)
    assert (horizon.steps, horizon.batch_size) == (6, 1)
    assert horizon_from_training_args(arguments(), batches_per_epoch=11).steps == 33
    assert horizon_from_training_args(arguments(max_steps=0), total=7).steps == 7


def test_split_batches_share_one_batch_among_the_processes():
    split = SimpleNamespace(split_batches=True)
    horizon = horizon_from_training_args(
        arguments(world_size=2, accelerator_config=split), range(10)
    )
    assert (horizon.steps, horizon.batch_size, horizon.replicas) == (9, 2, 2)
    assert horizon.position(1, "samples") == 4


def test_processes_that_share_a_sample_are_no_replicas():
    config = SimpleNamespace(tp_size=2, cp_size=None, sp_size=1)
    horizon = horizon_from_training_args(
        arguments(world_size=4, parallelism_config=config), range(80)
    )
    assert (horizon.replicas, horizon.batches_per_epoch) == (2, 10)
    config.sp_size = 2  # a batch becomes two, each rank of the pair computes half of both
    horizon = horizon_from_training_args(
        arguments(world_size=4, parallelism_config=config), range(80)
    )
    assert (horizon.replicas, horizon.batches_per_epoch) == (1, 40)


def test_arguments_that_tell_no_length():
    with pytest.raises(
        UnitError,
        match="num_train_epochs = 3 needs a dataset with a length, got a generator without one: "
        "give the dataset, batches_per_epoch=, or args.max_steps",
    ):
        horizon_from_training_args(arguments(), (i for i in range(3)))
    with pytest.raises(UnitError, match="needs a dataset with a length, got none"):
        horizon_from_training_args(arguments())
    with pytest.raises(FieldError, match="args.max_steps must be a number of steps, or -1, got 0"):
        horizon_from_training_args(arguments(max_steps=0), range(10))
    with pytest.raises(
        FieldError,
        match="the dataset must be as long as a batch of 4 on each of 2 processes, got "
        "'7 samples'; train with dataloader_drop_last=False",
    ):
        horizon_from_training_args(arguments(world_size=2, dataloader_drop_last=True), range(7))
    with pytest.raises(FieldError, match="must be a transformers TrainingArguments, got 'dict'"):
        horizon_from_training_args({"max_steps": 10})


# Lightning, by attribute --------------------------------------------------------------------------


def trainer(**fields):
    told = {
        "max_epochs": 3,
        "max_steps": -1,
        "num_training_batches": 8,
        "accumulate_grad_batches": 3,
        "world_size": 2,
        "lightning_module": object(),
        "train_dataloader": DataLoader(TensorDataset(torch.ones(16)), batch_size=2),
        "strategy": SimpleNamespace(),
        "callbacks": [],
    }
    return SimpleNamespace(**(told | fields))


def test_epochs_of_a_trainer():
    horizon = horizon_from_lightning(trainer(), tokens_per_sample=10)
    assert horizon == Horizon(
        "3ep", batches_per_epoch=8, batch_size=2, accumulate=3, replicas=2, tokens_per_sample=10
    )
    assert horizon.steps == 9


@pytest.mark.parametrize(
    ("fields", "total"),
    [
        ({"max_steps": 5}, 5.0),  # whichever comes first
        ({"max_steps": 9}, Time(3.0, "ep")),
        ({"max_steps": 50}, Time(3.0, "ep")),
        ({"max_steps": 50, "max_epochs": -1}, 50.0),
        ({"max_steps": 50, "num_training_batches": math.inf}, 50.0),
        ({"max_epochs": -1}, None),
        ({"max_epochs": 0}, Time(1.0, "ep")),
        ({"num_training_batches": math.inf}, None),
    ],
)
def test_what_ends_the_run_first(fields, total):
    assert horizon_from_lightning(trainer(**fields)).total == total


def test_a_run_without_an_end_says_so_where_it_matters():
    endless = horizon_from_lightning(trainer(num_training_batches=math.inf))
    with pytest.raises(UnitError, match="has no total: give Horizon\\(total=...\\)"):
        endless.resolve(Warmup("5%") >> Cosine())
    known = horizon_from_lightning(trainer(num_training_batches=math.inf), batches_per_epoch=30)
    assert known.steps == 30


def test_wall_clock_ends_a_run_that_nothing_else_ends():
    timer = SimpleNamespace(time_remaining=lambda: 5399.9, time_elapsed=lambda: 0.1)
    other = SimpleNamespace()
    fields = {"max_epochs": -1, "callbacks": [other, timer]}
    assert horizon_from_lightning(trainer(**fields)).total == Time(5400.0, "s")
    timer.time_remaining = lambda: None
    assert horizon_from_lightning(trainer(**fields)).total is None


def test_accumulation_by_the_epoch():
    steady = SimpleNamespace(get_accumulate_grad_batches=None, scheduling={0: 4})
    horizon = horizon_from_lightning(trainer(accumulate_grad_batches=1, callbacks=[steady]))
    assert (horizon.accumulate, horizon.steps) == (4, 6)
    changing = SimpleNamespace(get_accumulate_grad_batches=None, scheduling={0: 1, 4: 2})
    with pytest.raises(UnitError, match="accumulation changes from epoch to epoch"):
        horizon_from_lightning(trainer(callbacks=[changing]))
    horizon = horizon_from_lightning(trainer(callbacks=[changing]), total=20, accumulate=1)
    assert (horizon.steps, horizon.accumulate) == (20, 1)


def test_a_strategy_that_accumulates_through_the_end_of_an_epoch_and_one_that_shares_samples():
    strategy = SimpleNamespace(
        handles_gradient_accumulation=True, distributed_sampler_kwargs={"num_replicas": 1}
    )
    horizon = horizon_from_lightning(trainer(strategy=strategy))
    assert (horizon.last, horizon.replicas) == ("carry", 1)
    assert horizon.steps == 8


def test_manual_accumulation_is_the_callers_to_say():
    horizon = horizon_from_lightning(trainer(accumulate_grad_batches=1), accumulate=4)
    assert horizon.steps == 6


def test_a_trainer_that_is_not_fitting():
    with pytest.raises(FieldError, match="must be a Lightning Trainer, got None"):
        horizon_from_lightning(None)
    with pytest.raises(FieldError, match="must be one that is fitting .* configure_optimizers"):
        horizon_from_lightning(trainer(lightning_module=None))


def test_loaders_of_any_form():
    loaders = {"a": [1, 2], "b": [3]}
    assert horizon_from_lightning(trainer(train_dataloader=loaders)).batch_size is None
    sampler = SimpleNamespace(batch_sampler=SimpleNamespace(batch_size=6), batch_size=None)
    assert horizon_from_lightning(trainer(train_dataloader=sampler)).batch_size == 6
