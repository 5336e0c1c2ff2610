"""Tables and golden files."""

import json

import pytest

from stepsize import (
    Cosine,
    FieldError,
    Horizon,
    Linear,
    Plan,
    SpecError,
    Step,
    UnitError,
    Warmup,
    compare_golden,
    golden,
    one_cycle,
    table,
    write_golden,
)

RUN = Horizon("9ep", batches_per_epoch=100)
RECIPE = Warmup("1ep") >> Cosine(stop=0.1)


def test_a_table_holds_the_values_that_training_uses():
    found = table(RECIPE, RUN, every="3ep", unit="epochs", base=0.1)
    value = (0.1 * (Warmup(100) >> Cosine(800, stop=0.1))).compile()
    assert found.columns == ("epochs", "value")
    assert found.rows == tuple((t / 100, value(float(t))) for t in (0, 300, 600, 899))


@pytest.mark.parametrize(
    ("every", "times"),
    [
        (300, [0, 300, 600, 899]),
        ("50%", [0, 450, 899]),
        ("4ep", [0, 400, 800, 899]),
        (None, [0, 225, 450, 674, 899]),
    ],
)
def test_the_time_between_rows(every, times):
    assert [row[0] for row in table(RECIPE, RUN, every=every, rows=5).rows] == times


def test_a_table_of_a_plan_as_text_and_csv():
    found = table(one_cycle(), RUN, rows=3)
    assert found.columns == ("steps", "lr", "momentum")
    assert str(found).splitlines()[1].split() == ["0", "0.04", "0.95"]
    lines = found.csv().splitlines()
    assert lines[0] == "steps,lr,momentum"
    assert [float(x) for x in lines[-1].split(",")] == list(found.rows[-1])
    assert table({"a, b": Linear(3)}).csv().startswith('steps,"a, b"\n')


def test_a_table_of_too_many_rows_is_refused():
    with pytest.raises(FieldError, match="at most 1,000,000 rows, got 1; give a longer time"):
        table(Cosine(10_000_000), every=1)
    with pytest.raises(UnitError, match="Horizon\\(batches_per_epoch="):
        table(Cosine(100), every="1ep")


def test_a_golden_file_keeps_the_values(tmp_path):
    path = tmp_path / "lr.json"
    write_golden(path, RECIPE, RUN)
    assert compare_golden(path, RECIPE, RUN) == ()
    saved = json.loads(path.read_text())
    times = [time for time, _ in saved["curves"]["value"]["points"]]
    assert {0, 1, 2, 99, 100, 101, 898, 899} <= set(times)
    assert saved == golden(RECIPE, RUN)


@pytest.mark.parametrize(
    ("changed", "run", "words"),
    [
        (Warmup("2ep") >> Cosine(stop=0.1), RUN, "Cosine(stop=0.1) became Warmup('2ep')"),
        (Warmup("1ep", start=0.1) >> Cosine(stop=0.1), RUN, "first at step 0"),
        (RECIPE, Horizon("10ep", batches_per_epoch=100), "the run was 900 steps long, it is 1,000"),
        (Plan(lr=RECIPE), RUN, "lr: is new"),
        (Warmup("1ep") >> Linear(stop=0.1), RUN, "of 71 values differ"),
    ],
)
def test_a_golden_file_tells_what_changed(changed, run, words, tmp_path):
    path = tmp_path / "lr.json"
    write_golden(path, RECIPE, RUN)
    assert words in " ".join(compare_golden(path, changed, run))


def test_the_same_values_written_otherwise_are_the_same(tmp_path):
    path = tmp_path / "lr.json"
    write_golden(path, Step("3ep"), RUN)
    assert compare_golden(path, Step(300), RUN) == ()
    scaled = Step(300) * Linear(900, start=1.0, stop=1.0 + 1e-12)
    assert compare_golden(path, scaled, RUN) == ()
    assert compare_golden(path, scaled, RUN, rtol=0.0)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (None, "there is no such golden file; write it first"),
        ("{", "is no golden file, or not a whole one"),
        ("[]", "is no golden file, or not a whole one"),
        ('{"format": 1, "unit": "steps", "total": 9}', "is no golden file"),
        ('{"format": 1, "unit": "steps", "total": 9, "curves": {"value": {"points": [[1]]}}}', "is no"),
        ('{"format": 7}', "unknown version 7; update stepsize"),
    ],
)  # fmt: skip
def test_a_wrong_golden_file_is_a_spec_error(text, words, tmp_path):
    path = tmp_path / "lr.json"
    if text is not None:
        path.write_text(text)
    with pytest.raises(SpecError, match=words):
        compare_golden(path, RECIPE, RUN)


def test_a_golden_file_is_written_into_a_folder_that_is_there(tmp_path):
    with pytest.raises(SpecError, match="there is no folder"):
        write_golden(tmp_path / "nowhere" / "lr.json", RECIPE, RUN)
