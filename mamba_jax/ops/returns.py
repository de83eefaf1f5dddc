"""Lambda returns and the running range of returns that scales the actor's advantages."""

import jax
import jax.numpy as jnp


def lambda_return(reward: jax.Array, discount: jax.Array, value: jax.Array, lambda_: float) -> jax.Array:
    """R_t = r_{t+1} + d_{t+1} ((1 - lambda) v_{t+1} + lambda R_{t+1}), R_{H-1} = v_{H-1} (DreamerV3, equation 7).

    All inputs are (H - 1, ...) and hold times 1 .. H-1; the result (H - 1, ...) holds R_0 .. R_{H-2}.
    """

    def step(later, inputs):
        r, d, v = inputs
        result = r + d * ((1 - lambda_) * v + lambda_ * later)
        return result, result

    return jax.lax.scan(step, value[-1], (reward, discount, value), reverse=True, unroll=4)[1]


def update_range(value_range: jax.Array, returns: jax.Array, decay: float = 0.99) -> jax.Array:
    """Moving average of the 5% and 95% quantiles of all returns; value_range is (2,) and starts at 0, as released."""
    quantiles = jnp.quantile(returns, jnp.array([0.05, 0.95], returns.dtype))
    return decay * value_range + (1 - decay) * quantiles


def range_scale(value_range: jax.Array, floor: float = 1.0) -> jax.Array:
    """() divisor of advantages: the width of the range, at least `floor`."""
    return jnp.maximum(floor, value_range[1] - value_range[0])
