"""Files: every one ever published still loads, and nothing hostile does more than fail."""

import importlib.metadata
import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.laws.examples import halved

from stepsize import (
    REGISTRY,
    Cosine,
    Custom,
    Horizon,
    Linear,
    MultiStep,
    Piecewise,
    Plan,
    Polynomial,
    Schedule,
    SpecError,
    Warmup,
    dump,
    from_dict,
    load,
    noam,
    one_cycle,
    resolve,
    sgdr,
    to_dict,
    wsd,
)

FILES = Path(__file__).with_name("files")
IMAGENET = Horizon("9ep", batches_per_epoch=391)
PUBLISHED = {
    "v1/warmup_cosine.json": Warmup("5%") >> Cosine(stop=0.1),
    "v1/resolved.json": resolve(
        wsd("1ep", "20%", along=Polynomial), Horizon("9ep", batches_per_epoch=391)
    ),
    "v1/one_cycle.json": one_cycle(),
    "v1/restarts.json": Warmup("1ep", along=Cosine)
    >> sgdr("10ep", growth=1.5, factor=0.5, stop=0.01),
    "v1/noam.json": noam(512, 4000),
    "v1/tables.json": Plan(
        lr=MultiStep(("30ep", "60ep", "60ep"), 0.2),
        weight_decay=Piecewise({0: 0.1, "2e9tok": 0.01}).absolute(),
        beta1=Linear(100, start=0.9, stop=0.95).stretched(2).shifted(-1).held(5).cut(50).absolute(),
    ),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_every_file_ever_published_loads(name):
    assert load(FILES / name) == PUBLISHED[name]


def test_no_published_file_is_forgotten():
    assert {p.relative_to(FILES).as_posix() for p in FILES.rglob("*.json")} == set(PUBLISHED)


def test_a_file_is_written_whole_or_not_at_all(tmp_path):
    target = tmp_path / "plan.json"
    dump(one_cycle(), target)
    before = target.read_text()
    with pytest.raises(SpecError, match="no name that a file could hold"):
        dump(Custom(lambda t: t), target)
    assert target.read_text() == before
    assert [p.name for p in tmp_path.iterdir()] == ["plan.json"]


def test_functions_load_where_their_package_is_trusted():
    data = to_dict(Custom(halved, over=10))
    with pytest.raises(SpecError, match="loads only with trust=\\('tests',\\)"):
        from_dict(data)
    assert from_dict(data, trust=["tests"]) == Custom(halved, over=10)
    data["schedule"]["function"] = "tests.laws.examples:nothing"
    with pytest.raises(SpecError, match="has no function 'nothing'"):
        from_dict(data, trust=["tests"])


def test_a_family_of_another_package_loads_where_it_is_trusted(monkeypatch):
    loaded = []

    class Entry:
        name, module = "their_kind", "theirs.schedules"

        def load(self):
            loaded.append(self.name)
            REGISTRY["their_kind"] = Linear

    monkeypatch.setattr(importlib.metadata, "entry_points", lambda group: [Entry()])
    data = {"format": 1, "schedule": {"kind": "their_kind", "over": 5}}
    try:
        for trust in ((), ("others",)):
            with pytest.raises(SpecError, match="unknown kind 'their_kind'"):
                from_dict(data, trust=trust)
        assert loaded == []
        assert from_dict(data, trust=("theirs",)) == Linear(5)
    finally:
        REGISTRY.pop("their_kind", None)


KINDS = st.sampled_from([*sorted(REGISTRY), "custom", "unknown", "__import__", "os:system"])
NAMES = st.sampled_from(
    ["over", "start", "stop", "parts", "of", "by", "at", "points", "function", "along", "kind", "x"]
)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | KINDS,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(NAMES | st.text(max_size=4), inner, max_size=4)
    ),
    max_leaves=8,
)
NODES = st.recursive(
    st.fixed_dictionaries(
        {"kind": KINDS}, optional={"over": VALUES, "every": VALUES, "factor": VALUES}
    ),
    lambda inner: st.builds(
        lambda kind, name, value: {"kind": kind, name: value},
        KINDS,
        NAMES,
        inner | st.lists(inner, max_size=3),
    ),
    max_leaves=4,
)


@settings(max_examples=600)
@given(data=VALUES | st.fixed_dictionaries({"format": st.just(1), "schedule": NODES | VALUES}))
def test_hostile_data_is_a_spec_error_or_a_schedule(data):
    try:
        made = from_dict(data)
    except SpecError:
        return
    else:
        assert isinstance(made, Schedule)
        assert from_dict(json.loads(json.dumps(to_dict(made)))) == made


@pytest.mark.parametrize(
    "text",
    [
        "",
        "nul",
        "[" * 100_000,
        '{"format": 1e999}',
        "\x00",
        "é",
        '{"format": 1, "schedule": {"kind": "linear", "over": 1e400}}',
    ],
)
def test_hostile_text_is_a_spec_error(text, tmp_path):
    path = tmp_path / "x.json"
    path.write_bytes(text.encode("latin-1"))
    with pytest.raises(SpecError):
        load(path)


def test_deep_nesting_is_a_spec_error(tmp_path):
    path = tmp_path / "deep.json"
    deep = '{"kind": "scaled", "by": 1, "of": ' * 400 + '{"kind": "linear"}' + "}" * 400
    path.write_text('{"format": 1, "schedule": ' + deep + "}")
    with pytest.raises(SpecError, match="nested too deeply"):
        load(path)


if __name__ == "__main__":
    for name, value in PUBLISHED.items():
        if not (FILES / name).exists():
            dump(value, FILES / name)
