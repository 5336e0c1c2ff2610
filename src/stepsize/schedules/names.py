"""Families and functions by their names in texts, and what only a trusted package may give."""

from collections.abc import Callable, Iterable
from typing import Any, get_args, get_origin, get_type_hints

from stepsize.errors import SpecError
from stepsize.schedules.schedule import REGISTRY, Schedule

Trusted = frozenset[str]


def trusted(trust: Iterable[str]) -> Trusted:
    """Give the names of the trusted packages; a text is one name."""
    return frozenset([trust] if isinstance(trust, str) else trust)


def nearest(name: object, known: Iterable[str]) -> str:
    """Give ", did you mean 'cosine'" where a known name is near, nothing otherwise.

    >>> nearest("cosin", ["cosine", "linear"]), nearest("x", ["cosine"])
    (", did you mean 'cosine'", '')
    """
    import difflib  # noqa: PLC0415 (only for an error)

    spelled = {each.lower(): each for each in known}
    close = difflib.get_close_matches(str(name).lower(), spelled, 1)
    return f", did you mean {spelled[close[0]]!r}" if close else ""


def shown(value: object) -> str:
    """Show what was given, shortened to what fits into a sentence."""
    try:
        text = repr(value)
    except ValueError:  # a whole number of more digits than Python writes
        text = f"a {type(value).__name__} too long to show"
    return text if len(text) <= 80 else f"{text[:77]}..."  # noqa: PLR2004 (a line)


def by_kind(kind: str, packages: Trusted = frozenset()) -> type[Schedule]:
    """Find a family by its kind, also in the trusted packages; `SpecError` if there is none."""
    if kind not in REGISTRY:
        _load(packages, kind)
    if kind not in REGISTRY:
        raise SpecError(
            f"unknown kind {shown(kind)}{nearest(kind, REGISTRY)}; "
            "a family of another package needs trust=('that_package',)"
        )
    return REGISTRY[kind]


def by_class(name: str, packages: Trusted = frozenset()) -> type[Schedule] | None:
    """Find a family by the name of its class, the library's own first; None if there is none."""
    if name not in class_names():
        _load(packages)
    return class_names().get(name)


def class_names() -> dict[str, type[Schedule]]:
    """Every registered family by the name of its class."""
    theirs_first = sorted(REGISTRY.values(), key=lambda c: c.__module__.startswith("stepsize."))
    return {cls.__name__: cls for cls in theirs_first}


def _load(packages: Trusted, kind: str | None = None) -> None:
    """Import the families that trusted packages offer under the kind, or all of them."""
    if not packages:
        return
    import importlib.metadata  # noqa: PLC0415 (slow to import, and seldom needed)

    for entry in importlib.metadata.entry_points(group="stepsize.schedules"):
        if kind in (None, entry.name) and entry.module.partition(".")[0] in packages:
            entry.load()


def trusted_function(text: str, packages: Trusted = frozenset()) -> Callable[[Any], Any]:
    """Find the function "package.module:name" of a trusted package; `SpecError` otherwise."""
    module, _, name = text.partition(":")
    package = module.partition(".")[0]
    if package not in packages:
        raise SpecError(
            f"the function {shown(text)} is code of the package {shown(package)}, which loads only "
            f"with trust=({shown(package)},)"
        )
    import importlib  # noqa: PLC0415 (only for a package that the caller trusts)

    try:
        found = getattr(importlib.import_module(module), name, None)
    except ImportError as error:
        raise SpecError(str(error)) from None
    if not callable(found):
        raise SpecError(f"{module} has no function {name!r}")
    return found  # type: ignore[no-any-return]  # as far as can be told


def taken_family(cls: type[Schedule], field: str) -> type[Schedule] | None:
    """Give the base of the classes that a field takes; None for a field that takes no class."""
    hint = get_type_hints(cls).get(field)
    for each in (hint, *get_args(hint)):
        if get_origin(each) is type:
            base: type[Schedule] = get_args(each)[0]
            return base
    return None
