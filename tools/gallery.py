"""The gallery: every registered family and every recipe as Markdown, made from the code alone.

The pages have a picture, the docstring with its formula and source, the settings, and the code that
made the picture. A picture shows the schedules that the docstring's own doctest makes, so a family
of another package needs nothing beside its docstring. Plain functions: mkdocs calls them from
`docs_hooks.py`, the tests call them directly.
"""

import ast
import dataclasses
import doctest
import html
import inspect
import sys
import types
import typing
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from tools.docstrings import fenced, source_of, without_source

import stepsize
from stepsize import REGISTRY, Plan, Schedule
from stepsize.schedules import recipes
from stepsize.schedules.fields import Bounds, LengthRule
from stepsize.schedules.schedule import code
from stepsize.schedules.walk import nodes, units_of
from stepsize.sketch import extent, samples, settle_nominally, svg
from stepsize.units import Time

Thing = type[Schedule] | Callable[..., Any]
Curves = dict[str, Schedule | Plan]

PAGES = {
    "stepsize.schedules.warmup": "Warmup and constant",
    "stepsize.schedules.ramps": "Ramps",
    "stepsize.schedules.decays": "Decays",
    "stepsize.schedules.combine": "Made of other schedules",
    "stepsize.schedules.timing": "In a time of their own",
    "stepsize.schedules.tables": "Tables and functions",
    "stepsize.schedules.recipes": "Recipes, by the names of papers",
}
"""Titles of this package's modules, in the order of the pages; other modules come after them."""

_ABOUT = (
    "A family is a class; a recipe is a function that returns a tree of families by the name that "
    "papers and libraries use. Every entry has its formula, its source, its settings and the code "
    "of its picture. These pages are made from the registry and the docstrings."
)
_ALIKE = 3.0  # curves in one picture last about as long
_LENGTH = "a length > 0: steps, or a text with a unit"


@dataclass(frozen=True)
class Setting:
    """One argument: its name, what it takes in words, its default as code (or that it has none)."""

    name: str
    takes: str
    default: str


@dataclass(frozen=True)
class Entry:
    """A family or a recipe, as the gallery shows it."""

    name: str
    module: str
    kind: str
    text: str
    source: str
    settings: tuple[Setting, ...]
    curves: Curves

    @property
    def code(self) -> str:
        """The code that makes the picture."""
        return picture_code(self.name, self.module, self.curves)

    @property
    def picture(self) -> str:
        """The picture."""
        return svg(_named(self.curves))

    @property
    def formula(self) -> str:
        """The first curve as Python text that stands alone."""
        _, first = _named(self.curves)[0]
        note = "# in nominal time: resolve(schedule, horizon) gives the numbers of a run\n"
        return (note if units_of(first) else "") + first_curve(self).source()


def first_curve(entry: Entry) -> Schedule:
    """Give the first schedule that an entry shows, in plain numbers."""
    return settle_nominally([_named(entry.curves)[0]])[0][0][1]


# What there is ----------------------------------------------------------------------------------


def entries(families: Iterable[type[Schedule]] = REGISTRY.values()) -> list[Entry]:
    """Give every family and every recipe, by page."""
    known = [entry_of(family) for family in families]
    found = [
        entry_of(thing)
        for name, thing in vars(recipes).items()
        if name in stepsize.__all__ and thing.__module__ == recipes.__name__
    ]
    order = {module: i for i, module in enumerate(PAGES)}
    last = len(order)
    return sorted([*known, *found], key=lambda e: (order.get(e.module, last), e.module))


def entry_of(thing: Thing) -> Entry:
    """Read all that the gallery shows off a family or a recipe."""
    text = inspect.getdoc(thing) or ""
    return Entry(
        name=thing.__name__,
        module=thing.__module__,
        kind=getattr(thing, "kind", ""),
        text=fenced(without_source(text)),
        source=source_of(text),
        settings=settings_of(thing),
        curves=curves_of(thing),
    )


# Settings ---------------------------------------------------------------------------------------


def settings_of(thing: Thing) -> tuple[Setting, ...]:
    """Give the arguments of a family or a recipe, in order."""
    if not isinstance(thing, type):
        hints = typing.get_type_hints(thing)
        return tuple(
            Setting(name, _type_words(hints[name]), _default(parameter.default))
            for name, parameter in inspect.signature(thing).parameters.items()
        )
    hints, found = typing.get_type_hints(thing), []
    for field in dataclasses.fields(thing):
        if field.init:
            rule, optional = thing._rules.get(field.name, (None, False))  # noqa: SLF001 (set by @schedule)
            words = _rule_words(rule) if rule else _type_words(hints[field.name])
            takes = f"{words}; or None" if optional else words
            found.append(Setting(field.name, takes, _default(field.default)))
    return tuple(found)


