"""VariBAD's variational autoencoder (Zintgraf et al., 2020), also HyperX's: beliefs over the task and their ELBO.

A sequence of T transitions has T + 1 rows. Row t is the time before transition t; the belief of row t knows the
transitions before it. Arrays of rows are (T + 1, B, ...), arrays of transitions (T, B, ...).
"""

from typing import NamedTuple

import distrax
import jax
import jax.numpy as jnp
import optax
from flax import struct

from mamba_jax.config_baselines import EncoderConfig, VaeConfig
from mamba_jax.nn.belief import Belief, CellRewardDecoder, Encoder, RewardDecoder, StateDecoder
from mamba_jax.nn.linear import MLP
from mamba_jax.ops.optim import clip_by_norm

Params = dict[str, dict]
"""Parameters by network: `encoder`, and those of `reward_decoder`, `state_decoder`, `task_decoder` in use."""


class Networks(NamedTuple):
    """Encoder and decoders; None for those not in use."""

    encoder: Encoder
    reward_decoder: RewardDecoder | CellRewardDecoder | None = None
    state_decoder: StateDecoder | None = None
    task_decoder: MLP | None = None


@struct.dataclass
class Transitions:
    """What the autoencoder learns from.

    prev_state, next_state: (T, B, S), for the decoders. seen: (T, B, S'), what the encoder sees of the next state.
    action: (T, B, A), as executed, one-hot if discrete. reward: (T, B).
    first: (T + 1, B) bool, rows at which a meta-episode starts; always true at row 0. A transition into such a row is
    no transition. valid: (T, B) bool, transitions to be reconstructed.
    cell: (T, B) int32, index of the next state's cell, only for `CellRewardDecoder`. task: (B, K), only for a task
    decoder.
    """

    prev_state: jax.Array
    action: jax.Array
    next_state: jax.Array
    seen: jax.Array
    reward: jax.Array
    first: jax.Array
    valid: jax.Array
    cell: jax.Array | None = None
    task: jax.Array | None = None


class Indices(NamedTuple):
    """A subsample of ELBO terms and of reconstructions.

    rows: (E, B) int32, rows whose belief is decoded, or None for all. transitions: (E, D, B) int32, what each of them
    reconstructs, or None for all.
    """

    rows: jax.Array | None = None
    transitions: jax.Array | None = None


def make_encoder(config: EncoderConfig) -> Encoder:
    """The encoder that `config` describes."""
    return Encoder(
        config.latent,
        config.hidden,
        config.action_embedding,
        config.state_embedding,
        config.reward_embedding,
        config.layers_before,
        config.layers_after,
    )


def make_networks(encoder: EncoderConfig, config: VaeConfig) -> Networks:
    """Encoder and the decoders that `config` asks for."""
    embeddings = (config.state_embedding, config.action_embedding)
    reward = RewardDecoder(config.reward_layers, *embeddings, config.use_prev_state, config.use_action)
    state = StateDecoder(config.state_layers, *embeddings)
    return Networks(
        make_encoder(encoder), reward if config.decode_reward else None, state if config.decode_state else None
    )


def init_encoder(encoder: Encoder, key: jax.Array, seen_size: int, action_size: int) -> dict:
    """Fresh parameters of the encoder alone, float32."""
    row = (jnp.zeros((1, 1, action_size)), jnp.zeros((1, 1, seen_size)), jnp.zeros((1, 1)), jnp.zeros((1, 1), bool))
    return encoder.init(key, jnp.zeros((1, encoder.hidden)), *row)


def init_params(
    networks: Networks,
    key: jax.Array,
    state_size: int,
    seen_size: int,
    action_size: int,
    *,
    deterministic_latent: bool = False,
) -> Params:
    """Fresh parameters of encoder, reward and state decoder, float32; the decoders see what `decoded_latent` gives."""
    keys = jax.random.split(key, 3)
    width = networks.encoder.latent * (2 if deterministic_latent else 1)
    latent, state = jnp.zeros((1, 1, width)), jnp.zeros((1, 1, state_size))
    action = jnp.zeros((1, 1, action_size))
    params = {"encoder": init_encoder(networks.encoder, keys[0], seen_size, action_size)}
    if networks.reward_decoder is not None:
        params["reward_decoder"] = networks.reward_decoder.init(keys[1], latent, state, action, state, _all)
    if networks.state_decoder is not None:
        params["state_decoder"] = networks.state_decoder.init(keys[2], latent, state, action, _all)
    return params


def prior(encoder: Encoder, params: dict, batch: int) -> Belief:
    """Belief (batch, ...) before any transition: the heads of a zero hidden state."""
    kernel = jax.tree.leaves(params)[0]
    return encoder.apply(params, jnp.zeros((batch, encoder.hidden), kernel.dtype), method=Encoder.heads)


