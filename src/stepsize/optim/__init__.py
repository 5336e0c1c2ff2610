"""Optimizers that find their own step size, each after one paper; `lr` multiplies it."""

from stepsize.optim.delta_bar_delta import DeltaBarDelta

__all__ = ["DeltaBarDelta"]
