"""transformers' Trainer: the value used at every optimizer step, its checkpoints, its logs."""

import json
from types import SimpleNamespace

import pytest
import torch
from tests.frameworks.watched import BASE, LOSSES, SHAPE, guarded, sgd, values, watched
from torch import nn
from torch.utils.data import BatchSampler, DataLoader, IterableDataset, SequentialSampler

from stepsize import Cosine, Horizon, Warmup
from stepsize.frameworks import horizon_from_training_args
from stepsize.torch import Scheduler

pytestmark = pytest.mark.slow  # importing the Trainer takes 7 s

SAMPLES = 10


@pytest.fixture(scope="module")
def transformers():
    import transformers

    assert transformers.Trainer
    return transformers


class Tiny(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(2, 1)

    def forward(self, input_ids, labels):
        return {"loss": (self.layer(input_ids).squeeze(-1) - labels).pow(2).mean()}


def samples(number=SAMPLES):
    return [{"input_ids": torch.ones(2), "labels": 1.0} for _ in range(number)]


class Stream(IterableDataset):
    def __init__(self, number=SAMPLES):
        self.number = number

    def __iter__(self):
        return iter(samples(self.number))


class Sized(Stream):
    def __len__(self):
        return self.number


@pytest.fixture
def arguments(transformers, tmp_path):
    def make(**fields):
        quiet = {
            "output_dir": str(tmp_path),
            "use_cpu": True,
            "report_to": [],
            "disable_tqdm": True,
            "save_strategy": "no",
            "dataloader_pin_memory": False,
            "per_device_train_batch_size": 2,
            "num_train_epochs": 3,
        }
        return transformers.TrainingArguments(**(quiet | fields))

    return make


@pytest.fixture
def train(transformers):
    """Train with a scheduler, give what was used and the trainer."""

    def run(args, make, data=None, *, resume=None, model=None, after=False, **fields):
        model = model or Tiny()
        optimizer = sgd(model.parameters())
        used = watched(optimizer, after=after)
        trainer = transformers.Trainer(
            model,
            args,
            train_dataset=samples() if data is None else data,
            optimizers=(optimizer, make(optimizer)),
            **fields,
        )
        trainer.train(resume_from_checkpoint=resume)
        return used, trainer

    return run


def shaped(optimizer):
    return Scheduler(optimizer, lr=SHAPE)


# Steps --------------------------------------------------------------------------------------------


def test_every_step_uses_its_value(train, arguments):
    used, trainer = train(arguments(), shaped)
    assert used == values(SHAPE, 15)
    assert trainer.lr_scheduler.last_epoch == trainer.state.global_step == 15


@pytest.mark.parametrize("accumulate", [3, 5, 8])  # of 5 batches an epoch
def test_accumulated_batches_are_one_step(train, arguments, accumulate):
    used, trainer = train(arguments(gradient_accumulation_steps=accumulate), shaped)
    assert used == values(SHAPE, trainer.state.global_step)
    assert len(used) == 3 * -(-5 // accumulate)


def test_following_the_optimizer(train, arguments):
    used, _ = train(arguments(), lambda optimizer: Scheduler(optimizer, lr=SHAPE, follow=True))
    assert used == values(SHAPE, 15)


def test_what_is_logged_is_what_was_used(train, arguments):
    used, trainer = train(arguments(logging_steps=1), shaped)
    logged = [row["learning_rate"] for row in trainer.state.log_history if "learning_rate" in row]
    assert logged == used == values(SHAPE, 15)


@pytest.mark.parametrize("wrapped", [False, True])
def test_a_trainer_that_makes_its_own_scheduler(transformers, arguments, wrapped):
    """There the Trainer holds accelerate's wrapper, which has no hooks, around the optimizer."""

    class Ours(transformers.Trainer):
        def create_scheduler(self, num_training_steps, optimizer=None):
            del optimizer  # it is self.optimizer
            bare = self.optimizer.optimizer
            self.used = watched(bare)
            self.lr_scheduler = Scheduler(
                self.optimizer if wrapped else bare,
                lr=Warmup("20%") >> Cosine(),
                horizon=Horizon(num_training_steps),
            )
            return self.lr_scheduler

    trainer = Ours(Tiny(), arguments(learning_rate=BASE), train_dataset=samples())
    trainer.train()
    assert trainer.used == values(Horizon(15).resolve(Warmup("20%") >> Cosine()), 15)


# How long the run is ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "data", "steps"),
    [
        ({}, samples(), 15),
        ({"per_device_train_batch_size": 3}, samples(), 12),
        ({"per_device_train_batch_size": 3, "dataloader_drop_last": True}, samples(), 9),
        ({"gradient_accumulation_steps": 2}, samples(), 9),
        ({"gradient_accumulation_steps": 3, "dataloader_drop_last": True}, samples(9), 6),
        ({"gradient_accumulation_steps": 9}, samples(), 3),
        ({"num_train_epochs": 1.5}, samples(), 8),
        ({"num_train_epochs": 0.5, "gradient_accumulation_steps": 2}, samples(), 2),
        ({"num_train_epochs": 2.2}, samples(), 11),
        ({"max_steps": 7}, samples(), 7),
        ({"max_steps": 7, "num_train_epochs": 1}, samples(), 7),
        ({"max_steps": 4, "gradient_accumulation_steps": 2}, Stream(), 4),
        ({"dataloader_drop_last": True, "num_train_epochs": 1}, Sized(9), 5),
        ({"train_sampling_strategy": "group_by_length"}, samples(), 15),
        ({"train_sampling_strategy": "sequential"}, samples(), 15),
        (
            {"train_sampling_strategy": "batch_rebalance", "gradient_accumulation_steps": 3},
            samples(),
            6,
        ),
        (
            {
                "train_sampling_strategy": "batch_rebalance",
                "gradient_accumulation_steps": 3,
                "dataloader_drop_last": True,
            },
            samples(),
            3,
        ),
        ({"accelerator_config": {"split_batches": True}}, samples(), 15),
    ],
)
def test_the_horizon_is_what_the_trainer_does(train, arguments, fields, data, steps):
    args = arguments(**fields)
    horizon = horizon_from_training_args(args, data)
    shape = Warmup("20%") >> Cosine()
    used, trainer = train(
        args, lambda optimizer: Scheduler(optimizer, lr=shape, horizon=horizon), data
    )
    assert horizon.steps == steps == trainer.state.max_steps == trainer.state.global_step
    assert used == values(horizon.resolve(shape), steps)


@pytest.mark.parametrize("split", [False, True])
@pytest.mark.parametrize("drop", [False, True])
@pytest.mark.parametrize("processes", [2, 3])
@pytest.mark.parametrize("accumulate", [1, 2, 3])
def test_what_the_trainer_would_do_on_several_processes(
    transformers, processes, accumulate, drop, split
):
    """Its own arithmetic, over the shares that accelerate gives a process."""
    from accelerate.data_loader import BatchSamplerShard

    for number in range(12, 40):
        args = SimpleNamespace(
            max_steps=-1,
            num_train_epochs=2.5,
            train_batch_size=6,
            gradient_accumulation_steps=accumulate,
            world_size=processes,
            dataloader_drop_last=drop,
            accelerator_config=SimpleNamespace(split_batches=split),
        )
        batches = BatchSampler(SequentialSampler(range(number)), 6, drop_last=drop)
        shard = BatchSamplerShard(batches, processes, 0, split_batches=split)
        if not len(shard):
            continue
        trainer = SimpleNamespace(
            args=args,
            get_total_train_batch_size=lambda args: 1,
            get_sp_size=lambda: 1,
            num_examples=lambda loader: 1,
        )
        loader = DataLoader(range(number), batch_sampler=shard)
        found = transformers.Trainer.set_initial_training_values(trainer, args, loader)
        assert horizon_from_training_args(args, range(number)).steps == found[-1]


def test_a_horizon_bound_at_the_first_step(train, arguments):
    args, shape = arguments(), Warmup("20%") >> Cosine()
    horizon = lambda: horizon_from_training_args(args, samples())
    make = lambda optimizer: Scheduler(optimizer, lr=shape, horizon=horizon)
    used, _ = train(args, make, after=True)
    assert used == values(Horizon(15).resolve(shape), 15)


def test_a_horizon_from_arguments_by_its_constructor(arguments):
    args = arguments(max_steps=5)
    assert Horizon.from_training_args(args) == horizon_from_training_args(args)
    assert Horizon.from_training_args(args, samples(), tokens_per_sample=8).steps == 5


# Checkpoints --------------------------------------------------------------------------------------


def test_its_own_checkpoint_goes_on_at_the_same_value(train, arguments, tmp_path):
    saving = {"save_strategy": "steps", "save_steps": 6}  # in the second epoch
    whole, _ = train(arguments(**saving), shaped)
    state = torch.load(tmp_path / "checkpoint-6" / "scheduler.pt", weights_only=True)
    assert {type(leaf) for leaf in state.values()} <= {int, float, str}
    resumed, trainer = train(arguments(**saving), shaped, resume=str(tmp_path / "checkpoint-6"))
    assert resumed == whole[6:] == values(SHAPE, 9, start=6)
    assert trainer.lr_scheduler.last_epoch == 15


def test_its_own_checkpoint_at_the_end_of_an_epoch_with_accumulation(train, arguments, tmp_path):
    fields = {"save_strategy": "epoch", "gradient_accumulation_steps": 2}
    whole, _ = train(arguments(**fields), shaped)
    resumed, _ = train(arguments(**fields), shaped, resume=str(tmp_path / "checkpoint-3"))
    assert resumed == whole[3:] == values(SHAPE, 6, start=3)


# Metrics ------------------------------------------------------------------------------------------


def plateau(optimizer):
    from stepsize.feedback import Plateau

    return Scheduler(optimizer, lr=SHAPE, feedback=Plateau(patience=0, factor=0.5))


EVALUATING = {
    "eval_strategy": "steps",
    "eval_steps": 3,
    "metric_for_best_model": "score",
    "greater_is_better": False,
}


def graded(values):
    """Give a `compute_metrics` that grades the evaluations one after the other."""
    left = iter(values)
    return {
        "model": Graded(),
        "eval_dataset": samples(2),
        "compute_metrics": lambda _: {"score": next(left)},
        "preprocess_logits_for_metrics": lambda logits, labels: labels,
    }


def halved(scores):
    """What torch's own plateau makes of the scores: the factor from each of them on."""
    optimizer = torch.optim.SGD([nn.Parameter(torch.ones(1))], lr=1.0)
    theirs = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, factor=0.5, patience=0)
    factors = []
    for score in scores:
        theirs.step(score)
        factors.append(optimizer.param_groups[0]["lr"])
    return factors


