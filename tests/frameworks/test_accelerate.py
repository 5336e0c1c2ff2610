"""Accelerate: one step of the optimizer is one step of the schedule, on one process and on two."""

import json
import math
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from tests.frameworks.watched import BASE, SHAPE, sgd, values, watched
from torch import nn
from torch.optim.lr_scheduler import ReduceLROnPlateau
from torch.utils.data import DataLoader

from stepsize import Cosine
from stepsize.torch import Scheduler

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
BATCHES = 7


@pytest.fixture
def accelerator():
    """Make an accelerator of one process, anew."""
    from accelerate import Accelerator
    from accelerate.state import AcceleratorState, GradientState

    def make(**fields):
        AcceleratorState._reset_state(reset_partial_state=True)
        GradientState._reset_state()
        return Accelerator(cpu=True, **fields)

    return make


def loader(batches=BATCHES):
    return DataLoader(torch.ones(2 * batches, 2), batch_size=2)


def train(accelerator, model, optimizer, scheduler, batches, *, metric=None):
    for number, batch in enumerate(batches):
        with accelerator.accumulate(model):
            accelerator.backward(model(batch).pow(2).mean())
            optimizer.step()
            if metric is None:
                scheduler.step()
            elif number % 2:
                scheduler.step(metric)
            optimizer.zero_grad()


# One process --------------------------------------------------------------------------------------


@pytest.mark.parametrize("accumulate", [1, 2, 3])  # of 7 batches an epoch
def test_a_prepared_scheduler(accelerator, accumulate):
    accelerator = accelerator(gradient_accumulation_steps=accumulate)
    model = nn.Linear(2, 1)
    optimizer = sgd(model.parameters())
    used = watched(optimizer)
    scheduler = Scheduler(optimizer, lr=SHAPE)
    model, optimizer, batches, prepared = accelerator.prepare(model, optimizer, loader(), scheduler)
    assert prepared.scheduler is scheduler
    for _ in range(2):
        train(accelerator, model, optimizer, prepared, batches)
    steps = 2 * math.ceil(BATCHES / accumulate)
    assert used == values(SHAPE, steps)
    assert prepared.get_last_lr() == [BASE * SHAPE(steps)]


def test_a_scheduler_of_a_prepared_optimizer(accelerator):
    """Built after `prepare`, on accelerate's wrapper: it has no hooks, the optimizer in it has."""
    accelerator = accelerator()
    model = nn.Linear(2, 1)
    bare = sgd(model.parameters())
    used = watched(bare)
    model, optimizer, batches = accelerator.prepare(model, bare, loader())
    scheduler = Scheduler(optimizer, lr=SHAPE)
    train(accelerator, model, optimizer, scheduler, batches)
    assert used == values(SHAPE, BATCHES)
    assert scheduler.last_epoch == BATCHES


def test_a_skipped_step_moves_nothing(accelerator):
    """A fused optimizer under a gradient scaler is called for a skipped step, too."""
    accelerator = accelerator()
    accelerator.scaler = torch.amp.GradScaler("cpu", init_scale=4.0)
    model = nn.Linear(2, 1)
    optimizer = sgd(model.parameters(), fused=True)
    scheduler = Scheduler(optimizer, lr=SHAPE)
    model, optimizer, batches, prepared = accelerator.prepare(model, optimizer, loader(), scheduler)
    for number, batch in enumerate(batches):
        factor = float("inf") if number in (2, 3) else 1.0
        accelerator.backward((model(batch) * factor).pow(2).mean())
        optimizer.step()
        prepared.step()
        optimizer.zero_grad()
    assert scheduler.last_epoch == BATCHES - 2


@pytest.mark.parametrize("prepared", [True, False])
def test_a_saved_state(accelerator, tmp_path, prepared):
    """`register_for_checkpointing` is the other way to have it in the checkpoint."""
    made = []
    for number in (5, 4):
        here = accelerator()
        model = nn.Linear(2, 1)
        optimizer = sgd(model.parameters())
        used = watched(optimizer)
        scheduler = Scheduler(optimizer, lr=SHAPE)
        model, optimizer, batches = here.prepare(model, optimizer, loader(number))
        if prepared:
            scheduler = here.prepare(scheduler)
        else:
            here.register_for_checkpointing(scheduler)
        if made:
            here.load_state(tmp_path / "state")
        train(here, model, optimizer, scheduler, batches)
        here.save_state(tmp_path / "state")
        made.append(used)
    assert made == [values(SHAPE, 5), values(SHAPE, 4, start=5)]
    name = "scheduler.bin" if prepared else "custom_checkpoint_0.pkl"
    assert (tmp_path / "state" / name).exists()


