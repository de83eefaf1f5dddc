"""Layers shared by all networks: layer-normed SiLU stacks, initialised as released."""

from collections.abc import Sequence

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


class SplitDense(nn.Module):
    """Linear without bias over the concatenation of two inputs, whose kernel (first + second, units) is applied in two
    parts: `dense(x, dense.project(y))` equals the layer on [x, y].

    What is known of y for a whole sequence, or shared by several x, is then multiplied once.
    """

    first: int
    second: int
    units: int

    def setup(self):
        self.kernel = self.param("kernel", hidden_init, (self.first + self.second, self.units))

    def project(self, second: jax.Array) -> jax.Array:
        """(..., second) -> (..., units), the second input's share of the result."""
        return second @ self.kernel[self.first :]

    def add_first(self, first: jax.Array, projected: jax.Array) -> jax.Array:
        """(..., first) and (..., units), which broadcast -> (..., units), the layer's result."""
        return first @ self.kernel[: self.first] + projected

    def __call__(self, first: jax.Array, projected: jax.Array) -> jax.Array:
        """`add_first`."""
        return self.add_first(first, projected)


class KernelBlock(SplitDense):
    """A `SplitDense`, layer norm, SiLU."""

    def setup(self):
        super().setup()
        self.norm = layer_norm("norm")

    def __call__(self, first: jax.Array, projected: jax.Array) -> jax.Array:
        """(..., first) and (..., units) -> (..., units)."""
        return nn.silu(self.norm(self.add_first(first, projected)))


class MLP(nn.Module):
    """`layers` times linear without bias, layer norm, SiLU: (..., D) -> (..., units).

    Two inputs count as their concatenation, which is never formed: their leading axes broadcast, and what several rows
    share is multiplied once.
    """

    layers: int
    units: int

    @nn.compact
    def __call__(self, *parts: jax.Array) -> jax.Array:
        """One input (..., D), or two -> (..., units)."""
        for i in range(self.layers):
            name = f"linear_{i}"
            if len(parts) == 1:
                x = nn.Dense(self.units, use_bias=False, kernel_init=hidden_init, name=name)(*parts)
            else:
                first, second = parts
                dense = SplitDense(first.shape[-1], second.shape[-1], self.units, name=name)
                x = dense(first, dense.project(second))
            parts = (nn.silu(layer_norm(f"norm_{i}")(x)),)
        return join(parts)


class Head(nn.Module):
    """An `MLP` and a linear output: (..., D) -> (..., size); `scale` 0 starts the output at zero.

    Takes two inputs as `MLP` does.
    """

    layers: int
    units: int
    size: int
    scale: float = 1.0

    @nn.compact
    def __call__(self, *parts: jax.Array) -> jax.Array:
        """One input (..., D), or two -> (..., size)."""
        x = MLP(self.layers, self.units, name="mlp")(*parts)
        return nn.Dense(self.size, kernel_init=output_init(self.scale), name="out")(x)


def join(parts: Sequence[jax.Array]) -> jax.Array:
    """The concatenation over the last axis of arrays whose leading axes broadcast."""
    if len(parts) == 1:
        return parts[0]
    lead = jnp.broadcast_shapes(*(part.shape[:-1] for part in parts))
    return jnp.concatenate([jnp.broadcast_to(part, (*lead, part.shape[-1])) for part in parts], -1)


def flatten_image(x: jax.Array) -> jax.Array:
    """(..., H, W, C) -> (..., C H W), channel-major as released."""
    return jnp.moveaxis(x, -1, -3).reshape(*x.shape[:-3], -1)
