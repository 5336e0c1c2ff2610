"""What the hook and the hot path share: one list, because a list's items are the cheapest to reach.

| item | is |
| --- | --- |
| STEPS | optimizer steps completed: the only counter |
| FIRED | whether the optimizer's own hook counts; while not, a call of `step()` counts one |
| START | steps at the start, from which the first hook counts on |
| KNOWN | the driver's list of param groups, as it was bound |
| LIMIT | the step from which the hook calls for help: below all until it has fired once |
| ALARM | the step at which `step()` looks after what is seldom due |
| OWN | steps that the hook has seen, where calls are counted |
| WRITE | what writes the present values, where the scheduler follows |
"""

import math
from typing import Any

STEPS, FIRED, START, KNOWN, LIMIT, ALARM, OWN, WRITE = range(8)
Cell = list[Any]


def new_cell() -> Cell:
    """Give the cell of a scheduler that is at the start."""
    return [0.0, 0.0, 0.0, None, -math.inf, 0.0, 0.0, None]
