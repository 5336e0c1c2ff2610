"""Doctests speak the public names without importing them."""

import pytest

import stepsize


@pytest.fixture(autouse=True)
def _public_names(doctest_namespace: dict[str, object]) -> None:
    doctest_namespace.update({name: getattr(stepsize, name) for name in stepsize.__all__})
