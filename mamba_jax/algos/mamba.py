"""MAMBA (Rimon et al., ICLR 2024): a DreamerV3 world model over whole meta-episodes as a meta-RL agent's belief."""

import dataclasses
import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import struct

from mamba_jax import actor_critic as ac
from mamba_jax import world_model as wm
from mamba_jax.config import MambaConfig, prefill_rounds, require
from mamba_jax.explore import with_exploration
from mamba_jax.horizon import is_constant, scheduled_horizon
from mamba_jax.nn import policy
from mamba_jax.nn.observation import is_image
from mamba_jax.nn.policy import ActionSpec
from mamba_jax.ops import running_stats
from mamba_jax.ops.optim import apply_gradients, clipped_adam, cooled
from mamba_jax.ops.running_stats import RunningStats
from mamba_jax.replay import Replay, Rows, insert, make_replay, sample
from mamba_jax.rollout import Collected, Policy, collect, random_policy, where_lane
from mamba_jax.types import Algorithm, MetaEnvironment, Metrics


@struct.dataclass
class Learner:
    """All that gradient updates change, and how the learner sees observations.

    model, actor, critic, slow_critic: parameters. model_opt, actor_opt, critic_opt: optimiser states.
    value_range: (2,) moving 5% and 95% quantiles of imagined returns. inputs: statistics of the observation's entries
    that `world_model.normalise` scales; they never change.
    """

    model: dict
    actor: Any
    critic: Any
    slow_critic: Any
    model_opt: Any
    actor_opt: Any
    critic_opt: Any
    value_range: jax.Array
    inputs: dict[str, RunningStats]


@struct.dataclass
class State:
    """State of MAMBA. rounds: () int32, calls of `train_step`. env_steps: () int32 true environment steps, prefill
    included. updates: () int32. key: random key. learner: parameters. replay: meta-episodes."""

    rounds: jax.Array
    env_steps: jax.Array
    updates: jax.Array
    key: jax.Array
    learner: Learner
    replay: Replay


class Carry(NamedTuple):
    """Memory of the acting agent: latent state and the last action vector (B, A)."""

    latent: wm.Latent
    action: jax.Array


class Agent(NamedTuple):
    """What MAMBA's functions share; all of it is static."""

    env: MetaEnvironment
    config: MambaConfig
    model: wm.WorldModel
    behaviour: ac.ActorCritic
    model_opt: optax.GradientTransformation
    actor_opt: optax.GradientTransformation
    critic_opt: optax.GradientTransformation


def make_mamba(env: MetaEnvironment, config: MambaConfig, name: str = "mamba") -> Algorithm:
    """MAMBA on a meta-environment. Raises ConfigError where the configuration does not fit the environment."""
    agent = make_agent(env, config)
    return Algorithm(
        name=name,
        env=env,
        config=config,
        init=lambda key: init(agent, key),
        train_step=lambda state: train_step(agent, state),
        init_carry=lambda state, batch: init_carry(agent, state.learner, batch),
        act=lambda state, carry, observation, key, explore: act(agent, state.learner, carry, observation, key, explore),
        steps_per_round=config.data.lanes * env.num_steps,
        updates_per_round=updates_per_round(env, config),
    )


def make_agent(env: MetaEnvironment, config: MambaConfig) -> Agent:
    """Modules and optimisers for a meta-environment. Raises ConfigError."""
    config.validate(env.num_steps)
    spec = action_spec(env)
    rates, updates = config.optimizer, run_updates(env, config)
    shapes = {key: tuple(space.shape) for key, space in env.observation_space.items()}
    for key, shape in shapes.items():
        bytes_needed = f"The images {key} of {env.name} are not uint8: show them as bytes from 0 to 255."
        require(not is_image(shape) or env.observation_space[key].dtype == jnp.uint8, bytes_needed)

    def optimizer(rate: float, eps: float, clip: float) -> optax.GradientTransformation:
        return clipped_adam(cooled(rate, updates, rates.cooldown), eps, clip)

    return Agent(
        env=env,
        config=config,
        model=wm.make_world_model(config.world_model, shapes, spec.size),
        behaviour=ac.make_actor_critic(config.actor_critic, spec),
        model_opt=optimizer(rates.model_rate, rates.model_eps, rates.model_clip),
        actor_opt=optimizer(rates.actor_rate, rates.behaviour_eps, rates.behaviour_clip),
        critic_opt=optimizer(rates.critic_rate, rates.behaviour_eps, rates.behaviour_clip),
    )


