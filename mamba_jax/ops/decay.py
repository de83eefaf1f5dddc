"""Linear recurrences over time, as a parallel scan."""

import jax
import jax.numpy as jnp


def decayed_sum(values: jax.Array, decay: float) -> jax.Array:
    """Sums over the rows so far, s_t = values_t + decay s_{t-1}, of values (T, ...)."""

    def join(earlier: tuple[jax.Array, jax.Array], later: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        return earlier[0] * later[0], later[0] * earlier[1] + later[1]

    return jax.lax.associative_scan(join, (jnp.full_like(values, decay), values))[1]
