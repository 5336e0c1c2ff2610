"""Every family against its formula in 40 digits, over its whole range up to 1e9 steps."""

import math
import random

import mpmath as mp
import pytest

from stepsize import (
    REGISTRY,
    Constant,
    Cosine,
    Custom,
    CycledPolynomial,
    Exponential,
    ExponentialWarmup,
    Geometric,
    Harmonic,
    KDecay,
    Linear,
    Logarithmic,
    MirrorCosine,
    MultiStep,
    OneMinusSqrt,
    OneMinusSquare,
    Piecewise,
    Polynomial,
    PowerLaw,
    Rex,
    Step,
    Tanh,
    Warmup,
    noam,
    sgdr,
)

mp.mp.dps = 80  # 40 digits remain where the formula cancels the other 40
EPS, RULE = 2.0**-52, 1e-14
LENGTHS = (1.0, 7.0, 100.0, 12345.0, 391 / 3, 1e6, 1e9)


def ramp(part_left):
    """The value of a ramp from its part left at x, as the docstring's formula."""

    def value(s, t):
        x = min(max(mp.mpf(t), 0), s.over) / mp.mpf(s.over)
        left = part_left(s, x)
        return mp.mpf(s.start) * left + mp.mpf(s.stop) * (1 - left)

    return value


def cosine_left(s, x):
    whole = (1 + mp.cos(mp.pi * s.half_waves * x)) / 2
    return whole ** mp.mpf(s.power)


def tanh_left(s, x):
    low, high = mp.mpf(s.low), mp.mpf(s.high)
    z = low * (1 - x) + high * x
    return (mp.tanh(high) - mp.tanh(z)) / (mp.tanh(high) - mp.tanh(low))


def logarithmic_left(s, x):
    return mp.log(1 + mp.mpf(s.bend) * (1 - x)) / mp.log(1 + mp.mpf(s.bend))


def geometric(s, t):
    x = min(max(mp.mpf(t), 0), s.over) / mp.mpf(s.over)
    return mp.mpf(s.start) * (mp.mpf(s.stop) / mp.mpf(s.start)) ** x


def harmonic(s, t):
    x = min(max(mp.mpf(t), 0), s.over) / mp.mpf(s.over)
    return 1 / ((1 - x) / mp.mpf(s.start) + x / mp.mpf(s.stop))


def warmup(s, t):
    first = 1 / (mp.mpf(s.over) + 1) if s.start is None else mp.mpf(s.start)
    x = min(max(mp.mpf(t), 0), s.over) / mp.mpf(s.over)
    return 1 + (first - 1) * (1 - x)


def cycled_polynomial(s, t):
    length = mp.mpf(s.over) * max(mp.ceil(after_0(t) / mp.mpf(s.over)), 1)
    left = (1 - after_0(t) / length) ** mp.mpf(s.power)
    return mp.mpf(s.stop) * (1 - left) + left


def after_0(t):
    return max(mp.mpf(t), 0)


FORMULAS = {
    Linear: ramp(lambda s, x: 1 - x),
    Polynomial: ramp(lambda s, x: (1 - x) ** mp.mpf(s.power)),
    Cosine: ramp(cosine_left),
    OneMinusSqrt: ramp(lambda s, x: 1 - mp.sqrt(x)),
    OneMinusSquare: ramp(lambda s, x: 1 - x**2),
    MirrorCosine: ramp(lambda s, x: 2 * (1 - x) - (1 + mp.cos(mp.pi * x)) / 2),
    Rex: ramp(lambda s, x: (1 - x) / (1 - x / 2)),
    Tanh: ramp(tanh_left),
    KDecay: ramp(lambda s, x: (1 + mp.cos(mp.pi * x ** mp.mpf(s.k))) / 2),
    Logarithmic: ramp(logarithmic_left),
    Geometric: geometric,
    Harmonic: harmonic,
    Warmup: warmup,
    Constant: lambda s, t: mp.mpf(s.value),
    CycledPolynomial: lambda s, t: cycled_polynomial(s, t),
    Exponential: lambda s, t: mp.mpf(s.factor) ** (after_0(t) / mp.mpf(s.every)),
    PowerLaw: lambda s, t: (1 + after_0(t) / mp.mpf(s.timescale)) ** -mp.mpf(s.power),
    Step: lambda s, t: mp.mpf(s.factor) ** mp.floor(after_0(t) / mp.mpf(s.every)),
    MultiStep: lambda s, t: mp.mpf(s.factor) ** sum(m <= t for m in s.at),
    ExponentialWarmup: lambda s, t: -mp.expm1(-(after_0(t) + (s.lead or 1)) / mp.mpf(s.timescale)),
}
NOT_HERE = {Piecewise, Custom}  # a table and a user's function: tested by their own numbers


def conditioning(s, t) -> float:
    """How much an exponential magnifies the rounding of its exponent."""
    if isinstance(s, Exponential):
        return 1 + abs(t / s.every * math.log(s.factor))
    if isinstance(s, Step):
        return 1 + abs(math.floor(t / s.every) * math.log(s.factor))
    if isinstance(s, CycledPolynomial):  # of the distance to an end that is no float
        end = s.over * max(math.ceil(t / s.over), 1)
        return 1 + (0 if t == int(t) else end / max(end - t, 1e-300))
    if isinstance(s, Geometric):
        return 1 + abs(math.log(s.stop / s.start))
    if isinstance(s, Tanh):
        return 1 + abs(s.low) + abs(s.high)
    return 1.0


