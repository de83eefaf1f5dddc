"""Every golden model test runs in float64 and in float32, each to its own tolerances."""

from typing import NamedTuple

import jax
import pytest


class Precision(NamedTuple):
    """Relative tolerances of values and of gradients."""

    value: float
    grad: float


@pytest.fixture(params=["float64", "float32"])
def tolerance(request):
    with jax.enable_x64(request.param == "float64"):
        yield Precision(1e-8, 1e-5) if request.param == "float64" else Precision(1e-4, 1e-3)
