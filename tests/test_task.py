"""Tasks without a framework: the protocol, the file, and the conformance test."""

import copy
import random
import sys
import types

import pytest

from stepsize import FieldError, Horizon, SpecError, StepsizeError
from stepsize.conform.check import RULES, conformance
from stepsize.task import Metric, Run, Task
from stepsize.task_file import load_task

PER_EPOCH = 5


class Line:
    """A line through points, by stochastic gradients with momentum, in plain Python."""

    def __init__(self, seed):
        self._seed, self.position = seed, 0
        first = random.Random(seed)  # noqa: S311
        self.weights, self.momentum = [first.uniform(-1, 1), 0.0], [0.0, 0.0]
        self.optimizer = types.SimpleNamespace(param_groups=[{"lr": 0.05}])

    def _point(self):
        epoch, place = divmod(self.position, PER_EPOCH)
        order = list(range(PER_EPOCH))
        random.Random(1000 * self._seed + epoch).shuffle(order)  # noqa: S311
        return order[place] / PER_EPOCH

    def _error(self, x):
        return self.weights[0] * x + self.weights[1] - (2 * x + 1)

    def step(self):
        x = self._point()
        error = self._error(x)
        for i, gradient in enumerate((error * x, error)):
            self.momentum[i] = 0.9 * self.momentum[i] + gradient
            self.weights[i] -= self.optimizer.param_groups[0]["lr"] * self.momentum[i]
        self.position += 1
        return {"loss": 0.5 * error**2}

    def evaluate(self):
        return {"loss": sum(0.5 * self._error(i / 10) ** 2 for i in range(10)) / 10}

    def state_dict(self):
        names = ("_seed", "position", "weights", "momentum")
        return copy.deepcopy({name: getattr(self, name) for name in names})

    def load_state_dict(self, state):
        self.__dict__.update(copy.deepcopy(state))


class Lines(Task):
    """The task of a kind of run."""

    horizon = Horizon("20ep", batches_per_epoch=PER_EPOCH)

    def __init__(self, run=Line):
        self.run = run

    def build(self, seed):
        return self.run(seed)


def found(run):
    """The rules that a kind of run breaks."""
    return [finding.rule for finding in conformance(Lines(run))]


def test_a_plain_run_conforms():
    assert isinstance(Line(0), Run)
    assert conformance(Lines()) == ()
    assert conformance(Lines(), steps=2) == ()


class Unseeded(Line):
    def __init__(self, seed):
        super().__init__(seed)
        self.weights[0] = random.SystemRandom().random()


class Deaf(Line):
    def __init__(self, seed):
        del seed
        super().__init__(7)


class Sharing(Line):
    shared = 0

    def __init__(self, seed):
        super().__init__(seed)
        type(self).shared = 0

    def step(self):
        type(self).shared += 1
        told = super().step()
        self.weights[1] += 1e-9 * self.shared
        return told


class Marked(Line):
    def evaluate(self):
        told = super().evaluate()
        self.momentum[0] *= 0.5
        return told


class Noisy(Line):
    def evaluate(self):
        return {"loss": random.SystemRandom().random()}


class Forgetful(Line):
    def state_dict(self):
        return {**super().state_dict(), "momentum": [0.0, 0.0]}


class Startled(Line):
    def state_dict(self):
        told = super().state_dict()
        self.momentum[0] *= 0.5
        return told


class Locked(Line):
    def state_dict(self):
        return {**super().state_dict(), "call": lambda: None}


class Alive(Line):
    def state_dict(self):
        return {**super().state_dict(), "weights": self.weights}


class OneWay(Line):
    """What is loaded reaches a fresh run alone."""

    def load_state_dict(self, state):
        momentum = self.momentum if self.position else state["momentum"]
        super().load_state_dict({**state, "momentum": momentum})


class Misjudged(Line):
    """Something that only the evaluation sees is not saved."""

    seen = 0

    def step(self):
        self.seen += 1
        return super().step()

    def evaluate(self):
        return {"loss": self.seen}


class Lossless(Line):
    def step(self):
        super().step()
        return {"error": 1.0}


class Wordy(Line):
    def step(self):
        return {"loss": "small"}


class Endless(Line):
    def step(self):
        return {"loss": float("nan") if self.position == 3 else super().step()["loss"]}


class Unmeasured(Line):
    def evaluate(self):
        return {"accuracy": 0.5}