def action_spec(env: MetaEnvironment) -> ActionSpec:
    """Action vectors of a meta-environment: one-hot for gymnax `Discrete`, as they are for a one-dimensional `Box`."""
    count = getattr(env.action_space, "n", None)
    return ActionSpec(int(count), True) if count is not None else ActionSpec(math.prod(env.action_space.shape), False)


def updates_per_round(env: MetaEnvironment, config: MambaConfig) -> int:
    """int(train_ratio * collected steps / sub-episodes), at least 1, as the paper counts."""
    steps = config.data.lanes * env.num_steps
    return max(1, int(config.data.train_ratio * steps / env.sub_episodes + 1e-6))  # 0.0025 * 6400 is 16 - 2e-15


def run_updates(env: MetaEnvironment, config: MambaConfig) -> int:
    """Updates of a whole run, of `run.steps` environment steps with its prefill; at least one round of them."""
    steps = config.run.steps - config.prefill_steps(env.num_steps)
    return max(1, math.ceil(steps / (config.data.lanes * env.num_steps))) * updates_per_round(env, config)


def init(agent: Agent, key: jax.Array) -> State:
    """Parameters, optimiser states and a replay prefilled with random meta-episodes."""
    state_key, learner_key, data_key = jax.random.split(key, 3)
    env, data = agent.env, agent.config.data
    rounds = prefill_rounds(data)

    def prefill(replay, key):
        collected = collect(env, random_policy(env, data.lanes), (), key, data.lanes)
        return insert(replay, collected.rows), collected.env_steps

    replay = make_replay(env, data.lanes, data.capacity)
    replay, steps = jax.lax.scan(prefill, replay, jax.random.split(data_key, rounds))
    filled = jax.tree.map(lambda x: x[:, :rounds], replay.rows.observation)
    learner = init_learner(agent, learner_key, filled)
    return State(jnp.int32(0), steps.sum(dtype=jnp.int32), jnp.int32(0), state_key, learner, replay)


def init_learner(agent: Agent, key: jax.Array, observation: dict[str, jax.Array]) -> Learner:
    """Fresh parameters; the slow critic starts as a copy of the critic. observation: entries (..., *shape) of the
    prefill, which `world_model.normalise` measures."""
    model_key, actor_key, critic_key = jax.random.split(key, 3)
    model = wm.init_world_model(agent.model, model_key)
    size = agent.model.config.stoch * agent.model.config.classes + agent.model.config.deter
    actor = agent.behaviour.actor.init(actor_key, jnp.zeros((1, size)))
    critic = agent.behaviour.critic.init(critic_key, jnp.zeros((1, size)))
    return Learner(
        model=model,
        actor=actor,
        critic=critic,
        slow_critic=jax.tree.map(jnp.copy, critic),
        model_opt=agent.model_opt.init(model),
        actor_opt=agent.actor_opt.init(actor),
        critic_opt=agent.critic_opt.init(critic),
        value_range=jnp.zeros(2),
        inputs=input_stats(agent, observation),
    )


def input_stats(agent: Agent, observation: dict[str, jax.Array]) -> dict[str, RunningStats]:
    """Statistics of the vectors in observations (..., *shape) that `world_model.normalise` scales, by entry."""
    if not agent.config.world_model.normalise:
        return {}
    return {
        key: running_stats.measure(observation[key].reshape(-1, *shape))
        for key, shape in agent.model.shapes.items()
        if key not in ("reward", "time") and not is_image(shape)
    }


def normalise(learner: Learner, observation: dict[str, jax.Array]) -> dict[str, jax.Array]:
    """The observation (..., *shape) as the world model sees it."""
    scaled = {key: running_stats.normalise(stats, observation[key]) for key, stats in learner.inputs.items()}
    return observation | scaled


def init_carry(agent: Agent, learner: Learner, batch: int) -> Carry:
    """The learned initial latent state and a zero action for `batch` lanes."""
    latent = wm.Latent(*agent.model.rssm.apply(learner.model["rssm"], batch, method="initial"))
    return Carry(latent, jnp.zeros((batch, agent.behaviour.spec.size)))


