"""Behaviour learning in imagination: rollout of the prior, lambda returns, actor and critic (DreamerV3, eq. 7-12)."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from mamba_jax.config import ActorCriticConfig
from mamba_jax.nn import policy
from mamba_jax.nn.blocks import Head
from mamba_jax.nn.policy import ActionSpec, Actor
from mamba_jax.ops import returns, twohot
from mamba_jax.sharding import spread
from mamba_jax.world_model import Latent, WorldModel, imagine_step, take_rows


class ActorCritic(NamedTuple):
    """The modules of behaviour learning."""

    actor: Actor
    critic: Head
    spec: ActionSpec
    config: ActorCriticConfig


class Noise(NamedTuple):
    """Noise of one imagined rollout from N starts: action (H - 1, N, A), latent (H - 1, N, S, K) Gumbel."""

    action: jax.Array
    latent: jax.Array


class Imagined(NamedTuple):
    """An imagined rollout. features (H, N, F); action (H - 1, N, A); policy: its distributions' parameters."""

    features: jax.Array
    action: jax.Array
    policy: tuple[jax.Array, ...]


class Targets(NamedTuple):
    """What both losses share: value (H, N), lambda returns and weights (H - 1, N), rewards and discounts (H - 1, N)
    of times 1 .. H - 1."""

    value: jax.Array
    returns: jax.Array
    weights: jax.Array
    reward: jax.Array
    discount: jax.Array


def make_actor_critic(config: ActorCriticConfig, spec: ActionSpec) -> ActorCritic:
    """Modules for action vectors of the given kind."""
    actor = Actor(spec, config.layers, config.units)
    return ActorCritic(actor, Head(config.layers, config.units, twohot.NUM_BINS, 0.0), spec, config)


def make_noise(model: WorldModel, behaviour: ActorCritic, key: jax.Array, starts: int, dtype=jnp.float32) -> Noise:
    """Noise for rollouts from `starts` states."""
    action_key, latent_key = jax.random.split(key)
    steps = behaviour.config.horizon - 1
    shape = (steps, starts, model.config.stoch, model.config.classes)
    return Noise(
        policy.action_noise(behaviour.spec, action_key, (steps, starts), dtype),
        jax.random.gumbel(latent_key, shape, dtype),
    )


class Start(NamedTuple):
    """Where imagination starts. latent: N states. projected: (N, 3 D), `RSSM.project_deter` of them."""

    latent: Latent
    projected: jax.Array


def draw_starts(
    config: ActorCriticConfig, key: jax.Array, reward: jax.Array, horizon: jax.Array | int
) -> tuple[jax.Array, jax.Array]:
    """Rows and sequences, (starts, B) each, where imagination starts, drawn with replacement below the horizon.

    reward: (T, B). A share `rewarded_starts` is drawn from the whole batch in proportion to the number of rewards met
    so far in a sequence: where reward is rare, states that know of it are rarer still. A share `unrewarded_starts` is
    drawn from its rows without reward: once an agent knows how to stay at a goal, states that search are rare. The
    rest is drawn evenly from each sequence.
    """
    batch = reward.shape[1]
    even_key, key = jax.random.split(key)
    rewarded = round(config.rewarded_starts * config.starts)
    unrewarded = min(round(config.unrewarded_starts * config.starts), config.starts - rewarded)  # both may round up
    row = jax.random.randint(even_key, (config.starts - rewarded - unrewarded, batch), 0, horizon)
    drawn = [(row, jnp.broadcast_to(jnp.arange(batch), row.shape))]
    if rewarded:
        drawn.append(draw_rows(key, jnp.cumsum(reward > 0, 0), rewarded, horizon))
    if unrewarded:
        drawn.append(draw_rows(jax.random.fold_in(key, 1), reward <= 0, unrewarded, horizon))
    rows, sequences = zip(*drawn, strict=True)
    return jnp.concatenate(rows), jnp.concatenate(sequences)


