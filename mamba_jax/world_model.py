"""The world model: filtering of sequences, imagination, the loss (DreamerV3, equations 1-6, with MAMBA's window)."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import struct

from mamba_jax.config import WorldModelConfig, require
from mamba_jax.horizon import chunked_scan
from mamba_jax.nn.blocks import Head
from mamba_jax.nn.deferred import deferred_scan
from mamba_jax.nn.observation import Decoder, Encoder, Shapes, is_image, join_vectors, reconstruction_loss
from mamba_jax.nn.rssm import RSSM
from mamba_jax.ops import discrete, twohot
from mamba_jax.sharding import spread

MEMORIES, QUERIES = 32, 64
"""Rows of an update whose memory tells of rewards, and rows whose rewards it tells of."""


@struct.dataclass
class Sequences:
    """Time-major training data: T rows of B sequences. Row t holds what was seen at t and the action that led there.

    observation: entries (T, B, ...). action: (T, B, A) vectors, one-hot for discrete spaces, zero at first rows.
    is_first, is_terminal: (T, B) bool.
    """

    observation: dict[str, jax.Array]
    action: jax.Array
    is_first: jax.Array
    is_terminal: jax.Array


class Latent(NamedTuple):
    """Latent states: deter (..., D), stoch (..., S K)."""

    deter: jax.Array
    stoch: jax.Array

    @property
    def features(self) -> jax.Array:
        """(..., S K + D), the input of every head."""
        return jnp.concatenate([self.stoch, self.deter], -1)


class Recall(NamedTuple):
    """Rows of all sequences: the memory at rows memories (M,) int32 tells of the rewards at rows queries (Q,) int32."""

    memories: jax.Array
    queries: jax.Array


class WorldModel(NamedTuple):
    """The modules of a world model; parameters are a dictionary under the same names.

    shapes: of the observation's entries that encoder and decoders see.
    """

    encoder: Encoder
    rssm: RSSM
    decoder: Decoder
    reward: Head
    cont: Head
    window_decoder: Decoder
    window_reward: Head
    window_cont: Head
    recall: Head
    config: WorldModelConfig
    shapes: Shapes


def make_world_model(config: WorldModelConfig, shapes: Shapes, action_size: int) -> WorldModel:
    """Modules for observations of the given shapes and action vectors of `action_size`. Raises ConfigError."""
    if not config.reward_and_time:
        shapes = {key: shape for key, shape in shapes.items() if key not in ("reward", "time")}
        vectors = any(not is_image(shape) for shape in shapes.values())
        require(vectors, "world_model.reward_and_time must be true where an environment shows nothing but images.")
    if config.recall_scale:
        vectors = not any(is_image(shape) for shape in shapes.values())
        require(vectors, "world_model.recall_scale must be 0 where an environment shows images.")
    encoder = Encoder(shapes, config.encoder_layers, config.encoder_units, config.cnn_depth)
    example = {key: jnp.zeros((1, *shape)) for key, shape in shapes.items()}
    embed_size = jax.eval_shape(encoder.init_with_output, jax.random.key(0), example)[0].shape[-1]
    rssm = RSSM(
        config.deter,
        config.stoch,
        config.classes,
        config.hidden,
        action_size,
        embed_size,
        config.unimix,
        config.input_layers,
        config.output_layers,
    )

    def decoder():
        return Decoder(shapes, config.decoder_layers, config.encoder_units, config.cnn_depth)

    def head(size, scale):
        return Head(config.head_layers, config.head_units, size, scale)

    return WorldModel(
        encoder=encoder,
        rssm=rssm,
        decoder=decoder(),
        reward=head(twohot.NUM_BINS, 0.0),
        cont=head(1, 1.0),
        window_decoder=decoder(),
        window_reward=head(twohot.NUM_BINS, 0.0),
        window_cont=head(1, 1.0),
        recall=head(1, 1.0),
        config=config,
        shapes=shapes,
    )


def init_world_model(model: WorldModel, key: jax.Array) -> dict:
    """Parameters of every module, by name; the heads of the window and of recall only where the loss has them."""
    keys = iter(jax.random.split(key, 8))
    example = {name: jnp.zeros((1, *shape)) for name, shape in model.shapes.items()}
    embed = jnp.zeros((1, model.rssm.embed_size))
    features = jnp.zeros((1, model.config.stoch * model.config.classes + model.config.deter))
    params = {
        "encoder": model.encoder.init(next(keys), example),
        "rssm": model.rssm.init(next(keys), jnp.zeros((1, model.rssm.action_size)), embed),
    }
    inputs = {"decoder": features, "reward": features, "cont": features}
    if model.config.window:
        local = jnp.concatenate([features, embed], -1)
        inputs |= {"window_decoder": local, "window_reward": local, "window_cont": local}
    params |= {name: getattr(model, name).init(next(keys), x) for name, x in inputs.items()}
    if model.config.recall_scale:
        own_key = jax.random.fold_in(key, 8)  # the other keys stay as they are
        deter = jnp.zeros((1, model.config.deter))
        params["recall"] = model.recall.init(own_key, deter, place(model, example))
    return params


def observe_step(
    model: WorldModel, params: dict, latent: Latent, action, observation: dict, noise: jax.Array
) -> Latent:
    """Filters one row of B lanes: action (B, A) led to `observation`; noise (B, S, K) Gumbel. Returns the posterior."""
    rssm, p = model.rssm, params["rssm"]
    embed = model.encoder.apply(params["encoder"], observation)
    projected = rssm.apply(p, action, method="project_action")
    deter = rssm.apply(p, *latent, projected, method="advance")
    log_probs = rssm.apply(p, deter, rssm.apply(p, embed, method="project_embed"), method="posterior")
    return Latent(deter, flat(discrete.sample(log_probs, noise)))


def imagine_step(
    model: WorldModel, params: dict, latent: Latent, action: jax.Array, noise: jax.Array, projected=None
) -> Latent:
    """One step of the prior under actions (..., A); noise (..., S, K) Gumbel; projected: `project_deter`, if known."""
    rssm, p = model.rssm, params["rssm"]
    deter = rssm.apply(p, *latent, rssm.apply(p, action, method="project_action"), projected, method="advance")
    return Latent(deter, flat(discrete.sample(rssm.apply(p, deter, method="prior"), noise)))


def flat(stoch: jax.Array) -> jax.Array:
    """(..., S, K) -> (..., S K)."""
    return stoch.reshape(*stoch.shape[:-2], -1)


class Filtered(NamedTuple):
    """Result of `observe`: latent (T, B, ...), embed (T, B, E), KL divergence (T, B) and log-probs (T, B, S, K)."""

    latent: Latent
    embed: jax.Array
    kl_dynamics: jax.Array
    kl_representation: jax.Array
    posterior: jax.Array
    prior: jax.Array


def observe(
    model: WorldModel, params: dict, data: Sequences, noise_or_key: jax.Array, horizon: jax.Array | None = None
) -> Filtered:
    """Posteriors along sequences; noise (T, B, S, K) Gumbel, or a random key to draw it from, chunk by chunk.

    Only the recurrence runs step by step: encoder, action and embedding layers, prior and KL are batched over the steps
    of a chunk. Chunks beyond `horizon` are zeros.
    """
    rssm = model.rssm
    first = Latent(*rssm.apply(params["rssm"], data.is_first.shape[1], method="initial"))

    def step(p, first, latent, inputs):
        action, embed, is_first, noise = inputs
        deter, stoch = (jnp.where(is_first > 0, a, b) for a, b in zip(first, latent, strict=True))
        deter = rssm.apply(p, deter, stoch, action, method="advance")
        log_probs = rssm.apply(p, deter, embed, method="posterior")
        latent = Latent(deter, flat(discrete.sample(log_probs, noise)))
        return latent, (latent, log_probs)

    def chunk(params, latent, inputs, start):
        (encoder, p, first), (data, *given) = params, inputs
        noise = given[0] if given else chunk_noise(noise_or_key, start, data.action)
        embed = model.encoder.apply(encoder, data.observation)
        action = jnp.where(data.is_first[..., None], 0.0, data.action)
        projections = (rssm.apply(p, action, method="project_action"), rssm.apply(p, embed, method="project_embed"))
        is_first = data.is_first[..., None].astype(noise.dtype)
        rows = (*projections, is_first, noise)
        latent, (latents, posterior) = deferred_scan(step, p, first, latent, rows, unroll=model.config.unroll)
        prior = rssm.apply(p, latents.deter, method="prior")
        kl = balanced_kl(posterior, prior)
        return latent, Filtered(latents, embed, *kl, posterior, prior)

    def chunk_noise(key, start, action):
        shape = (*action.shape[:2], rssm.stoch, rssm.classes)
        return jax.random.gumbel(jax.random.fold_in(key, start), shape, first.deter.dtype)

    is_key = jnp.issubdtype(noise_or_key.dtype, jax.dtypes.prng_key)
    xs = (data,) if is_key else (data, noise_or_key)
    return chunked_scan(chunk, (params["encoder"], params["rssm"], first), first, xs, horizon)[1]


def balanced_kl(posterior: jax.Array, prior: jax.Array) -> tuple[jax.Array, jax.Array]:
    """KL(sg(posterior) || prior) and KL(posterior || sg(prior)) of log-probs (..., S, K) -> (...) each."""
    stop = jax.lax.stop_gradient
    return discrete.kl_divergence(stop(posterior), prior), discrete.kl_divergence(posterior, stop(prior))


def masked_mean(x: jax.Array, mask: jax.Array) -> jax.Array:
    """Mean of x over the entries where mask (same shape) is one."""
    return jnp.sum(x * mask) / jnp.sum(mask)


def kl_loss(config: WorldModelConfig, filtered: Filtered, mask: jax.Array) -> tuple[jax.Array, dict[str, jax.Array]]:
    """Balanced KL, each element raised to at least the free nats before the mean; mask (T, B). Returns metrics too."""
    dynamics = masked_mean(jnp.maximum(filtered.kl_dynamics, config.dynamics_free_nats), mask)
    representation = masked_mean(jnp.maximum(filtered.kl_representation, config.free_nats), mask)
    loss = config.dynamics_scale * dynamics + config.representation_scale * representation
    return loss, {"kl": masked_mean(filtered.kl_dynamics, mask), "kl_loss": loss}


def head_losses(model: WorldModel, params: dict, inputs: tuple, targets: Sequences, prefix: str = "") -> dict:
    """Negative log-likelihood (...) of every entry, the reward and the continuation.

    inputs: of the heads, (..., F) each; two count as their concatenation, and their leading axes broadcast.
    prefix "window_" takes the heads of the local reconstruction.
    """
    decoded = getattr(model, prefix + "decoder").apply(params[prefix + "decoder"], *inputs)
    losses = {
        f"{prefix}decoder_{key}": reconstruction_loss(decoded[key], targets.observation[key], shape)
        for key, shape in model.shapes.items()
    }
    reward = getattr(model, prefix + "reward").apply(params[prefix + "reward"], *inputs)
    cont = getattr(model, prefix + "cont").apply(params[prefix + "cont"], *inputs)[..., 0]
    losses[prefix + "reward"] = -twohot.two_hot_log_prob(reward, targets.observation["reward"])
    target = 1.0 - targets.is_terminal
    losses[prefix + "cont"] = -(target * jax.nn.log_sigmoid(cont) + (1 - target) * jax.nn.log_sigmoid(-cont))
    return losses


def take_rows(x, index: jax.Array, sequence: jax.Array | None = None):
    """Rows index (..., B) of every leaf (T, B, ...) -> (..., B, ...), of the sequences given or column by column."""
    sequence = jnp.arange(index.shape[-1]) if sequence is None else sequence
    return spread(jax.tree.map(lambda leaf: leaf[index, sequence], x), axis=index.ndim - 1)


def window_rows(index: jax.Array, width: int, horizon: jax.Array | int) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Rows of the local reconstruction around steps index (n, B).

    For offsets o in {-p..p}, p = (width - 1) / 2: the embedding at t + o helps to predict the row t + o + 1. Returns
    the embeddings' rows, the targets' rows (both (n, width, B); row 0 where there is none) and the mask of those inside
    the sequence.
    """
    half = (width - 1) // 2
    source = index[:, None] + jnp.arange(-half, half + 1)[None, :, None]
    inside = (source >= 0) & (source + 1 < horizon)
    return jnp.where((source >= 0) & (source < horizon), source, 0), jnp.where(inside, source + 1, 0), inside


