"""Files: every one ever published still loads, and nothing hostile does more than fail."""

import importlib
import importlib.metadata
import io
import json
import os
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.laws.examples import FAMILIES, halved, of_family
from tests.laws.written import damaged, everything

from stepsize import (
    REGISTRY,
    Constant,
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
    Step,
    StepsizeError,
    Warmup,
    dump,
    dumps,
    from_dict,
    load,
    loads,
    noam,
    one_cycle,
    resolve,
    schedule,
    sgdr,
    to_dict,
    wsd,
)
from stepsize.torch import Scheduler
from stepsize.torch.state import hashed

FILES = Path(__file__).with_name("files")
FORMS = ("json", "yaml", "toml")
IMAGENET = Horizon("9ep", batches_per_epoch=391)
VALUES_OF = {
    "warmup_cosine": Warmup("5%") >> Cosine(stop=0.1),
    "resolved": resolve(wsd("1ep", "20%", along=Polynomial), IMAGENET),
    "one_cycle": one_cycle(),
    "restarts": Warmup("1ep", along=Cosine) >> sgdr("10ep", growth=1.5, factor=0.5, stop=0.01),
    "noam": noam(512, 4000),
    "tables": Plan(
        lr=MultiStep(("30ep", "60ep", "60ep"), 0.2),
        weight_decay=Piecewise({0: 0.1, "2e9tok": 0.01}).absolute(),
        beta1=Linear(100, start=0.9, stop=0.95).stretched(2).shifted(-1).held(5).cut(50).absolute(),
    ),
}
PUBLISHED = {f"v1/{stem}.{form}": value for stem, value in VALUES_OF.items() for form in FORMS}
PUBLISHED["v1/written_by_hand.yaml"] = Plan(
    lr=VALUES_OF["warmup_cosine"] >> Step("30ep"), weight_decay=Constant(value=0.1).absolute()
)


@pytest.mark.parametrize("name", PUBLISHED)
def test_every_file_ever_published_loads(name):
    assert load(FILES / name) == PUBLISHED[name]


def test_no_published_file_is_forgotten():
    assert {p.relative_to(FILES).as_posix() for p in FILES.rglob("*.*")} == set(PUBLISHED)


# Every form holds the same ---------------------------------------------------------------------


def reread(value, form):
    return loads(dumps(value, form), form, trust=("tests",))


@pytest.mark.parametrize("cls", FAMILIES, ids=lambda c: c.kind)
@settings(max_examples=15)
@given(data=st.data())
def test_every_family_is_the_same_in_every_form(cls, data):
    value = data.draw(of_family(cls))
    for form in FORMS:
        assert reread(value, form) == value


@settings(max_examples=150)
@given(value=everything)
def test_combinations_plans_and_units_are_the_same_in_every_form(value):
    for form in FORMS:
        assert reread(value, form) == value


@settings(max_examples=50)
@given(value=everything)
def test_other_readers_of_yaml_see_the_same_data(value):
    assert yaml.safe_load(dumps(value, "yaml")) == to_dict(value)


@pytest.mark.parametrize("ending", ["json", "yaml", "yml", "toml"])
def test_files_of_every_ending(ending, tmp_path):
    for stem, value in VALUES_OF.items():
        dump(value, tmp_path / f"{stem}.{ending}")
        assert load(str(tmp_path / f"{stem}.{ending}")) == value


def test_yaml_reads_scalars_as_yaml_1_2_does():
    made = loads("format: 1\nschedule: {kind: warmup, over: 3e2, start: 3e-4}", "yaml")
    assert made == Warmup(300, start=3e-4)
    assert loads("format: 1\nschedule: {kind: linear, over: 010}", "yaml") == Linear(10)
    assert loads("format: 1\nschedule: {kind: linear, over: 0x10}", "yaml") == Linear(16)
    assert loads("format: 1\nschedule: {kind: linear, over: 0o10}", "yaml") == Linear(8)
    for word in ("on", "yes", "1:30", "2024-01-01", "1_000", "0b11", "=", "<<"):
        with pytest.raises(SpecError, match=f"got '{word}'"):
            loads(f"format: 1\nschedule: {{kind: constant, value: {word}}}", "yaml")
    for word, shown in {"true": "True", "~": "None", ".inf": "inf", ".nan": "nan"}.items():
        with pytest.raises(SpecError, match=f"got {shown}"):
            loads(f"format: 1\nschedule: {{kind: constant, value: {word}}}", "yaml")


