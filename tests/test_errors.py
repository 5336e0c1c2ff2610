"""Every error a user can make at construction or binding, word for word, in `errors.txt`.

After a deliberate change of wording: `python tests/test_errors.py` writes the file anew; read the
difference before committing it.
"""

import json
import math
import tempfile
from pathlib import Path

import torch
from torch import nn

from stepsize import (
    Absolute,
    Clipped,
    Constant,
    Cosine,
    Custom,
    Exponential,
    Geometric,
    Held,
    Horizon,
    Linear,
    MultiStep,
    Piecewise,
    Plan,
    PowerLaw,
    Product,
    Ramp,
    Repeated,
    Scaled,
    Sequence,
    SpecError,
    Step,
    StepsizeError,
    Tanh,
    UnitError,
    Warmup,
    cyclic,
    dump,
    dumps,
    from_dict,
    load,
    loads,
    noam,
    one_cycle,
    optim,
    parse,
    resolve,
    schedule,
    to_dict,
    untuned_warmup,
)
from stepsize.torch import Scheduler, step_sizes
from stepsize.torch.curvature import bbprop

SNAPSHOT = Path(__file__).with_name("errors.txt")


def sgd(**fields):
    return torch.optim.SGD([nn.Parameter(torch.ones(1))], **{"lr": 0.1, **fields})


def ones(dtype=torch.float32):
    return [nn.Parameter(torch.ones(1, dtype=dtype))]


def stepped(optimizer, gradient):
    for group in optimizer.param_groups:
        for p in group["params"]:
            p.grad = gradient
    optimizer.step()


def sparse():
    stepped(optim.DeltaBarDelta(ones()), torch.ones(1).to_sparse())


def adagrad():
    return torch.optim.Adagrad([nn.Parameter(torch.ones(1))], lr=0.1)


def adamw(**fields):
    return torch.optim.AdamW([nn.Parameter(torch.ones(1))], **{"lr": 1e-3, **fields})


def read(text):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "plan.json"
        path.write_text(text)
        try:
            return load(path)
        except SpecError as error:
            raise SpecError(str(error).replace(str(folder), "FOLDER")) from None


def described(text=None, **fields):
    return from_dict({"format": 1, "schedule": text or fields})


