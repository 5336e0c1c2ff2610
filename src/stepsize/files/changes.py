"""Where two descriptions differ, field by field."""

import json
from collections.abc import Iterator
from typing import Any


def changes(was: Any, now: Any, path: str = "") -> Iterator[tuple[str, str, str]]:
    """Give the path to every difference of two pieces of plain data, and the two as text.

    >>> list(changes({"kind": "cosine", "over": 10}, {"kind": "cosine", "over": 10, "stop": 0.1}))
    [('stop', 'nothing', '0.1')]
    """
    if isinstance(was, dict) and isinstance(now, dict) and was.get("kind") == now.get("kind"):
        for key in sorted({*was, *now}):
            yield from changes(was.get(key), now.get(key), f"{path}.{key}".lstrip("."))
    elif isinstance(was, list) and isinstance(now, list) and len(was) == len(now):
        for i, (one, other) in enumerate(zip(was, now, strict=True)):
            yield from changes(one, other, f"{path}[{i}]")
    elif was != now:
        yield path, _shown(was), _shown(now)


def _shown(value: Any) -> str:
    return "nothing" if value is None else json.dumps(value)