def test_following_the_optimizer(accelerator):
    accelerator = accelerator(gradient_accumulation_steps=2)
    model = nn.Linear(2, 1)
    optimizer = sgd(model.parameters())
    used = watched(optimizer)
    momentum = Cosine(9, start=0.9, stop=0.8).absolute()
    momenta = watched(optimizer, "momentum")
    scheduler = Scheduler(optimizer, lr=SHAPE, momentum=momentum, follow=True)
    model, optimizer, batches = accelerator.prepare(model, optimizer, loader())
    for batch in batches:
        with accelerator.accumulate(model):
            accelerator.backward(model(batch).pow(2).mean())
            optimizer.step()
            optimizer.zero_grad()
    assert used == values(SHAPE, 4)
    assert momenta == [momentum(t) for t in range(4)]
    assert scheduler.last_epoch == 4


def test_a_metric_through_a_prepared_scheduler(accelerator):
    from stepsize.feedback import Plateau

    accelerator = accelerator()
    model = nn.Linear(2, 1)
    optimizer = sgd(model.parameters())
    used = watched(optimizer)
    scheduler = Scheduler(optimizer, lr=SHAPE, feedback=Plateau(patience=0, factor=0.5))
    assert isinstance(scheduler, ReduceLROnPlateau)
    model, optimizer, batches, prepared = accelerator.prepare(model, optimizer, loader(), scheduler)
    train(accelerator, model, optimizer, prepared, batches, metric=1.0)
    factors = [1.0, 1.0, 1.0, 1.0, 0.5, 0.5, 0.25]
    assert used == [factor * value for factor, value in zip(factors, values(SHAPE, 7), strict=True)]


# Two processes ------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def launched(tmp_path_factory):
    """What two real processes used, by rank."""
    folder = tmp_path_factory.mktemp("launched")
    # `accelerate launch --cpu --num_processes 2` starts one process where there is no MPI
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    command += ["--nproc-per-node", "2", str(HERE / "on_processes.py"), str(folder)]
    paths = [str(ROOT / "src"), str(ROOT), os.environ.get("PYTHONPATH", "")]
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths)), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(  # noqa: S603 (our own script)
        command, env=env, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return [json.loads((folder / f"{rank}.json").read_text()) for rank in (0, 1)]


@pytest.mark.slow
@pytest.mark.parametrize("split", [False, True])
@pytest.mark.parametrize("accumulate", [1, 2])
def test_two_processes(launched, accumulate, split):
    for rank, found in enumerate(launched):
        ours = found[f"ours-{accumulate}-{split}"]
        assert (ours["processes"], ours["rank"]) == (2, rank)
        assert ours["used"] == values(SHAPE, 8)
        assert ours["steps"] == 8
        theirs = found[f"theirs-{accumulate}-{split}"]
        right = [BASE * (1 + math.cos(math.pi * t / 8)) / 2 for t in range(8)]
        if split:
            assert theirs["used"] == pytest.approx(right)
            assert theirs["steps"] == 8
        else:  # called twice for each step: down in half the time, and up again
            twice = [BASE * (1 + math.cos(math.pi * 2 * t / 8)) / 2 for t in range(8)]
            assert theirs["used"] == pytest.approx(twice)
            assert theirs["steps"] == 16


@pytest.mark.slow
@pytest.mark.parametrize("split", [False, True])
@pytest.mark.parametrize("accumulate", [1, 2])
def test_a_metric_on_two_processes_counts_once(launched, accumulate, split):
    """Accelerate shows it twice: torch's own plateau would lose its patience in half the time."""
    factors = [1.0, 1.0, 1.0, 1.0, 0.5, 0.5, 0.25, 0.25]
    for found in launched:
        ours = found[f"plateau-{accumulate}-{split}"]
        assert ours["used"] == [f * v for f, v in zip(factors, values(SHAPE, 8), strict=True)]
        assert ours["steps"] == 8
