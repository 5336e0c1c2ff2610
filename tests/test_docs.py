"""The documentation site: what it shows is run, and it shows everything that is public."""

import importlib
import importlib.util
import re
import shlex
import subprocess
import sys
import types
from pathlib import Path

import pytest
import torch
from tools import gallery
from tools.docstrings import fenced, source_of, without_source

import stepsize
import stepsize.feedback
import stepsize.finding
import stepsize.optim
import stepsize.torch
import stepsize.torch.curvature
from stepsize import REGISTRY, Cosine, MultiStep, Schedule, Step, Warmup, schedule
from stepsize.cli import app
from stepsize.schedules.fields import Length

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PAGES = sorted(DOCS.rglob("*.md"))
OWN = [family for family in REGISTRY.values() if family.__module__.startswith("stepsize")]

_BLOCK = re.compile(r"^```python\n(.*?)^```$(?:\n\n```text\n(.*?)^```$)?", re.DOTALL | re.MULTILINE)
_COMMENT = re.compile(r"^ *print\(.*\)  # (.*)$", re.MULTILINE)


def blocks(text):
    """Every python block of a page, with the text block that may follow it."""
    return _BLOCK.findall(text)


def said(code, output):
    """The lines that a block says it prints, in a text block or in comments; None if none."""
    return output.splitlines() if output else _COMMENT.findall(code) or None


def run(code, name, space):
    exec(compile(code, name, "exec"), space)  # noqa: S102 (our own text)
    return space


def name_of(path):
    return path.relative_to(DOCS).as_posix()


@pytest.mark.parametrize("path", PAGES, ids=name_of)
def test_every_block_runs_and_prints_what_it_says(path, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    space = {"__name__": "docs"}
    for code, output in blocks(path.read_text(encoding="utf-8")):
        run(code, name_of(path), space)
        printed = [line.rstrip() for line in capsys.readouterr().out.splitlines()]
        expected = said(code, output)
        assert expected is None or printed == expected, code


def test_blocks_and_what_they_say_are_found():
    text = (
        "a\n\n```python\nprint(1)  # 1\n```\n\nb\n\n```python\nprint(2)\n```\n\n```text\n2\n```\n"
    )
    assert [said(*block) for block in blocks(text)] == [["1"], ["2"]]
    assert said("x = 1  # not printed\n", "") is None


_CONSOLE = re.compile(r"^```console\n(.*?)^```$", re.DOTALL | re.MULTILINE)


def commands(text):
    """Every command of the console blocks of a page, and the lines that it prints."""
    for block in _CONSOLE.findall(text):
        for part in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]:
            command, _, output = part.partition("\n")
            yield command, output.splitlines()