def encode(encoder: Encoder, params: dict, data: Transitions, detach_every: int | None = None) -> Belief:
    """Beliefs of all T + 1 rows; at each row of `data.first` the prior."""
    start = prior(encoder, params, data.reward.shape[1])
    inputs = (data.action, data.seen, data.reward, data.first[1:])
    later = encoder.apply(params, start.hidden, *inputs, detach_every=detach_every)
    return jax.tree.map(lambda x, y: jnp.concatenate([x[None], y]), start, later)


def policy_latent(belief: Belief) -> jax.Array:
    """What the policy sees of a belief: [mean, logvar], (..., 2 L)."""
    return jnp.concatenate([belief.mean, belief.logvar], -1)


def sample_latent(belief: Belief, noise: jax.Array) -> jax.Array:
    """mean + std noise, (..., L)."""
    return belief.mean + jnp.exp(belief.logvar / 2) * noise


def decoded_latent(config: VaeConfig, belief: Belief, noise: jax.Array) -> jax.Array:
    """What the decoders see: a sample (..., L), or with `deterministic_latent` mean and log-variance, (..., 2 L)."""
    return policy_latent(belief) if config.deterministic_latent else sample_latent(belief, noise)


def kl_terms(belief: Belief, first: jax.Array, *, to_standard: bool = False) -> jax.Array:
    """KL divergence of every row's belief from the belief of the row before, (T + 1, B).

    At rows of `first`, and everywhere with `to_standard`, from N(0, I). Gradients flow through both sides.
    """
    fresh = jnp.ones_like(first) if to_standard else first

    def before(x: jax.Array) -> jax.Array:
        shifted = jnp.concatenate([jnp.zeros_like(x[:1]), x[:-1]])
        return jnp.where(fresh[..., None], 0, shifted)

    posterior = distrax.MultivariateNormalDiag(belief.mean, jnp.exp(belief.logvar / 2))
    reference = distrax.MultivariateNormalDiag(before(belief.mean), jnp.exp(before(belief.logvar) / 2))
    return posterior.kl_divergence(reference)


def spans(first: jax.Array) -> tuple[jax.Array, jax.Array]:
    """First and one past the last transition of each row's meta-episode, (T + 1, B) int32 each."""
    total = len(first)
    row = jnp.arange(total, dtype=jnp.int32)[:, None]
    start = jax.lax.cummax(jnp.where(first, row, 0))
    next_first = jnp.concatenate([jnp.where(first, row, total)[1:], jnp.full((1, first.shape[1]), total, jnp.int32)])
    return start, jax.lax.cummin(next_first, reverse=True) - 1


def draw_indices(key: jax.Array, first: jax.Array, elbos: int | None, decodes: int | None) -> Indices:
    """Uniform subsample: `elbos` rows of each sequence, `decodes` transitions of the same meta-episode for each row.

    first: (T + 1, B). None takes all of them. Drawn with replacement.
    """
    total, batch = first.shape
    row_key, transition_key = jax.random.split(key)
    rows = jax.random.randint(row_key, (elbos or total, batch), 0, total)
    rows = rows if elbos else jnp.broadcast_to(jnp.arange(total)[:, None], (total, batch))
    if decodes is None:
        return Indices(rows if elbos else None)
    start, stop = spans(first)
    start, stop = (jnp.take_along_axis(x, rows, 0)[:, None] for x in (start, stop))
    position = jax.random.uniform(transition_key, (len(rows), decodes, batch)) * (stop - start)
    transitions = start + jnp.minimum(position.astype(jnp.int32), stop - start - 1)
    return Indices(rows if elbos else None, jnp.maximum(transitions, 0))


def reconstruction_errors(
    networks: Networks,
    params: Params,
    latent: jax.Array,
    data: Transitions,
    pick,
    reward_scale: jax.Array | float = 1.0,
) -> dict[str, jax.Array]:
    """Errors of each decoder in use, `reward` and `state`, of the shape of broadcast(latent, pick(transitions)).

    Squared error, averaged over the features of a state; binary cross-entropy of [reward = 1] for
    `CellRewardDecoder`. reward_scale: divides the reward targets.
    """
    errors = {}
    decoder = networks.reward_decoder
    if isinstance(decoder, CellRewardDecoder):
        hit, miss = decoder.log_probs(decoder.apply(params["reward_decoder"], latent), pick(data.cell))
        errors["reward"] = -jnp.where(pick(data.reward) == 1, hit, miss)
    elif decoder is not None:
        inputs = (latent, data.prev_state, data.action, data.next_state)
        predicted = decoder.apply(params["reward_decoder"], *inputs, pick)
        errors["reward"] = jnp.square(predicted - pick(data.reward) / reward_scale)
    if networks.state_decoder is not None:
        predicted = networks.state_decoder.apply(params["state_decoder"], latent, data.prev_state, data.action, pick)
        errors["state"] = jnp.square(predicted - pick(data.next_state)).mean(-1)
    return errors


