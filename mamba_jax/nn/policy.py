"""Actor networks: a normal with bounded deviation for continuous actions, a unimix categorical for discrete ones."""

from typing import NamedTuple

import distrax
import jax
import jax.numpy as jnp
from flax import linen as nn

from mamba_jax.nn.blocks import MLP, output_init
from mamba_jax.nn.rssm import rescale_action
from mamba_jax.ops import discrete

MIN_STD, MAX_STD = 0.1, 1.0


class ActionSpec(NamedTuple):
    """size: length of an action vector (one-hot for discrete spaces). discrete: whether it is one-hot."""

    size: int
    discrete: bool


class Actor(nn.Module):
    """Features (..., F) -> parameters of the action distribution: (mean, std) or log-probs, each (..., A)."""

    spec: ActionSpec
    layers: int
    units: int
    unimix: float = 0.01

    @nn.compact
    def __call__(self, features: jax.Array) -> tuple[jax.Array, ...]:
        x = MLP(self.layers, self.units, name="mlp")(features)
        size = self.spec.size if self.spec.discrete else 2 * self.spec.size
        out = nn.Dense(size, kernel_init=output_init(1.0), name="out")(x)
        if self.spec.discrete:
            return (discrete.mix_uniform(out, self.unimix),)
        mean, std = jnp.split(out, 2, -1)
        return jnp.tanh(mean), (MAX_STD - MIN_STD) * nn.sigmoid(std + 2) + MIN_STD


def action_noise(spec: ActionSpec, key: jax.Array, shape: tuple[int, ...], dtype=jnp.float32) -> jax.Array:
    """Noise (*shape, A) for `sample_action`: Gumbel for discrete, standard normal for continuous actions."""
    draw = jax.random.gumbel if spec.discrete else jax.random.normal
    return draw(key, (*shape, spec.size), dtype)


def sample_action(spec: ActionSpec, params: tuple[jax.Array, ...], noise: jax.Array) -> jax.Array:
    """Reparametrised (or straight-through) action (..., A) within [-1, 1]."""
    if spec.discrete:
        return discrete.sample(params[0], noise)
    mean, std = params
    return rescale_action(mean + std * noise)


def mode_action(spec: ActionSpec, params: tuple[jax.Array, ...]) -> jax.Array:
    """Most likely action (..., A)."""
    return discrete.mode(params[0]) if spec.discrete else params[0]


def log_prob(spec: ActionSpec, params: tuple[jax.Array, ...], action: jax.Array) -> jax.Array:
    """log pi(action) (...)."""
    if spec.discrete:
        return jnp.sum(params[0] * action, -1)
    return jnp.sum(distrax.Normal(*params).log_prob(action), -1)


def entropy(spec: ActionSpec, params: tuple[jax.Array, ...]) -> jax.Array:
    """Entropy (...) in nats; for continuous actions that of the normal before rescaling."""
    if spec.discrete:
        return distrax.Categorical(logits=params[0]).entropy()
    return jnp.sum(distrax.Normal(*params).entropy(), -1)
