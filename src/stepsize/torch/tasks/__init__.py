"""Tasks of torch models: `Task.from_torch` and `Task.from_arrays`."""

from stepsize.torch.tasks.forms import TorchTask, from_arrays, from_torch
from stepsize.torch.tasks.run import TorchRun

__all__ = ["TorchRun", "TorchTask", "from_arrays", "from_torch"]