def test_a_text_where_a_schedule_is_expected_is_an_expression():
    assert loads('{"format": 1, "schedule": "0.5 * Linear(10)"}') == 0.5 * Linear(10)
    assert loads("format = 1\nplan.lr = 'Linear(10)'", "toml") == Plan(lr=Linear(10))
    assert loads("format: 1\nplan: one_cycle()", "yaml") == one_cycle()
    text = "format: 1\nschedule: {kind: scaled, by: 2, of: sgdr(10)}"
    assert loads(text, "yaml") == 2 * sgdr(10)
    with pytest.raises(SpecError, match="schedule: expected a schedule, got the Plan"):
        loads("format: 1\nschedule: one_cycle()", "yaml")
    with pytest.raises(SpecError, match="plan: expected a Plan, got the schedule"):
        loads("format: 1\nplan: Linear(5)", "yaml")
    with pytest.raises(SpecError, match=r"schedule.parts\[1\]: column 8: Cosine has no argument"):
        loads("format: 1\nschedule: {kind: sequence, parts: [Linear(1), Cosine(ovr=1)]}", "yaml")


def test_a_table_may_be_written_as_one():
    made = loads("format: 1\nschedule: {kind: piecewise, points: {0: 1, 30ep: 0.1}}", "yaml")
    assert made == Piecewise({0: 1, "30ep": 0.1})


def test_a_ramp_may_be_written_by_its_kind_or_its_class():
    for along in ("cosine", "Cosine"):
        data = {"format": 1, "schedule": {"kind": "warmup", "over": 10, "along": along}}
        assert from_dict(data) == Warmup(10, along=Cosine) == Warmup(10, along=along)


def test_errors_carry_the_path_to_the_field():
    parts = [{"kind": "warmup", "over": 5}, {"kind": "cosine", "over": -1}]
    data = {"format": 1, "plan": {"lr": {"kind": "sequence", "parts": parts}}}
    with pytest.raises(SpecError, match=r"^plan.lr.parts\[1\].over: Cosine.over must be a length"):
        from_dict(data)
    table = {"format": 1, "schedule": {"kind": "multi_step", "at": [3, -1]}}
    with pytest.raises(SpecError, match=r"^schedule.at: MultiStep.at\[1\] must be"):
        from_dict(table)
    endless = {"kind": "sequence", "parts": ["Step(5)", "Linear(5)"]}
    with pytest.raises(
        SpecError, match=r"^schedule.parts: Sequence.parts\[0\] must be a part that"
    ):
        from_dict({"format": 1, "schedule": endless})


# Writing ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", FORMS)
def test_a_file_is_written_whole_or_not_at_all(form, tmp_path, monkeypatch):
    target = tmp_path / f"plan.{form}"
    dump(one_cycle(), target)
    before = target.read_text()
    with pytest.raises(SpecError, match="no name that a file could hold"):
        dump(Custom(lambda t: t), target)
    monkeypatch.setattr(Path, "replace", lambda *_: (_ for _ in ()).throw(OSError(28, "full")))
    with pytest.raises(SpecError, match=f"plan.{form}: cannot be written: full"):
        dump(noam(512, 4000), target)
    assert target.read_text() == before
    assert [p.name for p in tmp_path.iterdir()] == [f"plan.{form}"]


