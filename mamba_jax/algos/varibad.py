"""VariBAD (Zintgraf et al., 2020): PPO on the state and a belief over the task from a variational autoencoder."""

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import struct

from mamba_jax import belief, onpolicy, ppo
from mamba_jax.algos.mamba import action_spec
from mamba_jax.belief import Networks, Params
from mamba_jax.config_baselines import VaribadConfig, prefill_rounds
from mamba_jax.onpolicy import Actor, Rollout, Weights
from mamba_jax.ops import running_stats
from mamba_jax.ops.optim import apply_gradients
from mamba_jax.ops.running_stats import ReturnStats
from mamba_jax.ppo import Normalisers
from mamba_jax.replay import Replay, insert, sample
from mamba_jax.sharding import spread
from mamba_jax.types import Algorithm, MetaEnvironment, Metrics


@struct.dataclass
class Learner:
    """All that gradient updates change.

    policy: parameters. policy_opt: optimiser state. normalisers: of the policy's inputs. returns: discounted returns
    of the lanes, which scale the rewards. vae: parameters of encoder and decoders. vae_opt: optimiser state.
    largest_reward: () largest absolute reward in the autoencoder's batches.
    """

    policy: dict
    policy_opt: Any
    normalisers: Normalisers
    returns: ReturnStats
    vae: Params
    vae_opt: Any
    largest_reward: jax.Array


@struct.dataclass
class State:
    """State of VariBAD. rounds: () int32, calls of `train_step`. env_steps: () int32 true environment steps, prefill
    included. updates: () int32. key: random key. learner: parameters. replay: sequences for the autoencoder."""

    rounds: jax.Array
    env_steps: jax.Array
    updates: jax.Array
    key: jax.Array
    learner: Learner
    replay: Replay


class Agent(NamedTuple):
    """What VariBAD's functions share; all of it is static."""

    actor: Actor
    networks: Networks
    config: VaribadConfig
    policy_opt: optax.GradientTransformation
    vae_opt: optax.GradientTransformation


def make_varibad(env: MetaEnvironment, config: VaribadConfig, name: str = "varibad") -> Algorithm:
    """VariBAD on a meta-environment. Raises ConfigError where the configuration does not fit the environment."""
    agent = make_agent(env, config)
    return Algorithm(
        name=name,
        env=env,
        config=config,
        init=lambda key: init(agent, key),
        train_step=lambda state: train_step(agent, state),
        init_carry=lambda state, batch: onpolicy.init_memory(agent.actor, batch),
        act=lambda state, carry, observation, key, explore: onpolicy.act(
            agent.actor, weights(state.learner), carry, observation, key, explore
        )[::3],
        steps_per_round=config.collect.lanes * env.num_steps,
        updates_per_round=updates_per_round(config),
    )


