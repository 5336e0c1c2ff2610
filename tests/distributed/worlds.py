"""Real processes in one gloo group that wait for cases to run, and are never left behind."""

import multiprocessing
import os
import time
import traceback
import warnings
from contextlib import suppress
from datetime import timedelta
from multiprocessing.connection import wait

START = 120.0  # seconds that processes may take to start, on a machine that does much else
LIMIT = 60.0  # and that a case may take
HANG = timedelta(seconds=30)  # after which a collective that not all make is an error


class World:
    """Some ranks; `run` calls a function on all of them and gives the answers in their order."""

    def __init__(self, size, folder):
        self.size = size
        context = multiprocessing.get_context("spawn")
        self._pipes, self._ranks = [], []
        for rank in range(size):
            here, there = context.Pipe()
            given = (there, rank, size, str(folder / "rendezvous"))
            process = context.Process(target=_serve, args=given, daemon=True)
            process.start()
            there.close()
            self._pipes.append(here)
            self._ranks.append(process)
        self._run(START, os.getpid, {})

    def run(self, case, **given):
        return self._run(LIMIT, case, given)

    def _run(self, limit, case, given):
        for pipe in self._pipes:
            with suppress(ConnectionError):  # of one that has died: there will be no answer
                pipe.send((case, given))
        answers, left = {}, dict(enumerate(self._pipes))
        end = time.monotonic() + limit
        while left and (ready := wait(left.values(), max(end - time.monotonic(), 0.0))):
            for rank in [rank for rank, pipe in left.items() if pipe in ready]:
                try:
                    answers[rank] = left.pop(rank).recv()
                except (EOFError, ConnectionError):
                    answers[rank] = (False, "it died")
        failed = [f"rank {rank}: {told}" for rank, (good, told) in answers.items() if not good]
        failed += [f"rank {rank}: no answer in {limit:g} seconds" for rank in left]
        if failed:
            self.close()
        assert not failed, "\n".join(failed)
        return [answers[rank][1] for rank in range(self.size)]

    @property
    def alive(self):
        return bool(self._ranks)

    def close(self):
        for process in self._ranks:
            process.kill()
        for process in self._ranks:
            process.join()
        for pipe in self._pipes:
            pipe.close()
        self._ranks, self._pipes = [], []


def _serve(pipe, rank, size, store):
    os.environ["OMP_NUM_THREADS"] = "1"
    import torch
    from torch import distributed

    from stepsize.torch.guards import StepsizeWarning

    warnings.simplefilter("ignore")
    warnings.simplefilter("error", StepsizeWarning)
    torch.set_num_threads(1)
    distributed.init_process_group(
        "gloo", init_method=f"file://{store}", rank=rank, world_size=size, timeout=HANG
    )
    while True:
        try:
            case, given = pipe.recv()
        except EOFError:
            return
        try:
            pipe.send((True, case(**given)))
        except Exception:  # noqa: BLE001 (told to the test)
            pipe.send((False, traceback.format_exc()))
