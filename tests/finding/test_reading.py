"""Curves from elsewhere: files of other programs, and other finders."""

import csv
import json
from types import SimpleNamespace

import pytest

from stepsize.errors import FieldError, SpecError
from stepsize.finding import RangeCurve, RangeTest, read_curve, write_curve

CURVE = RangeCurve([0.1, 0.2, 0.4], [[3.0, 2.0, 1.0], [3.5, 2.5]], [[0.1, 0.2, 0.3], [0.1, 0.2]])
TEST = RangeTest(CURVE, steps=3, ended=("end", "diverged"), ratios=(("0", 1.0), ("head", 0.1)))


def test_a_csv_file_is_read_back(tmp_path):
    write_curve(CURVE, tmp_path / "curve.csv")
    assert read_curve(tmp_path / "curve.csv") == CURVE


def test_a_repeat_that_ended_is_read_back_as_ended(tmp_path):
    ended = RangeCurve([0.1, 0.2, 0.4], [[3.0, 2.0], [3.5, 2.5]])
    write_curve(ended, tmp_path / "curve.csv")
    assert read_curve(tmp_path / "curve.csv") == ended


def test_a_saved_test_is_read_as_a_curve(tmp_path):
    TEST.save(tmp_path / "found.json")
    assert read_curve(tmp_path / "found.json") == CURVE


def test_a_test_comes_back_as_it_was(tmp_path):
    TEST.save(tmp_path / "found.json")
    assert RangeTest.load(tmp_path / "found.json") == TEST


@pytest.mark.parametrize("text", ["", "[1]", '{"format": 2, "curve": {}}', '{"format": 1}'])
def test_what_is_no_test_is_refused(tmp_path, text):
    (tmp_path / "found.json").write_text(text)
    with pytest.raises(SpecError):
        RangeTest.load(tmp_path / "found.json")


@pytest.mark.parametrize(
    "finder",
    [
        SimpleNamespace(results={"lr": [0.1, 0.2], "loss": [2.0, 1.5]}),  # Lightning
        SimpleNamespace(history={"lr": [0.1, 0.2], "loss": [2.0, 1.5]}),  # torch-lr-finder
        SimpleNamespace(lrs=[0.1, 0.2], losses=[2.0, 1.5]),  # fastai
        {"learning_rate": [0.1, 0.2], "train_loss": [2.0, 1.5]},
    ],
    ids=["lightning", "torch-lr-finder", "fastai", "mapping"],
)
def test_other_finders_are_read(finder):
    assert read_curve(finder) == RangeCurve([0.1, 0.2], [[2.0, 1.5]])


def test_a_loggers_lines_are_joined_by_step(tmp_path):
    with (tmp_path / "metrics.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["epoch", "lr-AdamW", "step", "train_loss"])
        writer.writerows([["", 0.1, 0, ""], [0, "", 0, 2.0], ["", 0.2, 1, ""], [0, "", 1, 1.5]])
    assert read_curve(tmp_path / "metrics.csv") == RangeCurve([0.1, 0.2], [[2.0, 1.5]])


def test_columns_can_be_named(tmp_path):
    (tmp_path / "a.json").write_text(json.dumps({"eta": [0.1, 0.2], "nll": [2, 1]}))
    found = read_curve(tmp_path / "a.json", rate="eta", loss="nll")
    assert found.losses == ((2.0, 1.0),)


@pytest.mark.parametrize(
    ("name", "text", "told"),
    [
        ("a.csv", "lr,other\n1,2\n", "no column of losses"),
        ("a.csv", "", "no column of rates"),
        ("a.csv", "lr,loss\n1,high\n", "must hold numbers"),
        ("a.csv", "lr,loss\n1,\n", "no step has both"),
        ("a.json", "{", "is no JSON"),
        ("a.json", "[1]", "lists of rates and losses"),
        ("a.txt", "1 2", "must end in .csv or .json"),
    ],
)
def test_what_is_no_curve_is_told(tmp_path, name, text, told):
    (tmp_path / name).write_text(text)
    with pytest.raises(SpecError, match=told):
        read_curve(tmp_path / name)


def test_what_is_not_there_is_told(tmp_path):
    with pytest.raises(SpecError, match="cannot be read"):
        read_curve(tmp_path / "none.csv")
    with pytest.raises(SpecError, match="there is no column 'x'"):
        read_curve({"lr": [1.0], "loss": [1.0]}, rate="x")
    with pytest.raises(SpecError, match="not from int"):
        read_curve(3)


@pytest.mark.parametrize(
    ("rates", "losses", "told"),
    [
        ([0.2, 0.1], [[1, 1]], "rates must be rising"),
        ([0.1, float("inf")], [[1, 1]], "rates must be finite"),
        ([-0.1, 0.1], [[1, 1]], "rates must be finite and not negative"),
        ([0.1], [[1, 1]], "losses must be at most as long as rates"),
        ([0.1], [], "losses must be a row for each repeat"),
        ([0.1], [1.0], "losses must be a row for each repeat"),
        ([0.1], [["x"]], "losses must be numbers"),
    ],
)
def test_a_curve_is_checked(rates, losses, told):
    with pytest.raises(FieldError, match=told):
        RangeCurve(rates, losses)


def test_a_loss_that_is_missing_moves_no_other_to_its_rate():
    found = read_curve({"lr": [0.1, 0.2, 0.3], "loss": [1.0, None, 2.0]})
    assert found == RangeCurve([0.1, 0.3], [[1.0, 2.0]])


def test_losses_at_every_fifth_rate_stay_there(tmp_path):
    rates = [10 ** (k / 10 - 5) for k in range(50)]
    lines = [f"{rate},{k if k % 5 == 0 else ''}" for k, rate in enumerate(rates)]
    (tmp_path / "a.csv").write_text("\n".join(["lr,loss", *lines]))
    found = read_curve(tmp_path / "a.csv")
    assert found.losses[0] == tuple(float(k) for k in range(0, 50, 5))
    assert found.rates[:10] == tuple(rates[::5])


def test_more_losses_than_rates_are_refused():
    with pytest.raises(SpecError, match="a rate for every loss; there are 2 rates"):
        read_curve({"lr": [0.1, 0.2], "loss": [1, 2, 3]})


def test_repeats_at_different_rates_are_refused():
    columns = {"repeat": [0, 0, 1, 1], "lr": [0.1, 0.2, 0.1, 0.3], "loss": [3, 2, 3, 2]}
    with pytest.raises(SpecError, match="different rates"):
        read_curve(columns)


@pytest.mark.parametrize("text", ["\ufefflr,loss\n0.1,2\n0.2,1\n", "lr;loss\n0.1;2\n0.2;1\n"])
def test_files_of_spreadsheets_are_read(tmp_path, text):
    (tmp_path / "a.csv").write_text(text, encoding="utf-8")
    assert read_curve(tmp_path / "a.csv") == RangeCurve([0.1, 0.2], [[2.0, 1.0]])


def test_records_and_tables_are_read(tmp_path):
    (tmp_path / "a.json").write_text('[{"lr": 0.1, "loss": 2}, {"lr": 0.2, "loss": 1}]')
    assert read_curve(tmp_path / "a.json") == RangeCurve([0.1, 0.2], [[2.0, 1.0]])

    class Frame:
        columns = ("lr", "loss")

        def __getitem__(self, name):
            return {"lr": [0.1, 0.2, 0.3], "loss": [2.0, float("nan"), 1.0]}[name]

    assert read_curve(Frame()) == RangeCurve([0.1, 0.3], [[2.0, 1.0]])