def _rule_words(rule: object) -> str:
    if isinstance(rule, Bounds):
        return rule.rule
    if isinstance(rule, LengthRule):
        signed = "a length of either sign: steps, or a text with a unit"
        return signed if rule.signed else _LENGTH
    first = (inspect.getdoc(rule) or type(rule).__name__).partition(".")[0]
    return first[0].lower() + first[1:] if first[:2] not in ("Tr", "Fa") else first


def _type_words(hint: Any) -> str:
    parts, origin = typing.get_args(hint), typing.get_origin(hint)
    if set(parts) - {type(None)} == {float, str, Time}:
        return _LENGTH + ("; or None" if type(None) in parts else "")
    if origin in (types.UnionType, typing.Union):
        words = [_type_words(part) for part in parts if part is not type(None)]
        return " or ".join(words) + ("; or None" if type(None) in parts else "")
    if origin is typing.Literal:
        return " or ".join(f"`{part!r}`" for part in parts)
    if origin is type:
        return f"a `{parts[0].__name__}` class"
    if origin is tuple:
        inner = "lengths" if parts[0] is not float else "numbers"
        return f"several {inner}" if Ellipsis in parts else f"{len(parts)} {inner}"
    known = {float: "a number", int: "a whole number", bool: "True or False", str: "a text"}
    return known.get(hint, f"`{inspect.formatannotation(hint)}`".replace("|", "or"))


def _default(value: object) -> str:
    if value in (dataclasses.MISSING, inspect.Parameter.empty):
        return ""
    return f"`{value.__name__ if isinstance(value, type) else code(value)}`"


# Pictures ---------------------------------------------------------------------------------------


def curves_of(thing: Thing) -> Curves:
    """Give the schedules that a docstring's doctest makes with it, by the code that makes them.

    The largest expressions that show the family or call the recipe, those about as long as the
    first and of its sort: factors or values.
    """
    space = {name: getattr(stepsize, name) for name in stepsize.__all__}
    module = vars(sys.modules[thing.__module__]) if thing.__module__ in sys.modules else {}
    space |= {k: v for k, v in module.items() if k.isidentifier()} | {thing.__name__: thing}
    known = dict(space)
    found: Curves = {}
    for example in doctest.DocTestParser().get_examples(inspect.getdoc(thing) or ""):
        tree = ast.parse(example.source)
        for node, value in _made(tree, known, thing):
            if value not in found.values():
                found[ast.unparse(node)] = value
        exec(compile(tree, thing.__name__, "exec"), space)  # noqa: S102 (a doctest, run by the tests too)
    if not found:
        raise ValueError(
            f"{thing.__module__}.{thing.__name__}: no doctest in its docstring makes one, so there "
            f"is nothing to draw: add one such as '>>> {thing.__name__}(...)(10)'"
        )
    first = next(iter(found.values()))
    return {text: value for text, value in found.items() if _alike(first, value)}


def _made(node: ast.AST, space: Mapping[str, Any], thing: Thing) -> Iterator[tuple[ast.expr, Any]]:
    """Find the largest expressions of public names that give a schedule with the thing in it."""
    if isinstance(node, ast.Call | ast.BinOp):
        try:
            value = eval(compile(ast.Expression(node), "doctest", "eval"), dict(space))  # noqa: S307 (a doctest)
        except Exception:  # noqa: BLE001 (a variable of the doctest, or an error that it shows)
            value = None
        if isinstance(value, Schedule | Plan) and _shows(node, value, thing):
            yield node, value
            return
    for child in ast.iter_child_nodes(node):
        yield from _made(child, space, thing)


def _shows(node: ast.AST, value: Schedule | Plan, thing: Thing) -> bool:
    if not isinstance(thing, type):
        return any(isinstance(n, ast.Name) and n.id == thing.__name__ for n in ast.walk(node))
    return isinstance(value, Schedule) and any(type(n) is thing for n in nodes(value))


def _alike(first: Schedule | Plan, other: Schedule | Plan) -> bool:
    if isinstance(first, Plan) or isinstance(other, Plan):
        return first is other
    long, short = _extent(first), _extent(other)
    one_sort = first.is_absolute == other.is_absolute and units_of(first) == units_of(other)
    return one_sort and long <= _ALIKE * short and short <= _ALIKE * long


def _extent(curve: Schedule) -> float:
    return extent(settle_nominally([("", curve)])[0])


def _named(curves: Curves) -> list[tuple[str, Schedule]]:
    """Give what `svg` draws: several curves by name, one without."""
    first = next(iter(curves.values()))
    if isinstance(first, Plan):
        return list(first.items())
    return [(text if len(curves) > 1 else "", c) for text, c in curves.items()]