CASES = {
    "length negative": lambda: Linear(-5),
    "length zero": lambda: Warmup(0),
    "length nan": lambda: Linear(math.nan),
    "length infinite": lambda: Cosine(math.inf),
    "length bool": lambda: Linear(True),
    "length number as text": lambda: Linear("100"),
    "length nonsense": lambda: Linear("fast"),
    "length unknown unit": lambda: Linear("5 eons"),
    "length none": lambda: Warmup(None),
    "percent negative": lambda: Linear("-5%"),
    "value negative": lambda: Linear(10, stop=-0.1),
    "value nan": lambda: Linear(10, start=math.nan),
    "value infinite": lambda: Constant(value=math.inf),
    "value bool": lambda: Linear(10, stop=True),
    "value text": lambda: Linear(10, stop="0.1"),
    "value none": lambda: Linear(10, stop=None),
    "value tensor": lambda: Linear(10, stop=torch.tensor(0.1)),
    "factor above 1": lambda: Step(10, factor=2.0),
    "factor zero": lambda: Exponential(0.0),
    "geometric to 0": lambda: Geometric(10, stop=0.0),
    "tanh upside down": lambda: Tanh(10, low=3, high=-6),
    "half waves fractional": lambda: Cosine(10, half_waves=1.5),
    "power zero": lambda: PowerLaw(0),
    "growth below 1": lambda: Cosine(10).repeated(growth=0.5),
    "clip upside down": lambda: Clipped(Linear(10), 0.5, 0.1),
    "milestones unsorted": lambda: MultiStep((60, 30)),
    "milestones empty": lambda: MultiStep(()),
    "milestones a number": lambda: MultiStep(30),
    "milestone negative": lambda: MultiStep((-1, 30)),
    "table empty": lambda: Piecewise({}),
    "table unsorted": lambda: Piecewise(((30, 0.1), (0, 1.0))),
    "table repeated": lambda: Piecewise(((0, 0.1), (0, 1.0))),
    "table of numbers": lambda: Piecewise((1, 2)),
    "function is none": lambda: Custom(0.5),
    "part is a number": lambda: Sequence((Linear(10), 0.1)),
    "one part": lambda: Sequence((Linear(10),)),
    "parts no tuple": lambda: Sequence(Linear(10)),
    "endless part before the last": lambda: Step(30) >> Cosine(10),
    "endless constant before the last": lambda: Warmup(5) >> Constant() >> Linear(10),
    "two rests": lambda: Linear() >> Cosine(),
    "absolute and factor joined": lambda: Linear(10).absolute(0.1) >> Cosine(10),
    "two absolutes multiplied": lambda: Linear(10).absolute(0.1) * Cosine(10).absolute(0.1),
    "absolute twice": lambda: Absolute(Linear(10).absolute(0.1), 0.1),
    "absolute peak zero": lambda: Linear(10).absolute(0.0),
    "scaled negative": lambda: Scaled(Linear(10), -1),
    "product of one": lambda: Product((Linear(10),)),
    "between downwards past 1": lambda: Linear(10, start=5.0).between(1.0, 0.5),
    "repeat of an endless one": lambda: Repeated(Step(10)),
    "held by nothing": lambda: Held(Linear(10), 0),
    "warmup along no ramp": lambda: Warmup(10, along=Warmup),
    "warmup along a name misspelt": lambda: Warmup(10, along="cosin"),
    "warmup along a geometric from 0": lambda: Warmup(10, start=0.0, along=Geometric),
    "plan empty": lambda: Plan(),
    "plan of a number": lambda: Plan(lr=0.1),
    "noam fractional": lambda: noam(512.5, 4000),
    "untuned beta2 of 1": lambda: untuned_warmup(1.0),
    "one-cycle form": lambda: one_cycle(form="tf"),
    "one-cycle too short": lambda: one_cycle(3),
    "one-cycle rise of the paper": lambda: one_cycle(form="paper", rise=0.6),
    "cyclic mode": lambda: cyclic(10, mode="exp"),
    "time is text": lambda: Linear(10)("5"),
    "time is nan": lambda: Linear(10)(math.nan),
    "called without a horizon": lambda: Cosine()(5),
    "kind taken": lambda: schedule(type("Other", (Ramp,), {"kind": "linear"})),
    "kind missing": lambda: schedule(type("Nameless", (), {})),
    "horizon total of percent": lambda: Horizon("50%"),
    "horizon batches zero": lambda: Horizon(10, batches_per_epoch=0),
    "horizon last": lambda: Horizon(10, last="ignore"),
    "epochs without batches": lambda: resolve(Cosine("5ep"), Horizon(100)),
    "tokens without a batch size": lambda: (
        resolve(Cosine("5tok"), Horizon("10tok")).compile() and Horizon("10tok").steps
    ),
    "tokens without their number": lambda: Horizon("10tok", batch_size=1).steps,
    "percent of nothing": lambda: resolve(Cosine("5%"), Horizon()),
    "hours and epochs": lambda: resolve(Cosine("6h") >> Linear("1ep"), Horizon("7h")),
    "rest of nothing": lambda: resolve(Warmup(100) >> Cosine(), Horizon(100)),
    "reach": lambda: resolve(Cosine(), Horizon(100), reach="end-1"),
    "loader without length": lambda: Horizon.from_loader(iter(()), epochs=3),
    "batch ramp to nothing": lambda: Horizon(100, batch_size=Linear(100)),
    "batch ramp for ever": lambda: Horizon(batch_size=Step(10)),
    "file missing": lambda: load("nowhere/plan.json"),
    "file ending": lambda: dump(Cosine(10), "plan.ini"),
    "file in no folder": lambda: dump(Cosine(10), "nowhere/plan.toml"),
    "form unknown": lambda: dumps(Cosine(10), "yml"),
    "file half": lambda: read('{"format": 1, "sched'),
    "file with a key twice": lambda: read('{"format": 1, "format": 1}'),
    "file with NaN": lambda: read('{"format": NaN}'),
    "yaml half": lambda: loads("format: 1\nschedule: {kind: linear", "yaml"),
    "yaml with a key twice": lambda: loads("format: 1\nformat: 1", "yaml"),
    "yaml with an alias": lambda: loads("a: &a 1\nb: *a", "yaml"),
    "yaml with a tag": lambda: loads("!!python/object/apply:os.system [x]", "yaml"),
    "yaml with a list as key": lambda: loads("[1]: 2", "yaml"),
    "toml half": lambda: loads("format = ", "toml"),
    "toml with a long key": lambda: loads("a." * 99 + "a = 1", "toml"),
    "plan with a number as name": lambda: loads("format: 1\nplan: {1: Linear(5)}", "yaml"),
    "expression of a plan for a schedule": lambda: described("one_cycle()"),
    "expression inside": lambda: described(kind="held", every=1, of="Cosine(ovr=10)"),
    "expression with an unknown name": lambda: parse("Warmup(5) >> Cosin(10)"),
    "expression with an unknown argument": lambda: parse("Warmup(5) >> Cosine(ovr=10)"),
    "expression with an unknown method": lambda: parse("Cosine(10).helt(5)"),
    "expression with too much": lambda: parse("Linear(1, 2, 3, 4)"),
    "expression with too little": lambda: parse("Warmup()"),
    "expression with a wrong value": lambda: parse("Warmup(5) >> Cosine(-10)"),
    "expression with a class": lambda: parse("Warmup(5) >> Cosine"),
    "expression with a function": lambda: parse("Custom(halved)"),
    "expression with a function not trusted": lambda: parse("Custom('os:system')"),
    "expression with code": lambda: parse("[x for x in ().__class__.__bases__]"),
    "expression with a power": lambda: parse("Linear(10 ** 10)"),
    "expression with an infinite number": lambda: parse("Linear(1 / 0)"),
    "expression half": lambda: parse("Warmup(5) >> Cosine("),
    "expression of a number": lambda: parse("1 + 1"),
    "expression too long": lambda: parse(" " * 100_001),
    "expression too deep": lambda: parse("-" * 9000 + "1"),
    "file of the future": lambda: read('{"format": 2, "schedule": {}}'),
    "file of something else": lambda: read("[1, 2]"),
    "file without a schedule": lambda: read('{"format": 1}'),
    "kind unknown": lambda: described(kind="cosin", over=10),
    "kind no text": lambda: described(kind=3),
    "field unknown": lambda: described(kind="cosine", ovr=10),
    "field wrong inside": lambda: described(
        kind="sequence", parts=[{"kind": "warmup", "over": 5}, {"kind": "cosine", "over": -1}]
    ),
    "field missing": lambda: described(kind="warmup"),
    "function untrusted": lambda: described(kind="custom", function="os:system"),
    "function without a name": lambda: to_dict(Custom(lambda t: t)),
    "scheduler of nothing": lambda: Scheduler(sgd()),
    "scheduler of no optimizer": lambda: Scheduler(nn.Linear(1, 1), lr=Cosine(10)),
    "scheduler of a number": lambda: Scheduler(sgd(), lr=0.1),
    "scheduler plan is a schedule": lambda: Scheduler(sgd(), Cosine(10)),
    "scheduler counts": lambda: Scheduler(sgd(), lr=Cosine(10), counts="epochs"),
    "unknown key": lambda: Scheduler(sgd(), learning_rate=Cosine(10)),
    "momentum without momentum": lambda: Scheduler(adagrad(), one_cycle(100)),
    "momentum on Adam": lambda: Scheduler(adamw(), one_cycle(100)),
    "unknown group index": lambda: Scheduler(sgd(), groups={3: {"lr": Cosine(10)}}),
    "unknown group name": lambda: Scheduler(sgd(), groups={"head": {"lr": Cosine(10)}}),
    "rate as a factor": lambda: Scheduler(adamw(lr=3e-4), lr=3e-4 * Cosine(10)),
    "factor of a base of 0": lambda: Scheduler(sgd(), weight_decay=Linear(10)),
    "horizon missing": lambda: Scheduler(sgd(), lr=Warmup("5%") >> Cosine()),
    "unit not convertible at binding": lambda: Scheduler(
        sgd(), lr=Cosine("5ep"), horizon=Horizon(9)
    ),
    "two writers": lambda: _two(sgd()),
    "optimizer rate negative": lambda: optim.AdGD(ones(), lr=-1.0),
    "optimizer rate two numbers": lambda: optim.AdGD(ones(), lr=torch.ones(2)),
    "optimizer decay negative": lambda: optim.DeltaBarDelta(ones(), weight_decay=-0.1),
    "optimizer complex parameter": lambda: optim.VSGD([nn.Parameter(torch.ones(1) * 1j)]),
    "optimizer first step 0": lambda: optim.DeltaBarDelta(ones(), initial_step=0.0),
    "optimizer bounds": lambda: optim.DeltaBarDelta(ones(), bounds=(1.0, 0.5)),
    "optimizer unknown word": lambda: optim.LineSearch(ones(), method="wolfe"),
    "optimizer without closure": lambda: optim.PolyakSGD(ones()).step(),
    "optimizer sparse gradient": sparse,
    "search decoupled decay": lambda: optim.LineSearch(ones(), decoupled_weight_decay=True),
    "polyak unknown least": lambda: optim.PolyakSGD(ones(), f_star="zero"),
    "group of another rule": lambda: optim.AdGD([{"params": ones(), "rule": "tighter"}]),
    "adgd options that exclude": lambda: optim.AdGD(ones(), stochastic=True, accelerated=True),
    "newton bfloat16": lambda: optim.DiagonalNewton(ones(torch.bfloat16)),
    "newton nothing observed": lambda: stepped(
        optim.DiagonalNewton(ones(), curvature="observed"), torch.ones(1)
    ),
    "observed of another number": lambda: optim.DiagonalNewton(ones()).observe([]),
    "observed of another shape": lambda: optim.DiagonalNewton(ones()).observe([torch.ones(2)]),
    "vsgd observes by itself": lambda: optim.VSGD(ones()).observe([torch.ones(1)]),
    "regrettable around a line search": lambda: optim.RegrettableDBD(torch.optim.LBFGS(ones())),
    "regrettable bounds": lambda: optim.RegrettableDBD(sgd(), bounds=(2.0, 4.0)),
    "adadelta eps 0": lambda: optim.AdaDelta(ones(), eps=0.0),
    "step sizes of an unknown optimizer": lambda: step_sizes(torch.optim.LBFGS(ones())),
    "step sizes by layer without model": lambda: step_sizes(sgd(), per="layer"),
    "bbprop of what is no chain": lambda: bbprop(
        nn.LSTM(2, 2), list(nn.LSTM(2, 2).parameters()), torch.ones(1, 2)
    ),
}


