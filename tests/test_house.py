"""The house: imports point one way, frameworks stay in their rooms, names are exported."""

import ast
import inspect
import re
import sys
import tomllib
from pathlib import Path

import pytest

import stepsize

ROOT = Path(__file__).parents[1]
SOURCE = ROOT / "src" / "stepsize"
MODULES = sorted(SOURCE.rglob("*.py"))

# A module may import from its own room and from rooms above it in this list.
ROOMS = [
    "errors", "units", "schedules", "drawing", "sketch", "batch_ramp", "horizon", "time",
    "frameworks", "files", "edits", "control", "feedback", "look", "lint", "finding", "task",
    "task_file", "conform", "torch", "optim", "plot", "cli", "__main__",
]  # fmt: skip
# A method that only forwards, imported when it is called: a schedule draws itself, a horizon
# with a batch-size ramp tabulates it, and a plan names its type.
LATE = {
    ("schedules", "sketch"): {"schedules/schedule.py", "schedules/plan.py"},
    ("horizon", "time"): {"horizon.py"},
    ("horizon", "frameworks"): {"horizon.py"},
    ("task", "torch"): {"task.py"},
}
_NUMPY = {
    "schedules/arrays.py", "schedules/kernel.py", "batch_ramp.py", "torch/tasks/table.py",
    "finding/bounds.py", "finding/rules.py", "finding/smoothing.py", "finding/suggestion.py",
}  # fmt: skip
_CLICK = {f"cli/{name}.py" for name in ("app", "edit", "find", "options", "show")}
FRAMEWORKS = {
    "numpy": _NUMPY,
    "torch": {
        p.relative_to(SOURCE).as_posix()
        for room in ("torch", "optim")
        for p in (SOURCE / room).rglob("*.py")
    },
    "annotated_types": {"schedules/fields.py"},
    "matplotlib": {p.relative_to(SOURCE).as_posix() for p in (SOURCE / "plot").rglob("*.py")},
    "click": _CLICK,
    "yaml": {"files/yaml_core.py"},
    "scipy": {"optim/searches.py"},
    "tomli_w": {"files/forms.py"},
}
STANDARD = {
    "abc", "ast", "bisect", "collections", "copy", "csv", "dataclasses", "decimal", "difflib",
    "fnmatch", "fractions",
    "functools", "hashlib", "html", "importlib", "inspect", "io", "itertools", "json",
    "keyword", "math", "numbers",
    "os", "pathlib", "re", "shutil", "string", "sys", "textwrap", "tomllib", "types", "typing",
    "time", "warnings", "weakref",
    "contextlib", "datetime", "operator", "pickle", "platform", "random", "signal", "stat",
    "statistics", "threading", "traceback",
}  # fmt: skip


def name_of(path: Path) -> str:
    return path.relative_to(SOURCE).as_posix()


def room_of(dotted: str) -> str:
    return dotted.removeprefix("stepsize").lstrip(".").partition(".")[0]


