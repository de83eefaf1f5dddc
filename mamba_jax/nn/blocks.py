"""Layers shared by all networks: layer-normed SiLU stacks, initialised as released."""

import functools
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

hidden_init = nn.initializers.variance_scaling(1.0, "fan_avg", "truncated_normal")


def output_init(scale: float) -> nn.initializers.Initializer:
    """Uniform with standard deviation sqrt(2 scale / (in + out)); zeros for scale 0."""
    return nn.initializers.variance_scaling(scale, "fan_avg", "uniform") if scale else nn.initializers.zeros


def layer_norm(name: str) -> nn.LayerNorm:
    """Layer normalisation over the last axis with eps 1e-3."""
    return nn.LayerNorm(epsilon=1e-3, use_fast_variance=False, name=name)


class JointDense(nn.Module):
    """Linear without bias over the concatenation of inputs that broadcast against each other, which is never formed:
    what several rows share is multiplied once."""

    units: int

    @nn.compact
    def __call__(self, *parts: jax.Array) -> jax.Array:
        """(..., D_i) each -> (..., units)."""
        sizes = [part.shape[-1] for part in parts]
        kernel = self.param("kernel", hidden_init, (sum(sizes), self.units))
        kernels = jnp.split(kernel, np.cumsum(sizes)[:-1])
        return functools.reduce(jnp.add, [part @ rows for part, rows in zip(parts, kernels, strict=True)])


class MLP(nn.Module):
    """`layers` times linear without bias, layer norm, SiLU: (..., D) -> (..., units).

    Several inputs count as their concatenation; their leading axes broadcast.
    """

    layers: int
    units: int

    @nn.compact
    def __call__(self, *parts: jax.Array) -> jax.Array:
        for i in range(self.layers):
            name = f"linear_{i}"
            if len(parts) == 1:
                x = nn.Dense(self.units, use_bias=False, kernel_init=hidden_init, name=name)(*parts)
            else:
                x = JointDense(self.units, name=name)(*parts)
            parts = (nn.silu(layer_norm(f"norm_{i}")(x)),)
        return join(parts)


class Head(nn.Module):
    """An `MLP` and a linear output: (..., D) -> (..., size); `scale` 0 starts the output at zero.

    Takes several inputs as `MLP` does.
    """

    layers: int
    units: int
    size: int
    scale: float = 1.0

    @nn.compact
    def __call__(self, *parts: jax.Array) -> jax.Array:
        x = MLP(self.layers, self.units, name="mlp")(*parts)
        return nn.Dense(self.size, kernel_init=output_init(self.scale), name="out")(x)


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

    def __call__(self, first: jax.Array, projected: jax.Array) -> jax.Array:
        """(..., first) and (..., units) -> (..., units)."""
        return first @ self.kernel[: self.first] + projected


class KernelBlock(SplitDense):
    """A `SplitDense`, layer norm, SiLU."""

    def setup(self):
        super().setup()
        self.norm = layer_norm("norm")

    def __call__(self, first: jax.Array, projected: jax.Array) -> jax.Array:
        """(..., first) and (..., units) -> (..., units)."""
        return nn.silu(self.norm(first @ self.kernel[: self.first] + projected))


def join(parts: Sequence[jax.Array]) -> jax.Array:
    """The concatenation over the last axis of arrays whose leading axes broadcast."""
    if len(parts) == 1:
        return parts[0]
    lead = jnp.broadcast_shapes(*(part.shape[:-1] for part in parts))
    return jnp.concatenate([jnp.broadcast_to(part, (*lead, part.shape[-1])) for part in parts], -1)


def flatten_image(x: jax.Array) -> jax.Array:
    """(..., H, W, C) -> (..., C H W), channel-major as released."""
    return jnp.moveaxis(x, -1, -3).reshape(*x.shape[:-3], -1)
