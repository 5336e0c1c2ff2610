"""Draws the pictures of the README with the library's own sketches: `make pictures`."""

import random
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from sklearn.datasets import load_digits

from stepsize import (
    REGISTRY,
    Constant,
    Cosine,
    Horizon,
    Linear,
    OneMinusSqrt,
    Preview,
    Ramp,
    Schedule,
    Step,
    Task,
    Warmup,
    cyclic,
    difference,
    inverse_sqrt,
    one_cycle,
    preview,
    resolve,
    sgdr,
    wsd,
)
from stepsize.feedback import Plateau, SpikeGuard
from stepsize.finding import RangeTest
from stepsize.plot import save
from stepsize.sketch import samples, svg
from stepsize.torch import Scheduler, range_test

if TYPE_CHECKING:
    from collections.abc import Callable

FOLDER = Path(__file__).parents[1] / "docs" / "pictures"
RUN = Horizon("90ep", batches_per_epoch=10)


def written(name: str, text: str) -> None:
    """Write a picture and say so."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    (FOLDER / name).write_text(text + "\n", encoding="utf-8")
    print(f"docs/pictures/{name}")


def several() -> str:
    """A few schedules over one horizon."""
    curves: dict[str, Schedule] = {
        "warmup + cosine": Warmup("5%") >> Cosine(),
        "wsd, 1-sqrt": wsd(along=OneMinusSqrt),
        "one-cycle": one_cycle()["lr"],
        "warm restarts": sgdr("12.857143ep", growth=2),
        "step": Step("30ep"),
    }
    return svg([(name, resolve(curve, RUN)) for name, curve in curves.items()], 900)


def stepping() -> str:
    """One formula, two stepping units."""
    nine = Horizon("9ep", batches_per_epoch=100)
    curve = Warmup("2ep") >> Cosine()
    return svg(
        [
            ("stepped per update", resolve(curve, nine)),
            ('stepped per epoch: held("1ep")', resolve(curve.held("1ep"), nine)),
        ],
        900,
    )


def gallery() -> str:
    """Every shape in a small frame of its own."""
    shapes: dict[str, Schedule] = {
        family.__name__: family(100) for family in REGISTRY.values() if issubclass(family, Ramp)
    }
    shapes |= {
        "Warmup": Warmup(30) >> Constant(),
        "Step": Step(25, 0.5),
        "inverse_sqrt": inverse_sqrt(10),
        "sgdr": sgdr(100 / 7, growth=2),
        "one_cycle": one_cycle(101)["lr"],
        "cyclic": cyclic(12.5),
        "wsd": resolve(wsd("10%"), Horizon(100)),
        "Linear.held": Linear(100).held(10),
    }
    wide, high, columns = 150, 96, 5
    frames = []
    for i, (name, shape) in enumerate(sorted(shapes.items())):
        x, y = (i % columns) * wide, (i // columns) * high
        values = samples(shape, 99.9, wide - 20)
        top = max(values)
        points = "L".join(f"{10 + j} {22 + 62 * (1 - v / top):.1f}" for j, v in enumerate(values))
        frames.append(
            f'<g transform="translate({x} {y})"><text x="10" y="14" fill="#808080">{name}</text>'
            f'<path d="M10 84H{wide - 10}" stroke="#808080" stroke-opacity=".4"/>'
            f'<path d="M{points}" fill="none" stroke="#2f7ed8" stroke-width="1.8"/></g>'
        )
    width, height = columns * wide, -(-len(shapes) // columns) * high
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" '
        f'font-family="system-ui, sans-serif" font-size="11">{"".join(frames)}</svg>'
    )


def bound(run: Horizon, groups: int = 1, **settings: Any) -> Scheduler:
    """A scheduler of some groups with a rate of 1, named as layers are."""
    weights = [torch.zeros(1, requires_grad=True) for _ in range(groups)]
    named = [{"params": [weight], "name": f"layer {i}"} for i, weight in enumerate(weights)]
    return Scheduler(torch.optim.SGD(named, lr=1.0), horizon=run, **settings)


def futures() -> Preview:
    """One run and what the live edits at step 500 make of it."""
    edits: dict[str, Callable[[Scheduler], None]] = {
        "as planned": lambda _: None,
        'cool_down("20%")': lambda scheduler: scheduler.cool_down("20%"),
        "extend(1500)": lambda scheduler: scheduler.extend(1500),
        "replan(lr=Constant(value=0.6))": lambda scheduler: scheduler.replan(
            lr=Constant(value=0.6)
        ),
    }
    curves = {}
    for name, edit in edits.items():
        scheduler = bound(Horizon(1000), lr=Warmup("5%") >> Cosine())
        scheduler.last_epoch = 500
        edit(scheduler)
        (track,) = scheduler.tracks()
        curves[name] = resolve(track.schedule, scheduler.horizon)
    return preview(curves, Horizon(1500))


def reactions() -> Preview:
    """A cosine, a guard that sees a spike, and a rule that sees a metric stand still."""
    noise, guard = random.Random(0), SpikeGuard(recover=60)  # noqa: S311 (noise, no secret)
    rule = Plateau(patience=2, factor=0.5, until="75%")
    scheduler = bound(Horizon(1000), lr=Warmup("5%") >> Cosine(), feedback=[guard, rule])
    optimizer = scheduler.optimizer
    for t in range(1000):
        loss = 2.0 + 0.1 * noise.random() + (5.0 if t in range(250, 254) else 0.0)
        scheduler.observe(loss)
        optimizer.step()
        scheduler.step()
        if t % 50 == 0:
            scheduler.step(max(2.0 - t / 400, 0.9))
    return preview(scheduler)


def unfreezing() -> Preview:
    """Layers that join the training one after the other, each with a warmup of its own."""
    scheduler = bound(Horizon(1000), lr=Warmup(100) >> Cosine())
    for i in (1, 2):
        scheduler.last_epoch = 250 * i
        layer = {"params": [torch.zeros(1, requires_grad=True)], "name": f"layer {i}"}
        layer["lr"] = 0.5**i
        scheduler.add_param_group(layer, clock="own")
    return preview(scheduler)


def tested() -> RangeTest:
    """A range test of a small network on digits."""
    x, y = load_digits(return_X_y=True)
    task = Task.from_arrays(x, y, optimizer="sgd", batch_size=32)
    return range_test(task)


def with_matplotlib() -> None:
    """The pictures of the tools, light and dark."""
    imagenet = Horizon("90ep", batches_per_epoch=391)
    cosine, line = Warmup("5ep") >> Cosine(), Warmup("5ep") >> Linear(stop=0.1)
    gap = difference(cosine, line, imagenet, names=("cosine", "line"), unit="epochs").picture
    pictures: dict[str, Preview | RangeTest] = {
        "one_cycle": preview(one_cycle(), imagenet, unit="epochs", base=0.4),
        "difference": gap,
        "futures": futures(),
        "reactions": reactions(),
        "unfreezing": unfreezing(),
        "range_test": tested(),
    }
    for name, found in pictures.items():
        for ending, dark in (("", False), ("_dark", True)):
            save(found, FOLDER / f"{name}{ending}.svg", dark=dark)
            print(f"docs/pictures/{name}{ending}.svg")


if __name__ == "__main__":
    with_matplotlib()
    written("several.svg", several())
    written("stepping.svg", stepping())
    written("gallery.svg", gallery())
