"""What all tests share: doctests speak the public names, generated cases are the same each run."""

import os

import pytest

import stepsize

# one thread for each of the processes that pytest-xdist starts, set before torch is loaded
os.environ.setdefault("OMP_NUM_THREADS", "1")

try:
    from hypothesis import HealthCheck, Phase, settings
except ImportError:  # a user's own doctest run, without the development tools
    pass
else:
    settings.register_profile(
        "stepsize",
        derandomize=True,
        deadline=None,
        max_examples=40,
        phases=(Phase.explicit, Phase.generate),  # trees shrink slowly; the failing one is printed
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    settings.load_profile("stepsize")


@pytest.fixture(autouse=True)
def _public_names(doctest_namespace: dict[str, object]) -> None:
    doctest_namespace.update({name: getattr(stepsize, name) for name in stepsize.__all__})
