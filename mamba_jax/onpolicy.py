"""Acting on a belief and collecting whole meta-episodes, for the algorithms that learn by PPO."""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import struct

from mamba_jax import ppo
from mamba_jax.belief import Transitions, policy_latent
from mamba_jax.config import require
from mamba_jax.config_baselines import PolicyConfig, PPOConfig
from mamba_jax.nn.belief import Belief, Encoder
from mamba_jax.nn.observation import is_image, join_vectors, ordered_keys
from mamba_jax.nn.policy import ActionSpec
from mamba_jax.nn.ppo_policy import ActorCritic, distribution, execute, log_prob
from mamba_jax.ops.gae import gae, mean_and_std, standardise
from mamba_jax.ops.running_stats import ReturnStats, scale_rewards
from mamba_jax.ppo import Normalisers, Samples
from mamba_jax.replay import Replay, Rows
from mamba_jax.rollout import where_lane
from mamba_jax.sharding import spread
from mamba_jax.types import MetaEnvironment, Metrics, TimeStep


class Actor(NamedTuple):
    """What acting needs besides parameters; all of it is static.

    feed_first: whether the encoder is shown the first observation of a meta-episode; else the first belief is the
    prior.
    """

    env: MetaEnvironment
    spec: ActionSpec
    encoder: Encoder
    policy: ActorCritic
    config: PolicyConfig
    feed_first: bool


class Weights(NamedTuple):
    """What acting needs of a training state: parameters of encoder and policy, and the input normalisers."""

    encoder: dict
    policy: dict
    normalisers: Normalisers


class Memory(NamedTuple):
    """Memory of acting lanes: the encoder's hidden state (B, H), the last executed action (B, A), and whether nothing
    has been seen yet (B,)."""

    hidden: jax.Array
    action: jax.Array
    fresh: jax.Array


@struct.dataclass
class Rollout:
    """One meta-episode's worth of steps in every lane, time-major.

    Rows (T + 1, lanes, ...): seen (S + 1,), the environment's own entries and the time; reward; first, last: a
    meta-episode starts, is complete; replaced: the row shows the next sub-episode's start in place of the end of the
    old one; truncated: a sub-episode ended by its time limit on the transition into the row; action (A,), the executed
    one that led there, one-hot if discrete, 0 at first rows; latent (2 L,), mean and log-variance of the belief.
    Transitions (T, lanes, ...): raw, the action as drawn; weight, 0 for the step from one meta-episode to the next.
    returns: (lanes, N), rewards of the first meta-episode by sub-episode. env_steps: () int32.
    """

    seen: jax.Array
    reward: jax.Array
    first: jax.Array
    last: jax.Array
    replaced: jax.Array
    truncated: jax.Array
    action: jax.Array
    latent: jax.Array
    raw: jax.Array
    weight: jax.Array
    returns: jax.Array
    env_steps: jax.Array


def check_observations(env: MetaEnvironment) -> None:
    """Raises ConfigError for observations that the encoder cannot take."""
    images = [key for key, space in env.observation_space.items() if is_image(space.shape)]
    require(not images, f"{env.name} shows images: choose mamba, or an environment of vectors.")


def seen_vector(env: MetaEnvironment, observation: dict[str, jax.Array]) -> jax.Array:
    """The environment's own entries in alphabetical order, then the time: (..., S + 1)."""
    shapes = {key: space.shape for key, space in env.observation_space.items()}
    return join_vectors(observation, shapes, [key for key in ordered_keys(shapes) if key != "reward"])


def seen_size(env: MetaEnvironment) -> int:
    """S + 1."""
    return sum(math.prod(space.shape) for key, space in env.observation_space.items() if key != "reward")


def init_memory(actor: Actor, batch: int) -> Memory:
    """Memory of lanes at the start of a meta-episode."""
    return Memory(jnp.zeros((batch, actor.encoder.hidden)), jnp.zeros((batch, actor.spec.size)), jnp.ones(batch, bool))


def action_vector(spec: ActionSpec, action: jax.Array) -> jax.Array:
    """Executed actions as the networks take them: (..., A), one-hot if discrete."""
    return jax.nn.one_hot(action, spec.size) if spec.discrete else action


def observe(actor: Actor, encoder: dict, memory: Memory, seen: jax.Array, reward: jax.Array) -> Belief:
    """Belief (B, ...) after one more row, seen (B, S + 1) and reward (B,)."""
    row = (memory.action, seen, reward, memory.fresh)
    belief = actor.encoder.apply(encoder, memory.hidden, *(x[None] for x in row), actor.feed_first)
    return jax.tree.map(lambda x: x[0], belief)


