"""The baselines' policy: separate tanh networks for actor and critic over the embedded state and belief."""

from collections.abc import Sequence
from typing import Literal, NamedTuple

import distrax
import flax.linen as nn
import jax
import jax.numpy as jnp

from mamba_jax.nn.linear import Initialiser, Linear, unit_columns
from mamba_jax.nn.policy import ActionSpec

MIN_STD = 1e-6
Squash = Literal["none", "mean", "sample"]


class PolicyOutput(NamedTuple):
    """value: (...). parameters: of the action distribution: (mean, std), each (..., A), or (logits (..., A),)."""

    value: jax.Array
    parameters: tuple[jax.Array, ...]


class ActorCritic(nn.Module):
    """(state, latent) -> value and action distribution.

    layers: tanh layers of actor and critic. state_embedding, latent_embedding: widths of tanh embeddings of the
    inputs, None for none. initialiser: of the layers, "normc" (unit incoming weights) or "orthogonal", gain 5/3.
    squash: where a tanh bounds continuous actions: on the mean, on the sample, or nowhere.
    """

    spec: ActionSpec
    layers: Sequence[int]
    state_embedding: int | None = None
    latent_embedding: int | None = None
    initialiser: Literal["normc", "orthogonal"] = "normc"
    squash: Squash = "none"

    @nn.compact
    def __call__(self, state: jax.Array | None, latent: jax.Array | None) -> PolicyOutput:
        """state (..., S), latent (..., 2 L): at least one of them, normalised as the caller likes."""
        if state is not None and self.state_embedding is not None:
            state = jnp.tanh(Linear(self.state_embedding, name="state_encoder")(state))
        if latent is not None and self.latent_embedding is not None:
            latent = jnp.tanh(Linear(self.latent_embedding, name="latent_encoder")(latent))
        x = jnp.concatenate([part for part in (state, latent) if part is not None], -1)
        value = Linear(1, name="value")(self.tower(x, "critic"))[..., 0]
        features = self.tower(x, "actor")
        if self.spec.discrete:
            logits = Linear(self.spec.size, nn.initializers.orthogonal(0.01), name="logits")(features)
            return PolicyOutput(value, (logits,))
        mean = Linear(self.spec.size, unit_columns(), name="mean")(features)
        mean = jnp.tanh(mean) if self.squash == "mean" else mean
        log_std = self.param("log_std", nn.initializers.zeros_init(), (self.spec.size,))
        std = jnp.maximum(jnp.exp(log_std), MIN_STD)
        return PolicyOutput(value, (mean, jnp.broadcast_to(std, mean.shape)))

    def tower(self, x: jax.Array, name: str) -> jax.Array:
        """tanh layers named after the tower: (..., in) -> (..., layers[-1])."""
        gain = 5 / 3
        init: Initialiser = unit_columns(gain) if self.initialiser == "normc" else nn.initializers.orthogonal(gain)
        for index, width in enumerate(self.layers):
            x = jnp.tanh(Linear(width, init, name=f"{name}_{index}")(x))
        return x


def distribution(parameters: tuple[jax.Array, ...]) -> distrax.Distribution:
    """Categorical over indices, or independent normals over raw (unsquashed) action vectors."""
    if len(parameters) == 1:
        return distrax.Categorical(logits=parameters[0])
    return distrax.Independent(distrax.Normal(*parameters), 1)


def log_prob(parameters: tuple[jax.Array, ...], raw: jax.Array, squash: Squash) -> jax.Array:
    """log-probability (...) of the executed action, given the raw one, (..., A) or indices (...)."""
    result = distribution(parameters).log_prob(raw)
    if squash == "sample":
        result = result - distrax.Tanh().forward_log_det_jacobian(raw).sum(-1)
    return result


def entropy(parameters: tuple[jax.Array, ...]) -> jax.Array:
    """Entropy (...); for squashed samples that of the normal before the tanh, which has no closed form after it."""
    return distribution(parameters).entropy()


def execute(spec: ActionSpec, raw: jax.Array, squash: Squash) -> jax.Array:
    """The action that the environment gets: the index, or a vector bounded to [-1, 1] by tanh or by clipping."""
    if spec.discrete:
        return raw
    return jnp.tanh(raw) if squash == "sample" else jnp.clip(raw, -1, 1)
