"""An optimizer that finds its own step size finds the same on every rank, as one process would."""

import functools
import math

import pytest
import torch
from tests.distributed import optimizers, sums
from tests.optim.cases import CASES

pytestmark = pytest.mark.slow

EVERY = pytest.mark.parametrize("name", sorted(CASES))
EXACT = "LineSearch exact"  # a minimiser is found to the root of the loss's precision


def same(one, other):
    torch.testing.assert_close(one, other, rtol=0, atol=0, equal_nan=True)


def close(one, other, rtol=1e-10):
    """Compare up to rounding, which is all that another number of ranks may change."""
    torch.testing.assert_close(one, other, rtol=rtol, atol=rtol, equal_nan=True)


def steps_of(found, name):
    """Give the step sizes, and how often the loss was evaluated where rounding leaves that."""
    return [row["sizes"] if name == EXACT else row for row in found["rows"]]


@functools.cache
def alone(name, dtype=torch.float64):
    return optimizers.trained(name, dtype=dtype)


# Sums over the whole model ----------------------------------------------------------------------


@pytest.mark.parametrize("layout", sums.LAYOUTS)
def test_sums_are_those_of_the_whole_model_on_every_rank(world_of, layout):
    found = world_of(sums.LAYOUTS[layout][0]).run(sums.totals, layout=layout)
    for read, right in found:
        assert read == found[0][0]
        assert read == pytest.approx(right, rel=1e-12)


@pytest.mark.parametrize("layout", sorted(set(sums.LAYOUTS) - {"whole everywhere"}))
def test_the_parts_alone_would_give_other_sums(world_of, layout):
    """Else the test above would pass without a word between the ranks."""
    size = sums.LAYOUTS[layout][0]
    for read, right in world_of(size).run(sums.totals, layout=layout, blind=True):
        assert read["squares"] != pytest.approx(right["squares"], rel=1e-3)
        assert read["products"] != pytest.approx(right["products"], rel=1e-3)


def test_a_loss_is_the_mean_over_the_ranks(world):
    values = [2.0**-rank for rank in range(world.size)]
    mean = sum(values) / world.size
    assert world.run(sums.losses, values=values, reduce=True) == [[mean] * 2] * world.size
    own = world.run(sums.losses, values=values, reduce=False)
    assert own == [[value] * 2 for value in values]
    values[-1] = math.nan
    for found in world.run(sums.losses, values=values, reduce=True):
        assert all(map(math.isnan, found))


# Training ---------------------------------------------------------------------------------------

DIFFERENCES = {"DiagonalNewton", "DiagonalNewton behind", "VSGD"}  # of gradients: rounding grows
WRAPS = [(2, "ddp"), (2, "ddp views"), (2, "fsdp"), (2, "fsdp root"), (4, "fsdp"), (4, "hsdp")]


@EVERY
@pytest.mark.parametrize(("size", "wrap"), WRAPS)
def test_ranks_with_their_shares_do_what_one_process_does(world_of, name, size, wrap):
    tolerances = {torch.float64: 1e-6 if name == EXACT else 1e-10}
    if wrap in ("ddp", "fsdp") and name not in {EXACT, *DIFFERENCES}:
        tolerances[torch.float32] = 1e-5
    for dtype, rtol in tolerances.items():
        ranks = world_of(size).run(optimizers.trained, name=name, wrap=wrap, dtype=dtype)
        one, _ = alone(name, dtype)
        for found, told in ranks:
            same(found, ranks[0][0])
            assert not any(told)
            close(found["weights"], one["weights"], rtol)
            close(steps_of(found, name), steps_of(one, name), rtol)


@EVERY
def test_one_rank_by_itself_would_take_other_steps(name):
    """Else the test above would pass without a word between the ranks."""
    one, other = (optimizers.trained(name, share=(rank, 2))[0]["rows"] for rank in range(2))
    with pytest.raises(AssertionError):
        close(one, other, 1e-3)


