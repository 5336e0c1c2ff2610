"""A tiny training that watches its folder, saves checkpoints there and resumes from them."""

import argparse
import json
import signal
import time
from pathlib import Path

import torch
from torch import distributed, nn

from stepsize import Constant, Horizon, Warmup
from stepsize.control.mailbox import Mailbox
from stepsize.torch import Scheduler


def arguments():
    parser = argparse.ArgumentParser()
    parser.add_argument("run", type=Path)
    parser.add_argument("--steps", type=int, default=1_000_000)
    parser.add_argument("--sleep", type=float, default=0.01)
    parser.add_argument("--save-every", type=int, default=0)
    parser.add_argument("--life", type=float, default=0.0)
    parser.add_argument("--answered", action="store_true", help="end when all is answered")
    parser.add_argument("--rank", type=int, default=0)
    parser.add_argument("--store", help="a file through which two ranks meet")
    return parser.parse_args()


def main():
    told = arguments()
    torch.set_num_threads(1)
    if told.store:
        url = f"file://{told.store}"
        distributed.init_process_group("gloo", url, rank=told.rank, world_size=2)
    param = nn.Parameter(torch.ones(3))
    optimizer = torch.optim.SGD([param], lr=0.1)
    schedule = Warmup(10) >> Constant("rest")
    scheduler = Scheduler(optimizer, lr=schedule, horizon=Horizon(told.steps))
    lives = {signal.SIGUSR1: told.life, signal.SIGTERM: told.life} if told.life else None
    scheduler.watch(told.run, signals=lives)
    checkpoint, box = told.run / "checkpoint.pt", Mailbox(told.run)
    if checkpoint.exists():
        state = torch.load(checkpoint, weights_only=True)
        optimizer.load_state_dict(state["optimizer"])
        scheduler.load_state_dict(state["scheduler"])
    while told.answered or not scheduler.finished:
        param.grad = torch.ones(3)
        optimizer.step()
        scheduler.step()
        time.sleep(told.sleep)
        step = scheduler.last_epoch
        if told.save_every and step % told.save_every == 0:
            state = {"optimizer": optimizer.state_dict(), "scheduler": scheduler.state_dict()}
            torch.save(state, checkpoint.with_suffix(".new"))
            checkpoint.with_suffix(".new").replace(checkpoint)
        if told.answered and settled(box, scheduler):
            break
    lr = optimizer.param_groups[0]["lr"]
    found = {"step": scheduler.last_epoch, "lr": lr, "journal": scheduler.journal}
    print(json.dumps({**found, "at": time.time()}))  # noqa: T201

    if told.store:
        distributed.destroy_process_group()


def settled(box, scheduler):
    """Whether every request is answered, and training has passed the steps they name."""
    names, answered = box.names()
    steps = [box.answer(name).step for name in answered] if set(names) <= set(answered) else [1e9]
    return scheduler.last_epoch > max(steps, default=0) + 10


if __name__ == "__main__":
    main()
