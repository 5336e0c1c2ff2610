"""Reading a task out of a user's own Python file."""

import importlib.util
import inspect
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

from stepsize.drawing.series import listed
from stepsize.errors import SpecError, StepsizeError
from stepsize.task import Metric, Run, Task
from stepsize.time import Horizon


class _Built(Task):
    """A module's own `build(seed)` with its `horizon`."""

    def __init__(self, build: Callable[[int], Run], horizon: Horizon, metric: Metric) -> None:
        self.horizon, self.metric, self._build = horizon, metric, build

    def build(self, seed: int) -> Run:
        return self._build(seed)


def load_task(path: str | Path, name: str = "task") -> Task:
    """Run a Python file and give its task.

    The file is the user's own script and is run as one, but not as `__main__`; its folder is put on
    `sys.path`, where Python has that of a script. Looked for in it are, in this order:

    1. `task` (or another `name`): a `Task`, or a class or function without arguments that makes
       one;
    2. `build(seed)`, a function that gives a `Run`, beside a `horizon` and, unless the run is
       judged by its "loss", a `metric`;
    3. the only `Task` in the file, whatever its name; or the only class of tasks defined in it.

    Raises:
        SpecError: for no file, for no task in it, or several; for an error in the file, with its
            line.
    """
    file = Path(path)
    if not file.is_file():
        raise SpecError(f"{path}: there is no such file")
    module = _run(file)
    found = getattr(module, name, None)
    if found is not None:
        return _made(file, name, found)
    if name != "task":
        raise SpecError(f"{path}: there is no {name!r} in it; {_held(module)}")
    return _built(file, module) if hasattr(module, "build") else _only(file, module)


def _run(file: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"stepsize_task_{file.stem}", file)
    if spec is None or spec.loader is None:
        raise SpecError(f"{file}: a task's file ends in .py")
    module = importlib.util.module_from_spec(spec)
    folder = str(file.resolve().parent)
    if folder not in sys.path:
        sys.path.insert(0, folder)
    sys.modules[spec.name] = module  # dataclasses and pickle look there
    _guarded(file, spec.loader.exec_module, module)
    return module


def in_the_file(path: str | Path, call: Callable[..., Any], *given: Any, **named: Any) -> Any:
    """Call what leads to the user's code; its errors are `SpecError`s, told with their line."""
    return _guarded(Path(path), call, *given, **named)


def _guarded(file: Path, call: Callable[..., Any], *given: Any, **named: Any) -> Any:
    """Call the user's code; an error of it is told with the line of the file."""
    try:
        return call(*given, **named)
    except (Exception, SystemExit) as error:
        raise SpecError(f"{_place(file, error)}: {_told(error)}") from error


def _told(error: BaseException) -> str:
    if isinstance(error, StepsizeError):
        return str(error)
    if isinstance(error, SyntaxError):
        return f"SyntaxError: {error.msg}"
    if isinstance(error, ModuleNotFoundError) and error.name == "torch":
        return f"{error}: pip install 'stepsize[torch]'"
    if isinstance(error, SystemExit):
        return "the file ends the program; put that under if __name__ == '__main__'"
    return "".join(traceback.format_exception_only(error)).strip()


def _place(file: Path, error: BaseException) -> str:
    if isinstance(error, SyntaxError) and error.filename and file.samefile(error.filename):
        return f"{file}, line {error.lineno}"
    lines = [
        each.lineno
        for each in traceback.extract_tb(error.__traceback__)
        if Path(each.filename).resolve() == file.resolve()
    ]
    return f"{file}, line {lines[-1]}" if lines else str(file)


def _made(file: Path, name: str, found: Any) -> Task:
    made = found
    if not isinstance(found, Task) and callable(found):
        if _needed(found):
            raise SpecError(
                f"{file}: {name} needs the arguments {listed(_needed(found))}; "
                f"write a function without arguments, or build(seed)"
            )
        made = _guarded(file, found)
    if not isinstance(made, Task):
        raise SpecError(
            f"{file}: {name} is no Task but {type(made).__name__}; "
            f"write {name} = Task.from_torch(...), or a subclass of stepsize.Task"
        )
    return made


def _needed(function: Callable[..., Any]) -> list[str]:
    try:
        given = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):  # of a built-in nothing is known
        return []
    free = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    return [p.name for p in given if p.default is inspect.Parameter.empty and p.kind not in free]


def _built(file: Path, module: ModuleType) -> Task:
    horizon, metric = getattr(module, "horizon", None), getattr(module, "metric", Metric())
    if not isinstance(horizon, Horizon):
        raise SpecError(f"{file}: build(seed) needs a horizon beside it: horizon = Horizon(2000)")
    if not isinstance(metric, Metric):
        raise SpecError(f"{file}: metric is no Metric; write Metric('accuracy', 'higher')")
    return _Built(module.build, horizon, metric)


def _tasks(module: ModuleType) -> dict[str, Task]:
    return {n: found for n, found in vars(module).items() if isinstance(found, Task)}


def _held(module: ModuleType) -> str:
    names = list(_tasks(module))
    return f"its tasks are {listed(names)}" if names else "it has no task"


def _only(file: Path, module: ModuleType) -> Task:
    tasks = list(_tasks(module).values())
    if len({id(task) for task in tasks}) == 1:
        return tasks[0]
    if tasks:
        raise SpecError(f"{file}: several tasks, {listed(list(_tasks(module)))}; name one of them")
    classes = _classes(module)
    if len(classes) == 1:
        return _made(file, *classes[0])
    if classes:
        names = listed([name for name, _ in classes])
        raise SpecError(f"{file}: several classes of tasks, {names}; name one of them with --task")
    raise SpecError(
        f"{file}: there is no task in it; write task = Task.from_torch(...), a function task() "
        "that makes one, a subclass of stepsize.Task, or build(seed) beside a horizon"
    )


def _classes(module: ModuleType) -> list[tuple[str, type[Task]]]:
    """Give the classes of tasks that the file itself defines."""
    named = vars(module).items()
    classes = [(name, found) for name, found in named if isinstance(found, type)]
    own = module.__name__
    return [(n, c) for n, c in classes if issubclass(c, Task) and c.__module__ == own]
