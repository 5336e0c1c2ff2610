"""Expressions: what `repr` writes is read back, and no text does more than make a schedule."""

import ast
import importlib
import importlib.metadata
import inspect
import os
import re
import sys
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.laws.examples import FAMILIES, halved, of_family
from tests.laws.written import damaged, everything, plans, written

import stepsize
from stepsize import (
    REGISTRY,
    Constant,
    Cosine,
    Custom,
    Held,
    Linear,
    MultiStep,
    OneMinusSqrt,
    Piecewise,
    Plan,
    Repeated,
    Schedule,
    SpecError,
    Warmup,
    one_cycle,
    parse,
    schedule,
    wsd,
)
from stepsize.files import expression, literals, source_text
from stepsize.files.expression import METHODS
from stepsize.schedules import recipes

# What it reads ---------------------------------------------------------------------------------


@pytest.mark.parametrize("cls", [c for c in FAMILIES if c is not Custom], ids=lambda c: c.kind)
@settings(max_examples=15)
@given(data=st.data())
def test_every_family_is_read_back(cls, data):
    value = data.draw(of_family(cls))
    assert parse(repr(value)) == value


@settings(max_examples=300)
@given(value=written | plans)
def test_combinations_plans_and_units_are_read_back(value):
    assert parse(repr(value)) == value


def test_repr_is_python_that_makes_the_same_value():
    space = {name: getattr(stepsize, name) for name in stepsize.__all__}
    for text in ("Warmup('5%') >> Cosine(stop=0.1)", "Plan(lr=0.5 * wsd(along=OneMinusSqrt))"):
        assert parse(repr(parse(text))) == parse(text) == eval(text, dict(space))  # noqa: S307 (ours)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ('Warmup("5%") >> Cosine(stop=0.1)', Warmup("5%") >> Cosine(stop=0.1)),
        ("  Cosine(5000 - 1000)\n", Cosine(4000)),
        ("Linear(1, stop=1/25 + 2*3 - -1)", Linear(1, stop=7.04)),
        ("2 * 3 * Linear(5) * 2", 2 * (6 * Linear(5))),
        ("Linear(5) * Cosine(5) >> Linear(5)", Linear(5) * Cosine(5) >> Linear(5)),
        ("(Linear(5)\n >> Cosine(5))", Linear(5) >> Cosine(5)),
        ("Linear(5).held(2).cut()", Held(Linear(5), 2).cut()),
        ("Repeated(Cosine(), '10ep', times=None)", Repeated(Cosine(), "10ep")),
        ("Piecewise({0: 1, '30ep': .1}, linear=True)", Piecewise({0: 1, "30ep": 0.1}, linear=True)),
        ("MultiStep([30, 60])", MultiStep((30, 60))),
        ("Warmup(5, along=Cosine)", Warmup(5, along=Cosine)),
        ("Warmup(5, along='one_minus_sqrt')", Warmup(5, along=OneMinusSqrt)),
        ("wsd(along=OneMinusSqrt)", wsd(along=OneMinusSqrt)),
        ("one_cycle(100, form='paper')", one_cycle(100, form="paper")),
        ("one_cycle()['lr'].absolute(3e-4)", one_cycle()["lr"].absolute(3e-4)),
        ("one_cycle().renamed(momentum='beta1')", one_cycle().renamed(momentum="beta1")),
        ("Plan(lr=Linear(5)).replaced(wd=Constant())", Plan(lr=Linear(5), wd=Constant())),
        ("Custom(Linear(5))", Custom(Linear(5))),
    ],
)
def test_what_an_expression_may_say(text, value):
    assert parse(text) == value


RECIPES = sorted(
    name
    for name, recipe in inspect.getmembers(recipes, inspect.isfunction)
    if recipe.__module__ == recipes.__name__ and not name.startswith("_")
)


def test_every_recipe_and_every_composing_method_may_be_called():
    assert set(RECIPES) <= set(stepsize.__all__)
    for name in RECIPES:
        with pytest.raises(SpecError, match=f"{name} is to be called: write {name}\\(...\\)"):
            parse(name)
    composing = {
        name
        for name, method in inspect.getmembers(Schedule, inspect.isfunction)
        if method.__annotations__.get("return") == "Schedule" and not name.startswith("_")
    }
    assert set(METHODS[Schedule]) == composing


