"""Run by torchrun: trains under accelerate, with ours and torch's cosine; writes what was used."""

import json
import sys
from pathlib import Path

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState, GradientState
from accelerate.utils import DataLoaderConfiguration
from tests.frameworks.watched import SHAPE, sgd, watched
from torch import nn
from torch.optim.lr_scheduler import CosineAnnealingLR, ReduceLROnPlateau
from torch.utils.data import DataLoader

from stepsize.feedback import Plateau
from stepsize.torch import Scheduler

STEPS = 8
MAKERS = {
    "ours": lambda optimizer: Scheduler(optimizer, lr=SHAPE),
    "plateau": lambda optimizer: Scheduler(
        optimizer, lr=SHAPE, feedback=Plateau(patience=0, factor=0.5)
    ),
    "theirs": lambda optimizer: CosineAnnealingLR(optimizer, T_max=STEPS),
}


def trained(make, accumulate, *, split):
    AcceleratorState._reset_state()
    GradientState._reset_state()
    accelerator = Accelerator(
        cpu=True,
        gradient_accumulation_steps=accumulate,
        dataloader_config=DataLoaderConfiguration(split_batches=split),
    )
    model = nn.Linear(2, 1)
    optimizer = sgd(model.parameters())
    used = watched(optimizer)
    scheduler = make(optimizer)
    batches = STEPS * accumulate * (1 if split else accelerator.num_processes)
    loader = DataLoader(torch.ones(2 * batches, 2), batch_size=2)
    model, optimizer, loader, prepared = accelerator.prepare(model, optimizer, loader, scheduler)
    for number, batch in enumerate(loader):
        with accelerator.accumulate(model):
            accelerator.backward(model(batch).pow(2).mean())
            optimizer.step()
            if not isinstance(scheduler, ReduceLROnPlateau):
                prepared.step()
            elif number // accumulate % 2:  # an evaluation after every second step
                prepared.step(torch.tensor(1.0))
            optimizer.zero_grad()
    told = {"used": used, "steps": scheduler.last_epoch, "processes": accelerator.num_processes}
    return told | {"rank": accelerator.process_index}


if __name__ == "__main__":
    found = {
        f"{name}-{accumulate}-{split}": trained(make, accumulate, split=split)
        for name, make in MAKERS.items()
        for accumulate in (1, 2)
        for split in (False, True)
    }
    rank = found["ours-1-False"]["rank"]
    Path(sys.argv[1], f"{rank}.json").write_text(json.dumps(found))
