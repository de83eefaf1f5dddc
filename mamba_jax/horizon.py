"""The horizon schedule, and scans over time: one whose cost follows the horizon, one with a cheap backward pass."""

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from mamba_jax.config import HorizonConfig

CHUNK = 50
"""Steps in one chunk of the scan, at most; the last chunk of a meta-episode may be padded."""


def scheduled_horizon(config: HorizonConfig, num_steps: int, steps: jax.Array) -> jax.Array:
    """() int32 sequence length after `steps` collected rows, also () int32 (paper, section 4, horizon scheduling).

    min(L, ceil(initial + steps (L - initial) / growth_steps)), L = num_steps, in exact integer arithmetic.
    """
    if is_constant(config, num_steps):
        return jnp.int32(num_steps)
    gain, period = reduced_rate(config, num_steps)
    growth = -(-jnp.minimum(steps, config.growth_steps) * gain // period)
    return jnp.minimum(num_steps, config.initial + growth).astype(jnp.int32)


def reduced_rate(config: HorizonConfig, num_steps: int) -> tuple[int, int]:
    """(gain, period) in lowest terms: the horizon grows by `gain` rows in `period` steps."""
    divisor = math.gcd(num_steps - config.initial, config.growth_steps)
    return (num_steps - config.initial) // divisor, config.growth_steps // divisor


def is_constant(config: HorizonConfig, num_steps: int) -> bool:
    """True where the whole meta-episode is used from the start."""
    return config.initial in (0, num_steps) or not config.growth_steps


def chunked_scan(
    body: Callable[[Any, Any, jax.Array], tuple[Any, Any]], carry: Any, xs: Any, horizon: jax.Array | None
) -> tuple[Any, Any]:
    """Scans `body(carry, chunk, start) -> (carry, ys)` over chunks of the leading time axis of xs.

    A chunk of C steps has leaves (C, ...) and begins at time `start`. Chunks wholly beyond `horizon` are skipped and
    yield zeros, so cost follows the horizon; None runs them all. Results have leaves (T, ...) again; what lies beyond
    the horizon is for the caller to mask. Where T is no multiple of C the last chunk is padded with repeats.
    """
    total = jax.tree.leaves(xs)[0].shape[0]
    count = math.ceil(total / CHUNK)
    size = math.ceil(total / count)
    index = jnp.minimum(jnp.arange(count * size), total - 1).reshape(count, size)
    chunks = jax.tree.map(lambda x: x[index] if count * size != total else x.reshape(count, size, *x.shape[1:]), xs)

    def outer(carry, inputs):
        chunk, start = inputs
        if horizon is None:
            return body(carry, chunk, start)
        shapes = jax.eval_shape(body, carry, chunk, start)[1]
        skipped = jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), shapes)
        return jax.lax.cond(start < horizon, lambda: body(carry, chunk, start), lambda: (carry, skipped))

    # Without remat every chunk, skipped or not, stores as much as a whole one for the backward pass.
    outer = outer if horizon is None else jax.checkpoint(outer, prevent_cse=False)
    carry, ys = jax.lax.scan(outer, carry, (chunks, jnp.arange(count) * size))
    return carry, jax.tree.map(lambda y: y.reshape(count * size, *y.shape[2:])[:total], ys)


def deferred_scan(
    step: Callable[[Any, Any, Any], tuple[Any, Any]], params: Any, carry: Any, xs: Any
) -> tuple[Any, Any]:
    """`jax.lax.scan` of `step(params, carry, x)` whose gradient of the parameters is taken for all steps at once.

    Plain reverse mode adds a full-size weight gradient at every step, which costs more than the rest of the backward
    pass where the batch is small. Here the reverse scan carries only the gradient of the carry; weights get theirs
    from one call of the step batched over time. `step` must depend on traced values through its arguments alone, and
    every leaf of carry and xs must be floating.
    """

    @jax.custom_vjp
    def run(params, carry, xs):
        return jax.lax.scan(partial(step, params), carry, xs)

    def forward(params, carry, xs):
        def body(carry, x):
            following, y = step(params, carry, x)
            return following, (carry, y)

        last, (carries, ys) = jax.lax.scan(body, carry, xs)
        return (last, ys), (params, carries, xs)

    def backward(residuals, cotangents):
        params, carries, xs = residuals
        d_last, d_ys = cotangents

        def body(d_following, inputs):
            carry, x, d_y = inputs
            d_carry, d_x = jax.vjp(partial(step, params), carry, x)[1]((d_following, d_y))
            return d_carry, (d_following, d_x)

        d_carry, (d_followings, d_xs) = jax.lax.scan(body, d_last, (carries, xs, d_ys), reverse=True)
        batched = jax.vmap(step, (None, 0, 0))
        (d_params,) = jax.vjp(lambda params: batched(params, carries, xs), params)[1]((d_followings, d_ys))
        return d_params, d_carry, d_xs

    run.defvjp(forward, backward)
    return run(params, carry, xs)