def act(
    actor: Actor, weights: Weights, memory: Memory, observation: dict[str, jax.Array], key: jax.Array, explore: bool
) -> tuple[Memory, jax.Array, jax.Array, jax.Array]:
    """One step of B lanes: memory, mean and log-variance (B, 2 L), the action as drawn and as executed."""
    seen = seen_vector(actor.env, observation)
    belief = observe(actor, weights.encoder, memory, seen, observation["reward"])
    latent = policy_latent(belief)
    inputs = policy_inputs(actor, weights.normalisers, seen, latent)
    actions = distribution(actor.policy.apply(weights.policy, *inputs).parameters)
    raw = actions.sample(seed=key) if explore else actions.mode()
    executed = execute(actor.spec, raw, actor.policy.squash)
    memory = Memory(belief.hidden, action_vector(actor.spec, executed), jnp.zeros_like(memory.fresh))
    return memory, latent, raw, executed


def collect(actor: Actor, weights: Weights, key: jax.Array, lanes: int) -> Rollout:
    """Plays N T steps in every lane from a new meta-episode, exploring.

    Where sub-episodes end early a lane goes on with new meta-episodes, whose last one may stay incomplete.
    """
    env = actor.env
    reset_key, step_key = jax.random.split(key)
    env_state, start, initial = spread((*env.reset_lanes(reset_key, lanes), init_memory(actor, lanes)))

    def step(loop: tuple, key: jax.Array) -> tuple[tuple, tuple]:
        env_state, row, memory = loop
        act_key, env_key = jax.random.split(key)
        memory, latent, raw, executed = act(actor, weights, memory, row.observation, act_key, True)
        env_state, row = env.step_lanes(env_key, env_state, executed)
        memory = where_lane(row.is_first, initial, memory)
        return (env_state, row, memory), (row, memory.action, latent, raw)

    keys = jax.random.split(step_key, env.num_steps)
    (_, row, memory), (rows, action, latent, raw) = jax.lax.scan(step, (env_state, start, initial), keys)
    after = observe(actor, weights.encoder, memory, seen_vector(env, row.observation), row.reward)
    latent = _append(latent, policy_latent(after))
    rows = jax.tree.map(_prepend, start, rows)
    return _rollout(env, rows, _prepend(initial.action, action), latent, raw)


def make_rows(rollout: Rollout) -> Rows:
    """The rows that the autoencoder learns from, (T + 1, lanes, ...); `is_terminal` as in `to_transitions`."""
    observation = {"seen": rollout.seen, "reward": rollout.reward}
    return Rows(observation, rollout.action, rollout.first, rollout.replaced)


def lane_major(rows: Rows) -> Rows:
    """(T + 1, lanes, ...) -> (lanes, T + 1, ...), as the replay stores rows."""
    return jax.tree.map(lambda x: jnp.moveaxis(x, 0, 1), rows)


