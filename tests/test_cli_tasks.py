"""`stepsize range-test` and `stepsize check TASK.py`."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import stepsize.torch.finder
from stepsize.finding.report import RangeTest

TASK = """
import torch
from stepsize.task import Task
generator = torch.Generator().manual_seed(0)
X = torch.randn(160, 3, generator=generator)
y = X @ torch.tensor([1.0, -2.0, 0.5]) + 0.01 * torch.randn(160, generator=generator)
task = Task.from_arrays(X, y, model="linear", optimizer="sgd", batch_size=128)
other = Task.from_arrays(X, y, model="mlp", batch_size=16)
"""
BROKEN = """
import torch
from stepsize.task import Task
from stepsize import Horizon
class Run:
    def __init__(self, seed):
        torch.manual_seed(seed)
        self.weight = torch.randn(1, requires_grad=True)
        self.optimizer = torch.optim.SGD([self.weight], lr=0.1, momentum=0.9)
    def step(self):
        self.optimizer.zero_grad()
        loss = (self.weight ** 2).sum()
        loss.backward()
        self.optimizer.step()
        return {"loss": loss}
    def evaluate(self):
        return {"loss": float(self.weight.detach() ** 2)}
    def state_dict(self):
        return {"weight": self.weight.detach().clone()}
    def load_state_dict(self, state):
        self.weight.data.copy_(state["weight"])
horizon = Horizon(100)
def build(seed):
    return Run(seed)