def test_what_cannot_be_written_is_a_spec_error(tmp_path):
    with pytest.raises(SpecError, match=r"there is no folder .*nowhere: make it first"):
        dump(Linear(5), tmp_path / "nowhere" / "plan.toml")
    (tmp_path / "folder.json").mkdir()
    with pytest.raises(SpecError, match="folder.json: cannot be written: Is a directory"):
        dump(Linear(5), tmp_path / "folder.json")
    assert [p.name for p in tmp_path.iterdir()] == ["folder.json"]
    with pytest.raises(SpecError, match="cannot be written: embedded null byte"):
        dump(Linear(5), tmp_path / "nu\0ll.json")


def test_what_is_forbidden_is_a_spec_error(tmp_path, monkeypatch):
    path = tmp_path / "plan.json"
    dump(Linear(5), path)

    def forbidden(*_, **__):
        raise PermissionError(13, "Permission denied")  # a test that is run by root meets none

    monkeypatch.setattr(Path, "open", forbidden)
    with pytest.raises(SpecError, match="cannot be read: Permission denied"):
        load(path)
    monkeypatch.setattr(os, "open", forbidden)
    monkeypatch.setattr(Path, "unlink", forbidden)
    with pytest.raises(SpecError, match="cannot be written: Permission denied"):
        dump(Linear(5), path)


def test_threads_that_write_one_file_do_not_disturb_each_other(tmp_path):
    path = tmp_path / "plan.json"
    with ThreadPoolExecutor(4) as threads:
        list(threads.map(lambda i: dump(Linear(5 + i), path), range(200)))
    assert isinstance(load(path), Linear)
    assert [p.name for p in tmp_path.iterdir()] == ["plan.json"]


def test_a_file_keeps_its_mode_and_a_link_stays_one(tmp_path):
    path, link = tmp_path / "plan.json", tmp_path / "link.json"
    dump(Linear(5), path)
    path.chmod(0o600)
    link.symlink_to(path)
    dump(Linear(6), link)
    assert link.is_symlink()
    assert load(path) == Linear(6)
    assert path.stat().st_mode & 0o777 == 0o600


def test_a_file_that_could_not_be_read_again_is_not_written(tmp_path):
    table = Piecewise(dict.fromkeys(range(60000), 1.0))
    with pytest.raises(SpecError, match="bytes in YAML, this has .*; JSON may be longer"):
        dump(table, tmp_path / "long.yaml")
    dump(table, tmp_path / "long.json")
    assert load(tmp_path / "long.json") == table


def test_toml_has_no_none():
    @schedule
    class Maybe(Schedule):
        kind = "files_maybe"
        height: float | None = 1.0
        duration = 1.0

        def _value(self, t, xp):
            return xp.clip(t, 1.0, 1.0)

    try:
        assert reread(Maybe(None), "json") == reread(Maybe(None), "yaml") == Maybe(None)
        with pytest.raises(SpecError, match="description.schedule.height is None, which TOML"):
            dumps(Maybe(None), "toml")
    finally:
        REGISTRY.pop("files_maybe")


# What is trusted -------------------------------------------------------------------------------


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


# Nothing hostile does more than fail -----------------------------------------------------------