class Raising(Line):
    def step(self):
        if self.position == 2:
            raise ValueError("no such batch")
        return super().step()


class Rateless(Line):
    def __init__(self, seed):
        super().__init__(seed)
        self.optimizer.param_groups = [{"rate": 0.1}]

    def step(self):
        self.position += 1
        return {"loss": 1.0 / (self._seed + self.position)}


class Drawing(Line):
    """Seeds the process's own stream, and draws from it."""

    def step(self):
        random.seed(self._seed + self.position)
        self.weights[0] += random.random() * 1e-3  # noqa: S311
        return super().step()


class Bare:
    """Has no methods."""

    def __init__(self, seed):
        self.optimizer = seed


@pytest.mark.parametrize(
    ("run", "rules"),
    [
        (Unseeded, ["same-seed"]),
        (Deaf, ["other-seed"]),
        (Sharing, ["apart"]),
        (Marked, ["evaluate"]),
        (Noisy, ["evaluate"]),
        (Forgetful, ["resume"]),
        (Misjudged, ["resume"]),
        (Startled, ["saving"]),
        (Locked, ["saving"]),
        (Alive, ["state-lives"]),
        (OneWay, ["rewind"]),
        (Lossless, ["loss"]),
        (Wordy, ["loss"]),
        (Endless, ["loss"]),
        (Unmeasured, ["metric"]),
        (Raising, ["raises"]),
        (Rateless, ["rates"]),
        (Drawing, ["global-rng"]),
        (Bare, ["run"]),
    ],
)
def test_each_fault_is_found_by_its_own_rule(run, rules):
    assert found(run) == rules


def test_every_rule_has_a_task_that_breaks_it():
    text = "\n".join(str(line) for line in test_each_fault_is_found_by_its_own_rule.pytestmark)
    assert [rule for rule in RULES if f"'{rule}'" not in text] == ["task"]


def test_a_finding_says_what_where_both_values_and_the_cure():
    (finding,) = conformance(Lines(Forgetful))
    assert (finding.where, finding.at, finding.unit) == ("step 5", 5.0, "steps")
    assert str(finding).startswith("error [resume] step 5: a run, and one that went on from")
    assert finding.what.count("0.") == 2
    assert finding.cure.startswith("save weights, buffers, optimizer")
    (finding,) = conformance(Lines(Endless))
    assert (finding.where, finding.what) == ("step 3", "the loss is nan")
    (finding,) = conformance(Lines(Raising))
    assert finding.what == "step() raises ValueError: no such batch"
    (finding,) = conformance(Lines(Drawing))
    assert finding.level == "warning"
    assert finding.what.startswith("step() moves Python's random,")


def test_rules_can_be_left_out():
    assert conformance(Lines(Drawing), ignore=["global-rng"]) == ()
    with pytest.raises(FieldError, match="did you mean 'resume'"):
        conformance(Lines(), ignore="resum")
    with pytest.raises(FieldError, match="conformance: steps must be a whole number >= 2, got 1"):
        conformance(Lines(), steps=1)


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("horizon", 100, "horizon is 100"),
        ("horizon", Horizon(), "the horizon has no number of steps"),
        ("horizon", Horizon("6h"), "the horizon has no number of steps"),
        ("metric", "loss", "metric is 'loss'"),
    ],
)
def test_what_a_task_declares_is_looked_at_first(name, value, words):
    task = Lines()
    setattr(task, name, value)
    (finding,) = conformance(task)
    assert finding.rule == "task"
    assert words in finding.what


def test_what_is_no_task_is_said():
    (finding,) = conformance(Line)
    assert finding.rule == "task"


def test_a_metric_has_a_name_and_a_direction():
    assert Metric() == Metric("loss", "lower")
    with pytest.raises(FieldError, match="Metric.better must be 'lower' or 'higher', got 'up'"):
        Metric("loss", "up")
    with pytest.raises(FieldError, match="Metric.name must be a key"):
        Metric("")


def test_a_task_needs_build():
    with pytest.raises(TypeError, match="abstract method"):
        Task()


