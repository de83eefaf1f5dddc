"""HyperX's exploration bonuses (Zintgraf et al., 2021): random network distillation and the autoencoder's error."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax

from mamba_jax import belief
from mamba_jax.config_baselines import BonusConfig, VaeConfig
from mamba_jax.nn.linear import MLP, Linear
from mamba_jax.ops import running_stats
from mamba_jax.ops.optim import apply_gradients
from mamba_jax.ops.running_stats import ReturnStats, RunningStats

NAMES = ("hyperstate", "state", "belief", "vae_error")
"""The bonuses; all but the last are by random network distillation."""


class PriorNetwork(nn.Module):
    """The fixed random network: each input embedded by itself, ReLU, ReLU layers, linear output."""

    embedding: int
    layers: Sequence[int]
    outputs: int

    @nn.compact
    def __call__(self, inputs: Sequence[jax.Array]) -> jax.Array:
        """inputs, each (..., D_i) -> (..., outputs)."""
        embedded = [Linear(self.embedding, name=f"embed_{index}")(x) for index, x in enumerate(inputs)]
        return MLP(self.layers, self.outputs, name="mlp")(jax.nn.relu(jnp.concatenate(embedded, -1)))


class Distillation(NamedTuple):
    """Random network distillation (Burda et al., 2019): the predictor learns the prior where it has been."""

    prior: PriorNetwork
    predictor: MLP


def make_distillation(config: BonusConfig) -> Distillation:
    """The two networks that every distillation bonus uses, each with its own parameters."""
    return Distillation(
        PriorNetwork(config.embedding, config.layers, config.outputs), MLP(config.layers, config.outputs)
    )


def init_distillation(
    distillation: Distillation, key: jax.Array, inputs: Sequence[jax.Array], config: BonusConfig
) -> tuple[dict, dict]:
    """Parameters of prior (scaled by `config.prior_gain`) and predictor for inputs of these shapes."""
    prior_key, predictor_key = jax.random.split(key)
    prior = distillation.prior.init(prior_key, inputs)
    prior = jax.tree.map(lambda x: x * config.prior_gain, prior)
    return prior, distillation.predictor.init(predictor_key, jnp.concatenate(inputs, -1))


def active(config: BonusConfig) -> tuple[str, ...]:
    """Names of the bonuses with a weight."""
    return tuple(name for name in NAMES if weight(config, name) > 0)


def weight(config: BonusConfig, name: str) -> float:
    """Weight of a bonus."""
    return getattr(config, f"{name}_scale")


def explored(name: str, state: jax.Array, latent: jax.Array, entries: tuple[int, ...] | None) -> list[jax.Array]:
    """Inputs of a distillation bonus: the state's `entries` (..., S') and, or, the belief (..., 2 L)."""
    part = state if entries is None else state[..., jnp.array(entries)]
    return {"hyperstate": [part, latent], "state": [part], "belief": [latent]}[name]


def scale_inputs(stats: Sequence[RunningStats], inputs: Sequence[jax.Array]) -> list[jax.Array]:
    """Inputs divided by their standard deviations, for `config.normalise_inputs`."""
    return [running_stats.scale(stat, x) for stat, x in zip(stats, inputs, strict=True)]


def distillation_error(
    distillation: Distillation, prior: dict, predictor: dict, inputs: Sequence[jax.Array]
) -> jax.Array:
    """Mean squared difference of the two networks' outputs, (...): the raw bonus; its mean is the predictor's loss."""
    target = jax.lax.stop_gradient(distillation.prior.apply(prior, inputs))
    return jnp.square(target - distillation.predictor.apply(predictor, jnp.concatenate(inputs, -1))).mean(-1)


def update_predictor(
    distillation: Distillation,
    optimizer: optax.GradientTransformation,
    prior: dict,
    predictor: dict,
    state: optax.OptState,
    inputs: Sequence[jax.Array],
) -> tuple[dict, optax.OptState, jax.Array]:
    """One step of the predictor towards the prior on these inputs: (predictor, optimiser state, () loss before)."""

    def loss(predictor: dict) -> jax.Array:
        return distillation_error(distillation, prior, predictor, inputs).mean()

    value, grads = jax.value_and_grad(loss)(predictor)
    predictor, state, _ = apply_gradients(optimizer, grads, state, predictor)
    return predictor, state, value


def vae_error(
    networks: belief.Networks,
    params: belief.Params,
    config: VaeConfig,
    latent: jax.Array,
    data: belief.Transitions,
    reward_scale: jax.Array | float = 1.0,
) -> jax.Array:
    """How badly each transition is predicted right after it: weighted reconstruction errors, (T, B).

    latent: (T, B, L), sampled from the beliefs after the transitions. Transitions that are not `data.valid` get 0.
    reward_scale: divides the reward targets.
    """
    errors = belief.reconstruction_errors(networks, params, latent, data, lambda x: x, reward_scale)
    scales = {"reward": config.reward_scale, "state": config.state_scale}
    return sum(scales[name] * error for name, error in errors.items()) * data.valid


def normalise_bonus(
    returns: ReturnStats, bonus: jax.Array, ended: jax.Array, gamma: float, clip: float | None
) -> tuple[ReturnStats, jax.Array]:
    """Divides a rollout's bonus, (T, lanes), by the standard deviation of its discounted return, and clips it.

    ended: (T, lanes), transitions that end a meta-episode. The release passes them one step late.
    """
    returns, _ = running_stats.track_returns(returns, bonus, ended, gamma, ddof=1)
    bonus = bonus / jnp.sqrt(returns.stats.var + 1e-8)
    return returns, bonus if clip is None else jnp.clip(bonus, -clip, clip)


def total_bonus(
    returns: Mapping[str, ReturnStats],
    raw: Mapping[str, jax.Array],
    ended: jax.Array,
    gamma: float,
    config: BonusConfig,
    annealing: jax.Array,
) -> tuple[dict[str, ReturnStats], dict[str, jax.Array], jax.Array]:
    """Normalised and weighted bonuses of a rollout.

    returns, raw: by name; raw (T, lanes). annealing: (), the factor on all of them.
    Returns the new statistics, each bonus before annealing, and the annealed sum (T, lanes).
    """
    updated, parts = {}, {}
    for name in raw:
        updated[name], bonus = normalise_bonus(returns[name], raw[name], ended, gamma, config.clip)
        parts[name] = bonus * weight(config, name)
    return updated, parts, annealing * sum(parts.values())


def annealing_weight(env_steps: jax.Array, total_steps: int) -> jax.Array:
    """1 - progress, from 1 at the start of the run to 0 at its end, ()."""
    return jnp.clip(1 - env_steps / total_steps, 0, 1)