def test_a_long_sequence_is_read_in_time():
    long = " >> ".join(["Linear(5)"] * 900)
    began = time.process_time()
    assert repr(parse(long)) == long
    assert time.process_time() - began < 5


def test_functions_and_families_of_trusted_packages(monkeypatch):
    text = 'Custom("tests.laws.examples:halved", over=10)'
    with pytest.raises(SpecError, match=r"column 8: the function .* only with trust=\('tests',\)"):
        parse(text)
    assert parse(text, trust=("tests",)) == parse(text, trust="tests") == Custom(halved, over=10)
    with pytest.raises(SpecError, match="column 8: tests.laws.examples has no function 'none'"):
        parse('Custom("tests.laws.examples:none")', trust="tests")
    with pytest.raises(SpecError, match="column 8: No module named 'tests.nowhere'"):
        parse('Custom("tests.nowhere:none")', trust="tests")

    class Entry:
        name, module = "expression_theirs", "theirs.schedules"

        def load(self):
            @schedule
            class Theirs(Linear):
                kind = "expression_theirs"

    monkeypatch.setattr(importlib.metadata, "entry_points", lambda group: [Entry()])
    try:
        for trust in ((), ("others",)):
            with pytest.raises(SpecError, match="unknown name 'Theirs'"):
                parse("Theirs(5)", trust=trust)
        assert parse("Theirs(5)", trust=("theirs",)) == REGISTRY["expression_theirs"](5)
    finally:
        REGISTRY.pop("expression_theirs", None)


def test_the_own_family_comes_before_another_of_the_same_name():
    @schedule
    class Linear(Cosine):
        kind = "expression_linear"

    try:
        assert type(parse("Linear(5)")) is stepsize.Linear
    finally:
        REGISTRY.pop("expression_linear")


# What it says ----------------------------------------------------------------------------------

WRONG = {
    "Cosin(5)": "column 1: unknown name 'Cosin', did you mean 'Cosine'",
    "Warmup(5) >> Cosine(ovr=10)": "column 21: Cosine has no argument 'ovr', did you mean 'over'",
    "Linear(5).helt(3)": "column 1: Linear(5) has no method 'helt', did you mean 'held'",
    "Linear.held(3)": "column 1: Linear has no method 'held': write Linear()",
    "Linear >> Cosine()": "column 1: >> joins schedules, got Linear: write Linear()",
    "Linear": "column 1: expected a schedule or a Plan, got Linear: write Linear()",
    "Linear(1, 2, 3, 4)": "column 1: Linear: too many positional arguments",
    "Warmup()": "column 1: Warmup: missing a required argument: 'over'",
    "Linear(5, over=6)": "column 1: Linear: multiple values for argument 'over'",
    "Linear(over=5, over=6)": "column 16: over=6 is not allowed: every argument is named once",
    "Plan(lr=Linear(5))['l']": "column 20: the Plan has lr, not 'l', did you mean 'lr'",
    "1/0 * Linear(5)": "column 1: 1/0 is no finite number",
    "Linear(1e999)": "column 8: 1e999 is no finite number",
    "Piecewise({0: 1, 0: 2})": "column 18: the table has 0 twice",
    "True * Linear(5)": "column 1: True * Linear(5) is not allowed: schedules are joined",
    "Custom(halved)": "column 8: halved is a function, which is code: write Custom('module:funct",
    "Custom(lambda t: t)": "column 8: lambda t: t is a function, which is code",
    "1 + 1": "column 1: expected a schedule or a Plan, got 1 + 1",
    "": "column 1: invalid syntax",
    "Linear(5": "column 7: '(' was never closed",
    "(Linear(5)\n >> Cosin(5))": "column 16: unknown name 'Cosin', did you mean 'Cosine'",
    "Plan(é=Linear(5), lr=Cosin())": "column 22: unknown name 'Cosin'",
    "Cosine(-5)": "column 1: Cosine.over must be a length > 0, got -5; ",
    "wsd(along=5)": "column 1: wsd.along must be a ramp class or its name (Cosine, Geom",
    "wsd_s(1, 2, 3, along=Warmup)": "column 1: wsd_s.along must be a ramp class or its nam",
    "Step(5) >> Linear(5)": "column 1: Sequence.parts[0] must be a part that ends",
}


