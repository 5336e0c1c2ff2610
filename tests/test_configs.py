"""Hydra's `_target_` and jsonargparse's `class_path` build the families as they are."""

import pytest
from hydra.utils import instantiate
from jsonargparse import ArgumentError, ArgumentParser
from omegaconf import OmegaConf

from stepsize import (
    Cosine,
    Custom,
    Linear,
    MultiStep,
    Piecewise,
    Plan,
    Repeated,
    Schedule,
    Warmup,
    wsd,
)

HYDRA = """
lr:
  _target_: stepsize.Sequence
  _convert_: all  # omegaconf would otherwise take the parts apart again: they are dataclasses
  parts:
    - _target_: stepsize.Warmup
      over: 5%
      along: cosine
    - _target_: stepsize.Cosine
      over: ${cosine_steps}
      stop: 0.1
weight_decay:
  _target_: stepsize.Absolute
  peak: 2
  of:
    _target_: stepsize.Piecewise
    points: {0: 0.1, 30ep: 0.01}
stepped:
  _target_: stepsize.Held
  every: 1ep
  of:
    _target_: stepsize.MultiStep
    at: [30ep, 60ep]
recipe:
  _target_: stepsize.wsd
  cooldown: 10%
text:
  _target_: stepsize.parse
  text: Warmup("5%") >> Cosine(stop=0.1)
plan:
  _target_: stepsize.Plan
  lr: ${lr}
  weight_decay: ${weight_decay}
cosine_steps: 1000
"""


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("lr", Warmup("5%", along=Cosine) >> Cosine(1000, stop=0.1)),
        ("weight_decay", Piecewise({0: 0.1, "30ep": 0.01}).absolute(2)),
        ("stepped", MultiStep(("30ep", "60ep")).held("1ep")),
        ("recipe", wsd(cooldown="10%")),
        ("text", Warmup("5%") >> Cosine(stop=0.1)),
        (
            "plan",
            Plan(
                lr=Warmup("5%", along=Cosine) >> Cosine(1000, stop=0.1),
                weight_decay=Piecewise({0: 0.1, "30ep": 0.01}).absolute(2),
            ),
        ),
    ],
)
def test_hydra(name, value):
    config = OmegaConf.create(HYDRA)
    made = instantiate(config[name])
    assert made == value
    assert hash(made) == hash(value)
    assert repr(made) == repr(value)
    assert instantiate(config[name], _convert_="all") == value


JSONARGPARSE = {
    "numbers": (
        "class_path: stepsize.Cosine\ninit_args: {over: 100, stop: 1e-1}",
        Cosine(100, stop=0.1),
    ),
    "a unit": ("class_path: stepsize.Warmup\ninit_args: {over: 5%}", Warmup("5%")),
    "the name alone": ("class_path: Linear\ninit_args: {over: 9ep}", Linear("9ep")),
    "nested parts": (
        """
class_path: stepsize.Sequence
init_args:
  parts:
  - class_path: stepsize.Warmup
    init_args: {over: 5%, along: cosine}
  - class_path: stepsize.Cosine
    init_args: {stop: 0.1}
""",
        Warmup("5%", along=Cosine) >> Cosine(stop=0.1),
    ),
    "a ramp by its class": (
        "class_path: stepsize.Warmup\ninit_args: {over: 10, start: 0.1, along: stepsize.Cosine}",
        Warmup(10, start=0.1, along=Cosine),
    ),
    "a table": (
        """
class_path: stepsize.Absolute
init_args:
  peak: 2
  of:
    class_path: stepsize.Piecewise
    init_args:
      points: {0: 0.1, 30ep: 0.01}
""",
        Piecewise({0: 0.1, "30ep": 0.01}).absolute(2),
    ),
    "pairs": (
        "class_path: stepsize.Piecewise\ninit_args: {points: [[0, 0.1], [30ep, 1]], linear: true}",
        Piecewise({0: 0.1, "30ep": 1}, linear=True),
    ),
    "moments": (
        "class_path: stepsize.MultiStep\ninit_args: {at: [30ep, 60ep]}",
        MultiStep(("30ep", "60ep")),
    ),
    "cycles": (
        """
class_path: stepsize.Repeated
init_args:
  of: {class_path: stepsize.Cosine}
  every: 10ep
  times: 3
  growth: 2
""",
        Repeated(Cosine(), "10ep", 3, 2),
    ),
    "a function": ("class_path: stepsize.Custom\ninit_args: {function: builtins.abs}", Custom(abs)),
}


def indented(text):
    return "lr:\n" + "".join(f"  {line}\n" for line in text.strip().splitlines())


@pytest.mark.parametrize("name", JSONARGPARSE)
def test_jsonargparse(name):
    text, value = JSONARGPARSE[name]
    parser = ArgumentParser(exit_on_error=False)
    parser.add_argument("--lr", type=Schedule)
    config = parser.parse_string(indented(text))
    assert parser.instantiate(config).lr == value
    again = parser.parse_string(parser.dump(config))
    assert parser.instantiate(again).lr == value


def test_jsonargparse_on_the_command_line():
    parser = ArgumentParser(exit_on_error=False)
    parser.add_argument("--lr", type=Schedule)
    config = parser.parse_args(["--lr=Cosine", "--lr.over=5%", "--lr.stop=0.1"])
    assert parser.instantiate(config).lr == Cosine("5%", stop=0.1)


def test_jsonargparse_plans_are_mappings_of_schedules():
    parser = ArgumentParser(exit_on_error=False)
    parser.add_argument("--plan", type=dict[str, Schedule])
    text = "plan:\n  lr: {class_path: stepsize.Cosine, init_args: {over: 5%}}\n"
    assert Plan(**parser.instantiate(parser.parse_string(text)).plan) == Plan(lr=Cosine("5%"))


def test_jsonargparse_says_what_is_wrong():
    parser = ArgumentParser(exit_on_error=False)
    parser.add_argument("--lr", type=Schedule)
    for text in ("class_path: stepsize.Cosin", "class_path: stepsize.Cosine\ninit_args: {ovr: 5}"):
        with pytest.raises(ArgumentError):
            parser.parse_string(indented(text))
