"""stepsize for torch: `Scheduler` binds schedules to optimizers."""

from stepsize.look.spreads import StepSizeHistory
from stepsize.torch.finder import range_test
from stepsize.torch.guards import StepsizeWarning
from stepsize.torch.known_rates import rate_of
from stepsize.torch.layers import layer_decay
from stepsize.torch.preserve import preserved
from stepsize.torch.scheduler import Scheduler
from stepsize.torch.stability import StabilityLog
from stepsize.torch.step_sizes import StepSizes, step_sizes
from stepsize.torch.warmups import warmup_study

__all__ = [
    "Scheduler",
    "StabilityLog",
    "StepSizeHistory",
    "StepSizes",
    "StepsizeWarning",
    "layer_decay",
    "preserved",
    "range_test",
    "rate_of",
    "step_sizes",
    "warmup_study",
]
