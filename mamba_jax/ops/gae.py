"""Generalised advantage estimation (Schulman et al., 2016) over time-major rollouts."""

import jax
import jax.numpy as jnp


def gae(
    rewards: jax.Array,
    values: jax.Array,
    continues: jax.Array,
    gamma: float,
    lam: float,
    uncut: jax.Array | None = None,
) -> jax.Array:
    """Targets of the value function: advantage plus value.

    rewards: (T, ...), of the transition from row t to row t + 1. values: (T + 1, ...), of the rows, the last one for
    bootstrapping. continues: (T, ...), 0 where the transition ends the problem: nothing after it is counted.
    lam = 1 gives plain discounted returns with the last value behind them.
    uncut: (T, ...), 0 where the release cuts at a time limit: the advantage of that transition becomes 0 and no
    credit flows across it ("proper time limits"). None, the default, cuts nowhere.
    Returns (T, ...).
    """
    if uncut is None:
        uncut = jnp.ones_like(rewards)
    continues = continues.astype(rewards.dtype)
    deltas = rewards + gamma * values[1:] * continues - values[:-1]
    decay = gamma * lam * continues

    def step(later: jax.Array, row: tuple[jax.Array, ...]) -> tuple[jax.Array, jax.Array]:
        delta, factor, keep = row
        advantage = (delta + factor * later) * keep
        return advantage, advantage

    _, advantages = jax.lax.scan(
        step, jnp.zeros_like(deltas[0]), (deltas, decay, uncut.astype(rewards.dtype)), reverse=True, unroll=8
    )
    return advantages + values[:-1]


def standardise(x: jax.Array, weights: jax.Array | None = None, eps: float = 1e-5) -> jax.Array:
    """(x - mean) / (std + eps) over all entries, with the n - 1 standard deviation.

    weights: 0 or 1 like x; entries of weight 0 do not count in the mean and standard deviation.
    """
    mean, std = mean_and_std(x, weights)
    return (x - mean) / (std + eps)


def mean_and_std(x: jax.Array, weights: jax.Array | None = None) -> tuple[jax.Array, jax.Array]:
    """Mean and n - 1 standard deviation, () each, of the entries of weight 1."""
    weights = jnp.ones_like(x) if weights is None else weights
    number = weights.sum()
    mean = (x * weights).sum() / jnp.maximum(number, 1)
    var = (jnp.square(x - mean) * weights).sum() / jnp.maximum(number - 1, 1)
    return mean, jnp.sqrt(var)
