"""Symlog space and two-hot regression (DreamerV3, arXiv 2301.04104, section "Robust predictions")."""

import jax
import jax.numpy as jnp

LIMIT = 20.0
NUM_BINS = 255


def symlog(x: jax.Array) -> jax.Array:
    """sign(x) ln(1 + |x|), elementwise."""
    return jnp.sign(x) * jnp.log1p(jnp.abs(x))


def symexp(x: jax.Array) -> jax.Array:
    """Inverse of `symlog`, elementwise."""
    return jnp.sign(x) * jnp.expm1(jnp.abs(x))


def bins(dtype=jnp.float32) -> jax.Array:
    """(255,) positions of the bins, equally spaced over [-20, 20] in symlog space."""
    return jnp.linspace(-LIMIT, LIMIT, NUM_BINS, dtype=dtype)


def two_hot(x: jax.Array) -> jax.Array:
    """(...) values -> (..., 255) weights of the two bins around symlog(x); beyond the ends all on the end bin."""
    position = jnp.clip(symlog(x), -LIMIT, LIMIT)
    width = 2 * LIMIT / (NUM_BINS - 1)
    return jax.nn.relu(1 - jnp.abs(position[..., None] - bins(position.dtype)) / width)


def two_hot_log_prob(logits: jax.Array, x: jax.Array) -> jax.Array:
    """Log-likelihood of values x (...) under two-hot targets; logits (..., 255) -> (...)."""
    return jnp.sum(two_hot(x) * jax.nn.log_softmax(logits), -1)


def two_hot_mean(logits: jax.Array) -> jax.Array:
    """Prediction of two-hot logits (..., 255) -> (...): symexp of the expectation in symlog space, as released."""
    return symexp(jnp.sum(jax.nn.softmax(logits) * bins(logits.dtype), -1))


def symlog_squared_error(prediction: jax.Array, target: jax.Array) -> jax.Array:
    """Sum over the last axis of (prediction - symlog(target))^2; errors below 1e-8 count as zero, as released."""
    error = jnp.square(prediction - symlog(target))
    return jnp.sum(jnp.where(error < 1e-8, 0.0, error), -1)