def act(
    agent: Agent, learner: Learner, carry: Carry, observation: dict, key: jax.Array, explore: bool
) -> tuple[Carry, jax.Array]:
    """Filters the observation into the belief and acts on it, without `explore` as `world_model.eval_latents` says."""
    latent_key, action_key = jax.random.split(key)
    batch, spec, config = carry.action.shape[0], agent.behaviour.spec, agent.model.config
    noise = jax.random.gumbel(latent_key, (batch, config.stoch, config.classes))
    if not explore and config.eval_latents == "mode":
        noise = jnp.zeros_like(noise)
    observation = normalise(learner, observation)
    latent = wm.observe_step(agent.model, learner.model, carry.latent, carry.action, observation, noise)
    distribution = agent.behaviour.actor.apply(learner.actor, latent.features)
    if explore:
        action = policy.sample_action(spec, distribution, policy.action_noise(spec, action_key, (batch,)))
    else:
        action = policy.mode_action(spec, distribution)
    return Carry(latent, action), jnp.argmax(action, -1) if spec.discrete else action


def collector(agent: Agent, learner: Learner, key: jax.Array) -> Policy:
    """The policy that collects one meta-episode in every lane, `data.explore` of them exploring."""
    data, spec = agent.config.data, agent.behaviour.spec

    def policy(carry, observation, key):
        return act(agent, learner, carry, observation, key, explore=True)

    def tell(carry, mask, action):
        vector = jax.nn.one_hot(action, spec.size) if spec.discrete else action
        return Carry(carry.latent, where_lane(mask, vector, carry.action))

    if not data.explore:
        return policy
    return with_exploration(agent.env, policy, tell, key, data.lanes, data.explore, data.burst)


def train_step(agent: Agent, state: State) -> tuple[State, Metrics]:
    """One round: a meta-episode in every lane, then `updates_per_round` updates at the scheduled horizon."""
    env, config = agent.env, agent.config
    key, collect_key, update_key, explore_key = jax.random.split(state.key, 4)
    initial, policy = init_carry(agent, state.learner, config.data.lanes), collector(agent, state.learner, explore_key)
    collected = collect(env, policy, initial, collect_key, config.data.lanes)
    replay = insert(state.replay, collected.rows)
    horizon = training_horizon(agent, state.rounds + 1)
    count = updates_per_round(env, config)

    def body(learner, key):
        return update(agent, learner, replay, key, horizon)

    learner, metrics = jax.lax.scan(body, state.learner, jax.random.split(update_key, count))
    metrics = {name: value.mean() for name, value in metrics.items()} | collect_metrics(collected)
    metrics["world_model/horizon"] = jnp.float32(sequence_length(agent) if horizon is None else horizon)
    state = State(
        rounds=state.rounds + 1,
        env_steps=state.env_steps + collected.env_steps,
        updates=state.updates + count,
        key=key,
        learner=learner,
        replay=replay,
    )
    return state, metrics


def sequence_length(agent: Agent) -> int:
    """Rows of a training sequence before the horizon cuts it."""
    return agent.config.data.window if agent.config.data.context == "window" else agent.env.num_steps


def training_horizon(agent: Agent, rounds: jax.Array) -> jax.Array | None:
    """() int32 scheduled length of the sequences, None where it never changes."""
    length = sequence_length(agent)
    if length < agent.env.num_steps or is_constant(agent.config.horizon, length):
        return None
    return scheduled_horizon(agent.config.horizon, length, rounds * agent.config.data.lanes * agent.env.num_steps)


def collect_metrics(collected: Collected) -> Metrics:
    """Returns over the lanes, in all and by sub-episode, and how often reward was met."""
    totals = collected.returns.sum(-1)
    by_sub_episode = {f"collect/return_{i + 1}": value for i, value in enumerate(collected.returns.mean(0))}
    return {
        "collect/return": totals.mean(),
        "collect/return_max": totals.max(),
        "collect/rewarded": collected.rewarded,
    } | by_sub_episode


def to_sequences(agent: Agent, learner: Learner, rows: Rows) -> wm.Sequences:
    """Replay rows (T, B, ...) as training data: discrete actions become one-hot, zero at first rows; observations as
    the learner's world model sees them."""
    action = jax.nn.one_hot(rows.action, agent.behaviour.spec.size) if agent.behaviour.spec.discrete else rows.action
    action = jnp.where(rows.is_first[..., None], 0.0, action)
    return wm.Sequences(normalise(learner, rows.observation), action, rows.is_first, rows.is_terminal)


