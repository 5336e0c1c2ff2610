"""The global streams of random numbers, seen from outside, of whatever libraries are loaded."""

import random
import sys
from typing import Any


def streams() -> dict[str, Any]:
    """Give where each of them stands, as what can be compared."""
    found: dict[str, Any] = {"Python's random": random.getstate()}
    numpy: Any = sys.modules.get("numpy")
    if numpy is not None:
        found["numpy.random"] = _plain(numpy.random.get_state(legacy=False))
    torch: Any = sys.modules.get("torch")
    if torch is not None:
        found["torch's generator"] = torch.get_rng_state().tolist()
    return found


def moved(before: dict[str, Any], after: dict[str, Any]) -> list[str]:
    """Name those that stand elsewhere now."""
    return [name for name, state in before.items() if after[name] != state]


def _plain(state: Any) -> Any:
    if isinstance(state, dict):
        return {key: _plain(value) for key, value in state.items()}
    return state.tolist() if hasattr(state, "tolist") else state
