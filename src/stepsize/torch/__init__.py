"""stepsize for torch: `Scheduler` binds schedules to optimizers."""

from stepsize.torch.scheduler import Scheduler

__all__ = ["Scheduler"]