def draw_rows(key: jax.Array, weight: jax.Array, number: int, horizon: jax.Array | int) -> tuple[jax.Array, jax.Array]:
    """Rows and sequences, (number, B) each, drawn below the horizon in proportion to the weight of each, (T, B); evenly
    where all weights are 0."""
    total, batch = weight.shape
    weight = jnp.where(jnp.arange(total)[:, None] < horizon, weight + 1e-3, 0.0)
    below = jnp.cumsum(weight.reshape(-1))
    drawn = jnp.searchsorted(below, below[-1] * jax.random.uniform(key, (number, batch)), side="right")
    return jnp.minimum(drawn // batch, horizon - 1), drawn % batch  # a draw can be rounded up to the end


def every_start(shape: tuple[int, ...], horizon: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Rows and sequences, (T, B) each, of as many starts as there are rows in sequences of this shape; those beyond
    the horizon, () int32, are made up for by repeating the rows below it."""
    row, sequence = jnp.indices(shape)
    return row % horizon, sequence


def make_start(model: WorldModel, params: dict, latent: Latent, index: tuple[jax.Array, jax.Array] | None) -> Start:
    """Rows and sequences of states (T, B, ...), each (n, B), None for all, as starts of imagination, without gradient.

    Where the same state starts several rollouts its part of the GRU, the dearest product of all, is computed once.
    """

    def with_projection(latent: Latent) -> Start:
        return Start(latent, model.rssm.apply(params["rssm"], latent.deter, method="project_deter"))

    if index is None:
        start = with_projection(latent)
    elif len(index[0]) > len(latent.deter):
        start = take_rows(with_projection(latent), *index)
    else:
        start = with_projection(take_rows(latent, *index))
    return jax.lax.stop_gradient(spread(jax.tree.map(lambda x: x.reshape(-1, x.shape[-1]), start)))


def imagine(model: WorldModel, behaviour: ActorCritic, params: dict, actor, start: Start, noise: Noise) -> Imagined:
    """Rolls the actor out in the prior from N detached states. The actor sees features without gradient."""

    def step(latent, noise, projected=None):
        distribution = behaviour.actor.apply(actor, jax.lax.stop_gradient(latent.features))
        action = policy.sample_action(behaviour.spec, distribution, noise.action)
        following = imagine_step(model, params, latent, action, noise.latent, projected)
        return following, (following.features, action, distribution)

    second, first_row = step(start.latent, jax.tree.map(lambda x: x[0], noise), start.projected)
    _, rows = jax.lax.scan(step, second, jax.tree.map(lambda x: x[1:], noise))
    features, action, distribution = jax.tree.map(lambda x, xs: jnp.concatenate([x[None], xs]), first_row, rows)
    return Imagined(jnp.concatenate([start.latent.features[None], features]), action, distribution)


def compute_targets(model: WorldModel, behaviour: ActorCritic, params: dict, critic, imagined: Imagined) -> Targets:
    """Predicted rewards, discounts and values along a rollout, and their lambda returns.

    Weights are the products of the discounts before each step, without gradient.
    """
    config, features = behaviour.config, imagined.features

    def cont_prob(x):
        return jax.nn.sigmoid(model.cont.apply(params["cont"], x)[..., 0])

    reward = twohot.two_hot_mean(model.reward.apply(params["reward"], features[1:]))
    discount = config.discount * cont_prob(features[1:])
    value = twohot.two_hot_mean(behaviour.critic.apply(critic, features))
    result = returns.lambda_return(reward, discount, value[1:], config.lambda_)
    first = config.discount * cont_prob(features[0])
    weights = jnp.cumprod(jnp.concatenate([jnp.ones_like(first)[None], first[None], discount])[: len(result)], 0)
    return Targets(value, result, jax.lax.stop_gradient(weights), reward, discount)


def actor_loss(
    behaviour: ActorCritic, imagined: Imagined, targets: Targets, value_range: jax.Array
) -> tuple[jax.Array, dict[str, jax.Array]]:
    """-mean w_t (A_t / scale + entropy bonus), A_t = R_t - v_t; for "reinforce" log pi(a_t) sg(A_t) takes A_t's place.

    The baseline keeps its gradient under "dynamics", and "reinforce" leaves the advantage unscaled, both as released.
    """
    config, spec = behaviour.config, behaviour.spec
    scale = returns.range_scale(value_range, config.scale_floor)
    advantage = targets.returns - targets.value[:-1]
    if config.gradient == "dynamics":
        objective = advantage / scale
    else:
        weight = jax.lax.stop_gradient(advantage / scale if config.normalise_reinforce else advantage)
        objective = policy.log_prob(spec, imagined.policy, jax.lax.stop_gradient(imagined.action)) * weight
    entropy = policy.entropy(spec, imagined.policy)
    loss = -jnp.mean(targets.weights * (objective + config.entropy * entropy))
    metrics = {
        "loss": loss,
        "entropy": jnp.mean(entropy),
        "advantage": jnp.mean(advantage),
        "advantage_std": jnp.std(advantage),
        "scale": scale,
        "imagined_reward": jnp.mean(targets.reward),
        "imagined_rewarded": jnp.mean(targets.reward > 0.1, dtype=loss.dtype),
        "return": jnp.mean(targets.returns),
        "return_max": jnp.max(targets.returns),
    }
    if not spec.discrete:
        metrics["std"] = jnp.mean(imagined.policy[1])
    return loss, metrics


def behaviour_loss(
    model: WorldModel, behaviour: ActorCritic, params: dict, actor, critic, start: Start, noise: Noise, value_range
) -> tuple[jax.Array, tuple[Imagined, Targets, jax.Array, dict[str, jax.Array]]]:
    """Actor loss as a function of the actor's parameters, with the updated range of returns (2,) that scaled it."""
    imagined = imagine(model, behaviour, params, actor, start, noise)
    targets = compute_targets(model, behaviour, params, critic, imagined)
    value_range = returns.update_range(value_range, jax.lax.stop_gradient(targets.returns))
    loss, metrics = actor_loss(behaviour, imagined, targets, value_range)
    return loss, (imagined, targets, value_range, metrics)


def critic_loss(behaviour: ActorCritic, critic, slow, imagined: Imagined, targets: Targets) -> jax.Array:
    """mean w_t (-log p(sg R_t) - log p(sg v_slow_t)), the second term a regulariser towards the slow critic."""
    features = jax.lax.stop_gradient(imagined.features[:-1])
    logits = behaviour.critic.apply(critic, features)
    slow_value = jax.lax.stop_gradient(twohot.two_hot_mean(behaviour.critic.apply(slow, features)))
    target = jax.lax.stop_gradient(targets.returns)
    nll = -twohot.two_hot_log_prob(logits, target) - twohot.two_hot_log_prob(logits, slow_value)
    return jnp.mean(targets.weights * nll)