class Graded(Tiny):
    """Gives something to grade."""

    def forward(self, input_ids, labels):
        return {**super().forward(input_ids, labels), "logits": labels}


SCORES = [1.0, 1.1, 0.9, 0.95, 0.8]


def test_a_metric_is_routed_and_every_step_has_the_schedules_value(train, arguments):
    used, trainer = train(arguments(**EVALUATING), plateau, **graded(SCORES))
    factors = [1.0, *halved(SCORES)]
    assert factors == [1.0, 1.0, 0.5, 0.5, 0.25, 0.25]
    assert used == [BASE * SHAPE(t) * factors[t // 3] for t in range(15)]
    assert trainer.lr_scheduler.last_epoch == 15


def test_what_a_controller_knows_is_in_the_checkpoint(train, arguments, tmp_path):
    fields = {**EVALUATING, "save_strategy": "steps", "save_steps": 7}
    whole, _ = train(arguments(**fields), plateau, **graded(SCORES))
    resumed, _ = train(
        arguments(**fields), plateau, resume=str(tmp_path / "checkpoint-7"), **graded(SCORES[2:])
    )
    assert resumed == whole[7:]
    told = json.loads((tmp_path / "checkpoint-7" / "trainer_state.json").read_text())
    assert told["global_step"] == 7


def test_a_loss_is_observed_by_a_trainer_of_ones_own(transformers, arguments):
    class Observing(transformers.Trainer):
        def compute_loss(self, *args, **kwargs):
            self.lr_scheduler.observe(LOSSES[self.state.global_step])
            return super().compute_loss(*args, **kwargs)

    guard, factors = guarded()
    model = Tiny()
    optimizer = sgd(model.parameters())
    used = watched(optimizer)
    scheduler = Scheduler(optimizer, lr=SHAPE, feedback=guard)
    trainer = Observing(
        model, arguments(), train_dataset=samples(), optimizers=(optimizer, scheduler)
    )
    trainer.train()
    assert used == [BASE * SHAPE(t) * factor for t, factor in enumerate(factors)]
