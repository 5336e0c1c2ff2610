"""The norm of a gradient that is split over the ranks is read whole."""

import pytest
from tests.distributed import cases

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("reduce", [True, False])
def test_a_split_norm_is_read_whole(world, reduce):
    ranks = world.run(cases.norms, reduce=reduce)
    assert len({found["rows"] for found in ranks}) > 1  # uneven shards
    for found in ranks:
        assert found["read"] == pytest.approx(found["right"], rel=1e-6)
        assert found["read"] == ranks[0]["read"]
        assert found["state"] == ranks[0]["state"]
    # what it would be to read it as any other tensor: each rank its own part, without a word
    assert len({tuple(found["local"]) for found in ranks}) == world.size
    assert ranks[0]["local"] != pytest.approx(ranks[0]["right"], rel=1e-3)
