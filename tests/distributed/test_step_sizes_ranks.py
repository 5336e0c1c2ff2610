"""Step sizes of parameters that are split over the ranks are those of the whole, on every rank."""

import pytest
from tests.distributed import sizes

pytestmark = pytest.mark.slow
SHARES = (0.0, 0.05, 0.25, 0.5, 0.75, 1.0)
ELEMENTS = {"0.weight": 15, "0.bias": 5, "2.weight": 15, "2.bias": 3}


@pytest.mark.parametrize("wrap", ["none", "fsdp"])
def test_quantiles_are_those_of_all_elements_on_every_rank(world, wrap):
    ranks = world.run(sizes.looked_at, wrap=wrap, shares=SHARES)
    if wrap == "fsdp":
        assert len({tuple(found["rows"]) for found in ranks}) > 1  # uneven shards
    for found in ranks:
        count, elements, _, values = found["group"]["group 0"]
        assert count == elements == 38
        assert list(values.values()) == pytest.approx(found["right"], rel=1e-6)
        assert {name: told[0] for name, told in found["parameter"].items()} == ELEMENTS
        assert {name: told[0] for name, told in found["layer"].items()} == {"0": 20, "2": 18}
        for told, right in zip(found["parameter"].values(), found["of each"], strict=True):
            assert list(told[3].values()) == pytest.approx(right, rel=1e-6)
        assert [row["step"] for row in found["history"]["rows"]] == [1, 2, 4]
        if wrap == "fsdp":
            assert found["history"] == ranks[0]["history"]


@pytest.mark.parametrize("wrap", ["hsdp", "tp"])
def test_on_a_mesh_of_two_dimensions(world_of, wrap):
    ranks = world_of(4).run(sizes.looked_at, wrap=wrap, shares=SHARES)
    for found in ranks:
        count, elements, _, values = found["group"]["group 0"]
        assert count == elements == 45
        assert list(values.values()) == pytest.approx(found["right"], rel=1e-6)
        assert found["history"] == ranks[0]["history"]


def test_a_sample_of_a_split_tensor_stands_for_all_of_it(world):
    for samples, room in ((None, 1e-5), (500, 0.01)):
        ranks = world.run(sizes.large, samples=samples)
        assert all(found == ranks[0] for found in ranks)
        count, elements, _, values = ranks[0]
        assert count == elements == 203 * 301 + 900
        assert values[0.0] == pytest.approx(0.5, abs=room)
        assert values[0.5] == pytest.approx(1 / 1.5, abs=0.01 + room)
        assert values[1.0] == 4.0