def imports_of(path: Path):
    """Every imported module, and whether the type checker alone sees it."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    unseen = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
        for inner in ast.walk(node)
    }
    for node in ast.walk(tree):
        if id(node) in unseen:
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            yield str(node.module)


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_imports_point_one_way(path):
    if path == SOURCE / "__init__.py":
        return
    own = room_of(".".join(path.relative_to(SOURCE).with_suffix("").parts))
    for module in imports_of(path):
        if not module.startswith("stepsize"):
            continue
        room = room_of(module)
        late = name_of(path) in LATE.get((own, room), ())
        assert ROOMS.index(room) <= ROOMS.index(own) or late, f"{path} imports {module}"


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_a_framework_is_imported_in_its_room_alone(path):
    for module in imports_of(path):
        top = module.partition(".")[0]
        if top in FRAMEWORKS:
            assert name_of(path) in FRAMEWORKS[top], f"{path} imports {module}"
        else:
            assert top in STANDARD | {"stepsize"}, f"{path} imports {module}"


def test_the_layer_test_can_fail(tmp_path):
    wrong = tmp_path / "wrong.py"
    wrong.write_text("import numpy\nfrom stepsize.torch import Scheduler\n")
    assert set(imports_of(wrong)) == {"numpy", "stepsize.torch"}


def test_public_names_are_sorted_complete_and_described():
    assert len(stepsize.__all__) == len(set(stepsize.__all__))  # their order is the linter's
    tree = ast.parse((SOURCE / "__init__.py").read_text(encoding="utf-8"))
    imported = {
        a.asname or a.name
        for n in ast.walk(tree)
        if isinstance(n, ast.ImportFrom) and str(n.module).startswith("stepsize.")
        for a in n.names
    }
    assert set(stepsize.__all__) == imported | {"__version__"}
    assert set(stepsize.__all__) <= set(dir(stepsize))
    for name in imported - {"REGISTRY"}:
        assert inspect.getdoc(getattr(stepsize, name)), name


def test_every_recipe_names_its_source_and_an_exact_number():
    for name in stepsize.__all__:
        recipe = getattr(stepsize, name)
        if getattr(recipe, "__module__", "") == "stepsize.schedules.recipes":
            text = inspect.getdoc(recipe) or ""
            assert "Source:" in text, name
            assert ">>>" in text, name


def test_every_registered_family_is_public():
    families = {
        c.__name__ for c in stepsize.REGISTRY.values() if c.__module__.startswith("stepsize")
    }
    assert families <= set(stepsize.__all__)


def test_peers_own_names_are_not_spoken():
    spoken = re.compile(r"\b(T_max|eta_min|num_warmup_steps|num_training_steps|gamma_t)\b")
    for path in MODULES:
        assert not spoken.search(path.read_text(encoding="utf-8")), path


def blocks(path: Path) -> list[str]:
    return re.findall(r"```python\n(.*?)```", path.read_text(encoding="utf-8"), re.DOTALL)


@pytest.mark.parametrize(
    "path", [ROOT / "README.md", ROOT / "CONTRIBUTING.md"], ids=lambda p: p.name
)
def test_every_python_block_runs(path, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    space: dict[str, object] = {"__name__": "readme"}
    found = blocks(path)
    assert found
    for block in found:
        exec(compile(block, path.name, "exec"), space)  # noqa: S102 (our own text)
    capsys.readouterr()


def test_readme_names_every_family():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    for family in stepsize.REGISTRY.values():
        if family.__module__.startswith("stepsize"):
            assert f"`{family.__name__}`" in text, family.__name__


def installed_by(extra: str) -> set[str]:
    """What an extra installs, and what installs without one."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    found: set[str] = set()
    for each in [*project["dependencies"], *project["optional-dependencies"][extra]]:
        own = re.fullmatch(r"stepsize\[(.*)\]", each)
        found |= set().union(*map(installed_by, own[1].split(","))) if own else set()
        found.add(re.split(r"[<>=\[ ]", each)[0])
    return found


def test_the_demo_installs_what_the_examples_import():
    known = installed_by("demo") | {"sklearn"}  # which scikit-learn installs
    for path in (ROOT / "examples").glob("*.py"):
        tops = {module.partition(".")[0] for module in imports_of(path)}
        assert tops - set(sys.stdlib_module_names) <= known, path


READING = {"float", "bool", "int"}
READERS = {"item", "tolist", "numpy"}


def readings(tree):
    """Where a tensor may be read as a number: of a DTensor that is this rank's part alone."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            f = node.func
            if isinstance(f, ast.Name) and f.id in READING:
                yield node.lineno, f.id
            if isinstance(f, ast.Attribute) and f.attr in READERS:
                yield node.lineno, f.attr


@pytest.mark.parametrize("path", sorted((SOURCE / "optim").glob("*.py")), ids=name_of)
def test_optimizers_read_tensors_in_one_place(path):
    if path.name != "whole.py":
        assert not list(readings(ast.parse(path.read_text(encoding="utf-8"))))


def test_the_reading_lint_can_fail():
    assert list(readings(ast.parse("x = float(g.norm())\ny = g.norm().item()")))