"""
FLAT = BROKEN.replace("(self.weight ** 2).sum()", "(0.0 * self.weight + 1.0).sum()")


@pytest.fixture
def folder(run, tmp_path):
    """Files to give to commands; `run` has gone to their folder."""
    for name, text in (("task", TASK), ("broken", BROKEN), ("flat", FLAT)):
        (tmp_path / f"{name}.py").write_text(text)
    return run


def test_a_range_test_finds_a_rate_and_writes_what_is_asked_for(folder):
    outputs = [part for name in ("a.json", "a.csv", "a.png") for part in ("--output", name)]
    status, out, err = folder("range-test", "task.py", "--steps", 60, "--repeats", 2, *outputs)
    assert status == 0
    assert "learning rate" in out
    assert "other rules: " in out
    assert err.splitlines() == ["wrote a.json", "wrote a.csv", "wrote a.png"]  # and no progress
    found = RangeTest.load("a.json")
    assert (found.steps, len(found.curve.losses), found.ramp) == (60, 2, "geometric")
    assert 1e-3 < found.suggestion.rate < 10
    assert Path("a.csv").read_text().startswith("repeat,step,rate,loss")
    assert Path("a.png").read_bytes().startswith(b"\x89PNG")


def test_the_options_reach_the_test(folder):
    status, out, _ = folder(
        "range-test", "task.py", "--task", "other", "--start", 0, "--stop", 0.5, "--steps", 30,
        "--ramp", "linear", "--repeats", 1, "--seed", 5, "--json",
    )  # fmt: skip
    found = json.loads(out)
    assert status in (0, 1)
    assert (found["ramp"], found["steps"], len(found["curve"]["losses"])) == ("linear", 30, 1)
    assert (found["curve"]["rates"][0], found["curve"]["rates"][-1]) == (0.0, 0.5)


def test_a_recorded_curve_is_read_the_same(folder):
    given = ["--steps", 60, "--repeats", 1, "--output", "a.json", "--output", "a.csv"]
    _, out, _ = folder("range-test", "task.py", *given)
    assert folder("range-test", "a.json")[:2] == (0, out)
    status, read, _ = folder("range-test", "a.csv", "--json")
    assert status == 0
    assert json.loads(read)["suggestion"]["rate"] == RangeTest.load("a.json").suggestion.rate
    rows = "\n".join(f"{0.1 * i},{2 - i / 40}" for i in range(41))
    Path("b.csv").write_text(f"lr,loss\n{rows}\n")
    assert json.loads(folder("range-test", "b.csv", "--json")[1])["ramp"] == "linear"
    Path("c.csv").write_text(f"eta,cost\n{rows}\n")
    columns = ["--rate-column", "eta", "--loss-column", "cost"]
    assert folder("range-test", "c.csv", *columns) == folder("range-test", "b.csv")


def test_a_curve_without_an_answer_is_status_1_with_the_reason(folder):
    status, out, _ = folder("range-test", "flat.py", "--steps", 20, "--repeats", 1)
    assert status == 1
    assert "no rate: " in out


def test_check_tries_a_task(folder):
    assert folder("check", "task.py")[:2] == (0, "no findings\n")
    status, out, _ = folder("check", "broken.py")
    assert status == 1
    lines = out.splitlines()
    assert [line.partition(":")[0] for line in lines] == [
        "error [resume] step 5",
        "warning [global-rng]",
    ]
    assert "; save weights, buffers, optimizer" in lines[0]
    status, out, _ = folder("check", "broken.py", "--json", "--ignore", "global-rng")
    assert [each["rule"] for each in json.loads(out)] == ["resume"]
    assert folder("check", "broken.py", "--fail-on", "never")[0] == 0
    assert folder("check", "broken.py", "--ignore", "resume", "--fail-on", "error")[0] == 0


def test_check_tries_several_tasks_by_file_and_name(folder):
    status, out, _ = folder("check", "other=task.py", "broken.py")
    assert status == 1
    assert out.startswith("error [resume] broken.py, step 5: ")
    assert "global-rng" in folder("check", "--rules")[1]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["range-test", "nowhere.py"], "nowhere.py: there is no such file"),
        (["range-test", "nowhere.csv"], "nowhere.csv"),
        (["range-test", "task.txt"], "task.txt: give a TASK.py, or a recorded curve that ends in"),
        (["range-test", "Cosine()"], "Cosine(): give a TASK.py, or a recorded curve"),
        (["range-test", "task.py", "--task", "none"], "there is no 'none' in it; its tasks are"),
        (["range-test", "task.py", "--output", "a.bmp"], "an output ends in .png, .svg, .pdf"),
        (["range-test", "task.py", "--output", "no/a.png"], "there is no such folder"),
        (["range-test", "task.py", "--steps", "2"], "steps must be a whole number >= 10, got 2"),
        (["range-test", "task.py", "--stop", "0"], "stop must be"),
        (["range-test", "task.py", "--ramp", "cubic"], "Invalid value for '--ramp'"),
        (["range-test", "curve.csv", "--seed", "3"], "curve.csv is no TASK.py: leave --seed out"),
        (
            ["range-test", "curve.csv"],
            "no column of losses was found; name it with --loss-column, of",
        ),
        (["range-test", "task.py", "--rate-column", "lr"], "leave --rate-column out"),
        (["range-test", "curve.csv", "--task", "a"], "leave --task out"),
        (["range-test", "failing.py"], "failing.py, line 2: ZeroDivisionError: division by zero"),
        (["range-test", "other.json"], "no column of rates was found; name it with --rate-column"),
        (["check", "nowhere.py"], "nowhere.py: there is no such file"),
        (["check", "task.py", "--total", "90"], "a task has a horizon of its own"),
        (["check", "task.py", "--base", "0.1"], "a task has a horizon of its own"),
        (["check", "task.py", "Cosine()"], "Cosine() is no task"),
        (["check", "task.py", "--ignore", "jumps"], "conformance: ignore must be of task, run"),
    ],
)
def test_a_wrong_question_is_one_sentence_and_status_2(folder, arguments, words):
    Path("failing.py").write_text("x = 1\ny = x / 0\n")
    Path("curve.csv").write_text("lr,acc\n0.1,1\n")
    Path("other.json").write_text("{}")
    status, out, err = folder(*arguments)
    assert (status, out) == (2, "")
    assert words in err
    assert "Traceback" not in err


def test_without_torch_the_cure_is_said(folder, monkeypatch):
    own = BROKEN.replace("import torch\n", "").replace("torch.manual_seed(seed)", "pass")
    Path("plain.py").write_text(own)
    monkeypatch.delitem(sys.modules, "stepsize.torch.finder")
    for name in [each for each in sys.modules if each.startswith("stepsize.torch")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "torch", None)
    status, _, err = folder("range-test", "plain.py")
    assert (status, err) == (
        2,
        "stepsize: a range test needs torch: pip install 'stepsize[torch]'\n",
    )
    status, _, err = folder("range-test", "broken.py")
    assert status == 2
    assert "line 2: " in err
    assert "pip install 'stepsize[torch]'" in err


def test_progress_is_shown_on_a_terminal_alone_and_not_if_quiet(folder, monkeypatch):
    given = ["range-test", "task.py", "--steps", 20, "--repeats", 2]
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    shown = folder(*given)[2]
    assert "range test" in shown
    assert "100%" in shown
    assert folder(*given, "--quiet")[2] == ""


def test_an_interrupted_test_says_where_it_stopped(folder, monkeypatch):
    def interrupted(task, *, on_step, **settings):
        del task, settings
        on_step(1, 6, 0.1, 2.0)
        raise KeyboardInterrupt

    monkeypatch.setattr(stepsize.torch.finder, "range_test", interrupted)
    status, out, err = folder("range-test", "task.py", "--steps", 20, "--output", "a.json")
    assert (status, out) == (130, "")
    assert err == "stepsize: stopped at step 7 of 20, repeat 2 of 3; nothing was written\n"
    assert not Path("a.json").exists()


@pytest.mark.slow
def test_ctrl_c_ends_the_process_with_130_and_no_traceback(tmp_path):
    (tmp_path / "slow.py").write_text(
        TASK + "import time\nfrom pathlib import Path\nloss = task._setting.loss_fn\n"
        "def slow(outputs, y):\n    Path('begun').touch()\n    time.sleep(0.05)\n"
        "    return loss(outputs, y)\n"
        "import dataclasses\ntask._setting = dataclasses.replace(task._setting, loss_fn=slow)\n"
    )
    command = [sys.executable, "-m", "stepsize", "range-test", "slow.py", "--steps", "2000"]
    process = subprocess.Popen(  # noqa: S603 (our own command)
        command, cwd=tmp_path, stderr=subprocess.PIPE, text=True, env={**os.environ}
    )
    for _ in range(600):
        if (tmp_path / "begun").exists():
            break
        time.sleep(0.1)
    time.sleep(0.3)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert err.startswith("stepsize: stopped at step ")
    assert "Traceback" not in err


def test_the_example_conforms_and_has_two_tasks():
    from stepsize.conform.check import conformance
    from stepsize.task_file import load_task

    path = Path(__file__).parents[1] / "examples" / "digits_task.py"
    for name in ("task", "convolutional"):
        assert conformance(load_task(path, name), steps=4) == ()


CLASS = """
from stepsize import Horizon, Task

class Mine(Task):
    horizon = Horizon(10)
    def build(self, seed):
        raise ValueError("not yet")
"""


def test_the_only_class_of_a_file_is_its_task_and_its_errors_are_told_with_their_line(folder):
    Path("mine.py").write_text(CLASS)
    status, _, err = folder("range-test", "mine.py")
    assert status == 2
    assert "mine.py, line 7: ValueError: not yet" in err
    assert "Traceback" not in err


def test_curves_without_a_finite_loss_are_status_1(folder):
    Path("nan.csv").write_text("lr,loss\n" + "".join(f"{k},nan\n" for k in range(1, 30)))
    status, out, _ = folder("range-test", "nan.csv")
    assert status == 1
    assert "diverged at once" in out