@EVERY
@pytest.mark.parametrize("wrap", ["ddp", "fsdp"])
def test_a_loss_that_is_no_number_on_one_rank_is_none_on_all(world_of, name, wrap):
    ranks = world_of(2).run(optimizers.trained, name=name, wrap=wrap, broken=(4,))
    for found, told in ranks:
        same(found, ranks[0][0])
        assert told == ranks[0][1]


NORMS = ("AdGD", "LineSearch", "PolyakSGD", "RegrettableDBD", "VSGD of")
WHOLE = [name for name in sorted(CASES) if name.startswith(NORMS)]


@pytest.mark.parametrize("name", WHOLE)
def test_parts_that_do_not_say_of_what_are_refused(world_of, name):
    """Every rank would find a step size of its own."""
    for _, told in world_of(2).run(optimizers.trained, name=name, wrap="fsdp 1"):
        assert "params must be whole tensors or DTensors" in told[-1]
        assert "use torch.distributed.fsdp.fully_shard" in told[-1]


# Checkpoints ------------------------------------------------------------------------------------


@EVERY
@pytest.mark.parametrize(("wrap", "stop"), [("ddp", 1), ("fsdp", 5)])
def test_saved_on_two_ranks_it_goes_on_as_if_unbroken(world_of, tmp_path, name, wrap, stop):
    given = {"name": name, "wrap": wrap, "folder": str(tmp_path), "stop": stop}
    unbroken = world_of(2).run(optimizers.saved, **given)
    for found in world_of(2).run(optimizers.loaded, **given):
        same(found, unbroken[0])
    for found in world_of(4).run(optimizers.loaded, **given):
        rtol = 1e-6 if name == EXACT else 1e-10
        close(found["weights"], unbroken[0]["weights"], rtol)
        close(steps_of(found, name), steps_of(unbroken[0], name), rtol)


COUNTING = {"RegrettableDBD Adam"}  # torch's own Adam counts the first call as a step


@EVERY
@pytest.mark.parametrize("wrap", ["ddp", "fsdp"])
def test_asking_for_the_state_changes_nothing(world_of, name, wrap):
    untouched = world_of(2).run(optimizers.asked, name=name, wrap=wrap, at=[])
    at = [1, 4] if name in COUNTING else [0, 1, 4]
    same(world_of(2).run(optimizers.asked, name=name, wrap=wrap, at=at), untouched)


# Tensor parallelism -----------------------------------------------------------------------------


@EVERY
@pytest.mark.parametrize(("size", "wrap"), [(2, "tp"), (4, "fsdp tp")])
def test_layers_that_are_split_do_what_whole_ones_do(world_of, name, size, wrap):
    one = optimizers.parallel(name, "none")
    for found in world_of(size).run(optimizers.parallel, name=name, wrap=wrap):
        close(found, one)


# The compiled form ------------------------------------------------------------------------------


@pytest.mark.parametrize(("size", "wrap"), [(2, "ddp"), (2, "fsdp")])
def test_one_compiled_kernel_does_what_the_plain_form_does(world_of, tmp_path, size, wrap):
    one, _ = alone("DeltaBarDelta")
    for found in world_of(size).run(optimizers.compiled, wrap=wrap, folder=str(tmp_path)):
        close(found["weights"], one["weights"])
        close(found["rows"], one["rows"])


# Trials without a backward pass -----------------------------------------------------------------


@pytest.mark.parametrize("wrap", ["ddp", "fsdp", "fsdp root"])
def test_trials_that_evaluate_the_loss_alone_find_the_same(world_of, wrap):
    """fully_shard keeps what a forward pass gathers until a backward pass."""
    one = optimizers.searched("none", apart=False)
    assert max(row["trials"] for row in one["rows"]) > 2
    for apart in (False, True):
        for found in world_of(2).run(optimizers.searched, wrap=wrap, apart=apart):
            close(found["weights"], one["weights"])
            close(found["rows"], one["rows"])