DEEP = '{"kind": "scaled", "by": 1, "of": ' * 400 + '{"kind": "linear"}' + "}" * 400
BOMB = "a: &a [x, x]\n" + "".join(
    f"{b}: &{b} [*{a}, *{a}]\n" for a, b in zip("abcdefgh", "bcdefghi", strict=True)
)
HOSTILE = {
    "json": [
        "",
        "nul",
        "[" * 100_000,
        '{"format": 1e999}',
        "\x00",
        "\u00e9",
        "\ufeff{}",
        '{"format": 1, "schedule": {"kind": "linear", "over": 1e400}}',
        '{"format": 1, "schedule": {"kind": "linear", "over": NaN}}',
        '{"format": 1, "schedule": {"kind": "linear", "over": -Infinity}}',
        '{"format": 1, "schedule": {"kind": "linear", "over": 1, "over": 2}}',
        '{"format": 1, "schedule": {"kind": "linear", "over": ' + "9" * 5000 + "}}",
        '{"format": 1, "schedule": ' + DEEP + "}",
        '{"format": 1, "schedule": {"kind": "custom", "function": "os:system"}}',
        '{"format": 1, "schedule": "__import__(\'os\').system(\'true\')"}',
        '{"format": 1, "plan": {"lr": "Custom(\'os:system\')"}}',
        '{"format": 1, "plan": []}',
        '{"format": ' + "9" * 4000 + "}",
    ],
    "yaml": [
        "",
        "}",
        "\x00",
        "\x07",
        "a: b: c",
        "--- 1\n--- 2",
        "%TAG ! tag:yaml.org,2002:python/\n---\n!name:os.system",
        "!!python/object/apply:os.system ['true']",
        "format: 1\nschedule: !!python/object/apply:os.system ['true']",
        "format: 1\nschedule: !!python/object/new:os.system ['true']",
        "format: 1\nschedule: !!python/name:os.system",
        "format: 1\nschedule: !!python/module:antigravity",
        "format: 1\nschedule: {kind: !!str linear, over: 1}",
        "format: 1\nschedule: {kind: linear, over: ! 1}",
        "format: 1\nschedule: {kind: linear, over: !!binary aGk=}",
        BOMB,
        "format: 1\nschedule: &a {kind: scaled, by: 1, of: *a}",
        "format: 1\nschedule: {<<: {kind: linear}, over: 1}",
        "format: 1\nschedule: {kind: linear, over: 1, over: 2}",
        "format: 1\nschedule: {kind: linear, [1]: 2}",
        "format: 1\nschedule: {kind: linear, {}: 2}",
        "format: 1\nschedule: {kind: linear, 5: 2}",
        "format: 1\nschedule: {kind: linear, over: 0x" + "f" * 5000 + "}",
        "format: 1\nschedule: {kind: linear, over: " + "9" * 5000 + "}",
        "format: 1\nplan: {1: Linear(5)}",
        "format: 1\nschedule: " + DEEP,
        "[" * 5000,
        "- " * 5000,
        "? " * 5000,
        "'" * 5001,
    ],
    "toml": [
        "",
        "format",
        "\x00",
        "format = 1\nformat = 1",
        "format = 1\nschedule = {kind = 'linear', over = 1979-05-27}",
        "format = 1979-05-27T07:32:00Z",
        "format = 1\nschedule = {kind = 'linear', over = nan}",
        "format = 1\nschedule = {kind = 'linear', over = 0x" + "f" * 5000 + "}",
        "format = 1\nschedule = {kind = 'linear', over = " + "9" * 5000 + "}",
        "format = 0x" + "f" * 5000,
        "a = " + "[" * 5000,
        "a = " + "{a = " * 5000,
        "a." * 50_000 + "a = 1",
        "[" + '"a" . ' * 50_000 + "a]",
        "format = 1\nschedule." + "of." * 63 + "kind = 'linear'",
        "format = 1\nschedule = 'exec(\"import antigravity\")'",
    ],
}
ALL_HOSTILE = [(form, text) for form, texts in HOSTILE.items() for text in texts]


def refused(form, text):
    began = time.process_time()
    with pytest.raises(SpecError) as caught:
        loads(text, form)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 400
    assert time.process_time() - began < 5
    return str(caught.value)


@pytest.mark.parametrize(("form", "text"), ALL_HOSTILE, ids=lambda x: repr(x[:40]))
def test_hostile_text_is_a_spec_error(form, text, tmp_path):
    message = refused(form, text)
    path = tmp_path / f"x.{form}"
    path.write_bytes(text.encode())
    with pytest.raises(SpecError) as caught:
        load(path)
    if not text.startswith("\ufeff"):
        assert str(caught.value) == f"{path}: {message}"


def test_hostile_text_imports_nothing(monkeypatch):
    for form, text in ALL_HOSTILE:  # what reading itself needs is imported once
        refused(form, text)
    before = set(sys.modules)
    monkeypatch.setattr(importlib, "import_module", lambda name: pytest.fail(f"imports {name}"))
    monkeypatch.setattr(os, "system", lambda command: pytest.fail(f"runs {command}"))
    for form, text in ALL_HOSTILE:
        refused(form, text)
    assert set(sys.modules) == before


