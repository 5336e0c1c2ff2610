"""The command line: every command, every error as one sentence with exit status 2."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from click.shell_completion import ShellComplete

from stepsize import REGISTRY, Cosine, Warmup, load, one_cycle
from stepsize.cli import app as cli

RUN = ["--total", "90ep", "--batches-per-epoch", "391"]
RECIPE = 'Warmup("5%") >> Cosine(stop=0.1)'


def test_plot_draws_text(run):
    status, out, err = run("plot", RECIPE, *RUN, "--height", 6, "--width", 50)
    assert (status, err) == (0, "")
    assert "35,190 steps" in out
    assert "Warmup from 0, Cosine from 1,760" in out
    assert "\x1b[" not in out  # no terminal, no colour


def test_plot_compares_by_name_and_writes_files(run):
    status, out, err = run(
        "plot", "cosine=Cosine()", "flat=wsd()", *RUN, "--unit", "epochs",
        "--output", "lr.png", "--output", "lr.svg", "--dark",
    )  # fmt: skip
    assert (status, out) == (0, "")
    assert err.splitlines() == ["wrote lr.png", "wrote lr.svg"]
    assert Path("lr.png").read_bytes().startswith(b"\x89PNG")
    svg = Path("lr.svg").read_text()
    assert all(word in svg for word in ("cosine", "flat", "epochs"))


def test_json_output_can_be_read(run):
    plot = json.loads(run("plot", RECIPE, *RUN, "--json")[1])
    assert plot["panels"][0]["x"] == {"name": "steps", "low": 0.0, "high": 35190.0, "log": False}
    table = json.loads(run("table", RECIPE, *RUN, "--rows", 3, "--json")[1])
    assert table["columns"] == ["steps", "factor"]
    assert table["rows"][-1][0] == 35189.0
    (facts,) = json.loads(run("describe", RECIPE, *RUN, "--json")[1])
    assert facts["peak_at"] == 1760.0
    assert facts["area"] == pytest.approx(facts["mean"] * 35190)
    status, out, _ = run("check", "Warmup(5) >> Cosine(85)", *RUN, "--json")
    assert status == 1
    assert json.loads(out)[0]["rule"] == "epochs-as-steps"
    status, out, _ = run("diff", "Cosine()", "Linear()", *RUN, "--json")
    assert status == 1
    assert json.loads(out)[0]["changes"] == ["Cosine() became Linear()"]
    assert json.loads(run("schema")[1])["$schema"]
    assert json.loads(run("families", "cosine", "--json")[1])["name"] == "Cosine"


def test_table_as_text_and_csv(run):
    _, out, _ = run("table", RECIPE, *RUN, "--every", "30ep", "--unit", "epochs", "--base", "3e-4")
    assert out.splitlines()[0].split() == ["epochs", "value"]
    assert [line.split()[0] for line in out.splitlines()[1:]] == ["0", "30", "60", "90"]
    _, out, _ = run("table", "one_cycle(100)", "--csv", "--rows", 2, "--base", "lr=0.5")
    assert out.splitlines() == [
        "steps,lr,momentum",
        "0.0,0.02,0.95",
        "98.0,0.0002537323577378794,0.9499496533270657",
    ]


def test_a_golden_file_fails_when_values_change(run):
    status, out, _ = run("table", RECIPE, *RUN, "--golden", "lr.json", "--write")
    assert (status, out) == (0, "wrote lr.json\n")
    status, out, _ = run("table", RECIPE, *RUN, "--golden", "lr.json")
    assert (status, out) == (0, "the same values as lr.json\n")
    status, out, _ = run("table", 'Warmup("6%") >> Cosine(stop=0.1)', *RUN, "--golden", "lr.json")
    assert status == 1
    assert "values differ, first at step 0" in out
    status, _, err = run("table", RECIPE, *RUN, "--golden", "none.json")
    assert status == 2
    assert "write it first" in err


def test_check_says_what_where_and_the_cure(run):
    status, out, _ = run("check", "Warmup(5) >> Cosine(85)", *RUN)
    assert status == 1
    assert out.startswith("error [epochs-as-steps]: Warmup(5) >> Cosine(85) counts steps")
    assert run("check", RECIPE, *RUN)[:2] == (0, "no findings\n")
    assert run("check", "Constant()", *RUN)[0] == 1
    assert run("check", "Constant()", *RUN, "--fail-on", "error")[0] == 0
    assert run("check", "Constant()", *RUN, "--ignore", "never-falls")[:2] == (0, "no findings\n")
    assert run("check", "Cosine(90)", *RUN, "--fail-on", "never")[0] == 0
    status, out, _ = run("check", "--rules")
    assert status == 0
    assert "epochs-as-steps" in out


def test_describe_and_diff(run):
    status, out, _ = run("describe", "one_cycle()", *RUN)
    assert status == 0
    assert "peaks at 1 at step 10,557 (30 %)" in out
    status, out, _ = run("diff", "Cosine()", "Linear(stop=0.1)", *RUN)
    assert status == 1
    assert "most at step 28,356" in out
    assert "second - first" in out
    assert run("diff", "Step(3)", "Step(3)", "--total", 9)[:2] == (0, "the same values\n")


@pytest.mark.parametrize("ending", [".json", ".yaml", ".toml"])
def test_convert_keeps_a_schedule_in_a_file(run, ending):
    assert run("convert", RECIPE, f"lr{ending}")[:2] == (0, f"wrote lr{ending}\n")
    assert load(f"lr{ending}") == Warmup("5%") >> Cosine(stop=0.1)
    run("convert", "one_cycle()", f"plan{ending}")
    assert load(f"plan{ending}") == one_cycle()
    assert "Warmup from 0, Cosine from 1,760" in run("plot", f"lr{ending}", *RUN)[1]


def test_families_come_from_the_registry(run):
    _, out, _ = run("families")
    listed = {line.split()[0] for line in out.splitlines()}
    ours = {c.__name__ for c in REGISTRY.values() if c.__module__.startswith("stepsize")}
    assert ours <= listed
    assert {"wsd", "one_cycle", "noam"} <= listed
    assert "Loshchilov" in run("families", "sgdr")[1]
    assert run("families", "warmup")[1].startswith("Warmup(over, start=None")
    status, _, err = run("families", "Cosin")
    assert status == 2
    assert "did you mean 'Cosine'" in err


def test_batch_ramps_wall_clock_and_trust(run):
    out = run(
        "plot", 'Warmup("1e6 tok") >> Cosine()', "--total", "2e7 tok", "--batch-size",
        "Linear(500, start=16, stop=128)", "--tokens-per-sample", 256, "--unit", "tokens",
    )[1]  # fmt: skip
    assert "20,015,104 tokens" in out
    assert "12 hours" in run("plot", 'Warmup("1h") >> Cosine()', "--total", "12h")[1]
    out = run("plot", "Cosine()", "--total", 7200, "--seconds-per-step", 2, "--unit", "time")[1]
    assert "4 hours" in out
    status, _, err = run("plot", 'Custom("tests.laws.examples:halved")')
    assert status == 2
    assert "trust" in err
    status, out, _ = run(
        "plot", 'Custom("tests.laws.examples:halved", over=100)', "--trust", "tests"
    )
    assert (status, "100 steps" in out) == (0, True)


HALF = '{"format": 1, "sched'
FUTURE = '{"format": 9, "schedule": {}}'


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["plot", "nowhere.json"], "nowhere.json: there is no such file"),
        (["plot", "folder.json"], "folder.json: cannot be read: Is a directory"),
        (["plot", "half.json"], "half.json: not whole JSON"),
        (["plot", "half.yaml"], "half.yaml: "),
        (["plot", "half.toml"], "half.toml: not whole TOML"),
        (["plot", "plan.txt"], "a schedule file ends in .json, .yaml, .yml, .toml, got .txt"),
        (["plot", "future.json"], "format: unknown version 9; update stepsize"),
        (["plot", "kind.json"], "unknown kind 'cosin', did you mean 'cosine'"),
        (["plot", "latin.json"], "no text in UTF-8"),
        (["plot", "Cosin(10)"], "column 1: unknown name 'Cosin', did you mean 'Cosine'"),
        (["plot", "Cosine(ovr=10)"], "did you mean 'over'"),
        (["plot", "Cosine("], "column "),
        (["plot", "Cosine"], "got Cosine: write Cosine()"),
        (["plot", 'Cosine("5 eons")'], "in one of the units st, ep, samples"),
        (["plot", "Cosine(10 - 90)"], "Cosine.over must be a length > 0, got -80"),
        (["plot", "Cosine()"], "give --total"),
        (["plot", 'Cosine("5ep")', "--total", "100"], "give --batches-per-epoch"),
        (["plot", 'Cosine("5tok")', "--total", "100"], "give --batch-size"),
        (["plot", 'Cosine("5tok")', "--batch-size", "4"], "give --tokens-per-sample"),
        (
            ["plot", "Cosine()", "--total", "90 parsecs"],
            "Horizon.total must be in one of the units",
        ),
        (["plot", "Cosine()", "--total", "-5"], "Horizon.total must be a moment >= 0"),
        (["plot", "Cosine(9)", "--unit", "eons"], "unit must be one of steps"),
        (["plot", "Cosine(9)", "--unit", "hours"], "give --seconds-per-step"),
        (["plot", "Cosine(9)", "--base", "much"], "--base must be a number, or KEY=NUMBER"),
        (["plot", "Cosine(9)", "--output", "lr.bmp"], "a picture ends in .png, .svg or .pdf"),
        (["plot", "Cosine(9)", "--width", "1"], "width must be a whole number >= 2"),
        (["plot", "a=Cosine(9)", "a=Linear(9)"], "two of the schedules have the same name"),
        (["plot", "Cosine(9)", "--batch-size", "one_cycle()", "--total", "9"], "one schedule"),
        (["table", "Cosine(9)", "--every", "soon"], "table: every must be a length of time"),
        (["table", "Cosine(9)", "--write"], "give --golden FILE"),
        (["table", "Cosine(9)", "--golden", "g.json", "--csv"], "--golden holds steps of its own"),
        (["table", "Cosine(9)", "--golden", "g.json", "--json"], "--golden holds steps of its own"),
        (["plot", "Warmup(5%) >> Cosine()"], 'a length with a unit is a text: "5%"'),
        (["plot", "A" * 300], "unknown name"),
        (["plot", "none.yaml"], "format: is missing; write format: 1"),
        (["plot", "number.yaml"], "a constant is the text Constant(value=0.9).absolute()"),
        (["plot", "Linear(5) >> " * 30 + "Linear(5"], "was never closed"),
        (
            ["plot", "Constant(value=1e308)*Constant(value=10)", "--total", "9"],
            "a finite number, got inf",
        ),
        (["describe", "PowerLaw()"], "does not say how long the run is: give --total"),
        (["plot", "Cosine(9)", "--width", "0"], "width must be a whole number >= 2"),
        (["check", "Cosine(9)", "--ignore", "all"], "check: ignore must be of epochs-as-steps"),
        (["convert", "Cosine(9)", "nowhere/lr.json"], "there is no folder nowhere"),
        (["convert", "Cosine(9)", "lr.txt"], "a schedule file ends in"),
        (["diff", "Cosine(9)", "one_cycle(9)"], "of the same hyper-parameters"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_an_error_is_one_sentence_with_exit_status_2(run, arguments, words):
    Path("folder.json").mkdir()
    for name, text in {
        "half.json": HALF,
        "half.yaml": "format: 1\nschedule: [",
        "half.toml": "format = ",
        "future.json": FUTURE,
        "none.yaml": "schedule: Cosine()",
        "number.yaml": "format: 1\nplan: {lr: Cosine(), momentum: 0.9}",
        "kind.json": '{"format": 1, "schedule": {"kind": "cosin"}}',
    }.items():
        Path(name).write_text(text)
    Path("latin.json").write_bytes(b"\xe9")
    status, out, err = run(*arguments)
    assert status == 2, out
    assert words in err
    assert err.startswith("stepsize: ")
    assert err.count("\n") == 1


@pytest.mark.parametrize(
    "arguments", [["plot"], ["plot", "--wrong"], ["nothing"], ["diff", "Cosine(9)"]]
)
def test_wrong_usage_is_explained(run, arguments):
    status, _, err = run(*arguments)
    assert status == 2
    assert "Usage: stepsize" in err
    assert "Traceback" not in err


def test_colour_is_for_terminals_alone(run, monkeypatch):
    monkeypatch.setattr("stepsize.cli.show._colours", lambda: True)
    assert "\x1b[34m" in run("plot", "Cosine(9)")[1]
    assert run("check", "Cosine(90)", *RUN)[1].startswith("\x1b[31merror\x1b[0m [epochs")


def test_no_color_is_respected(monkeypatch):
    from stepsize.cli import show

    monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR", raising=False)
    assert show._colours()
    monkeypatch.setenv("NO_COLOR", "1")
    assert not show._colours()


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_scripts(run, shell):
    status, out, _ = run("completion", shell)
    assert status == 0
    assert "_STEPSIZE_COMPLETE" in out


def python(code, **environment):
    return subprocess.run(  # noqa: S603 (our own text)
        [sys.executable, "-c", code],
        capture_output=True, text=True, check=False, env={**os.environ, **environment},
    )  # fmt: skip


def test_a_terminal_without_braille_gets_question_marks():
    found = subprocess.run(
        [sys.executable, "-m", "stepsize", "plot", "Cosine(9)"],
        capture_output=True, check=False, env={**os.environ, "PYTHONIOENCODING": "latin-1"},
    )  # fmt: skip
    assert found.returncode == 0
    assert b"?" in found.stdout


def test_text_commands_import_neither_numpy_nor_matplotlib_nor_torch():
    code = (
        "import sys\nsys.argv = ['stepsize', 'plot', 'Cosine(9)']\n"
        "from stepsize.cli.app import main\n"
        "try:\n    main()\nexcept SystemExit:\n    pass\n"
        "print(sorted({'numpy', 'matplotlib', 'torch', 'yaml'} & set(sys.modules)))"
    )
    assert python(code).stdout.splitlines()[-1] == "[]"


def test_picture_files_without_matplotlib_name_the_cure(run, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    for name in [name for name in sys.modules if name.startswith("stepsize.plot")]:
        monkeypatch.delitem(sys.modules, name)
    status, _, err = run("plot", "Cosine(9)", "--output", "lr.png")
    assert status == 2
    assert re.search(r"picture files need matplotlib: pip install 'stepsize\[plot\]'", err)


def test_expressions_are_completed():
    complete = ShellComplete(cli.app, {}, "stepsize", "_STEPSIZE_COMPLETE").get_completions
    found = [item.value for item in complete(["plot"], 'Warmup("5%") >> Co')]
    assert found[:2] == ['Warmup("5%") >> Constant(', 'Warmup("5%") >> Cosine(']
    assert [(i.value, i.type) for i in complete(["describe"], "runs/")] == [("runs/", "file")]
    assert next(i.value for i in complete(["check"], "sgd")) == "sgdr("


def test_a_long_expression_is_no_file_name(run):
    assert "1,000 steps" in run("plot", " >> ".join(["Linear(10)"] * 100))[1]


def test_diff_takes_names(run):
    out = run("diff", "line=Linear(9)", "wave=Cosine(9)")[1]
    assert "a line" in out
    assert "wave - line" in out


def test_families_are_shown_as_they_are_written(run):
    assert run("families", "wsd")[1].startswith("wsd(warmup='5%', cooldown='20%', along=Linear")
    assert "over='rest'" in run("families", "warmup_cosine")[1]


def test_a_full_disk_is_told():
    with Path("/dev/full").open("w") as full:
        found = subprocess.run(
            [sys.executable, "-m", "stepsize", "plot", "Cosine(9)"],
            stdout=full, stderr=subprocess.PIPE, text=True, check=False,
        )  # fmt: skip
    assert (found.returncode, found.stderr) == (
        2,
        "stepsize: cannot write: No space left on device\n",
    )