def _two(optimizer):
    first = Scheduler(optimizer, lr=Cosine(10))
    Scheduler(optimizer, lr=Cosine(10))
    return first


def collected() -> dict[str, str]:
    found = {}
    for name, bad in CASES.items():
        try:
            bad()
        except StepsizeError as error:
            found[name] = f"{type(error).__name__}: {error}"
        except Exception as error:  # noqa: BLE001 (what is not ours is shown, and fails)
            found[name] = f"NOT OURS {type(error).__name__}: {error}"
        else:
            found[name] = "NO ERROR"
    return found


def as_text(found: dict[str, str]) -> str:
    return "".join(f"{name}\n    {message}\n" for name, message in found.items())


def test_errors_say_which_field_the_rule_what_was_given_and_the_cure():
    assert as_text(collected()) == SNAPSHOT.read_text(encoding="utf-8")


def test_every_error_is_one_sentence_of_ours():
    for name, message in collected().items():
        assert not message.startswith(("NO ERROR", "NOT OURS")), (name, message)
        assert "\n" not in message, (name, message)
        assert "Traceback" not in message, (name, message)


def test_every_error_is_a_value_error_too():
    assert issubclass(UnitError, ValueError)
    assert json.dumps(sorted(collected()))


if __name__ == "__main__":
    SNAPSHOT.write_text(as_text(collected()), encoding="utf-8")
