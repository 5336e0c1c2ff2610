"""The worlds that all tests here share: starting processes is what takes the time."""

import pytest
from tests.distributed.worlds import World


@pytest.fixture(scope="session")
def _worlds():
    """The worlds by their size, as far as they were needed; ended with the session."""
    found = {}
    yield found
    for each in found.values():
        each.close()


@pytest.fixture
def world_of(_worlds, tmp_path_factory):
    """Give a world by its size; one that has failed is replaced."""

    def get(size):
        if size not in _worlds or not _worlds[size].alive:
            _worlds[size] = World(size, tmp_path_factory.mktemp(f"world{size}"))
        return _worlds[size]

    return get


@pytest.fixture(params=[2, 4], ids="{}ranks".format)
def world(request, world_of):
    """A world of two, and one of four."""
    return world_of(request.param)