def window_losses(model: WorldModel, params, filtered: Filtered, data: Sequences, index, mask, horizon, count) -> dict:
    """Local reconstruction: heads on [feature, embedding] predict the rows around each step (n, W, B); 0 outside.

    count: of the n steps those that count, the first. Means divide by all their rows, also those outside, as released.
    """
    width = model.config.window
    source, target, inside = window_rows(index, width, horizon)
    if model.config.pairing == "aligned":
        features = take_rows(filtered.latent, index).features[:, None]
    else:
        steps = index[jnp.arange(width * len(index)) % count].reshape(source.shape)
        features = take_rows(filtered.latent, steps).features
    inputs = (features, take_rows(filtered.embed, source))
    losses = head_losses(model, params, inputs, take_rows(data, target), "window_")
    share = mask[:, None] / (width * jnp.sum(mask))
    return {name: jnp.sum(loss * inside * share) for name, loss in losses.items()}


def place(model: WorldModel, observation: dict[str, jax.Array]) -> jax.Array:
    """Where observations say that the agent is, symlog of all their entries but reward and time: (..., S)."""
    keys = sorted(model.shapes.keys() - {"reward", "time"})
    return twohot.symlog(join_vectors(observation, model.shapes, keys))


def draw_recall(key: jax.Array, length: jax.Array | int) -> Recall:
    """Random rows below `length`."""
    memory_key, query_key = jax.random.split(key)
    memories = jax.random.randint(memory_key, (MEMORIES,), 0, length)
    return Recall(memories, jax.random.randint(query_key, (QUERIES,), 0, length))


