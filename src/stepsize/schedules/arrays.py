"""Schedules on arrays: the names of a formula for numpy, torch, jax and any array-API library.

No framework is imported: an array brings its own namespace along.
"""

import math
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from stepsize.errors import FieldError
from stepsize.schedules.fields import Bounds
from stepsize.schedules.formula import Branch

if TYPE_CHECKING:
    from stepsize.schedules.schedule import Schedule


class ArrayNames:
    """The names of `Names` over an array namespace; `like` gives new arrays dtype and device."""

    pi = math.pi

    def __init__(self, xp: Any, like: Any) -> None:
        self._xp, self._like = xp, like
        for name in ("sin", "cos", "exp", "expm1", "log", "log1p", "floor"):
            setattr(self, name, getattr(xp, name))

    def array(self, x: Any) -> Any:
        """Give a number as an array that meets the others."""
        if isinstance(x, float | int):
            return self._xp.asarray(x, dtype=self._like.dtype, device=self._like.device)
        return x

    def sqrt(self, x: Any) -> Any:
        """Square root, with derivative 0 at 0: inf would make NaN of a branch that is not taken."""
        return self._positive(x, self._xp.sqrt)

    def power(self, base: Any, exponent: Any) -> Any:
        if isinstance(base, float | int):
            whole = isinstance(exponent, float | int)
            return base**exponent if whole else self.array(float(base)) ** exponent
        if exponent == 2.0:  # noqa: PLR2004 (faster, and the same value)
            return base * base
        return self._positive(base, lambda x: x**exponent)

    def _positive(self, x: Any, function: Callable[[Any], Any]) -> Any:
        inside = x > 0.0
        return self.where(inside, function(self.where(inside, x, 1.0)), 0.0)

    def clip(self, x: Any, low: float, high: float) -> Any:
        if isinstance(x, float | int):
            return min(max(x, low), high)
        if high == math.inf:
            return self.where(x < low, low, x) if low > -math.inf else x
        return self._xp.clip(x, low, high)

    def where(self, condition: Any, then: Any, otherwise: Any) -> Any:
        if isinstance(condition, bool):
            return then if condition else otherwise
        if isinstance(then, tuple):
            return tuple(map(self.where, [condition] * len(then), then, otherwise))
        return self._xp.where(condition, self.array(then), self.array(otherwise))

    def choose(self, condition: Any, then: Branch, otherwise: Branch) -> Any:
        return self.where(condition, then(), otherwise())

    def search(self, table: tuple[float, ...], x: Any) -> Any:
        """Count the entries that are <= x; a whole number as a float, as in every formula."""
        x = self.array(x)
        if not table:
            return self._xp.zeros_like(x)
        flat = self._xp.reshape(x, (-1,))
        found = self._searched(self._table(table), flat)
        return self._xp.reshape(self._cast(found, self._like.dtype), x.shape)

    def take(self, table: tuple[float, ...], index: Any) -> Any:
        index = self.array(index)
        flat = self._cast(self._xp.reshape(index, (-1,)), self._xp.int64)
        return self._xp.reshape(self._xp.take(self._table(table), flat), index.shape)

    def _searched(self, table: Any, flat: Any) -> Any:
        return self._xp.searchsorted(table, flat, side="right")

    def _cast(self, x: Any, dtype: Any) -> Any:
        return self._xp.astype(x, dtype)

    def call(self, function: Callable[[Any], Any], x: Any) -> Any:
        return function(x)

    def __getattr__(self, name: str) -> Any:
        """Speak `Names` to the type checker: the functions are set above, by name."""
        raise AttributeError(name)

    def _table(self, table: tuple[float, ...]) -> Any:
        return self._xp.asarray(table, dtype=self._like.dtype, device=self._like.device)


class JaxNames(ArrayNames):
    """jax: arrays are placed by jax itself, and a table is a constant."""

    def array(self, x: Any) -> Any:
        return self._xp.asarray(x, dtype=self._like.dtype) if isinstance(x, float | int) else x

    def _table(self, table: tuple[float, ...]) -> Any:
        return self._xp.asarray(table, dtype=self._like.dtype)

    def _cast(self, x: Any, dtype: Any) -> Any:
        return x.astype("int32" if dtype == self._xp.int64 else dtype)


class TorchNames(ArrayNames):
    """torch, eager or traced by torch.compile."""

    def _searched(self, table: Any, flat: Any) -> Any:
        return self._xp.searchsorted(table, flat.contiguous(), right=True)

    def _cast(self, x: Any, dtype: Any) -> Any:
        return x.to(dtype)


def evaluate(schedule: "Schedule", t: Any) -> Any:
    """Give the schedule's values at an array of times (or at any real number that is no float).

    Whole numbers count as float64 where the library and the device have it.
    """
    if isinstance(t, bool) or not (hasattr(t, "dtype") or hasattr(t, "__float__")):
        raise FieldError.of("t", "a number or an array", t)
    if not hasattr(t, "dtype"):
        return schedule(float(t))
    owner = type(t).__module__.partition(".")[0]
    if owner == "torch":
        return _torch(schedule, t)
    if owner == "numpy":
        return _numpy(schedule, t)
    xp = t.__array_namespace__()
    if "int" in str(t.dtype):
        t = xp.astype(t, getattr(xp, "float64", None)) if owner != "jax" else t * 1.0
    names = JaxNames(xp, t) if "jax" in xp.__name__ else ArrayNames(xp, t)
    return _spread(schedule._value(t, names), t, names)  # noqa: SLF001 (the array half of __call__)


def _spread(values: Any, t: Any, names: ArrayNames) -> Any:
    """Give a value that did not depend on time the shape of time."""
    flat = isinstance(values, float | int) or (values.ndim == 0 and t.ndim > 0)
    return names.where(t < math.inf, values, values) if flat else values


def _torch(schedule: "Schedule", t: Any) -> Any:
    torch = sys.modules["torch"]
    if not t.is_floating_point():
        t = t.to(torch.float32 if t.device.type == "mps" else torch.float64)
    names = TorchNames(torch, t)
    return _spread(schedule._value(t, names), t, names)  # noqa: SLF001 (as above)


def _numpy(schedule: "Schedule", t: Any) -> Any:
    import numpy as np  # noqa: PLC0415 (an array of it came)

    from stepsize.schedules.kernel import Times, fill  # noqa: PLC0415 (it imports numpy)

    if t.ndim == 0:
        return schedule(float(t))
    dtype = t.dtype if np.issubdtype(t.dtype, np.floating) else np.float64
    values = np.empty(t.shape, dtype)
    if t.size:
        fill(schedule, Times(0, t.size, t.reshape(-1)), values.reshape(-1))
    return values


def curve(schedule: "Schedule", start: int, steps: int) -> Any:
    """Give the values of `steps` steps from `start` on, with no other array of that length."""
    import numpy as np  # noqa: PLC0415 (the result is its array)

    from stepsize.schedules.kernel import Times, fill  # noqa: PLC0415 (it imports numpy)

    steps = int(Bounds(ge=0, whole=True).admit("curve.steps", steps))
    start = int(Bounds(whole=True).admit("curve.start", start))
    values = np.empty(steps)
    if steps:
        fill(schedule, Times(start, steps), values)
    return values