def test_the_test_of_imports_can_fail(monkeypatch):
    monkeypatch.setattr(importlib, "import_module", lambda name: pytest.fail(f"imports {name}"))
    with pytest.raises(pytest.fail.Exception, match="imports os"):
        loads('{"format": 1, "schedule": "Custom(\'os:system\')"}', trust="os")


def test_files_that_are_none(tmp_path):
    folder, latin, large = tmp_path / "folder.yaml", tmp_path / "latin.yaml", tmp_path / "l.json"
    folder.mkdir()
    latin.write_bytes("é".encode("latin-1"))
    with large.open("wb") as file:
        file.truncate(2**22 + 1)
    cases = {
        folder: "cannot be read: Is a directory",
        latin: "cannot be read: it is no text in UTF-8",
        large: "a schedule file has at most 4194304 bytes in JSON, this has 4194305",
        tmp_path / "nowhere.toml": "there is no such file",
        tmp_path / "nu\0ll.toml": "cannot be read: embedded null byte",
        tmp_path / "plan.ini": "a schedule file ends in .json, .yaml, .yml, .toml, got .ini",
        tmp_path / "plan": "a schedule file ends in .json, .yaml, .yml, .toml, got no ending",
    }
    for path, message in cases.items():
        with pytest.raises(SpecError, match=message):
            load(path)
    with pytest.raises(SpecError, match="at most 4194304 bytes"):
        loads(" " * (2**22 + 1))
    with pytest.raises(SpecError, match="the text of a file is a str, got bytes"):
        loads(b"{}")
    with pytest.raises(SpecError, match="unknown form 'yml', did you mean 'yaml': json, yaml"):
        loads("", "yml")


@pytest.mark.parametrize("form", FORMS)
@settings(max_examples=300)
@given(data=st.data())
def test_damaged_files_are_spec_errors_or_schedules(form, data):
    text = data.draw(damaged(everything.map(lambda value: dumps(value, form))))
    try:
        made = loads(text, form)
    except SpecError as error:
        assert "\n" not in str(error)  # noqa: PT017 (a schedule is no error either)
    else:
        assert isinstance(made, Schedule | Plan)


# Checkpoints -----------------------------------------------------------------------------------


def scheduler():
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.ones(1))], lr=0.1)
    return Scheduler(optimizer, lr=Cosine(10))


def with_description(described):
    """Give the state of a scheduler whose schedule was described like this, fingerprint and all."""
    state = scheduler().state_dict()
    details = json.loads(state["details"])
    details["description"]["schedules"]["lr"] = described
    told = json.dumps(details["description"], sort_keys=True)
    fits = {"fingerprint": hashed(told), "checksum": hashed(json.dumps(details))}
    return {**state, "details": json.dumps(details), **fits}


@pytest.mark.parametrize(
    "described",
    [
        {"kind": "custom", "function": "os:system"},
        {"kind": "custom", "function": "antigravity:geohash"},
        "__import__('antigravity')",
        'Custom("antigravity:geohash")',
        json.loads(DEEP),
        {"kind": "no_such_kind"},
        ["linear"],
        5,
        None,
    ],
    ids=lambda x: str(x)[:40],
)
def test_hostile_descriptions_in_a_checkpoint_are_errors(described, monkeypatch):
    file = io.BytesIO()
    torch.save(with_description(described), file)
    file.seek(0)
    state, loading = torch.load(file, weights_only=True), scheduler()
    before, modules = loading.state_dict(), set(sys.modules)
    monkeypatch.setattr(importlib, "import_module", lambda name: pytest.fail(f"imports {name}"))
    for mode in ("error", "adopt"):
        with pytest.raises(StepsizeError):
            loading.load_state_dict(state, on_mismatch=mode)
        assert loading.state_dict() == before
    assert set(sys.modules) == modules


if __name__ == "__main__":
    for name, value in PUBLISHED.items():
        if not (FILES / name).exists():
            dump(value, FILES / name)