@pytest.mark.parametrize("text", WRONG)
def test_an_error_says_where_and_what(text):
    with pytest.raises(SpecError, match="^" + re.escape(WRONG[text])):
        parse(text)


def test_a_text_that_is_none():
    with pytest.raises(SpecError, match="an expression is a text, got 5"):
        parse(5)


# Nothing hostile does more than fail -----------------------------------------------------------

HOSTILE = [
    '__import__("os").system("true")',
    "__import__('antigravity')",
    "().__class__.__bases__[0].__subclasses__()",
    "Cosine.__init__",
    "Cosine.__init__.__globals__",
    "Cosine(5).__class__",
    "Cosine(5)._value(1, 2)",
    "Cosine(5).compile()",
    "Cosine(5).source()",
    "Cosine(5).__reduce__()",
    "Plan.__init__(lr=Cosine(5))",
    "Plan(lr=Cosine(5)).resolved(5)",
    "Plan(lr=Cosine(5)).keys()",
    "Cosine(5)(5)",
    "wsd()(5)",
    "wsd.__globals__['math']",
    "math.floor(5)",
    "parse('Linear(5)')",
    "Bounds(gt=5)",
    "_pair((1, 2))",
    "Schedule()",
    "Ramp(5)",
    "eval('1')",
    "exec('1')",
    "open('/etc/passwd')",
    "lambda: Linear(5)",
    "(lambda: Linear(5))()",
    "[x for x in (1, 2)]",
    "{x for x in (1, 2)}",
    "(x for x in (1, 2))",
    "f'{Linear(5)}'",
    "f'{__import__(\"os\")}'",
    "(x := Linear(5))",
    "Linear(x := 5)",
    "Linear(*[5])",
    "Linear(**{'over': 5})",
    "Plan(**{'lr': Linear(5)})",
    "Piecewise({**{0: 1}})",
    "Piecewise({Linear(5): 1})",
    "Linear(5) if True else Linear(6)",
    "Linear(5) and Linear(6)",
    "not Linear(5)",
    "Linear(5) == Linear(5)",
    "Linear(5) << Linear(5)",
    "Linear(5) ** 2",
    "Linear(5) @ 2",
    "10 ** 10 ** 10 * Linear(5)",
    "Linear(10 ** 10 ** 10)",
    "Linear(1 << 10 ** 10)",
    "Linear('a' * 10 ** 9)",
    "Linear('a' * 1000000000)",
    "MultiStep((1,) * 1000000000)",
    "Linear(5 % 3)",
    "Linear(5 // 3)",
    "Linear(5j)",
    "Linear(b'5')",
    "Linear(...)",
    "Linear(+5)",
    "Linear(~5)",
    "Linear(5)[0]",
    "Linear(5)[0:1]",
    "'Linear(5)'['Linear']",
    "one_cycle()[lr]",
    "one_cycle()[...]",
    "await Linear(5)",
    "yield Linear(5)",
    "import os",
    "x = Linear(5)",
    "Linear(5); Linear(6)",
    "Linear(5)\nLinear(6)",
    "Linear(5)) >> (Linear(5)",
    "noam('a', 'b')",
    "half_life([1])",
    "Custom('os:system')",
    "Custom('os')",
    "Custom('')",
    "Custom(':')",
    "Custom(Linear)",
    "Custom(5)",
    "Sequence((Linear, Cosine))",
    "Linear(along=Linear)",
    "\x00",
    "Linear(5)\x00",
    "'\ud800'",
    "Linear('\ud800')",
    "\\",
    "Linear(" + "9" * 5000 + ")",
    "Linear(0x" + "f" * 5000 + ")",
    "Linear(1e300 * 1e300)",
    "Linear(1" + "0" * 400 + " / 3)",
    "(" * 5000,
    "[" * 150 + "]" * 150,
    "-" * 50_000 + "1",
    "1" + "+1" * 40_000,
    "Linear(5)" + ".held(5)" * 10_000,
    "Linear(5)" + " * Linear(5)" * 8000,
    "Linear(5)" + " >> Linear(5)" * 7500,
    "Linear" + "(5)" * 20_000,
    "a" + ".a" * 20_000,
    "not " * 20_000 + "a",
    "lambda: " * 10_000 + "1",
    "Linear(5)" + " " * 100_000,
    "#" * 100_001,
]


