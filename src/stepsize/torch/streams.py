"""The streams of random numbers that a training draws from: kept, and begun anew."""

import hashlib
import random
import sys
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch

from stepsize.torch import ranks
from stepsize.torch.kept import Kept

Stream = tuple[Callable[[], Any], Callable[[Any], Any], Callable[[int], Any]]
"""What reads the state of a stream, what sets it, and what begins the stream of a seed."""


def keep_streams(kept: Kept) -> None:
    """Note where Python's, NumPy's and torch's global streams are."""
    for read, write, _ in _streams():
        kept.then(partial(write, read()))


def begin_streams(*seed: int) -> None:
    """Begin all of them anew.

    Ranks that were seeded alike stay alike, and the others apart: some share out what one stream
    says, and some have a stream each.
    """
    own = torch.initial_seed()
    number = mixed(*seed, own - ranks.from_first(lambda: own))
    for *_, begin in _streams():
        begin(number)


def mixed(*numbers: int) -> int:
    """Give a seed of 32 bits, which is what NumPy and torch on a CPU take, from several numbers.

    >>> mixed(0, 1), mixed(1, 0)
    (2781527649, 3813156222)
    """
    told = hashlib.sha256(repr(numbers).encode()).digest()
    return int.from_bytes(told[:4], "big")


def _streams() -> Iterator[Stream]:
    yield random.getstate, random.setstate, random.seed
    numpy: Any = sys.modules.get("numpy")
    if numpy is not None:
        yield numpy.random.get_state, numpy.random.set_state, numpy.random.seed
    # not torch.manual_seed: it would seed GPUs that nobody uses yet, when somebody does
    yield torch.get_rng_state, torch.set_rng_state, torch.default_generator.manual_seed
    cuda: Any = torch.cuda
    if cuda.is_available() and cuda.is_initialized():
        yield cuda.get_rng_state_all, cuda.set_rng_state_all, cuda.manual_seed_all
    if torch.backends.mps.is_available():
        yield torch.mps.get_rng_state, torch.mps.set_rng_state, torch.mps.manual_seed
