"""Optimizers that need a closure, under Lightning's automatic optimization, which gives one."""

import logging
import warnings

import pytest
import torch
from torch import nn

from stepsize import Cosine, Horizon, Warmup
from stepsize.optim import VSGD, AdGD, DiagonalNewton, LineSearch, PolyakSGD
from stepsize.torch import Scheduler

pytestmark = pytest.mark.slow

MADE = {
    "LineSearch": lambda p: LineSearch(p, start="warm", max_step=10.0),
    "PolyakSGD": PolyakSGD,
    "AdGD": lambda p: AdGD(p, stochastic=True),
    "VSGD": lambda p: VSGD(p, slow_start=4, slow_constant=2.0),
    "DiagonalNewton": lambda p: DiagonalNewton(p, lr=0.3),
}


@pytest.mark.parametrize("name", sorted(MADE))
def test_a_fit_counts_steps_learns_and_moves_no_buffer_twice(name, tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import lightning
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)

    class Module(lightning.LightningModule):
        def __init__(self):
            super().__init__()
            norm = nn.BatchNorm1d(16)
            self.net = nn.Sequential(
                nn.Linear(10, 16), norm, nn.Tanh(), nn.Dropout(0.1), nn.Linear(16, 1)
            )

        def training_step(self, batch, _):
            return nn.functional.mse_loss(self.net(batch[0]), batch[1])

        def configure_optimizers(self):
            optimizer = MADE[name](self.parameters())
            self.kept = Scheduler(optimizer, lr=Warmup("10%") >> Cosine(), horizon=Horizon(32))
            return [optimizer], [{"scheduler": self.kept, "interval": "step"}]

    torch.manual_seed(0)
    x = torch.randn(256, 10)
    data = torch.utils.data.TensorDataset(x, x @ torch.randn(10, 1))
    module = Module()
    before = nn.functional.mse_loss(module.net(x), data.tensors[1]).item()
    tracked = module.net[1].num_batches_tracked.item()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        lightning.Trainer(
            max_epochs=4,
            accelerator="cpu",
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            default_root_dir=tmp_path,
        ).fit(module, torch.utils.data.DataLoader(data, batch_size=32))
    assert module.kept.last_epoch == 32
    assert module.net[1].num_batches_tracked.item() == tracked + 32
    module.eval()
    assert nn.functional.mse_loss(module.net(x), data.tensors[1]).item() < before / 4
