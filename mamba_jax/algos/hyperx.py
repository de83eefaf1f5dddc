"""HyperX (Zintgraf et al., 2021): VariBAD with bonuses for novel hyper-states and for errors of the autoencoder."""

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import struct

from mamba_jax import belief, onpolicy
from mamba_jax import bonus as bonuses
from mamba_jax.algos import varibad
from mamba_jax.algos.varibad import Learner
from mamba_jax.belief import policy_latent
from mamba_jax.bonus import Distillation
from mamba_jax.config import require
from mamba_jax.config_baselines import HyperXConfig
from mamba_jax.nn.belief import Belief
from mamba_jax.onpolicy import Rollout
from mamba_jax.ops import running_stats
from mamba_jax.ops.running_stats import ReturnStats, RunningStats
from mamba_jax.replay import Replay, insert, sample
from mamba_jax.types import Algorithm, MetaEnvironment, Metrics


@struct.dataclass
class Explorer:
    """What the bonuses remember, by name of the bonus.

    priors, predictors, optimizers: of the distillation bonuses: fixed parameters, trained parameters, optimiser states.
    inputs: running statistics of each input of a distillation bonus, empty without `bonus.normalise_inputs`.
    returns: discounted bonuses of the lanes, which scale them.
    """

    priors: dict[str, dict]
    predictors: dict[str, dict]
    optimizers: dict[str, Any]
    inputs: dict[str, list[RunningStats]]
    returns: dict[str, ReturnStats]


@struct.dataclass
class State:
    """State of HyperX. rounds: () int32, calls of `train_step`. env_steps: () int32 true environment steps, prefill
    included. updates: () int32. key: random key. learner: as in VariBAD. replay: sequences for autoencoder and
    bonuses. explorer: the bonuses."""

    rounds: jax.Array
    env_steps: jax.Array
    updates: jax.Array
    key: jax.Array
    learner: Learner
    replay: Replay
    explorer: Explorer


class Agent(NamedTuple):
    """What HyperX's functions share; all of it is static. base: VariBAD's."""

    base: varibad.Agent
    config: HyperXConfig
    distillation: Distillation
    optimizer: optax.GradientTransformation


def make_hyperx(env: MetaEnvironment, config: HyperXConfig, name: str = "hyperx") -> Algorithm:
    """HyperX on a meta-environment. Raises ConfigError where the configuration does not fit the environment."""
    base = varibad.make_agent(env, config)
    size, entries = onpolicy.seen_size(env) - 1, config.bonus.state_entries
    require(
        entries is None or (len(entries) > 0 and all(0 <= entry < size for entry in entries)),
        f"bonus.state_entries is {entries}: choose some of the state's entries, 0 to {size - 1}, or none for all.",
    )
    agent = Agent(base, config, bonuses.make_distillation(config.bonus), optax.adam(config.bonus.learning_rate))
    return Algorithm(
        name=name,
        env=env,
        config=config,
        init=lambda key: init(agent, key),
        train_step=lambda state: train_step(agent, state),
        init_carry=lambda state, batch: onpolicy.init_memory(base.actor, batch),
        act=lambda state, carry, observation, key, explore: onpolicy.act(
            base.actor, varibad.weights(state.learner), carry, observation, key, explore
        )[::3],
        steps_per_round=config.collect.lanes * env.num_steps,
        updates_per_round=updates_per_round(config),
    )


def updates_per_round(config: HyperXConfig) -> int:
    """Gradient updates of policy, autoencoder and predictors in a round."""
    return varibad.updates_per_round(config) + config.bonus.updates * len(distilled(config))


def distilled(config: HyperXConfig) -> tuple[str, ...]:
    """The bonuses in use that come from random network distillation."""
    return tuple(name for name in bonuses.active(config.bonus) if name != "vae_error")


def init(agent: Agent, key: jax.Array) -> State:
    """Fresh parameters, and a replay prefilled by the untrained policy."""
    explorer_key, base_key = jax.random.split(key)
    start = varibad.init(agent.base, base_key)
    explorer = init_explorer(agent, explorer_key)
    return State(start.rounds, start.env_steps, start.updates, start.key, start.learner, start.replay, explorer)


def init_explorer(agent: Agent, key: jax.Array) -> Explorer:
    """Fresh networks and statistics of the bonuses in use."""
    config, names = agent.config.bonus, distilled(agent.config)
    state = jnp.zeros((1, onpolicy.seen_size(agent.base.actor.env) - 1))
    latent = jnp.zeros((1, 2 * agent.config.encoder.latent))
    inputs = {name: bonuses.explored(name, state, latent, config.state_entries) for name in names}
    keys = dict(zip(names, jax.random.split(key, max(1, len(names))), strict=False))
    params = {name: bonuses.init_distillation(agent.distillation, keys[name], inputs[name], config) for name in names}
    stats = {name: [running_stats.init(x.shape[1:]) for x in inputs[name]] for name in names}
    lanes = agent.config.collect.lanes
    return Explorer(
        priors={name: prior for name, (prior, _) in params.items()},
        predictors={name: predictor for name, (_, predictor) in params.items()},
        optimizers={name: agent.optimizer.init(predictor) for name, (_, predictor) in params.items()},
        inputs=stats if config.normalise_inputs else {},
        returns={name: running_stats.init_returns(lanes) for name in bonuses.active(config)},
    )


