"""Every family on arrays of every library, traced too: the scalar function's values, no NaN."""

import array_api_strict as strict
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.laws.examples import FAMILIES, of_family, trees

from stepsize import (
    Constant,
    Cosine,
    Custom,
    FieldError,
    Geometric,
    KDecay,
    Linear,
    MultiStep,
    OneMinusSqrt,
    Piecewise,
    Polynomial,
    Step,
    Warmup,
    cyclic,
    one_cycle,
    sgdr,
)

EVERY = pytest.mark.parametrize("cls", FAMILIES, ids=lambda c: c.kind)
TIMES = [-3.0, 0.0, 0.5, 1.0, 2.0, 7.25, 99.0, 100.0, 101.0, 1999.0, 123456.0]


def agree(values, schedule, times, tolerance=4e-15):
    expected = [schedule(t) for t in times]
    assert np.allclose(values, expected, rtol=tolerance, atol=1e-300), (schedule, values, expected)


@EVERY
@settings(max_examples=12)
@given(data=st.data())
def test_torch_tensors(cls, data):
    schedule = data.draw(of_family(cls))
    result = schedule(torch.tensor(TIMES, dtype=torch.float64))
    assert result.dtype == torch.float64
    agree(result.numpy(), schedule, TIMES, 2e-14)


@EVERY
@settings(max_examples=12)
@given(data=st.data())
def test_array_api_strict(cls, data):
    schedule = data.draw(of_family(cls))
    result = schedule(strict.asarray(TIMES, dtype=strict.float64))
    agree(np.asarray(result), schedule, TIMES)


@EVERY
@settings(max_examples=3)
@given(data=st.data())
def test_jax_eager_jit_vmap_and_grad(cls, data):
    schedule = data.draw(of_family(cls))
    with jax.enable_x64(True):
        times = jnp.asarray(TIMES)
        agree(np.asarray(schedule(times)), schedule, TIMES, 2e-13)
        agree(np.asarray(jax.jit(schedule)(times)), schedule, TIMES, 2e-13)
        agree(np.asarray(jax.vmap(schedule)(times)), schedule, TIMES, 2e-13)
        slopes = jax.vmap(jax.grad(lambda t: schedule(t)))(times)
        assert np.isfinite(np.asarray(slopes)).all(), (schedule, slopes)


REPRESENTATIVE = [
    Warmup(100) >> Cosine(1000, stop=0.1),
    Warmup(50, along=OneMinusSqrt) >> Constant(100) >> Polynomial(200, power=0.7),
    sgdr(10, growth=2, factor=0.5, stop=0.01),
    sgdr(391 / 3),
    one_cycle(1000)["momentum"],
    cyclic(10, low=0.1, mode="exp_range"),
    Step(30) * Linear(90),
    MultiStep((30, 60, 60)).held(7),
    Piecewise({0: 1.0, 30: 0.1, 60: 0.5}, linear=True),
    KDecay(100, k=1.5).stretched(2.0).shifted(10),
    Geometric(100, start=1e-7, stop=10.0).clipped(1e-6, 1.0),
]


@pytest.mark.parametrize("schedule", REPRESENTATIVE, ids=repr)
def test_torch_compile_fullgraph(schedule):
    torch.compiler.reset()  # one code object, many schedules: each is a compilation of its own
    compiled = torch.compile(lambda t: schedule(t), fullgraph=True, backend="eager")
    result = compiled(torch.tensor(TIMES, dtype=torch.float64))
    agree(result.numpy(), schedule, TIMES, 2e-14)


@pytest.mark.slow
@pytest.mark.parametrize("schedule", REPRESENTATIVE[:3], ids=repr)
def test_torch_compile_with_the_inductor(schedule):
    torch.compiler.reset()
    compiled = torch.compile(lambda t: schedule(t), fullgraph=True)
    result = compiled(torch.tensor(TIMES, dtype=torch.float64))
    agree(result.numpy(), schedule, TIMES, 2e-14)


