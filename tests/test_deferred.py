"""The scan that defers weight gradients, against `jax.lax.scan`."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from mamba_jax.nn.blocks import MLP, KernelBlock, SplitDense
from mamba_jax.nn.deferred import deferred_scan

TIME, BATCH, WIDTH = 7, 2, 3


class Cell(nn.Module):
    """Linear layers with and without bias, nested, used twice, with all of their kernel used here or half of it."""

    def setup(self):
        self.block = KernelBlock(WIDTH, 4, WIDTH)
        self.split = SplitDense(WIDTH, WIDTH, WIDTH)
        self.mlp = MLP(2, WIDTH)
        self.out = nn.Dense(WIDTH)

    def __call__(self, carry, x):
        return self.step(carry, self.block.project(x))

    def step(self, carry, projected):
        hidden = self.out(self.mlp(self.block(carry, projected)))
        return nn.tanh(self.out(self.split(hidden, self.split.project(carry))))


def cell_step(variables, constants, carry, x):
    carry = Cell().apply(variables, carry, x, method="step") * constants
    return carry, {"square": carry**2}


def no_layers(variables, constants, carry, x):
    carry = jnp.tanh(carry * variables["params"]["out"]["bias"] + constants + x)
    return carry, carry


@pytest.mark.parametrize(("step", "unroll"), [(cell_step, 1), (cell_step, 3), (no_layers, 1)])
def test_values_and_gradients_are_those_of_scan(step, unroll):
    keys = jax.random.split(jax.random.key(0), 4)
    carry = jax.random.normal(keys[0], (BATCH, WIDTH))
    variables = Cell().init(keys[1], carry, jnp.zeros((BATCH, 4)))
    variables["params"]["out"]["bias"] = jnp.arange(1.0, 1 + WIDTH)
    constants = jax.random.normal(keys[2], (WIDTH,))
    xs = jax.random.normal(keys[3], (TIME, BATCH, WIDTH))

    def plain(variables, constants, carry, xs):
        return jax.lax.scan(lambda c, x: step(variables, constants, c, x), carry, xs)

    def objective(scan):
        return lambda *args: sum(jnp.sum(jnp.sin(x)) for x in jax.tree.leaves(scan(*args)))

    def deferred(*args):
        return deferred_scan(step, *args, unroll=unroll)

    arguments = (variables, constants, carry, xs)
    values = [jax.value_and_grad(objective(scan), argnums=(0, 1, 2, 3))(*arguments) for scan in (plain, deferred)]
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), *values)


def test_no_weight_gradient_is_added_up_in_the_scan():
    """The reverse scan carries vectors and the state's gradient, nothing of the size of a kernel."""
    width = 32
    carry = jnp.ones((BATCH, WIDTH))
    model = nn.Sequential([nn.Dense(width), nn.Dense(WIDTH)])
    variables = model.init(jax.random.key(0), carry)

    def step(variables, constants, carry, x):
        carry = model.apply(variables, carry) + x
        return carry, carry

    def objective(variables):
        return deferred_scan(step, variables, (), carry, jnp.ones((TIME, BATCH, WIDTH)))[1].sum()

    jaxpr = jax.make_jaxpr(jax.grad(objective))(variables)
    scans = [equation for equation in jaxpr.eqns if equation.primitive.name == "scan"]
    assert len(scans) == 2
    for equation in scans:
        returned = [aval.size for aval in equation.params["jaxpr"].out_avals]  # what a step carries on, and its results
        assert max(returned) < WIDTH * width