def make_agent(env: MetaEnvironment, config: VaribadConfig) -> Agent:
    """Networks and optimisers. Raises ConfigError where the configuration does not fit the environment."""
    onpolicy.check_observations(env)
    config.validate(env.num_steps)
    spec = action_spec(env)
    networks = belief.make_networks(config.encoder, config.vae)
    policy = ppo.make_policy(config.policy, spec)
    rate = config.ppo.learning_rate
    if config.ppo.anneal:
        rounds = max(1, config.run.steps // (config.collect.lanes * env.num_steps))
        rate = ppo.annealed(rate, rounds, config.ppo.epochs * config.ppo.minibatches)
    return Agent(
        actor=Actor(env, spec, networks.encoder, policy, config.policy, feed_first=False),
        networks=networks,
        config=config,
        policy_opt=ppo.make_optimizer(rate, config.ppo.max_grad_norm, config.ppo.eps, config.ppo.optimizer),
        vae_opt=belief.make_optimizer(config.vae_training.learning_rate, config.vae_training.max_grad_norm),
    )


def updates_per_round(config: VaribadConfig) -> int:
    """Gradient updates of policy and autoencoder in a round."""
    return config.ppo.epochs * config.ppo.minibatches + config.vae_training.updates


def init(agent: Agent, key: jax.Array) -> State:
    """Fresh parameters, and a replay prefilled by the untrained policy."""
    state_key, learner_key, data_key = jax.random.split(key, 3)
    learner = init_learner(agent, learner_key)
    replay, env_steps = prefill(agent, learner, data_key)
    return State(jnp.int32(0), env_steps, jnp.int32(0), state_key, learner, replay)


def init_learner(agent: Agent, key: jax.Array) -> Learner:
    """Fresh parameters and statistics."""
    vae_key, policy_key = jax.random.split(key)
    actor, config, size = agent.actor, agent.config, onpolicy.seen_size(agent.actor.env)
    latent = 2 * config.encoder.latent
    deterministic = config.vae.deterministic_latent
    vae = belief.init_params(
        agent.networks, vae_key, size - 1, size, actor.spec.size, deterministic_latent=deterministic
    )
    seen = jnp.zeros((1, size)) if config.policy.see_state else None
    policy = actor.policy.init(policy_key, seen, jnp.zeros((1, latent)))
    return Learner(
        policy=policy,
        policy_opt=agent.policy_opt.init(policy),
        normalisers=ppo.init_normalisers(config.policy, size, latent),
        returns=running_stats.init_returns(config.collect.lanes),
        vae=vae,
        vae_opt=agent.vae_opt.init(vae),
        largest_reward=jnp.ones(()),
    )


def prefill(agent: Agent, learner: Learner, key: jax.Array) -> tuple[Replay, jax.Array]:
    """A replay with at least `vae_training.prefill` environment steps, and their number () int32."""
    actor, config = agent.actor, agent.config
    lanes = config.collect.lanes
    rounds = prefill_rounds(config.vae_training, lanes * actor.env.num_steps)

    def body(replay: Replay, key: jax.Array) -> tuple[Replay, jax.Array]:
        rollout = onpolicy.collect(actor, weights(learner), key, lanes)
        return insert(replay, onpolicy.lane_major(onpolicy.make_rows(rollout))), rollout.env_steps

    replay = onpolicy.make_replay(actor, lanes, config.vae_training.capacity)
    replay, steps = jax.lax.scan(body, replay, jax.random.split(key, rounds))
    return replay, steps.sum(dtype=jnp.int32)


def weights(learner: Learner) -> Weights:
    """What acting needs."""
    return Weights(learner.vae["encoder"], learner.policy, learner.normalisers)


def train_step(agent: Agent, state: State) -> tuple[State, Metrics]:
    """One round: a meta-episode in every lane, then PPO on fixed beliefs, then the autoencoder."""
    key, collect_key, policy_key, vae_key = jax.random.split(state.key, 4)
    rollout = onpolicy.collect(agent.actor, weights(state.learner), collect_key, agent.config.collect.lanes)
    replay = insert(state.replay, onpolicy.lane_major(onpolicy.make_rows(rollout)))
    learner, policy_metrics = improve_policy(agent, state.learner, rollout, policy_key)
    learner, vae_metrics = improve_vae(agent, learner, replay, vae_key)
    state = State(
        rounds=state.rounds + 1,
        env_steps=state.env_steps + rollout.env_steps,
        updates=state.updates + updates_per_round(agent.config),
        key=key,
        learner=learner,
        replay=replay,
    )
    return state, policy_metrics | vae_metrics | onpolicy.collect_metrics(rollout)


def improve_policy(
    agent: Agent, learner: Learner, rollout: Rollout, key: jax.Array, bonus: jax.Array | float = 0.0
) -> tuple[Learner, Metrics]:
    """PPO on a rollout; beliefs are constants. bonus: (T, lanes), added to the scaled rewards."""
    actor, config = agent.actor, agent.config.ppo
    returns, rewards = onpolicy.policy_rewards(learner.returns, rollout, config)
    normalisers = onpolicy.update_normalisers(actor, learner.normalisers, rollout)
    inputs = onpolicy.policy_inputs(actor, normalisers, rollout.seen, rollout.latent)
    samples, unexplained = onpolicy.policy_samples(actor, learner.policy, inputs, rollout, rewards + bonus, config)
    flat = jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), samples)
    policy, policy_opt, losses = ppo.update(
        lambda params, index: ppo.surrogate_loss(
            actor.policy, params, spread(jax.tree.map(lambda x: x[index], flat)), config
        ),
        agent.policy_opt,
        learner.policy,
        learner.policy_opt,
        ppo.minibatch_indices(key, flat.weight.size, config),
    )
    metrics = {f"policy/{name}": value.mean() for name, value in losses.items()}
    learner = dataclasses.replace(
        learner, policy=policy, policy_opt=policy_opt, normalisers=normalisers, returns=returns
    )
    return learner, metrics | {"policy/unexplained": unexplained}


def improve_vae(agent: Agent, learner: Learner, replay: Replay, key: jax.Array) -> tuple[Learner, Metrics]:
    """Updates of encoder and decoders on sequences of the replay."""
    config, training = agent.config.vae, agent.config.vae_training

    def body(learner: Learner, key: jax.Array) -> tuple[Learner, Metrics]:
        sample_key, noise_key, index_key = jax.random.split(key, 3)
        data = onpolicy.to_transitions(sample(replay, sample_key, training.batch))
        noise = jax.random.normal(noise_key, (*data.first.shape, agent.config.encoder.latent))
        indices = belief.draw_indices(index_key, data.first, config.subsample_rows, config.subsample_transitions)
        largest = belief.largest_reward(learner.largest_reward, data.reward)
        scale = reward_scale(agent, largest)

        def loss(params: Params) -> tuple[jax.Array, Metrics]:
            total, losses = belief.elbo_loss(agent.networks, params, config, data, noise, indices, scale)
            return total, {f"loss_{name}": value for name, value in losses.items()} | {"loss": total}

        grads, losses = jax.grad(loss, has_aux=True)(learner.vae)
        vae, vae_opt, norm = apply_gradients(agent.vae_opt, grads, learner.vae_opt, learner.vae)
        learner = dataclasses.replace(learner, vae=vae, vae_opt=vae_opt, largest_reward=largest)
        return learner, losses | {"grad_norm": norm}

    learner, losses = jax.lax.scan(body, learner, jax.random.split(key, training.updates))
    return learner, {f"vae/{name}": value.mean() for name, value in losses.items()}


def reward_scale(agent: Agent, largest_reward: jax.Array) -> jax.Array | float:
    """Divisor of the decoder's reward targets."""
    return largest_reward if agent.config.vae.normalise_targets else 1.0