@pytest.mark.parametrize("schedule", REPRESENTATIVE, ids=repr)
def test_jit_of_a_whole_number_as_optax_calls_it(schedule):
    """An int32 count under jit, in float32: no NaN, right to float32."""
    for count in (0, 5, 150, 100_000):
        value = jax.jit(schedule)(jnp.asarray(count, dtype=jnp.int32))
        assert value.dtype == jnp.float32
        assert np.isclose(float(value), schedule(count), rtol=2e-3, atol=1e-6), (schedule, count)


def test_a_fractional_polynomial_is_no_nan_past_its_end():
    """optax.polynomial_schedule(power=0.5) is; under grad, branches not taken leak."""
    schedule = Linear(10) >> Polynomial(10, power=0.5, stop=0.1)
    for t in (0.0, 9.0, 10.0, 20.0, 25.0):
        assert np.isclose(jax.jit(schedule)(jnp.asarray(t)), schedule(t), atol=1e-6)
        assert np.isfinite(jax.grad(schedule)(t))


def test_whole_numbers_count_as_float64():
    schedule = Cosine(1000)
    for times in (np.arange(5), torch.arange(5), strict.arange(5)):
        result = schedule(times)
        assert "float64" in str(result.dtype)
        agree(np.asarray(result), schedule, range(5))


def test_float32_stays_float32():
    assert Cosine(10)(np.float32([1, 2])).dtype == np.float32
    assert Cosine(10)(torch.tensor([1.0])).dtype == torch.float32


def test_shape_is_kept():
    times = np.arange(24.0).reshape(2, 3, 4)
    for schedule in (Cosine(10), Constant(), MultiStep((3,)), Custom(abs)):
        assert schedule(times).shape == times.shape
        assert schedule(torch.tensor(times)).shape == times.shape
        assert schedule(strict.asarray(times)).shape == times.shape
        assert schedule(times[:0]).shape == (0, 3, 4)


@pytest.mark.parametrize(
    "number", [np.float64(50), np.int64(50), np.array(50.0), np.float32(50), 50]
)
def test_single_numbers_give_a_python_float(number):
    assert type(Linear(100)(number)) is float
    assert Linear(100)(number) == 0.5


@pytest.mark.parametrize("wrong", ["50", None, True, [1, 2], object()])
def test_what_is_no_number_is_refused(wrong):
    with pytest.raises(FieldError, match="t must be a number or an array"):
        Linear(100)(wrong)


def test_nan_is_refused_as_a_number_and_kept_in_an_array():
    with pytest.raises(FieldError, match="t must be a real number, got nan"):
        Linear(100)(float("nan"))
    assert np.isnan(Linear(100)(np.full(100, np.nan))).all()


@settings(max_examples=25)
@given(schedule=trees())
def test_long_arrays_in_any_order_equal_the_scalar_function(schedule):
    times = np.random.default_rng(0).permutation(40_000).astype(np.float64)
    values = schedule(times)
    where = np.random.default_rng(1).integers(0, 40_000, 50)
    agree(values[where], schedule, times[where].tolist())
    agree(schedule.curve(40_000)[:20], schedule, range(20))


def test_a_curve_is_bit_equal_where_numpy_has_maths_own_sine():
    for schedule in (Warmup(1000) >> Cosine(50_000), sgdr(1000, growth=2), cyclic(300), Linear(99)):
        curve = schedule.curve(60_000)
        assert curve.tolist() == [schedule(t) for t in range(60_000)], schedule


def test_a_curve_needs_no_other_array_of_its_length():
    import tracemalloc

    schedule = Warmup(1000) >> Cosine(2_000_000)
    schedule.curve(1000)
    tracemalloc.start()
    values = schedule.curve(2_000_000)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak <= 1.1 * values.nbytes


def test_importing_stepsize_loads_no_array_library():
    import subprocess
    import sys

    code = (
        "import stepsize, sys; stepsize.Cosine(10)(3); "
        "print([m for m in ('numpy','torch','jax','keras','yaml','typer') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)  # noqa: S603 (our own text)
    assert done.stdout.strip() == "[]"
