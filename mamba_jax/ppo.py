"""Proximal policy optimisation, shared by RL2, VariBAD and HyperX."""

from collections.abc import Callable
from typing import Any

import chex
import jax
import jax.numpy as jnp
import optax
from flax import struct

from mamba_jax.config_baselines import PolicyConfig, PPOConfig
from mamba_jax.nn.policy import ActionSpec
from mamba_jax.nn.ppo_policy import ActorCritic, entropy, log_prob
from mamba_jax.ops import running_stats
from mamba_jax.ops.optim import apply_gradients, clip_by_norm
from mamba_jax.ops.running_stats import RunningStats

Losses = dict[str, jax.Array]


@struct.dataclass
class Samples:
    """Transitions with the same leading axes.

    state (..., S) or None, latent (..., 2 L) or None: inputs of the policy, normalised. action: as drawn, before any
    squashing or clipping. value, log_prob: (...), before the update. target: (...), of the value. advantage: (...),
    standardised. weight: (...), 0 for rows that are no transition, else 1.
    """

    state: jax.Array | None
    latent: jax.Array | None
    action: jax.Array
    value: jax.Array
    log_prob: jax.Array
    target: jax.Array
    advantage: jax.Array
    weight: jax.Array


@struct.dataclass
class Normalisers:
    """Running statistics of the policy's inputs; None for an input that is not normalised."""

    state: RunningStats | None
    latent: RunningStats | None


def make_policy(config: PolicyConfig, spec: ActionSpec) -> ActorCritic:
    """The actor-critic network that `config` describes."""
    return ActorCritic(
        spec, config.layers, config.state_embedding, config.latent_embedding, config.initialiser, config.squash
    )


def init_normalisers(config: PolicyConfig, state_size: int, latent_size: int) -> Normalisers:
    """Statistics before any rollout. latent_size: 2 L."""
    return Normalisers(
        running_stats.init((state_size,)) if config.see_state and config.normalise_state else None,
        running_stats.init((latent_size,)) if config.normalise_latent else None,
    )


def update_normalisers(normalisers: Normalisers, state: jax.Array, latent: jax.Array) -> Normalisers:
    """Adds a rollout, state (..., S) and latent (..., 2 L)."""
    return Normalisers(
        None if normalisers.state is None else running_stats.update(normalisers.state, state),
        None if normalisers.latent is None else running_stats.update(normalisers.latent, latent),
    )


def normalise_inputs(
    normalisers: Normalisers, state: jax.Array | None, latent: jax.Array | None
) -> tuple[jax.Array | None, jax.Array | None]:
    """State and belief as the policy network takes them; None stays None."""
    if state is not None and normalisers.state is not None:
        state = running_stats.normalise(normalisers.state, state)
    if latent is not None and normalisers.latent is not None:
        latent = running_stats.normalise(normalisers.latent, latent)
    return state, latent


def surrogate_loss(policy: ActorCritic, params: Any, samples: Samples, config: PPOConfig) -> tuple[jax.Array, Losses]:
    """Clipped surrogate, value loss and entropy bonus, means over samples: total () and its parts."""
    output = policy.apply(params, samples.state, samples.latent)

    def mean(x: jax.Array) -> jax.Array:
        return (x * samples.weight).sum() / jnp.maximum(samples.weight.sum(), 1)

    ratio = jnp.exp(log_prob(output.parameters, samples.action, policy.squash) - samples.log_prob)
    clipped = jnp.clip(ratio, 1 - config.clip, 1 + config.clip)
    action_loss = -mean(jnp.minimum(ratio * samples.advantage, clipped * samples.advantage))
    value_loss = mean(value_errors(output.value, samples, config))
    bonus = mean(entropy(output.parameters))
    total = config.value_scale * value_loss + action_loss - config.entropy * bonus
    losses = {"loss": total, "loss_action": action_loss, "loss_value": value_loss, "entropy": bonus}
    return total, losses | {"clipped": mean((jnp.abs(ratio - 1) > config.clip).astype(ratio.dtype))}


def value_errors(values: jax.Array, samples: Samples, config: PPOConfig) -> jax.Array:
    """Value loss of each sample (...): squared error or Huber loss, halved unless it is a Huber loss alone.

    With `clip_values` the larger of the errors of the value and of the value moved by at most `clip`.
    """

    def error(x: jax.Array) -> jax.Array:
        return optax.huber_loss(x, samples.target) if config.huber else jnp.square(x - samples.target)

    if not config.clip_values:
        return error(values) if config.huber else 0.5 * error(values)
    moved = samples.value + jnp.clip(values - samples.value, -config.clip, config.clip)
    return 0.5 * jnp.maximum(error(values), error(moved))


def minibatch_indices(key: jax.Array, size: int, config: PPOConfig) -> jax.Array:
    """Permutations of `size` items, cut up: (epochs * minibatches, size // minibatches); a remainder is left out."""
    keys = jax.random.split(key, config.epochs)
    orders = jax.vmap(lambda k: jax.random.permutation(k, size))(keys)
    return split_minibatches(orders, config.minibatches)


def split_minibatches(orders: jax.Array, minibatches: int) -> jax.Array:
    """orders: (epochs, size) -> (epochs * minibatches, size // minibatches) of consecutive slices."""
    width = orders.shape[1] // minibatches
    return orders[:, : width * minibatches].reshape(-1, width)


def annealed(learning_rate: float, rounds: int, updates_per_round: int) -> optax.Schedule:
    """Learning rate by optimiser steps: linearly to 0 over `rounds`, constant within a round."""
    return lambda count: learning_rate * jnp.maximum(1 - (count // updates_per_round) / rounds, 0)


def make_optimizer(
    learning_rate: float | optax.Schedule, max_grad_norm: float | None, eps: float = 1e-8, kind: str = "adam"
) -> optax.GradientTransformation:
    """Adam or RMSprop (0.99, eps outside the root) behind a clip of the gradient norm, as PyTorch computes them."""
    if kind == "adam":
        rule = optax.adam(learning_rate, eps=eps)
    else:
        rule = optax.rmsprop(learning_rate, decay=0.99, eps=eps, eps_in_sqrt=False)
    return rule if max_grad_norm is None else optax.chain(clip_by_norm(max_grad_norm), rule)


def update(
    loss: Callable[[chex.ArrayTree, jax.Array], tuple[jax.Array, Losses]],
    optimizer: optax.GradientTransformation,
    params: chex.ArrayTree,
    state: chex.ArrayTree,
    indices: jax.Array,
) -> tuple[chex.ArrayTree, chex.ArrayTree, Losses]:
    """One optimiser step per row of `indices`, on loss(params, row).

    Returns parameters, optimiser state, and the losses with `grad_norm` (before clipping) of every step, (steps,).
    """

    def step(carry: tuple, index: jax.Array) -> tuple[tuple, Losses]:
        params, state = carry
        grads, losses = jax.grad(loss, has_aux=True)(params, index)
        params, state, norm = apply_gradients(optimizer, grads, state, params)
        return (params, state), losses | {"grad_norm": norm}

    (params, state), losses = jax.lax.scan(step, (params, state), indices)
    return params, state, losses
