"""The horizon schedule, and the scan over time whose cost follows it."""

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from mamba_jax.config import MAX_INT32, HorizonConfig

CHUNK = 50
"""Steps in one chunk of the scan, at most; the last chunk of a meta-episode may be padded."""


def scheduled_horizon(config: HorizonConfig, num_steps: int, steps: jax.Array) -> jax.Array:
    """() int32 sequence length after `steps` collected rows, also () int32 (paper, section 4, horizon scheduling).

    min(L, ceil(initial + steps (L - initial) / growth_steps)), L = num_steps, exactly: the steps after which a row is
    added are counted here, where integers have no bounds.
    """
    if is_constant(config, num_steps):
        return jnp.int32(num_steps)
    gain = num_steps - config.initial
    passed = [min(row * config.growth_steps // gain, MAX_INT32) for row in range(gain)]
    return config.initial + jnp.sum(jnp.array(passed, jnp.int32) < steps, dtype=jnp.int32)


def is_constant(config: HorizonConfig, num_steps: int) -> bool:
    """True where the whole meta-episode is used from the start."""
    return config.initial in (0, num_steps) or not config.growth_steps


Body = Callable[[Any, Any, Any, jax.Array], tuple[Any, Any]]
"""(params, carry, chunk, start) -> (carry, ys), for a chunk of C steps, leaves (C, ...), that begins at `start`."""


def chunked_scan(body: Body, params: Any, carry: Any, xs: Any, horizon: jax.Array | None) -> tuple[Any, Any]:
    """Scans `body` over chunks of the leading time axis of xs.

    Chunks wholly beyond `horizon`, () int32, are left out and yield zeros, so cost follows the horizon; None takes them
    all. Results have leaves (T, ...) again; what lies beyond the horizon is for the caller to mask. Where T is no
    multiple of C the last chunk is padded with repeats. Gradients reach params and carry; xs are data.
    """
    total = jax.tree.leaves(xs)[0].shape[0]
    count = math.ceil(total / CHUNK)
    size = math.ceil(total / count)
    index = jnp.minimum(jnp.arange(count * size), total - 1).reshape(count, size)
    chunks = jax.tree.map(lambda x: x[index] if count * size != total else x.reshape(count, size, *x.shape[1:]), xs)
    starts = jnp.arange(count) * size
    if horizon is None:
        carry, ys = jax.lax.scan(lambda carry, x: body(params, carry, *x), carry, (chunks, starts))
    else:
        carry, ys = leading_scan(body, params, carry, (chunks, starts), jnp.minimum(-(-horizon // size), count))
    return carry, jax.tree.map(lambda y: y.reshape(count * size, *y.shape[2:])[:total], ys)


def leading_scan(body: Body, params: Any, carry: Any, xs: tuple[Any, Any], number: jax.Array) -> tuple[Any, Any]:
    """`jax.lax.scan` over the first `number`, () int32, elements of xs; results are zeros for the others.

    Both directions are loops of `number` rounds. Only the carries are kept for the backward pass, which runs every
    `body` again: what is not run then costs neither time nor memory.
    """

    @jax.custom_vjp
    def run(params, carry, xs, number):
        return forward(params, carry, xs, number)[0]

    def forward(params, carry, xs, number):
        shapes = jax.eval_shape(body, params, carry, *take(xs, 0))
        length = len(jax.tree.leaves(xs)[0])
        empty = jax.tree.map(lambda s: jnp.zeros((length, *s.shape), s.dtype), shapes)

        def step(i, loop):
            carry, kept = loop
            following, y = body(params, carry, *take(xs, i))
            return following, put(kept, (carry, y), i)

        last, (carries, ys) = jax.lax.fori_loop(0, number, step, (carry, empty))
        return (last, ys), (params, carries, xs, number)

    def backward(residuals, cotangents):
        params, carries, xs, number = residuals
        d_last, d_ys = cotangents

        def step(done, loop):
            d_params, d_following = loop
            i = number - 1 - done
            pull = jax.vjp(lambda params, carry: body(params, carry, *take(xs, i)), params, take(carries, i))[1]
            d_own, d_carry = pull((d_following, take(d_ys, i)))
            return jax.tree.map(jnp.add, d_params, d_own), d_carry

        start = (jax.tree.map(jnp.zeros_like, params), d_last)
        return *jax.lax.fori_loop(0, number, step, start), None, None

    run.defvjp(forward, backward)
    return run(params, carry, xs, number)


def take(tree: Any, i: jax.Array | int) -> Any:
    """Element i of the leading axis of every leaf."""
    return jax.tree.map(lambda x: x[i], tree)


def put(tree: Any, values: Any, i: jax.Array) -> Any:
    """The tree with `values` as element i of the leading axis."""
    return jax.tree.map(lambda x, value: x.at[i].set(value), tree, values)
