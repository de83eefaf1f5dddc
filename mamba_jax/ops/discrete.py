"""Factorised categorical distributions with uniform mixing and straight-through gradients."""

import distrax
import jax
import jax.numpy as jnp


def mix_uniform(logits: jax.Array, share: float) -> jax.Array:
    """Log-probabilities of (1 - share) softmax(logits) + share / K over the last axis (DreamerV3's "unimix")."""
    if share == 0:
        return jax.nn.log_softmax(logits)  # the logarithm of a probability that underflows has no gradient
    probs = jax.nn.softmax(logits)
    return jnp.log((1 - share) * probs + share / logits.shape[-1])


def sample(log_probs: jax.Array, noise: jax.Array) -> jax.Array:
    """One-hot sample argmax(log_probs + standard Gumbel noise) over the last axis, with the gradient of the
    probabilities."""
    return straight_through(jnp.argmax(log_probs + noise, -1), jnp.exp(log_probs))


def mode(log_probs: jax.Array) -> jax.Array:
    """One-hot mode over the last axis, with the gradient of the log-probabilities, as released."""
    return straight_through(jnp.argmax(log_probs, -1), log_probs)


def straight_through(index: jax.Array, surrogate: jax.Array) -> jax.Array:
    """One-hot of index (...) in the shape of surrogate (..., K), with the surrogate's gradient."""
    one_hot = jax.nn.one_hot(index, surrogate.shape[-1], dtype=surrogate.dtype)
    return one_hot + surrogate - jax.lax.stop_gradient(surrogate)


def kl_divergence(log_probs: jax.Array, other: jax.Array) -> jax.Array:
    """KL(p || q) of factorised categoricals (..., S, K) -> (...), summed over the S factors."""
    return jnp.sum(distrax.Categorical(logits=log_probs).kl_divergence(distrax.Categorical(logits=other)), -1)
