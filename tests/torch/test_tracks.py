"""What every group's rate, momentum and weight decay will be, for a given optimizer."""

import torch
from torch import nn

from stepsize import (
    Constant,
    Cosine,
    Horizon,
    Linear,
    Warmup,
    check,
    compare_golden,
    describe,
    one_cycle,
    preview,
    table,
    write_golden,
)
from stepsize.plot import plot
from stepsize.torch import Scheduler

RUN = Horizon("9ep", batches_per_epoch=100)


def bound(**more):
    layers = nn.Sequential(*(nn.Linear(2, 2) for _ in range(3)))
    groups = [
        {"params": layer.parameters(), "lr": 0.1 * (i + 1), "name": f"layer {i}"}
        for i, layer in enumerate(layers)
    ]
    optimizer = torch.optim.AdamW(groups, weight_decay=0.01)
    schedules = {
        "lr": Warmup("1ep") >> Cosine(stop=0.1),
        "beta1": one_cycle()["momentum"],
        "weight_decay": Linear(start=0.04, stop=0.4).absolute(),
        "groups": {"layer 2": {"lr": Constant()}},
        "extra": {"ema": Linear(start=0.9, stop=0.999).absolute()},
    }
    return Scheduler(optimizer, **schedules, horizon=RUN, **more)


def test_a_picture_of_every_group():
    panels = {panel.title: panel for panel in preview(bound()).panels}
    assert list(panels) == ["lr", "beta1", "weight_decay", "ema"]
    assert [s.name for s in panels["lr"].series] == ["layer 0", "layer 1", "layer 2"]
    assert [s.name for s in panels["weight_decay"].series] == [""]  # the same in every group
    assert all(panel.y.name == "value" for panel in panels.values())


def test_the_values_are_those_that_training_will_use():
    scheduler = bound()
    found = table(scheduler, every=1)
    at = {column: i for i, column in enumerate(found.columns)}
    for step, row in enumerate(found.rows):
        values = scheduler.at(step)
        for i in range(3):
            assert row[at[f"lr, layer {i}"]] == values["lr"][i]
        assert row[at["beta1"]] == values["beta1"][0]
        assert row[at["weight_decay"]] == values["weight_decay"][0]
        assert row[at["ema"]] == values["ema"]
    assert len(found.rows) == 900


def test_words_lint_golden_and_figure_of_a_scheduler(tmp_path):
    scheduler = bound()
    titles = [facts.title for facts in describe(scheduler).facts]
    assert titles == ["lr, layer 0", "lr, layer 1", "lr, layer 2", "beta1", "weight_decay", "ema"]
    assert [(f.rule, f.title) for f in check(scheduler)] == [("never-falls", "lr, layer 2")]
    write_golden(tmp_path / "lr.json", scheduler)
    assert compare_golden(tmp_path / "lr.json", bound()) == ()
    assert "lr, layer 0" in compare_golden(tmp_path / "lr.json", bound(base=0.5))[0]
    assert len(plot(scheduler, unit="epochs").axes) == 4


def test_looking_changes_nothing():
    scheduler = bound()
    before = [dict(group) for group in scheduler.optimizer.param_groups]
    preview(scheduler), describe(scheduler), check(scheduler), table(scheduler)
    assert [dict(group) for group in scheduler.optimizer.param_groups] == before
    assert scheduler.last_epoch == 0


def test_groups_that_were_to_have_no_weight_decay_are_named():
    groups = [
        {"params": [nn.Parameter(torch.ones(1))], "name": name, "weight_decay": decay}
        for name, decay in (("body", 0.1), ("norm", 0.0), ("bias", 0.0))
    ]
    optimizer = torch.optim.AdamW(groups)
    decay = Linear(start=0.04, stop=0.4).absolute()
    scheduler = Scheduler(optimizer, lr=Cosine(), weight_decay=decay, horizon=RUN)
    (found,) = check(scheduler)
    assert found.rule == "decays-all"
    assert "the weight decay 0 of norm, bias" in found.what
    scheduler.detach()
    none = {"weight_decay": Constant(value=0).absolute()}
    kept = Scheduler(
        optimizer,
        lr=Cosine(),
        weight_decay=decay,
        horizon=RUN,
        groups={"norm": none, "bias": none},
    )
    assert check(kept) == ()
    assert kept.at(50)["weight_decay"][1:] == [0.0, 0.0]