def picture_code(name: str, module: str, curves: Curves) -> str:
    """Write the code that makes a picture."""
    used = {n.id for text in curves for n in ast.walk(ast.parse(text)) if isinstance(n, ast.Name)}
    public = sorted(used & set(stepsize.__all__), key=lambda n: (not n[0].isupper(), n))
    lines = [f"from stepsize import {', '.join(public)}"] if public else []
    lines += ["from stepsize.sketch import svg"]
    lines += [] if name in stepsize.__all__ else [f"from {module} import {name}"]
    first = next(iter(curves.values()))
    only = next(iter(curves))
    if isinstance(first, Plan):
        return "\n".join([*lines, "", f"plan = {only}", "picture = svg(list(plan.items()))"])
    if len(curves) == 1:
        return "\n".join([*lines, "", f"schedule = {only}", 'picture = svg([("", schedule)])'])
    rows = [f"    {text!r}: {text}," for text in curves]
    return "\n".join([*lines, "", "curves = {", *rows, "}", "picture = svg(list(curves.items()))"])


def thumbnail(curve: Schedule) -> str:
    """Draw one curve without axes, small."""
    wide, high, known = 120, 60, settle_nominally([("", curve)])[0]
    values = samples(known[0][1], extent(known) * 0.9999, wide)
    top = max(values) or 1.0
    points = "L".join(f"{i} {4 + (high - 8) * (1 - v / top):.1f}" for i, v in enumerate(values))
    return (
        f'<svg class="thumbnail" viewBox="0 0 {wide} {high}" aria-hidden="true">'
        f'<path d="M0 {high - 4}H{wide}" stroke="#808080" stroke-opacity=".4"/>'
        f'<path d="M{points}" fill="none" stroke="#2f7ed8" stroke-width="2"/></svg>'
    )


# Pages ------------------------------------------------------------------------------------------


def pages(families: Iterable[type[Schedule]] = REGISTRY.values()) -> dict[str, str]:
    """Give the Markdown of every page of the gallery by its path, the overview first."""
    by_module: dict[str, list[Entry]] = {}
    for entry in entries(families):
        by_module.setdefault(entry.module, []).append(entry)
    made = {"gallery/index.md": overview(by_module)}
    for module, found in by_module.items():
        made[path_of(module)] = page(module, found)
    return made


def path_of(module: str) -> str:
    """Give the path of a module's page."""
    name = module.rpartition(".")[2] if module in PAGES else module.replace(".", "_")
    return f"gallery/{name}.md"


def title_of(module: str) -> str:
    """Give the title of a module's page."""
    return PAGES.get(module, f"From `{module}`")


def overview(by_module: Mapping[str, list[Entry]]) -> str:
    """Write the first page: every shape, small, with a link."""
    families = sum(1 for found in by_module.values() for entry in found if entry.kind)
    named = sum(len(found) for found in by_module.values()) - families
    lines = [
        "# Gallery",
        "",
        f"{families} families and {named} recipes. {_ABOUT}",
    ]
    for module, found in by_module.items():
        lines += ["", f"## [{title_of(module)}]({path_of(module).rpartition('/')[2]})", ""]
        lines += ['<div class="gallery" markdown>', ""]
        for entry in found:
            link = f"{path_of(module).rpartition('/')[2]}#{entry.name}"
            lines += [f"[{thumbnail(_named(entry.curves)[0][1])} {entry.name}]({link})", ""]
        lines += ["</div>"]
    return "\n".join(lines) + "\n"


def page(module: str, found: list[Entry]) -> str:
    """Write the page of one module."""
    about = inspect.getdoc(sys.modules[module]) if module in sys.modules else None
    parts = [f"# {title_of(module)}", *(paragraph for paragraph in [about] if paragraph)]
    return "\n\n".join([*parts, *map(section, found)]) + "\n"


def section(entry: Entry) -> str:
    """Write one family or recipe."""
    first, _, rest = entry.text.partition("\n\n")
    public = entry.name in stepsize.__all__
    reference = f" · [reference][stepsize.{entry.name}]" if public else ""
    kind = f"`kind: {entry.kind}`" if entry.kind else "recipe"
    drawn = entry.picture.replace("\n", " ")
    source = html.escape(entry.source, quote=False) or "not stated"
    rows = [f"| `{s.name}` | {s.takes} | {s.default or 'required'} |" for s in entry.settings]
    return "\n\n".join(
        [
            f"## {entry.name} {{#{entry.name}}}",
            first,
            f'<figure class="sketch">{drawn}</figure>',
            *([rest] if rest else []),
            f"**Source:** {source}",
            "\n".join(["| setting | takes | default |", "| --- | --- | --- |", *rows]),
            f"```python\n{entry.code}\n```",
            _folded("The formula, compiled", entry.formula),
            f"<small>{kind}{reference}</small>",
        ]
    )


def _folded(title: str, text: str) -> str:
    inside = "\n".join(f"    {line}".rstrip() for line in text.strip().splitlines())
    return f'??? note "{title}"\n\n    ```python\n{inside}\n    ```'