def cases():
    for over in LENGTHS:
        for start, stop in ((1.0, 0.0), (1.0, 0.1), (0.0, 1.0), (3e-4, 1e-7)):
            yield from (
                cls(over, start=start, stop=stop)
                for cls in (Linear, OneMinusSqrt, OneMinusSquare, MirrorCosine, Rex, Tanh)
            )
            yield from (Polynomial(over, p, start, stop) for p in (0.1, 0.5, 1.2, 2.0, 5.0))
            yield from (Cosine(over, start, stop, power=p) for p in (1.0, 0.5, 3.0))
            yield from (KDecay(over, k=k, start=start, stop=stop) for k in (0.5, 1.0, 1.5, 3.0))
            yield from (Logarithmic(over, start, stop, bend=b) for b in (0.01, 99.0, 1e6))
            if start and stop:
                yield from (cls(over, start=start, stop=stop) for cls in (Geometric, Harmonic))
        yield from (Warmup(over), Warmup(over, start=0.0), Warmup(over, start=0.01))
        yield from (Exponential(0.95, every=over), Exponential(0.999999, every=over))
        yield from (PowerLaw(p, timescale=over) for p in (0.3, 0.5, 1.0, 2.0))
        yield from (CycledPolynomial(round(over), p, e) for p in (0.5, 1, 2) for e in (0, 0.1))
        yield from (
            Step(over, 0.5),
            MultiStep((over, over, 3 * over), 0.3),
            ExponentialWarmup(over),
        )
    yield Constant(value=0.3)


def times(s):
    end = min(s.duration, 1e9)
    rng = random.Random(repr(s))  # noqa: S311 (the same times each run)
    marks = {0.0, end, end / 2, end / 4, end * 3 / 4, 1.0, end - 1, math.nextafter(end, 0)}
    marks |= {float(rng.randint(0, int(end))) for _ in range(8)} | {
        rng.uniform(0, end) for _ in range(8)
    }
    return sorted(t for t in marks if t >= 0)


def test_every_family_has_its_formula_here():
    ours = {c for c in REGISTRY.values() if c.__module__.endswith((".ramps", ".decays", ".warmup"))}
    assert ours == set(FORMULAS)
    assert {Piecewise, Custom} == NOT_HERE


@pytest.mark.parametrize("family", FORMULAS, ids=lambda c: c.kind)
def test_is_within_1e_14_of_40_digits(family):
    checked = 0
    for s in cases():
        if type(s) is not family:
            continue
        for t in times(s):
            exact, got = FORMULAS[family](s, t), s(t)
            if exact == 0:
                assert got == 0.0, (s, t, got)
            else:
                error = abs((mp.mpf(got) - exact) / exact)
                assert error <= RULE * conditioning(s, t) or abs(exact) < 1e-300, (
                    s,
                    t,
                    got,
                    float(error),
                )
            checked += 1
    assert checked >= 20


@pytest.mark.parametrize("half_waves", [2, 3, 5, 8])
def test_cosine_of_several_half_waves(half_waves):
    for over in (6.0, 1000.0, 1e9):
        s = Cosine(over, half_waves=half_waves)
        for t in times(s):
            exact = FORMULAS[Cosine](s, t)
            # between its ends the curve touches 0, where only the distance to the touch is known
            assert abs(s(t) - exact) <= max(
                1e-14 * exact, half_waves**2 * EPS * mp.sqrt(exact) * 4
            ), (s, t)
        assert s(over) == (0.0 if half_waves % 2 else 1.0)


def test_one_step_before_the_end_of_1e9_is_as_accurate_as_anywhere():
    t = 1e9 - 1
    exact = mp.sin(mp.pi / 2 / mp.mpf(10) ** 9) ** 2
    assert abs(mp.mpf(Cosine(1e9)(t)) / exact - 1) < 1e-15
    naive = 0.5 * (1 + math.cos(math.pi * t / 1e9))
    assert naive == 0.0  # what everybody writes is off by 100 %


def test_noam_vectors():
    assert f"{noam(512, 4000)(3999):.5e}" == "6.98771e-04"
    for t in (0, 10, 3998, 3999, 4000, 99_999, 10**9):
        step = mp.mpf(t + 1)
        exact = mp.mpf(512) ** -0.5 * min(step**-0.5, step * mp.mpf(4000) ** -1.5)
        assert abs(noam(512, 4000)(t) / exact - 1) < 1e-15 * 10


@pytest.mark.parametrize(
    ("every", "growth"), [(10.0, 1.0), (10.0, 2.0), (1.0, 3.0), (10.0, 1.5), (7.0, 1.1), (0.1, 1.0)]
)
def test_restarts_are_exact_at_every_boundary(every, growth):
    """Boundaries as the decimals say: 7 + 7.7 + 8.47 = 23.17, not a neighbour of it."""
    s = sgdr(every, growth=growth)
    start, length = mp.mpf(0), mp.mpf(repr(every))
    for _ in range(30):
        start, length = start + length, length * mp.mpf(repr(growth))
        if start > 1e9:
            break
        at = float(start)
        assert s(at) == 1.0, (every, growth, at)
        assert s(at - 1e-9 * at) < 1e-6, (every, growth, at)
