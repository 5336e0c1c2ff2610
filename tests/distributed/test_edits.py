"""Edits are made on all ranks: what rank 0 asks for happens everywhere, and so does its error."""

import pytest
from tests.distributed import cases

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("wrap", ["ddp", "fsdp"])
def test_rank_0s_arguments_win_everywhere(world, wrap):
    ranks = world.run(cases.edited, wrap=wrap)
    assert ranks == [cases.edited("none", rank=0)] * world.size
    assert ranks[0][-1]["journal"].count('"kind": ') >= 4
    assert ranks[0] != cases.edited("none", rank=1)


def test_an_invalid_edit_of_rank_0_is_the_same_error_everywhere(world):
    first, *others = world.run(cases.wrongly_edited, first=True)
    assert others == [first] * (world.size - 1)
    assert set(first) == set(cases.INVALID)
    for name, (error, same, rate) in first.items():
        assert "Error: " in error, name
        assert same, name
        assert rate == 0.125 * 7 / 8, name


def test_an_invalid_edit_of_another_rank_is_not_asked_for(world):
    first, *others = world.run(cases.wrongly_edited, first=False)
    assert others == [first] * (world.size - 1)
    assert [error for error, _, _ in first.values()] == [""] * len(cases.INVALID)