def refused(text):
    began = time.process_time()
    with pytest.raises(SpecError) as caught:
        parse(text)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 400
    assert time.process_time() - began < 5


@pytest.mark.parametrize("text", HOSTILE, ids=lambda x: ascii(x[:40]))
def test_hostile_text_is_a_spec_error(text):
    refused(text)


def test_hostile_text_imports_and_runs_nothing(monkeypatch):
    for text in HOSTILE:  # what an error needs is imported once
        refused(text)
    before = set(sys.modules)
    monkeypatch.setattr(importlib, "import_module", lambda name: pytest.fail(f"imports {name}"))
    monkeypatch.setattr(os, "system", lambda command: pytest.fail(f"runs {command}"))
    for text in HOSTILE:
        refused(text)
    assert set(sys.modules) == before


def test_the_reader_evaluates_nothing():
    trees = [ast.parse(inspect.getsource(module)) for module in (expression, literals, source_text)]
    calls = [node.func for tree in trees for node in ast.walk(tree) if isinstance(node, ast.Call)]
    called = {func.id for func in calls if isinstance(func, ast.Name)}
    assert {"getattr", "constant"} <= called
    assert not called & {"eval", "exec", "compile", "__import__", "globals", "open"}


TOKENS = st.sampled_from(
    [
        *sorted(c.__name__ for c in FAMILIES),
        *RECIPES,
        *(f".{name}" for names in METHODS.values() for name in names),
        *("Plan", "over=", "along=", "stop=", "parts=", "of=", "at=", "lr=", "momentum=", "times="),
        *("(", ")", "(", ")", "(", ")", "[", "]", "{", "}", ",", ",", ":", "'", '"', ".", "="),
        *(" >> ", " * ", " + ", " - ", " / ", "**", " if ", " lambda x: ", " for ", "\n", "@"),
        *("0", "1", "2", "10", "0.5", "1e300", "1e-300", "-1", "None", "True", "'5%'", "'rest'"),
        *("'lr'", "'cosine'", "'os:system'", "__class__", "_rules", "0xff", "1j", "b''", "f'{1}'"),
    ]
)


def made_or_refused(text):
    try:
        made = parse(text)
    except SpecError as error:
        assert "\n" not in str(error)  # noqa: PT017 (a schedule is no error either)
    else:
        assert isinstance(made, Schedule | Plan)


@settings(max_examples=1500)
@given(tokens=st.lists(TOKENS, max_size=25))
def test_random_tokens_are_spec_errors_or_schedules(tokens):
    made_or_refused("".join(tokens))


@settings(max_examples=500)
@given(text=damaged(everything.map(repr)))
def test_damaged_expressions_are_spec_errors_or_schedules(text):
    made_or_refused(text)


ANYTHING = st.sampled_from(
    [
        *("0", "1", "2", "-1", "0.5", "1e300", "1e-320", "12345678901234567890", "None", "True"),
        *("'5%'", "'rest'", "'-1ep'", "'x'", "()", "(1, 2)", "('1ep', 2)", "((1, 2),)", "[]", "{}"),
        *("{'a': 1}", "Cosine", "Warmup", "Geometric", "Linear(5)", "one_cycle()", "'torch'"),
        *("'paper'", "'fastai'", "'exp_range'", "'linear'", "'exponential'", "'triangular2'"),
    ]
)


@settings(max_examples=1500)
@given(data=st.data())
def test_recipes_given_anything_are_spec_errors_or_schedules(data):
    name = data.draw(st.sampled_from(RECIPES))
    known = list(inspect.signature(getattr(recipes, name)).parameters)
    given_names = data.draw(st.lists(st.sampled_from(known), unique=True))
    made_or_refused(f"{name}({', '.join(f'{n}={data.draw(ANYTHING)}' for n in given_names)})")
