"""A training that is killed, restarted and moved to other numbers of ranks; torchrun runs it too.

Samples are numbered, so that any number of ranks trains on the same ones; every rank sees a metric
of its own, whose mean over the ranks is the same on any number of them.
"""

import json
import os
import signal
import sys
import threading
import time
from pathlib import Path

import torch
from torch import distributed, nn
from torch.nn.parallel import DistributedDataParallel

from stepsize import Cosine, Horizon, Warmup
from stepsize.feedback import Plateau, SpikeGuard
from stepsize.torch import Scheduler

BATCH, TOKENS = 4, 8  # of one rank; of one sample
EVALUATION = 512  # tokens between two


def sample(number):
    generator = torch.Generator().manual_seed(number)
    return torch.randn(3, generator=generator, dtype=torch.float64)


def metric_at(tokens, rank, ranks):
    return 4.0 - min(tokens, 2048) / 1024 + (rank - (ranks - 1) / 2) / 8


class Training:
    """One attempt at the run: from the last checkpoint in the folder, if there is one."""

    def __init__(self, folder, *, accumulate=1, guard=False, kill=None):
        self.rank, self.ranks = distributed.get_rank(), distributed.get_world_size()
        self.folder, self.accumulate, self.kill = Path(folder), accumulate, kill or {}
        torch.manual_seed(0)
        self.model = DistributedDataParallel(nn.Linear(3, 2, dtype=torch.float64))
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=0.0625)
        feedback = [Plateau(factor=0.5, patience=2)]
        feedback += [SpikeGuard(cold=4, consecutive=1, recover=6)] if guard else []
        self.guard = guard
        self.scheduler = Scheduler(
            self.optimizer,
            lr=Warmup(f"{EVALUATION}tok") >> Cosine(stop=0.1),
            horizon=Horizon(
                "8192tok",
                batch_size=BATCH,
                tokens_per_sample=TOKENS,
                accumulate=accumulate,
                replicas=self.ranks,
            ),
            feedback=feedback,
        )
        self.tokens, self.rows = 0, []
        self._load()

    @property
    def saved(self):
        return self.folder / "checkpoint.pt"

    def _load(self):
        if not self.saved.exists():
            return
        state = torch.load(self.saved, weights_only=True)
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.scheduler.load_state_dict(state["scheduler"])
        self.tokens = state["tokens"]

    def save(self):
        """Write a checkpoint that is either the old one or the new one, whenever it is cut off."""
        if self.rank == 0:
            parts = {"model": self.model, "optimizer": self.optimizer, "scheduler": self.scheduler}
            state = {name: part.state_dict() for name, part in parts.items()}
            unfinished = self.folder / "checkpoint.unfinished"
            torch.save({**state, "tokens": self.tokens}, unfinished)
            self._die("saving")
            unfinished.replace(self.saved)
        distributed.barrier()

    def _die(self, where):
        first = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0") == "0"
        if first and self.kill == {"rank": self.rank, "tokens": self.tokens, "where": where}:
            os.kill(os.getpid(), signal.SIGKILL)

    def step(self):
        rate = self.optimizer.param_groups[0]["lr"]
        first, share = self.tokens // TOKENS, BATCH * self.ranks
        whole = torch.zeros((), dtype=torch.float64)
        self.optimizer.zero_grad()
        for part in range(self.accumulate):
            begin = first + part * share + self.rank * BATCH
            inputs = torch.stack([sample(begin + i) for i in range(BATCH)])
            loss = (self.model(inputs) - inputs[:, :2].sin()).pow(2).mean() / self.accumulate
            loss.backward()
            whole += loss.detach()
        self._die("training")
        self.optimizer.step()
        self.scheduler.step()
        row = {"tokens": self.tokens, "rate": rate, "loss": whole.item()}
        self.tokens += self.accumulate * share * TOKENS
        if self.guard:
            spike = 100.0 * self.rank if self.tokens == 10 * EVALUATION else 0.0
            self.scheduler.observe(whole + spike)
        if self.tokens % EVALUATION == 0:
            self.scheduler.step(metric_at(self.tokens, self.rank, self.ranks))
        if self.tokens == 2 * EVALUATION:
            self.scheduler.extend("10240tok" if self.rank == 0 else "9000tok")
        if self.tokens == 14 * EVALUATION:
            self.scheduler.cool_down(f"{2 * EVALUATION}tok", to=0.125)
        self.rows.append(row)
        if self.rank == 0:
            with (self.folder / "rows.jsonl").open("a") as file:
                file.write(json.dumps(row) + "\n")

    def weights(self):
        return [p.tolist() for p in self.model.parameters()]


def trained(folder, until, every, **given):
    """Train up to a number of tokens, with a checkpoint after every so many."""
    training = Training(folder, **given)
    while training.tokens < until:
        training.step()
        if training.tokens % every == 0:
            training.save()
    return {
        "rows": training.rows,
        "weights": training.weights(),
        "state": training.scheduler.state_dict(),
        "journal": training.scheduler.journal,
    }


def _end_with(parent):
    """End when the launcher does, however that ends."""
    while os.getppid() == parent:
        time.sleep(0.2)
    os._exit(1)


if __name__ == "__main__":
    threading.Thread(target=_end_with, args=(os.getppid(),), daemon=True).start()
    torch.set_num_threads(1)
    distributed.init_process_group("gloo")
    given = json.loads(Path(sys.argv[1]).read_text())
    found = trained(**given)
    Path(given["folder"], f"rank{distributed.get_rank()}.json").write_text(json.dumps(found))
    distributed.destroy_process_group()
