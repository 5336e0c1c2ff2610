"""torch.distributed.checkpoint: whole state, other numbers of ranks, and no step that was none."""

import pytest
from tests.distributed import cases

pytestmark = pytest.mark.slow


@pytest.mark.parametrize(
    ("optimizer", "tensor"), [("adamw", False), ("adamw", True), ("sgd", False), ("momentum", True)]
)
def test_saved_on_four_ranks_it_goes_on_as_before_on_two(world_of, tmp_path, optimizer, tensor):
    given = {"folder": str(tmp_path), "optimizer": optimizer, "tensor": tensor}
    four = world_of(4).run(cases.saved, **given)
    assert four[0]["at"]["journal"].count('"kind": ') >= 2
    assert any(factor != 1.0 for factor in four[0]["at"]["factors"])
    for size in (2, 4):
        found = world_of(size).run(cases.loaded, **given)
        for each in found:
            assert each["at"] == four[0]["at"]
            assert each["weights"] == four[0]["weights"]
            assert each["then"] == four[0]["then"]
            assert each["same"]  # the tensor that torch.compile knows is still the rate


@pytest.mark.parametrize("scheduler", ["first", "last"])
def test_the_order_of_loading_makes_no_difference(world_of, tmp_path, scheduler):
    four = world_of(4).run(cases.saved, folder=str(tmp_path))
    for each in world_of(2).run(cases.loaded, folder=str(tmp_path), scheduler=scheduler):
        assert (each["at"], each["then"]) == (four[0]["at"], four[0]["then"])


def test_saved_in_the_background_it_is_what_it_was_when_saving_began(world, tmp_path):
    first, *_ = world.run(cases.saved, folder=str(tmp_path), how="async")
    for each in world.run(cases.loaded, folder=str(tmp_path)):
        assert (each["at"], each["then"]) == (first["at"], first["then"])
        assert each["weights"] == first["weights"]


@pytest.mark.parametrize("follow", [False, True])
@pytest.mark.parametrize("tensor", [False, True])
@pytest.mark.parametrize("optimizer", ["sgd", "momentum", "adamw"])
@pytest.mark.parametrize("wrap", ["ddp", "fsdp"])
def test_making_the_optimizers_state_is_no_step(world, wrap, optimizer, tensor, follow):
    given = {"wrap": wrap, "optimizer": optimizer, "tensor": tensor, "follow": follow}
    found = world.run(cases.initialized, **given)
    assert found == [found[0]] * world.size
    fakes, steps, rates = zip(*found[0], strict=True)
    assert steps == (0, 0, 1, 2, 3)
    assert rates == pytest.approx([0.125 * (1 - t / 10) for t in steps])
    always = optimizer == "sgd"  # it has no state that would say that it is made
    assert all(fakes) if always else fakes[0] and not any(fakes[1:])
