"""Layers shared by all networks: layer-normed SiLU stacks, initialised as released."""

import jax
import jax.numpy as jnp
from flax import linen as nn

hidden_init = nn.initializers.variance_scaling(1.0, "fan_avg", "truncated_normal")


def output_init(scale: float) -> nn.initializers.Initializer:
    """Uniform with standard deviation sqrt(2 scale / (in + out)); zeros for scale 0."""
    return nn.initializers.variance_scaling(scale, "fan_avg", "uniform") if scale else nn.initializers.zeros


def layer_norm(name: str) -> nn.LayerNorm:
    """Layer normalisation over the last axis with eps 1e-3."""
    return nn.LayerNorm(epsilon=1e-3, use_fast_variance=False, name=name)


class MLP(nn.Module):
    """`layers` times linear without bias, layer norm, SiLU: (..., D) -> (..., units)."""

    layers: int
    units: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        for i in range(self.layers):
            x = nn.Dense(self.units, use_bias=False, kernel_init=hidden_init, name=f"linear_{i}")(x)
            x = nn.silu(layer_norm(f"norm_{i}")(x))
        return x


class Head(nn.Module):
    """An `MLP` and a linear output: (..., D) -> (..., size); `scale` 0 starts the output at zero."""

    layers: int
    units: int
    size: int
    scale: float = 1.0

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        x = MLP(self.layers, self.units, name="mlp")(x)
        return nn.Dense(self.size, kernel_init=output_init(self.scale), name="out")(x)


class KernelBlock(nn.Module):
    """Linear without bias over the concatenation of two inputs, layer norm, SiLU.

    The kernel (first + second, units) can be applied in two parts, so that the part of an input that is known for a
    whole sequence leaves the time scan: `block(x, block.project(y))` equals the layer on [x, y].
    """

    first: int
    second: int
    units: int

    def setup(self):
        self.kernel = self.param("kernel", hidden_init, (self.first + self.second, self.units))
        self.norm = layer_norm("norm")

    def project(self, second: jax.Array) -> jax.Array:
        """(..., second) -> (..., units), the second input's share of the pre-activation."""
        return second @ self.kernel[self.first :]

    def __call__(self, first: jax.Array, projected: jax.Array) -> jax.Array:
        """(..., first) and (..., units) -> (..., units)."""
        return nn.silu(self.norm(first @ self.kernel[: self.first] + projected))


def flatten_image(x: jax.Array) -> jax.Array:
    """(..., H, W, C) -> (..., C H W), channel-major as released."""
    return jnp.moveaxis(x, -1, -3).reshape(*x.shape[:-3], -1)