@pytest.mark.parametrize("path", [*PAGES, ROOT / "README.md"], ids=lambda path: path.name)
def test_every_command_prints_what_the_page_says(path, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    status = 0
    for command, expected in commands(path.read_text(encoding="utf-8")):
        if command == "echo $?":
            assert [str(status)] == expected
            continue
        monkeypatch.setattr(sys, "argv", shlex.split(command))
        with pytest.raises(SystemExit) as end:
            app.main()
        status, found = end.value.code, capsys.readouterr()
        assert [line.rstrip() for line in (found.out + found.err).splitlines()] == expected, command


# The reference ----------------------------------------------------------------------------------


def documented():
    text = "\n".join(path.read_text(encoding="utf-8") for path in PAGES)
    return re.findall(r"^::: (\S+)$", text, re.MULTILINE)


def test_the_reference_has_every_public_name_once_and_nothing_else():
    public = {f"stepsize.{name}" for name in stepsize.__all__}
    public |= {f"stepsize.torch.{name}" for name in stepsize.torch.__all__}
    public |= {f"stepsize.feedback.{name}" for name in stepsize.feedback.__all__}
    public |= {f"stepsize.optim.{name}" for name in stepsize.optim.__all__}
    public |= {f"stepsize.torch.curvature.{name}" for name in stepsize.torch.curvature.__all__}
    public |= {f"stepsize.finding.{name}" for name in stepsize.finding.__all__}
    rooms = {"stepsize.optim.base.SelfSizing", "stepsize.torch.curvature"}
    rooms |= {f"stepsize.torch.tasks.{name}" for name in ("from_torch", "from_arrays")}
    found = [name for name in documented() if name not in rooms]
    assert public - set(found) == set()
    assert set(found) - public == set()
    assert len(found) == len(set(found))


def test_doctests_are_fenced_and_the_source_is_apart():
    text = "Adds.\n\nSource: Euclid,\nbook 1.\n\n>>> 1 + 1\n2\n\n```python\n>>> not again\n```"
    assert source_of(text) == "Euclid,\nbook 1."
    assert "Source" not in without_source(text)
    assert fenced(text).count("```pycon\n>>> 1 + 1\n2\n```") == 1
    assert fenced(text).count("```") == 4


# The gallery ------------------------------------------------------------------------------------


@pytest.mark.parametrize("entry", gallery.entries(OWN), ids=lambda entry: entry.name)
def test_an_entry_has_all_and_its_code_makes_the_picture(entry):
    assert entry.text
    assert entry.source
    assert entry.settings
    assert entry.picture.startswith("<svg")
    assert run(entry.code, entry.name, {})["picture"] == entry.picture
    first = gallery.first_curve(entry)
    if entry.name != "Custom":  # a user's function can only be named
        value = run(entry.formula, entry.name, {})["value"]
        assert [value(t) for t in (0.0, 1.0, 7.5)] == [first(t) for t in (0.0, 1.0, 7.5)]
    shown = gallery.section(entry)
    for part in (entry.picture, entry.code, *(f"`{setting.name}`" for setting in entry.settings)):
        assert part in shown


def test_the_gallery_has_every_family_and_recipe():
    made = gallery.pages(OWN)
    names = {family.__name__ for family in OWN}
    names |= {n for n in stepsize.__all__ if _module(n) == "stepsize.schedules.recipes"}
    text = "\n".join(made.values())
    assert {name for name in names if f"## {name} {{#{name}}}" not in text} == set()
    assert {name for name in names if f"#{name})" not in made["gallery/index.md"]} == set()
    assert set(gallery.PAGES) == {entry.module for entry in gallery.entries(OWN)}


def _module(name):
    return getattr(getattr(stepsize, name), "__module__", "")


@pytest.fixture
def dip():
    """A family as another package has it: one class."""

    @schedule
    class Dip(Schedule):
        """A dip in the middle: `1 - sin(pi * t/over)`.

        Source: this test.

        >>> Dip(100)(50), Dip(10)(0)
        (0.0, 1.0)
        """

        kind = "docs_dip"
        over: Length

        @property
        def duration(self):
            return self.over

        def _value(self, t, xp):
            return 1.0 - xp.sin(xp.pi * xp.clip(t, 0.0, self.over) / self.over)

    yield Dip
    del REGISTRY["docs_dip"]


def test_a_family_of_another_package_appears_by_itself(dip):
    made = gallery.pages([dip])
    path = gallery.path_of(dip.__module__)
    assert "## Dip {#Dip}" in made[path]
    assert "**Source:** this test." in made[path]
    assert "| `over` | a length > 0: steps, or a text with a unit | required |" in made[path]
    assert f"from {dip.__module__} import Dip" in made[path]
    assert "<svg" in made[path]


def test_a_family_without_an_example_says_what_is_missing(dip):
    dip.__doc__ = "A dip."
    with pytest.raises(ValueError, match="Dip: no doctest in its docstring makes one"):
        gallery.entry_of(dip)


# The conventions of peers that are not always installed -------------------------------------------


def sgd():
    return torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0, momentum=0.9)