def update(
    agent: Agent, learner: Learner, replay: Replay, key: jax.Array, horizon: jax.Array | None
) -> tuple[Learner, Metrics]:
    """One gradient update of the world model, then of actor and critic on imagination from its posteriors."""
    sample_key, model_key, behaviour_key = jax.random.split(key, 3)
    config, length = agent.config.data, sequence_length(agent)
    rows = sample(replay, sample_key, config.batch, length if length < agent.env.num_steps else None)
    data = to_sequences(agent, learner, rows)
    learner, latent, model_metrics = update_model(agent, learner, data, model_key, horizon)
    reward = data.observation["reward"]
    learner, behaviour_metrics = update_behaviour(agent, learner, latent, reward, behaviour_key, horizon)
    model_metrics |= batch_metrics(reward)
    metrics = {f"world_model/{name}": value for name, value in model_metrics.items()}
    return learner, metrics | {f"behaviour/{name}": value for name, value in behaviour_metrics.items()}


def batch_metrics(reward: jax.Array) -> Metrics:
    """How often training sequences (T, B) meet reward.

    batch_rewarded: share of sequences with reward. batch_reward_found: share of rows with reward after a row without.
    """
    met = reward > 0
    return {
        "batch_rewarded": jnp.mean(jnp.any(met, 0), dtype=jnp.float32),
        "batch_reward_found": jnp.mean(met[1:] & ~met[:-1], dtype=jnp.float32),
    }


def update_model(
    agent: Agent, learner: Learner, data: wm.Sequences, key: jax.Array, horizon: jax.Array | None
) -> tuple[Learner, wm.Latent, Metrics]:
    """One step on the world-model loss; returns the posteriors (T, B, ...) it was computed with."""
    noise_key, index_key = jax.random.split(key)
    total, batch = data.is_first.shape
    config, length = agent.model.config, total if horizon is None else horizon
    index = recall = None
    if config.subsample:
        index = jax.random.randint(index_key, (config.subsample, batch), 0, length)
    if config.recall_scale:
        recall = wm.draw_recall(jax.random.fold_in(index_key, 1), length)

    def objective(params):
        return wm.loss(agent.model, params, data, noise_key, index, horizon, recall)

    grads, (filtered, metrics) = jax.grad(objective, has_aux=True)(learner.model)
    params, opt_state, norm = apply_gradients(agent.model_opt, grads, learner.model_opt, learner.model)
    latent = jax.lax.stop_gradient(filtered.latent)
    return dataclasses.replace(learner, model=params, model_opt=opt_state), latent, metrics | {"grad_norm": norm}


def update_behaviour(
    agent: Agent, learner: Learner, latent: wm.Latent, reward: jax.Array, key: jax.Array, horizon: jax.Array | None
) -> tuple[Learner, Metrics]:
    """One step of actor and critic, both on losses of their parameters before it, in the already updated model.

    latent: posteriors (T, B, ...) of sequences with these rewards (T, B).
    """
    start_key, noise_key = jax.random.split(key)
    behaviour, config = agent.behaviour, agent.config.actor_critic
    length = len(reward) if horizon is None else horizon
    index = None
    if config.starts:
        index = ac.draw_starts(config, start_key, reward, length)
    elif horizon is not None:
        index = ac.every_start(reward.shape, horizon)
    start = ac.make_start(agent.model, learner.model, latent, index)
    noise = ac.make_noise(agent.model, behaviour, noise_key, len(start.projected))
    slow = optax.incremental_update(learner.critic, learner.slow_critic, config.slow_rate)

    def actor_objective(actor):
        return ac.behaviour_loss(
            agent.model, behaviour, learner.model, actor, learner.critic, start, noise, learner.value_range
        )

    def critic_objective(critic):
        return ac.critic_loss(behaviour, critic, slow, imagined, targets)

    grads, (imagined, targets, value_range, metrics) = jax.grad(actor_objective, has_aux=True)(learner.actor)
    critic_value, critic_grads = jax.value_and_grad(critic_objective)(learner.critic)
    actor, actor_opt, actor_norm = apply_gradients(agent.actor_opt, grads, learner.actor_opt, learner.actor)
    critic, critic_opt, critic_norm = apply_gradients(
        agent.critic_opt, critic_grads, learner.critic_opt, learner.critic
    )
    learner = dataclasses.replace(
        learner,
        actor=actor,
        actor_opt=actor_opt,
        critic=critic,
        critic_opt=critic_opt,
        slow_critic=slow,
        value_range=value_range,
    )
    return learner, metrics | {
        "actor_grad_norm": actor_norm,
        "critic_loss": critic_value,
        "critic_grad_norm": critic_norm,
    }
