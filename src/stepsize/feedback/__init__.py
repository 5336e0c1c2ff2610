"""Controllers: what reacts to something seen, as pure functions of a state and what was seen."""

from stepsize.feedback.adaptive import UpDown
from stepsize.feedback.base import (
    CONTROLLERS,
    Controller,
    Seen,
    State,
    Update,
    controller,
)
from stepsize.feedback.description import controller_data, controller_from
from stepsize.feedback.guard import SpikeGuard
from stepsize.feedback.plateau import Plateau
from stepsize.feedback.stop import PlateauCooldown

__all__ = [
    "CONTROLLERS",
    "Controller",
    "Plateau",
    "PlateauCooldown",
    "Seen",
    "SpikeGuard",
    "State",
    "UpDown",
    "Update",
    "controller",
    "controller_data",
    "controller_from",
]
