"""Optimizers that find their own step size, each after one paper; `lr` multiplies it."""

from stepsize.optim.adadelta import AdaDelta
from stepsize.optim.adgd import AdGD
from stepsize.optim.delta_bar_delta import DeltaBarDelta
from stepsize.optim.diagonal_newton import DiagonalNewton
from stepsize.optim.line_search import LineSearch
from stepsize.optim.polyak import PolyakSGD
from stepsize.optim.regrettable import RegrettableDBD
from stepsize.optim.vsgd import VSGD

__all__ = [
    "VSGD",
    "AdGD",
    "AdaDelta",
    "DeltaBarDelta",
    "DiagonalNewton",
    "LineSearch",
    "PolyakSGD",
    "RegrettableDBD",
]