def train_step(agent: Agent, state: State) -> tuple[State, Metrics]:
    """One round: a meta-episode in every lane, its bonuses, then PPO, the autoencoder and the predictors."""
    key, collect_key, bonus_key, policy_key, vae_key, predictor_key = jax.random.split(state.key, 6)
    base, config = agent.base, agent.config
    rollout = onpolicy.collect(base.actor, varibad.weights(state.learner), collect_key, config.collect.lanes)
    replay = insert(state.replay, onpolicy.lane_major(onpolicy.make_rows(rollout)))
    annealing = bonuses.annealing_weight(state.env_steps, config.run.steps) if config.bonus.anneal else jnp.ones(())
    explorer, bonus, bonus_metrics = explore(agent, state.explorer, state.learner, rollout, annealing, bonus_key)
    learner, policy_metrics = varibad.improve_policy(base, state.learner, rollout, policy_key, bonus)
    learner, vae_metrics = varibad.improve_vae(base, learner, replay, vae_key)
    explorer, predictor_metrics = improve_predictors(agent, explorer, learner, replay, predictor_key)
    metrics = policy_metrics | vae_metrics | bonus_metrics | predictor_metrics | onpolicy.collect_metrics(rollout)
    state = State(
        rounds=state.rounds + 1,
        env_steps=state.env_steps + rollout.env_steps,
        updates=state.updates + updates_per_round(config),
        key=key,
        learner=learner,
        replay=replay,
        explorer=explorer,
    )
    return state, metrics


def explore(
    agent: Agent, explorer: Explorer, learner: Learner, rollout: Rollout, annealing: jax.Array, key: jax.Array
) -> tuple[Explorer, jax.Array, Metrics]:
    """Bonus of every transition of a rollout, (T, lanes): for the state reached and the belief in it."""
    config, raw, stats = agent.config, {}, dict(explorer.inputs)
    for name in distilled(config):
        state, entries = rollout.seen[1:, :, :-1], config.bonus.state_entries
        inputs = bonuses.explored(name, state, rollout.latent[1:], entries)
        if config.bonus.normalise_inputs:
            stats[name] = [running_stats.update(stat, x) for stat, x in zip(stats[name], inputs, strict=True)]
            inputs = bonuses.scale_inputs(stats[name], inputs)
        networks = (explorer.priors[name], explorer.predictors[name])
        raw[name] = bonuses.distillation_error(agent.distillation, *networks, inputs) * rollout.weight
    if "vae_error" in bonuses.active(config.bonus):
        raw["vae_error"] = vae_error(agent, learner, rollout, key)
    ended, discount = onpolicy.restarts(rollout), config.ppo.discount
    returns, parts, total = bonuses.total_bonus(explorer.returns, raw, ended, discount, config.bonus, annealing)
    metrics = {f"bonus/{name}": part.mean() for name, part in parts.items()} | {"bonus/annealing": annealing}
    return dataclasses.replace(explorer, inputs=stats, returns=returns), total, metrics


def vae_error(agent: Agent, learner: Learner, rollout: Rollout, key: jax.Array) -> jax.Array:
    """Error of the decoders on every transition, from the belief behind it, (T, lanes)."""
    data = onpolicy.to_transitions(onpolicy.make_rows(rollout))
    mean, logvar = jnp.split(rollout.latent[1:], 2, -1)
    encoded = Belief(mean, logvar, mean[..., :0])
    latent = belief.decoded_latent(agent.config.vae, encoded, jax.random.normal(key, mean.shape))
    scale = varibad.reward_scale(agent.base, learner.largest_reward)
    return bonuses.vae_error(agent.base.networks, learner.vae, agent.config.vae, latent, data, scale)


def improve_predictors(
    agent: Agent, explorer: Explorer, learner: Learner, replay: Replay, key: jax.Array
) -> tuple[Explorer, Metrics]:
    """Updates of every predictor, on random rows of sequences of the replay and the beliefs in them.

    The sequences of all updates are encoded together; only the predictors change from one update to the next.
    """
    config = agent.config.bonus
    sample_key, row_key = jax.random.split(key)
    count = config.updates * config.batch
    data = onpolicy.to_transitions(sample(replay, sample_key, count))
    encoded = belief.encode(agent.base.networks.encoder, learner.vae["encoder"], data)
    rows = jax.random.randint(row_key, (config.samples, count), 0, len(data.reward))
    lanes = jnp.arange(count)
    drawn = data.next_state[rows, lanes], policy_latent(encoded)[rows + 1, lanes]
    shape = (config.samples, config.updates, config.batch)
    state, latent = (jnp.moveaxis(x.reshape(*shape, x.shape[-1]), 1, 0) for x in drawn)

    def body(explorer: Explorer, rows: tuple[jax.Array, jax.Array]) -> tuple[Explorer, Metrics]:
        return update_predictors(agent, explorer, *rows)

    explorer, losses = jax.lax.scan(body, explorer, (state, latent))
    return explorer, {name: value.mean() for name, value in losses.items()}


def update_predictors(
    agent: Agent, explorer: Explorer, state: jax.Array, latent: jax.Array
) -> tuple[Explorer, Metrics]:
    """One update of every predictor on states (samples, batch, S) and beliefs (samples, batch, 2 L)."""
    config = agent.config.bonus
    predictors, optimizers, metrics = {}, {}, {}
    for name in distilled(agent.config):
        inputs = bonuses.explored(name, state, latent, config.state_entries)
        if config.normalise_inputs:
            inputs = bonuses.scale_inputs(explorer.inputs[name], inputs)
        predictors[name], optimizers[name], metrics[f"bonus/{name}_loss"] = bonuses.update_predictor(
            agent.distillation,
            agent.optimizer,
            explorer.priors[name],
            explorer.predictors[name],
            explorer.optimizers[name],
            inputs,
        )
    return dataclasses.replace(explorer, predictors=predictors, optimizers=optimizers), metrics
