"""Look for texts that break the readers: anything but a schedule or a `SpecError` is a finding.

    python tools/fuzz.py expression|json|yaml|toml [-max_total_time=60] [more options of libFuzzer]

Needs atheris, which is no dependency: `pip install atheris`. A finding is printed with its text and
kept as `crash-*` in the present folder; a text that takes longer than ten seconds is one too.
"""

import sys
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path

try:
    import atheris
except ImportError:
    sys.exit("this needs atheris: pip install atheris")

with atheris.instrument_imports(include=["stepsize", "yaml", "tomllib", "json"]):
    import json  # noqa: F401 (instrumented)
    import tomllib  # noqa: F401 (the same)

    import yaml  # noqa: F401 (the same)

    import stepsize
    from stepsize import Plan, Schedule, SpecError, loads, parse
    from stepsize.files.disk import dumps
    from stepsize.files.expression import METHODS
    from stepsize.schedules import recipes

SEEDS = (
    'Warmup("5%", along=Cosine) >> Cosine(5000 - 1000, stop=1/25).held("1ep")',
    "Plan(lr=0.5 * (Linear(5) * Step(2)), momentum=one_cycle(100)['momentum'])",
    "Piecewise({0: 1, '30ep': .1}, linear=True).repeated('9ep', times=3, growth=2).between(0.1)",
    "wsd_s(10, '80%', 10, along=OneMinusSqrt, stop=0.1).shifted(-1).cut().clipped(0.1, 0.9)",
    "MultiStep(('30ep', '60ep'), 0.2).stretched(2).absolute(3e-4)",
    "one_cycle(form='paper').renamed(momentum='beta1').replaced(weight_decay=Constant())",
    "Custom('os:system', over=10)",
)
READERS: dict[str, Callable[[str], object]] = {
    "expression": parse,
    **{form: lambda text, form=form: loads(text, form) for form in ("json", "yaml", "toml")},
}


def words() -> list[str]:
    """Give the names and signs that texts are made of."""
    names = [cls.__name__ for cls in stepsize.REGISTRY.values()] + list(stepsize.REGISTRY)
    names += [name for name in vars(recipes) if name in stepsize.__all__]
    names += [f".{name}(" for methods in METHODS.values() for name in methods]
    fields = {f for cls in stepsize.REGISTRY.values() for f in cls.__dataclass_fields__}  # type: ignore[attr-defined]  # every family is a dataclass
    signs = ["'5%'", '"rest"', "1e-320", "1e300", "0x", "&a", "*a", "!!python/name:", "<<", "'''"]
    more = ["format", "schedule", "plan", "kind", "~", ".inf", "1979-05-27", "\\u0000", "[[", "]]"]
    return [*names, *fields, *signs, *more]


def seeds(form: str) -> list[str]:
    """Give texts of the form that are whole."""
    if form == "expression":
        return list(SEEDS)
    values = [parse(text) for text in SEEDS[:-1]]
    nested = {"json": '{"format": 1, "schedule": "Linear(5)"}', "yaml": "format: 1\nplan: wsd()"}
    custom = {
        "json": '{"format": 1, "schedule": {"kind": "custom", "function": "os:system"}}',
        "yaml": "format: 1\nschedule: !!python/object/apply:os.system [x]",
        "toml": "format = 1\nschedule = {kind = 'custom', function = 'os:system'}",
    }
    return [*(dumps(value, form) for value in values), nested.get(form, ""), custom[form]]


def prepared(form: str, folder: Path) -> list[str]:
    """Write seeds and words where libFuzzer reads them; give its arguments."""
    (folder / "corpus").mkdir()
    for i, text in enumerate(seeds(form)):
        (folder / "corpus" / str(i)).write_text(text, encoding="utf-8")
    lines = [word.replace("\\", "\\\\").replace('"', '\\"') for word in words()]
    (folder / "words").write_text("".join(f'"{line}"\n' for line in lines), encoding="utf-8")
    return [f"-dict={folder / 'words'}", "-timeout=10", "-max_len=2000", str(folder / "corpus")]


def tried(read: Callable[[str], object]) -> Callable[[bytes], None]:
    """Give what atheris calls with every text; after a 0, bytes are numbers of words."""
    signs = ["(", ")", "(", ")", ",", ",", " >> ", " * ", "=", ": ", "\n", " ", "{", "}", "[", "]"]
    vocabulary = [*signs, *"0123456789.-+/'\"", *words()][:256]

    def one(data: bytes) -> None:
        text = data.decode("utf-8", errors="surrogateescape")  # no UTF-8 becomes half a pair
        if data[:1] == b"\0":
            text = "".join(vocabulary[byte % len(vocabulary)] for byte in data[1:])
        try:
            made = read(text)
        except SpecError as error:
            if "\n" in str(error):
                raise RuntimeError(f"more than a sentence: {error}") from error
        else:
            if not isinstance(made, Schedule | Plan):
                raise TypeError(f"{text!r} gave {made!r}")

    return one


def main() -> None:
    """Fuzz one reader."""
    if len(sys.argv) < 2 or sys.argv[1] not in READERS:  # noqa: PLR2004 (the form)
        sys.exit(__doc__)
    form = sys.argv[1]
    warnings.simplefilter("ignore")  # of Python's parser, about odd numbers and escapes
    with tempfile.TemporaryDirectory() as folder:
        arguments = prepared(form, Path(folder))
        atheris.Setup([sys.argv[0], *sys.argv[2:], *arguments], tried(READERS[form]))
        atheris.Fuzz()


if __name__ == "__main__":
    main()