def test_without_torch_the_cure_is_said(monkeypatch):
    for name in [n for n in sys.modules if n.startswith("stepsize.torch")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.delattr("stepsize.torch", raising=False)
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(StepsizeError, match=r"need torch: pip install 'stepsize\[torch\]'"):
        Task.from_arrays([[1.0]], [1.0])


# The file ---------------------------------------------------------------------------------------

HEAD = "from stepsize.task import Metric, Task\nfrom stepsize import Horizon\n"
MINE = (
    HEAD + "class Mine(Task):\n    horizon = Horizon(9)\n    def build(self, seed): return seed\n"
)


def given(tmp_path, text, name="task"):
    path = tmp_path / "given.py"
    path.write_text(text)
    return load_task(path, name)


@pytest.mark.parametrize(
    "text",
    [
        MINE + "task = Mine()\n",
        MINE + "task = Mine\n",
        MINE + "def task(): return Mine()\n",
        MINE + "anything = Mine()\n",
        MINE + "one = two = Mine()\n",
        HEAD + "horizon = Horizon(9)\ndef build(seed): return seed\n",
    ],
)
def test_a_file_gives_its_task(tmp_path, text):
    task = given(tmp_path, text)
    assert (task.build(5), task.horizon.steps, task.metric) == (5, 9, Metric())


def test_a_file_may_say_its_metric_import_its_neighbour_and_hold_several(tmp_path):
    (tmp_path / "beside_given.py").write_text("TOTAL = 12\n")
    build = "def build(seed): return seed\nmetric = Metric('f1', 'higher')\n"
    text = HEAD + "from beside_given import TOTAL\nhorizon = Horizon(TOTAL)\n" + build
    task = given(tmp_path, text)
    assert (task.metric.name, task.horizon.steps) == ("f1", 12)
    two = MINE + "a = Mine()\nb = Mine()\n"
    assert given(tmp_path, two, "b").build(1) == 1


def test_a_file_is_not_run_as_main_and_its_classes_can_be_pickled(tmp_path):
    text = MINE + "import dataclasses\n@dataclasses.dataclass\nclass A:\n    b: 'int' = 1\n"
    task = given(tmp_path, text + "if __name__ == '__main__': 1 / 0\ntask = Mine()\n")
    assert task.build(0) == 0


@pytest.mark.parametrize(
    ("text", "name", "words"),
    [
        (HEAD, "task", "there is no task in it; write task = Task.from_torch"),
        (MINE + "a = Mine()\nb = Mine()\n", "task", "several tasks, a, b; name one of them"),
        (MINE + "a = Mine()\n", "b", "there is no 'b' in it; its tasks are a"),
        (HEAD, "b", "there is no 'b' in it; it has no task"),
        (MINE + "task = 5\n", "task", "task is no Task but int"),
        (MINE + "def task(): return 5\n", "task", "task is no Task but int"),
        (MINE + "def task(seed): return 5\n", "task", "task needs the arguments seed"),
        ("task = Task.from_torch()\n", "task", "line 1: NameError: name 'Task' is not defined"),
        ("x = 1\n\ny = x / 0\n", "task", "line 3: ZeroDivisionError: division by zero"),
        ("def f():\n    return g()\nf()\n", "task", "line 2: NameError: name 'g'"),
        ("x = (\n", "task", "line 1: SyntaxError: '(' was never closed"),
        ("import sys\nsys.exit(3)\n", "task", "line 2: the file ends the program"),
        ("def task():\n    1 / 0\n", "task", "line 2: ZeroDivisionError"),
        ("import no_such_module\n", "task", "line 1: ModuleNotFoundError"),
        (HEAD + "horizon = Horizon(-5)\n", "task", "line 3: Horizon.total must be"),
        ("def build(seed): return 1\n", "task", "build(seed) needs a horizon beside it"),
        (HEAD + "horizon = Horizon(9)\nmetric = 1\ndef build(seed): pass\n", "task", "no Metric"),
        (HEAD + "class T(Task): pass\ntask = T\n", "task", "TypeError: Can't instantiate abstract"),
    ],
)
def test_what_is_wrong_with_a_file_is_said(tmp_path, text, name, words):
    with pytest.raises(SpecError) as error:
        given(tmp_path, text, name)
    assert words in str(error.value)
    assert str(error.value).startswith(str(tmp_path / "given.py"))


def test_a_file_that_is_not_there_or_no_python():
    with pytest.raises(SpecError, match="nowhere.py: there is no such file"):
        load_task("nowhere.py")
    with pytest.raises(SpecError, match="a task's file ends in .py"):
        load_task(__file__.replace("test_task.py", "errors.txt"))
