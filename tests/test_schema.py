"""The JSON Schema: what `to_dict` gives is valid, what a person mistypes is not."""

import copy
import dataclasses
from types import SimpleNamespace

import jsonschema
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.laws.examples import FAMILIES, of_family
from tests.laws.written import everything
from tests.test_files import FILES, PUBLISHED

from stepsize import (
    REGISTRY,
    Cosine,
    Schedule,
    SpecError,
    Warmup,
    from_dict,
    json_schema,
    schedule,
    to_dict,
)
from stepsize.files.yaml_core import read

SCHEMA = json_schema()
VALIDATOR = jsonschema.Draft202012Validator(SCHEMA)


def test_the_schema_is_one():
    now = json_schema()  # other tests register families too
    jsonschema.Draft202012Validator.check_schema(now)
    assert set(now["$defs"]) == {"node", *(f"family-{kind}" for kind in REGISTRY)}


@pytest.mark.parametrize("cls", FAMILIES, ids=lambda c: c.kind)
@settings(max_examples=15)
@given(data=st.data())
def test_every_family_is_valid(cls, data):
    VALIDATOR.validate(to_dict(data.draw(of_family(cls))))


@settings(max_examples=150)
@given(value=everything)
def test_combinations_plans_and_units_are_valid(value):
    VALIDATOR.validate(to_dict(value))


@pytest.mark.parametrize("name", [name for name in PUBLISHED if not name.endswith(".toml")])
def test_published_files_are_valid(name):
    VALIDATOR.validate(read((FILES / name).read_text()))  # JSON is YAML too


VALID = [
    "Warmup('5%') >> Cosine()",
    {"kind": "linear"},
    {"kind": "linear", "over": "rest"},
    {"kind": "linear", "over": "1e3 epochs"},
    {"kind": "linear", "over": "5%", "stop": 0},
    {"kind": "shifted", "of": "Linear(5)", "by": "-1ep"},
    {"kind": "warmup", "over": 5, "along": "cosine", "start": None},
    {"kind": "warmup", "over": 5, "along": "Cosine"},
    {"kind": "piecewise", "points": {"0": 1, "30ep": 0.1}},
    {"kind": "custom", "function": "package.module:name"},
    {"kind": "custom", "function": {"kind": "linear"}},
]


@pytest.mark.parametrize("node", VALID, ids=str)
def test_what_a_person_may_write_is_valid(node):
    VALIDATOR.validate({"$schema": "x", "format": 1, "schedule": node})
    VALIDATOR.validate({"format": 1, "plan": {"lr": node, "my_key": node}})
    if "function" not in node:  # which only loads where it is trusted
        assert isinstance(from_dict({"format": 1, "schedule": node}), Schedule)


INVALID = [
    "",
    5,
    None,
    [],
    {},
    {"kind": "cosin"},
    {"over": 5},
    {"kind": "cosine", "ovr": 5},
    {"kind": "warmup"},
    {"kind": "linear", "over": -5},
    {"kind": "linear", "over": 0},
    {"kind": "linear", "over": "-5ep"},
    {"kind": "linear", "over": "5 eons"},
    {"kind": "linear", "over": "100"},
    {"kind": "linear", "over": True},
    {"kind": "linear", "over": None},
    {"kind": "linear", "stop": -0.1},
    {"kind": "linear", "stop": "0.1"},
    {"kind": "step", "every": 5, "factor": 2},
    {"kind": "repeated", "of": "Linear(5)", "times": 1.5},
    {"kind": "held", "of": {"kind": "cosin"}, "every": 1},
    {"kind": "held", "of": 5, "every": 1},
    {"kind": "held", "of": "Linear(5)", "every": "rest ep"},
    {"kind": "shifted", "of": "Linear(5)", "by": "rest"},
    {"kind": "sequence", "parts": ["Linear(5)"]},
    {"kind": "sequence", "parts": ["Linear(5)", {"kind": "linear", "over": -1}]},
    {"kind": "multi_step", "at": []},
    {"kind": "multi_step", "at": [-1]},
    {"kind": "piecewise", "points": [[0, 1, 2]]},
    {"kind": "piecewise", "points": [[0]]},
    {"kind": "piecewise", "points": [[0, -1]]},
    {"kind": "piecewise", "points": {}},
    {"kind": "piecewise", "points": [[0, 1]], "linear": 1},
    {"kind": "warmup", "over": 5, "along": "warmup"},
    {"kind": "custom", "function": "halved"},
]


@pytest.mark.parametrize("node", INVALID, ids=str)
def test_what_a_person_mistypes_is_invalid_and_does_not_load(node):
    for data in ({"format": 1, "schedule": node}, {"format": 1, "plan": {"lr": node}}):
        assert not VALIDATOR.is_valid(data)
        with pytest.raises(SpecError):
            from_dict(data)


@pytest.mark.parametrize(
    "data",
    [
        {"schedule": "Linear(5)"},
        {"format": 2, "schedule": "Linear(5)"},
        {"format": 1},
        {"format": 1, "plan": {}},
        {"format": 1, "plan": {"lr": "Linear(5)"}, "schedule": "Linear(5)"},
        {"format": 1, "schedule": "Linear(5)", "extra": 1},
        [],
    ],
    ids=str,
)
def test_what_is_no_file_is_invalid_and_does_not_load(data):
    assert not VALIDATOR.is_valid(data)
    with pytest.raises(SpecError):
        from_dict(data)


def test_the_error_of_a_deep_field_is_about_that_field():
    data = to_dict((Warmup("5%") >> Cosine(10)).held(2))
    data["schedule"]["of"]["parts"][1]["over"] = -10
    best = jsonschema.exceptions.best_match(VALIDATOR.iter_errors(data))
    assert list(best.absolute_path) == ["schedule", "of", "parts", 1, "over"]


def test_a_deep_tree_is_checked_in_time():
    node = {"kind": "linear"}
    for _ in range(30):
        node = {"kind": "scaled", "of": node, "by": 1}
    VALIDATOR.validate({"format": 1, "schedule": node})


def test_editors_get_descriptions_and_defaults():
    cosine = SCHEMA["$defs"]["family-cosine"]
    assert cosine["title"] == "Cosine"
    assert cosine["description"].startswith("Cosine annealing")
    assert cosine["properties"]["over"]["default"] == "rest"
    assert SCHEMA["$defs"]["family-warmup"]["properties"]["along"]["default"] == "linear"
    now = json_schema()
    for kind, cls in REGISTRY.items():
        family = now["$defs"][f"family-{kind}"]
        assert set(family["properties"]) == {"kind"} | {
            field.name for field in dataclasses.fields(cls) if field.init
        }


def test_a_family_of_another_package_is_in_it_whatever_its_rules():
    @schedule
    class Theirs(Schedule):
        """Theirs."""

        kind = "schema_theirs"
        over: float
        duration = 1.0

        def _value(self, t, xp):
            return xp.clip(t, 0.0, 1.0)

    silent = SimpleNamespace(admit=lambda field, value: value)
    Theirs._rules["over"] = (silent, False)
    try:
        family = json_schema()["$defs"]["family-schema_theirs"]
        assert family["properties"] == {"kind": {"const": "schema_theirs"}, "over": {}}
        assert family["required"] == ["kind", "over"]
    finally:
        REGISTRY.pop("schema_theirs")


def test_the_schema_is_made_anew_each_time():
    changed = json_schema()
    before = copy.deepcopy(changed)
    changed["properties"].clear()
    changed["$defs"]["node"].clear()
    assert json_schema() == before