def apart(ours, values):
    return max(abs(ours(t) - value) for t, value in enumerate(values))


@pytest.fixture
def timm(monkeypatch):
    """Its schedulers without its models, which need torchvision."""
    found = importlib.util.find_spec("timm")
    bare = types.ModuleType("timm")
    bare.__path__ = list(found.submodule_search_locations)
    monkeypatch.setitem(sys.modules, "timm", bare)
    return importlib.import_module("timm.scheduler")


@pytest.mark.parametrize("prefix", [False, True])
def test_timm_counts_the_warmup_inside_the_decay_unless_it_is_a_prefix(timm, prefix):
    peer = timm.CosineLRScheduler(
        sgd(),
        t_initial=100,
        warmup_t=10,
        warmup_lr_init=0.1,
        warmup_prefix=prefix,
        lr_min=0.05,
        t_in_epochs=False,
    )
    decay = Cosine(100, stop=0.05)
    ours = Warmup(10, start=0.1) >> (decay if prefix else decay.shifted(-10))
    assert apart(ours, [peer._get_lr(t)[0] for t in range(250)]) < 1e-15


def test_timm_drops_at_a_milestone_one_step_early(timm):
    peer = timm.MultiStepLRScheduler(sgd(), decay_t=[30, 60], decay_rate=0.1)
    ours = MultiStep((30, 60)).shifted(-1)
    assert apart(ours, [peer._get_lr(t)[0] for t in range(100)]) < 1e-15
    peer = timm.StepLRScheduler(sgd(), decay_t=30, decay_rate=0.1)
    assert apart(Step(30), [peer._get_lr(t)[0] for t in range(100)]) < 1e-15


def test_ignite_has_the_peak_one_step_early_and_restarts_its_cosine():
    peers = importlib.import_module("ignite.handlers.param_scheduler")
    rows = peers.CosineAnnealingScheduler.simulate_values(
        num_events=35, param_name="lr", start_value=1.0, end_value=0.0, cycle_size=10
    )
    assert apart(Cosine(10).repeated(), [value for _, value in rows]) < 1e-15
    rows = peers.PiecewiseLinear.simulate_values(
        num_events=20, param_name="lr", milestones_values=[(0, 0.1), (4, 1.0)]
    )
    assert apart(Warmup(4, start=0.1), [value for _, value in rows]) < 1e-15


def test_fvcore_counts_parts_of_the_run_and_drops_at_the_milestone():
    peers = importlib.import_module("fvcore.common.param_scheduler")
    steps = peers.MultiStepParamScheduler([1, 0.1, 0.01], num_updates=100, milestones=[30, 60])
    assert apart(MultiStep((30, 60)), [steps(t / 100) for t in range(100)]) < 1e-15
    parts = [peers.LinearParamScheduler(0.1, 1.0), peers.CosineParamScheduler(1.0, 0.0)]
    both = peers.CompositeParamScheduler(parts, [0.1, 0.9], ["rescaled"] * 2)
    ours = Warmup(10, start=0.1) >> Cosine(90)
    assert apart(ours, [both(t / 100) for t in range(100)]) < 1e-15


# The site ---------------------------------------------------------------------------------------


@pytest.mark.slow
def test_the_site_builds_and_loads_nothing_from_elsewhere(tmp_path):
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)  # noqa: S603 (our own command)
    assert done.returncode == 0, done.stderr
    pages = list(tmp_path.rglob("*.html"))
    assert len(pages) > len(PAGES)  # the gallery's are made by the build
    outside = re.compile(r'(?:src|<link[^>]*href)="(?:https?:)?//')
    texts = {page.relative_to(tmp_path).as_posix(): page.read_text("utf-8") for page in pages}
    assert [name for name, text in texts.items() if outside.search(text)] == []
    assert "<math" in texts["api/optim.html"]
    assert [name for name, text in texts.items() if 'class="arithmatex"' in text] == []
