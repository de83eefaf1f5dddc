"""Adam behind a clip of the global gradient norm."""

import chex
import jax
import jax.numpy as jnp
import optax


def clip_by_norm(max_norm: float) -> optax.GradientTransformation:
    """g <- g min(1, max_norm / (|g| + 1e-6)), |g| the global norm: PyTorch's rule, which optax's omits the 1e-6 of."""

    def update(updates, state, params=None):
        del params
        scale = jnp.minimum(1.0, max_norm / (optax.tree.norm(updates) + 1e-6))
        return jax.tree.map(lambda g: g * scale, updates), state

    return optax.GradientTransformation(lambda params: optax.EmptyState(), update)


def cooled(learning_rate: float, updates: int, share: float) -> float | optax.Schedule:
    """The rate itself where `share` is 0, else a schedule: a fifth of it over that last share of `updates`."""
    last = round(share * updates)
    return optax.piecewise_constant_schedule(learning_rate, {updates - last: 0.2}) if last else learning_rate


def clipped_adam(learning_rate: float | optax.Schedule, eps: float, max_norm: float) -> optax.GradientTransformation:
    """Adam (0.9, 0.999) with eps outside the root, after `clip_by_norm`."""
    return optax.chain(clip_by_norm(max_norm), optax.adam(learning_rate, eps=eps))


def apply_gradients(
    optimizer: optax.GradientTransformation, grads: chex.ArrayTree, state: chex.ArrayTree, params: chex.ArrayTree
) -> tuple[chex.ArrayTree, chex.ArrayTree, jax.Array]:
    """One step: (params, optimizer state, () gradient norm before clipping)."""
    updates, state = optimizer.update(grads, state, params)
    return optax.apply_updates(params, updates), state, optax.tree.norm(grads)
