"""RL2 (Duan et al., 2016; Wang et al., 2016): a recurrent policy trained by PPO through its memory."""

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import struct

from mamba_jax import onpolicy, ppo
from mamba_jax.algos.mamba import action_spec
from mamba_jax.belief import init_encoder, make_encoder, policy_latent
from mamba_jax.config_baselines import RL2Config
from mamba_jax.onpolicy import Actor, Rollout, Weights
from mamba_jax.ops import running_stats
from mamba_jax.ops.running_stats import ReturnStats
from mamba_jax.ppo import Normalisers, Samples
from mamba_jax.sharding import spread
from mamba_jax.types import Algorithm, MetaEnvironment, Metrics


@struct.dataclass
class State:
    """State of RL2. rounds: () int32, calls of `train_step`. env_steps: () int32 true environment steps. updates: ()
    int32. key: random key. params: of `encoder` and `policy`. opt_state: of their optimisers. normalisers: of the
    policy's inputs. returns: discounted returns of the lanes, which scale the rewards."""

    rounds: jax.Array
    env_steps: jax.Array
    updates: jax.Array
    key: jax.Array
    params: dict
    opt_state: Any
    normalisers: Normalisers
    returns: ReturnStats


class Agent(NamedTuple):
    """What RL2's functions share; all of it is static."""

    actor: Actor
    config: RL2Config
    optimizer: optax.GradientTransformation


def make_rl2(env: MetaEnvironment, config: RL2Config, name: str = "rl2") -> Algorithm:
    """RL2 on a meta-environment. Raises ConfigError where the configuration does not fit the environment."""
    onpolicy.check_observations(env)
    config.validate(env.num_steps)
    spec = action_spec(env)
    policy = ppo.make_policy(config.policy, spec)
    actor = Actor(env, spec, make_encoder(config.encoder), policy, config.policy, config.recurrent.feed_first)
    agent = Agent(actor, config, make_optimizer(env, config))
    lanes = config.collect.lanes
    return Algorithm(
        name=name,
        env=env,
        config=config,
        init=lambda key: init(agent, key),
        train_step=lambda state: train_step(agent, state),
        init_carry=lambda state, batch: onpolicy.init_memory(actor, batch),
        act=lambda state, carry, observation, key, explore: onpolicy.act(
            actor, weights(state), carry, observation, key, explore
        )[::3],
        steps_per_round=lanes * env.num_steps,
        updates_per_round=config.ppo.epochs * config.ppo.minibatches,
    )


def make_optimizer(env: MetaEnvironment, config: RL2Config) -> optax.GradientTransformation:
    """Policy and encoder each have an Adam and a clip of their own."""
    recurrent, steps = config.recurrent, config.collect.lanes * env.num_steps
    rates = (config.ppo.learning_rate, recurrent.learning_rate)
    if config.ppo.anneal:
        rounds, updates = max(1, config.run.steps // steps), config.ppo.epochs * config.ppo.minibatches
        rates = tuple(ppo.annealed(rate, rounds, updates) for rate in rates)
    transforms = {
        "policy": ppo.make_optimizer(rates[0], config.ppo.max_grad_norm, config.ppo.eps, config.ppo.optimizer),
        "encoder": ppo.make_optimizer(rates[1], recurrent.max_grad_norm),
    }
    return optax.multi_transform(transforms, {name: name for name in transforms})


def init(agent: Agent, key: jax.Array) -> State:
    """Fresh parameters; nothing is collected."""
    state_key, encoder_key, policy_key = jax.random.split(key, 3)
    actor, size = agent.actor, onpolicy.seen_size(agent.actor.env)
    latent = 2 * agent.config.encoder.latent
    seen = jnp.zeros((1, size)) if agent.config.policy.see_state else None
    params = {
        "encoder": init_encoder(actor.encoder, encoder_key, size, actor.spec.size),
        "policy": actor.policy.init(policy_key, seen, jnp.zeros((1, latent))),
    }
    return State(
        rounds=jnp.int32(0),
        env_steps=jnp.int32(0),
        updates=jnp.int32(0),
        key=state_key,
        params=params,
        opt_state=agent.optimizer.init(params),
        normalisers=ppo.init_normalisers(agent.config.policy, size, latent),
        returns=running_stats.init_returns(agent.config.collect.lanes),
    )


def weights(state: State) -> Weights:
    """What acting needs."""
    return Weights(state.params["encoder"], state.params["policy"], state.normalisers)


def train_step(agent: Agent, state: State) -> tuple[State, Metrics]:
    """One round: a meta-episode in every lane, then PPO through encoder and policy."""
    key, collect_key, order_key = jax.random.split(state.key, 3)
    actor, config = agent.actor, agent.config
    rollout = onpolicy.collect(actor, weights(state), collect_key, config.collect.lanes)
    returns, rewards = onpolicy.policy_rewards(state.returns, rollout, config.ppo)
    normalisers = onpolicy.update_normalisers(actor, state.normalisers, rollout)
    inputs = onpolicy.policy_inputs(actor, normalisers, rollout.seen, rollout.latent)
    samples, unexplained = onpolicy.policy_samples(actor, state.params["policy"], inputs, rollout, rewards, config.ppo)
    by_lane = config.recurrent.minibatch == "lanes"
    size = config.collect.lanes if by_lane else samples.weight.size
    params, opt_state, losses = ppo.update(
        lambda params, index: loss(agent, params, normalisers, rollout, samples, index),
        agent.optimizer,
        state.params,
        state.opt_state,
        ppo.minibatch_indices(order_key, size, config.ppo),
    )
    metrics = {f"policy/{name}": value.mean() for name, value in losses.items()} | onpolicy.collect_metrics(rollout)
    state = State(
        rounds=state.rounds + 1,
        env_steps=state.env_steps + rollout.env_steps,
        updates=state.updates + config.ppo.epochs * config.ppo.minibatches,
        key=key,
        params=params,
        opt_state=opt_state,
        normalisers=normalisers,
        returns=returns,
    )
    return state, metrics | {"policy/unexplained": unexplained}


def loss(
    agent: Agent, params: dict, normalisers: Normalisers, rollout: Rollout, samples: Samples, index: jax.Array
) -> tuple[jax.Array, ppo.Losses]:
    """PPO's loss on some lanes, or on some transitions of all lanes, with beliefs encoded anew from `params`."""
    by_lane = agent.config.recurrent.minibatch == "lanes"
    rows = (rollout.action, rollout.seen, rollout.reward, rollout.first)
    if by_lane:
        rows, samples = spread(jax.tree.map(lambda x: x[:, index], (rows, samples)), axis=1)
    hidden = jnp.zeros((rows[2].shape[1], agent.config.encoder.hidden))
    belief = agent.actor.encoder.apply(params["encoder"], hidden, *rows, agent.actor.feed_first)
    _, latent = onpolicy.policy_inputs(agent.actor, normalisers, rows[1], policy_latent(belief))
    assert latent is not None  # RL2's policy sees its memory alone
    samples = dataclasses.replace(samples, latent=latent[:-1])
    if not by_lane:
        samples = spread(jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:])[index], samples))
    return ppo.surrogate_loss(agent.actor.policy, params["policy"], samples, agent.config.ppo)