def recall_loss(model: WorldModel, params: dict, deter: jax.Array, data: Sequences, rows: Recall) -> jax.Array:
    """How badly the memory (T, B, D) at some rows tells the rewards, cut to [0, 1], at others, earlier or later, from
    their observations without reward and time: the mean cross-entropy () in nats.

    A row at the boundary of two sub-episodes, which may show the next start beside the last reward, is one like all.
    """
    queried = {key: entry[rows.queries] for key, entry in data.observation.items()}
    logits = model.recall.apply(params["recall"], deter[rows.memories][:, None], place(model, queried))[..., 0]
    target = jnp.clip(queried["reward"], 0.0, 1.0)
    return -jnp.mean(target * jax.nn.log_sigmoid(logits) + (1 - target) * jax.nn.log_sigmoid(-logits))


def loss(
    model: WorldModel,
    params: dict,
    data: Sequences,
    noise_or_key: jax.Array,
    index: jax.Array | None,
    horizon: jax.Array | None = None,
    recall: Recall | None = None,
) -> tuple[jax.Array, tuple[Filtered, dict[str, jax.Array]]]:
    """World-model loss of sequences cut at `horizon` (None: all T rows); equals that of sequences of that length.

    noise_or_key: as in `observe`. index: (n, B) rows below the horizon that the heads see, None for all. recall: rows
    of the head that recalls, below the horizon; None without it.
    Returns the sum of all terms, the posteriors, and every term (the decoders' without their scale) as a metric.
    """
    total, batch = data.is_first.shape
    filtered = observe(model, params, data, noise_or_key, horizon)
    dtype = filtered.latent.deter.dtype
    length = total if horizon is None else horizon
    inside = jnp.broadcast_to((jnp.arange(total) < length)[:, None], (total, batch)).astype(dtype)
    mask, count = (inside, length) if index is None else (jnp.ones(index.shape, dtype), len(index))
    if index is None:
        index = jnp.broadcast_to(jnp.arange(total)[:, None], (total, batch))
    features = take_rows(filtered.latent, index).features
    losses = head_losses(model, params, (features,), take_rows(data, index))
    losses = {name: masked_mean(value, mask) for name, value in losses.items()}
    if model.config.window:
        losses |= window_losses(model, params, filtered, data, index, mask, length, count)
    kl, metrics = kl_loss(model.config, filtered, inside)
    scale = model.config.decoder_scale
    value = kl + sum(scale * term if "decoder_" in name else term for name, term in losses.items())
    if recall is not None:
        losses["recall"] = recall_loss(model, params, filtered.latent.deter, data, recall)
        value += model.config.recall_scale * losses["recall"]
    return value, (filtered, metrics | {f"loss_{name}": term for name, term in losses.items()} | {"loss": value})
