"""stepsize for torch: `Scheduler` binds schedules to optimizers."""

from stepsize.torch.guards import StepsizeWarning
from stepsize.torch.layers import layer_decay
from stepsize.torch.scheduler import Scheduler

__all__ = ["Scheduler", "StepsizeWarning", "layer_decay"]
