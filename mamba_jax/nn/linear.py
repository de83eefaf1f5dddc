"""Linear layers with the initialisation of the baselines' releases (PyTorch's default unless said otherwise)."""

from collections.abc import Callable, Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp

Initialiser = Callable[[jax.Array, tuple[int, ...], jnp.dtype], jax.Array]


def uniform_fan_in(fan_in: int) -> Initialiser:
    """Uniform in +-1/sqrt(fan_in): PyTorch's default for the weights and biases of a linear layer."""
    limit = fan_in**-0.5

    def initialise(key: jax.Array, shape: tuple[int, ...], dtype: jnp.dtype = jnp.float32) -> jax.Array:
        return jax.random.uniform(key, shape, dtype, -limit, limit)

    return initialise


def unit_columns(gain: float = 1.0) -> Initialiser:
    """Gaussian weights scaled so that the incoming weights of every output have norm `gain` ("normc")."""

    def initialise(key: jax.Array, shape: tuple[int, ...], dtype: jnp.dtype = jnp.float32) -> jax.Array:
        kernel = jax.random.normal(key, shape, dtype)
        return gain * kernel / jnp.linalg.norm(kernel, axis=0, keepdims=True)

    return initialise


class Linear(nn.Module):
    """y = x W + b. features: width of y. kernel_init: None for PyTorch's default, else with zero bias."""

    features: int
    kernel_init: Initialiser | None = None

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """x: (..., in) -> (..., features)."""
        kernel, bias = linear_parameters(self, x.shape[-1], self.features, self.kernel_init)
        return x @ kernel + bias


class JointLinear(nn.Module):
    """A linear layer over the concatenation [x, context] that never forms it.

    The context is multiplied before it is repeated, so pairs (x_i, context_j) cost one addition each.
    """

    features: int

    @nn.compact
    def __call__(self, x: jax.Array, context: jax.Array, pick: Callable[[jax.Array], jax.Array]) -> jax.Array:
        """x: (..., in_x); context: (..., in_c); pick: maps the projected context to a shape that broadcasts with x."""
        split = x.shape[-1]
        kernel, bias = linear_parameters(self, split + context.shape[-1], self.features, None)
        return x @ kernel[:split] + pick(context @ kernel[split:]) + bias


class MLP(nn.Module):
    """Hidden layers of the given widths with ReLU, then a linear layer `out`."""

    layers: Sequence[int]
    features: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """x: (..., in) -> (..., features)."""
        for index, width in enumerate(self.layers):
            x = jax.nn.relu(Linear(width, name=f"hidden_{index}")(x))
        return Linear(self.features, name="out")(x)


def linear_parameters(
    module: nn.Module, fan_in: int, features: int, kernel_init: Initialiser | None
) -> tuple[jax.Array, jax.Array]:
    """Creates or fetches `kernel` (fan_in, features) and `bias` (features,) of a compact module."""
    default = uniform_fan_in(fan_in)
    bias_init = default if kernel_init is None else nn.initializers.zeros_init()
    kernel = module.param("kernel", kernel_init or default, (fan_in, features))
    return kernel, module.param("bias", bias_init, (features,))