def task_error(networks: Networks, params: Params, latent: jax.Array, data: Transitions) -> jax.Array:
    """Mean squared error of the task decoded from latents (..., B, L), (..., B)."""
    assert networks.task_decoder is not None
    return jnp.square(networks.task_decoder.apply(params["task_decoder"], latent) - data.task).mean(-1)


def largest_reward(seen: jax.Array, reward: jax.Array) -> jax.Array:
    """The largest absolute reward up to now, (), which starts at 1."""
    return jnp.maximum(seen, jnp.abs(reward).max())


def elbo_loss(
    networks: Networks,
    params: Params,
    config: VaeConfig,
    data: Transitions,
    noise: jax.Array,
    indices: Indices = Indices(),  # noqa: B008 (immutable)
    reward_scale: jax.Array | float = 1.0,
) -> tuple[jax.Array, dict[str, jax.Array]]:
    """Negative evidence lower bound of a batch and its parts `reward`, `state`, `task`, `kl`, all ().

    noise: (T + 1, B, L) for one latent per row. From the latent of each row (or of `indices.rows`) all transitions of
    its meta-episode (or `indices.transitions`) are reconstructed; only past ones with `config.decode_only_past`.
    Sums (or means) over rows and transitions as configured, means over the batch.
    """
    belief = encode(networks.encoder, params["encoder"], data, detach_every=config.detach_every)
    latent = decoded_latent(config, belief, noise)
    kl = kl_terms(belief, data.first, to_standard=config.kl_to_standard)
    if indices.rows is not None:
        latent = jnp.take_along_axis(latent, indices.rows[..., None], 0)
        kl = jnp.take_along_axis(kl, indices.rows, 0)
    weights = _pair_weights(data, indices, config.decode_only_past).astype(kl.dtype)
    errors = reconstruction_errors(networks, params, latent[:, None], data, _picker(indices.transitions), reward_scale)
    over_rows = jnp.mean if config.average_rows else jnp.sum
    over_transitions = jnp.mean if config.average_transitions else jnp.sum
    over_batch = jnp.sum if config.sum_over_batch else jnp.mean
    losses = {name: over_transitions(over_rows(error * weights, 0), 0).mean() for name, error in errors.items()}
    if networks.task_decoder is not None:
        losses["task"] = over_batch(over_rows(task_error(networks, params, latent, data), 0))
    losses["kl"] = over_batch(over_rows(kl, 0))
    scales = {
        "reward": config.reward_scale,
        "state": config.state_scale,
        "task": config.task_scale,
        "kl": config.kl_scale,
    }
    return sum((scales[name] * loss for name, loss in losses.items()), jnp.zeros(())), losses


def make_optimizer(learning_rate: float, max_grad_norm: float | None) -> optax.GradientTransformation:
    """One Adam over all networks, behind a clip of each network's gradient norm by itself (None: no clip)."""
    adam = optax.adam(learning_rate)
    if max_grad_norm is None:
        return adam
    clip = clip_by_norm(max_grad_norm)

    def update(updates, state, params=None):
        del params
        return {name: clip.update(grads, state)[0] for name, grads in updates.items()}, state

    return optax.chain(optax.GradientTransformation(lambda params: optax.EmptyState(), update), adam)


def _all(x: jax.Array) -> jax.Array:
    """Every transition for every latent: (T, B, ...) -> (1, T, B, ...)."""
    return x[None]


def _picker(transitions: jax.Array | None):
    """Function that takes the given transitions, (E, D, B), out of (T, B, ...); all of them for None."""
    if transitions is None:
        return _all
    lanes = jnp.arange(transitions.shape[-1])
    return lambda x: x[transitions, lanes]


def _pair_weights(data: Transitions, indices: Indices, only_past: bool) -> jax.Array:
    """(E, D, B) bool: may the latent of a row be asked for a transition?"""
    start, stop = spans(data.first)
    row = jnp.arange(len(start))[:, None]
    row = jnp.broadcast_to(row, start.shape) if indices.rows is None else indices.rows
    start, stop = (jnp.take_along_axis(x, row, 0)[:, None] for x in (start, stop))
    transition = jnp.arange(len(data.valid))[None, :, None] if indices.transitions is None else indices.transitions
    allowed = (transition >= start) & (transition < stop) & _picker(indices.transitions)(data.valid)
    return allowed & (transition < row[:, None]) if only_past else allowed
