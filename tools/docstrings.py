"""Docstrings as the pages show them: doctests in fences, the source apart, families with fields."""

import inspect
from typing import Any

import griffe


def paragraphs(text: str) -> list[str]:
    """Split a docstring at its blank lines."""
    return [part.strip("\n") for part in inspect.cleandoc(text).split("\n\n") if part.strip()]


def fenced(text: str) -> str:
    """Put every doctest into a fence of its own; Markdown would read `>>>` as quotations."""
    shown, fence = [], False
    for part in paragraphs(text):
        if part.startswith("```"):
            fence = True
        doctest = part.startswith(">>>") and not fence
        shown.append(f"```pycon\n{part.replace('<BLANKLINE>', '')}\n```" if doctest else part)
        if part.endswith("```"):
            fence = False
    return "\n\n".join(shown)


def source_of(text: str) -> str:
    """Give what a docstring names as its source, without the word."""
    found = [part for part in paragraphs(text) if part.startswith("Source:")]
    return found[0].removeprefix("Source:").strip() if found else ""


def without_source(text: str) -> str:
    """Give a docstring without the paragraph that names its source."""
    return "\n\n".join(part for part in paragraphs(text) if not part.startswith("Source:"))


class Shown(griffe.Extension):
    """Lets mkdocstrings see docstrings with fenced doctests, and families with their signatures."""

    def on_instance(self, *, obj: griffe.Object, **_: Any) -> None:
        """Rewrite the docstring of one object, before any parser has seen it."""
        if obj.docstring is not None:
            obj.docstring.value = fenced(obj.docstring.value)

    def on_class(self, *, cls: griffe.Class, **_: Any) -> None:
        """Give a family the constructor that `@schedule` makes at run time.

        What it overrides is described once, at `Schedule`.
        """
        made = {str(each.value) for each in cls.decorators}
        if not made & {"schedule", "controller"}:
            return
        for name in ("duration", "range", "is_absolute"):
            cls.members.pop(name, None)
        fields = [
            griffe.Parameter(
                name,
                annotation=each.annotation,
                kind=griffe.ParameterKind.positional_or_keyword,
                default=each.value,
            )
            for name, each in cls.members.items()
            if "instance-attribute" in each.labels and not name.startswith("_")
        ]
        own = griffe.Parameter("self", kind=griffe.ParameterKind.positional_or_keyword)
        made = griffe.Function("__init__", parameters=griffe.Parameters(own, *fields))
        cls.set_member("__init__", made)
