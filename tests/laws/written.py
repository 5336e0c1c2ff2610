"""Random schedules as people write them down: with units, as plans, and damaged."""

import dataclasses

from hypothesis import reject
from hypothesis import strategies as st
from tests.laws.examples import trees

from stepsize import FieldError, Plan
from stepsize.schedules.fields import LengthRule
from stepsize.schedules.schedule import fields_of
from stepsize.schedules.walk import over_children
from stepsize.units import UNITS, number_text

NAMES = st.sampled_from(["lr", "momentum", "beta1", "weight_decay", "my_key"])


def _with_unit(node, unit):
    fields = {}
    for name, value in fields_of(node).items():
        rule, _ = node._rules.get(name, (None, False))
        if isinstance(rule, LengthRule) and isinstance(value, float):
            fields[name] = f"{number_text(value)}{unit}"
        else:
            fields[name] = over_children(value, lambda child: _with_unit(child, unit))
    return dataclasses.replace(node, **fields)


@st.composite
def in_units(draw, depth=2):
    """Trees whose lengths have a unit."""
    try:
        return _with_unit(draw(trees(depth)), draw(st.sampled_from(sorted(UNITS))))
    except FieldError:
        return reject()


written = st.one_of(trees(), in_units())
plans = st.dictionaries(NAMES, written, min_size=1).map(lambda found: Plan(**found))
everything = st.one_of(written, plans)


@st.composite
def damaged(draw, texts):
    """Texts with a few pieces cut out, put in, moved or doubled."""
    text = draw(texts)
    for _ in range(draw(st.integers(1, 4))):
        a, b = sorted(draw(st.integers(0, len(text))) for _ in range(2))
        piece = draw(
            st.one_of(
                st.sampled_from(["", text[a:b] * 2, "(", ")", "[", "]", "{", "}", ":", ",", "\n"]),
                st.sampled_from(["'", '"', "&a ", "*a", "!!", "<<", "- ", "=", "0x", "1e999", "-"]),
                st.text(max_size=3),
            )
        )
        text = text[:a] + piece + text[b if draw(st.booleans()) else a :]
    return text