def make_replay(actor: Actor, lanes: int, capacity: int) -> Replay:
    """An empty replay of `capacity` sequences of T + 1 rows, shared out over the lanes."""
    lead = (lanes, max(1, capacity // lanes), actor.env.num_steps + 1)
    observation = {"seen": jnp.zeros((*lead, seen_size(actor.env))), "reward": jnp.zeros(lead)}
    flags = jnp.zeros(lead, bool)
    rows = Rows(observation, jnp.zeros((*lead, actor.spec.size)), flags, jnp.zeros_like(flags))
    return Replay(rows, jnp.int32(0))


def to_transitions(rows: Rows) -> Transitions:
    """Rows (T + 1, B, ...) of `make_rows`, time-major, as the autoencoder takes them.

    The last transition of a sub-episode is not reconstructed unless the meta-episode ends there, or boundaries are
    final: the row behind it shows the next sub-episode's start, not the state that the reward belongs to. Such rows are
    `is_terminal`.
    """
    seen = rows.observation["seen"]
    return Transitions(
        prev_state=seen[:-1, :, :-1],
        next_state=seen[1:, :, :-1],
        seen=seen[1:],
        action=rows.action[1:],
        reward=rows.observation["reward"][1:],
        first=rows.is_first,
        valid=~(rows.is_terminal | rows.is_first)[1:],
    )


def restarts(rollout: Rollout) -> jax.Array:
    """Transitions (T, lanes) behind which the lane starts anew, the last of a rollout always being one."""
    return rollout.last[1:].at[-1].set(True)


def policy_rewards(returns: ReturnStats, rollout: Rollout, config: PPOConfig) -> tuple[ReturnStats, jax.Array]:
    """The rewards (T, lanes) that PPO maximises, scaled by the deviation of their discounted sum if so configured."""
    rewards = rollout.reward[1:]
    if config.reward_clip is None:
        return returns, rewards
    return scale_rewards(returns, rewards, restarts(rollout), config.discount, clip=config.reward_clip)


def policy_inputs(
    actor: Actor, normalisers: Normalisers, seen: jax.Array, latent: jax.Array
) -> tuple[jax.Array | None, jax.Array | None]:
    """Rows seen (..., S + 1) and beliefs (..., 2 L) as the policy network takes them."""
    latent = jax.nn.relu(latent) if actor.config.relu_latent else latent
    return ppo.normalise_inputs(normalisers, seen if actor.config.see_state else None, latent)


def update_normalisers(actor: Actor, normalisers: Normalisers, rollout: Rollout) -> Normalisers:
    """Adds the rows of a rollout that were acted on."""
    latent = jax.nn.relu(rollout.latent) if actor.config.relu_latent else rollout.latent
    return ppo.update_normalisers(normalisers, rollout.seen[:-1], latent[:-1])


def policy_samples(
    actor: Actor, params: dict, inputs: tuple, rollout: Rollout, rewards: jax.Array, config: PPOConfig
) -> tuple[Samples, jax.Array]:
    """Samples (T, lanes, ...) for PPO, and the value targets' share of unexplained variance ().

    inputs: the policy's normalised inputs of all T + 1 rows. rewards: (T, lanes). Values and log-probabilities are
    those of `params` on these inputs.
    """
    output = actor.policy.apply(params, *inputs)
    state, latent = (None if x is None else x[:-1] for x in inputs)
    before = tuple(x[:-1] for x in output.parameters)
    uncut = 1 - rollout.truncated[1:].astype(rewards.dtype) if config.cut_time_limits else None
    targets = gae(rewards, output.value, ~rollout.last[1:], config.discount, config.lambda_, uncut)
    values, weight = output.value[:-1], rollout.weight
    (_, deviation), (_, error) = mean_and_std(targets, weight), mean_and_std(targets - values, weight)
    samples = Samples(
        state=state,
        latent=latent,
        action=rollout.raw,
        value=values,
        log_prob=log_prob(before, rollout.raw, actor.policy.squash),
        target=targets,
        advantage=standardise(targets - values, weight),
        weight=weight,
    )
    return samples, jnp.square(error / (deviation + 1e-8))


def collect_metrics(rollout: Rollout) -> Metrics:
    """Returns over the lanes, in all and by sub-episode, and how often reward was met."""
    totals = rollout.returns.sum(-1)
    by_sub_episode = {f"collect/return_{i + 1}": value for i, value in enumerate(rollout.returns.mean(0))}
    return {
        "collect/return": totals.mean(),
        "collect/return_max": totals.max(),
        "collect/rewarded": jnp.mean(rollout.reward[1:] > 0, dtype=jnp.float32),
    } | by_sub_episode


def _rollout(env: MetaEnvironment, rows: TimeStep, action: jax.Array, latent: jax.Array, raw: jax.Array) -> Rollout:
    """Puts a rollout together; rows and action have T + 1 rows."""
    first, ended = rows.is_first, rows.terminated | rows.truncated
    own = (jnp.cumsum(first, 0) == 1)[1:]
    scored = jax.nn.one_hot(rows.sub_episode[1:], env.sub_episodes) * (rows.reward[1:] * own)[..., None]
    return Rollout(
        seen=seen_vector(env, rows.observation),
        reward=rows.reward,
        first=first,
        last=rows.is_last,
        replaced=ended & ~rows.is_last & (getattr(env, "boundary", "reset") == "reset"),
        truncated=rows.truncated,
        action=action,
        latent=latent,
        raw=raw,
        weight=1 - first[1:].astype(latent.dtype),
        returns=scored.sum(0),
        env_steps=(~first[1:]).sum(dtype=jnp.int32),
    )


def _prepend(x: jax.Array, rest: jax.Array) -> jax.Array:
    return jnp.concatenate([x[None], rest])


def _append(rest: jax.Array, x: jax.Array) -> jax.Array:
    return jnp.concatenate([rest, x[None]])
