"""Collection on beliefs and PPO, on environments of a few steps."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from probes import probe

from mamba_jax import belief, onpolicy, ppo
from mamba_jax.algos import varibad
from mamba_jax.algos.rl2 import make_rl2
from mamba_jax.algos.varibad import make_varibad
from mamba_jax.config import ConfigError
from mamba_jax.presets_baselines import baseline_preset

LANES = 4


def varibad_agent(env, **policy):
    config = baseline_preset("varibad", env, "debug")
    return varibad.make_agent(env, replace(config, policy=replace(config.policy, **policy)))


def collected(env, seed: int = 0, **policy):
    """VariBAD's agent, a learner and a rollout of it."""
    agent = varibad_agent(env, **policy)
    learner = jax.jit(lambda key: varibad.init_learner(agent, key))(jax.random.key(1))
    rollout = jax.jit(lambda key: onpolicy.collect(agent.actor, varibad.weights(learner), key, LANES))
    return agent, learner, rollout(jax.random.key(seed))


@pytest.fixture(scope="module")
def ragged():
    """A rollout whose sub-episodes end by themselves after one to three steps."""
    return collected(probe("stumble"))


def test_rows_of_a_rollout_follow_the_environment(ragged):
    agent, _, rollout = ragged
    env, first, last = agent.actor.env, np.asarray(rollout.first), np.asarray(rollout.last)
    assert first.shape == (env.num_steps + 1, LANES) and first[0].all() and first[1:].any()
    np.testing.assert_array_equal(first[1:], last[:-1])
    np.testing.assert_array_equal(rollout.weight, 1.0 - first[1:])
    assert int(rollout.env_steps) == (~first[1:]).sum()
    assert (np.asarray(rollout.action)[first] == 0).all() and (rollout.action.sum(-1)[~first] == 1).all()
    np.testing.assert_allclose(rollout.seen[..., -1][first], 0)
    np.testing.assert_array_equal(rollout.reward, 1.0 - first)
    length = np.argmax(last, 0)
    np.testing.assert_allclose(rollout.returns.sum(-1), length)


def test_beliefs_of_a_rollout_are_those_of_encoding_it_at_once(ragged):
    agent, learner, rollout = ragged
    data = onpolicy.to_transitions(onpolicy.make_rows(rollout))
    encoded = belief.encode(agent.networks.encoder, learner.vae["encoder"], data)
    np.testing.assert_allclose(rollout.latent, belief.policy_latent(encoded), rtol=1e-4, atol=1e-6)


def test_transitions_over_a_boundary_are_not_reconstructed(ragged):
    _, _, rollout = ragged
    valid = onpolicy.to_transitions(onpolicy.make_rows(rollout)).valid
    replaced, first = np.asarray(rollout.replaced), np.asarray(rollout.first)
    np.testing.assert_array_equal(valid, ~(replaced | first)[1:])
    for lane, length in enumerate(np.argmax(rollout.last, 0)):  # one boundary in a meta-episode of two sub-episodes
        assert replaced[: length + 1, lane].sum() == 1 and not replaced[length, lane]


def test_transitions_to_a_shown_end_are_reconstructed():
    _, _, rollout = collected(probe("stumble", boundary="final"))
    valid = onpolicy.to_transitions(onpolicy.make_rows(rollout)).valid
    np.testing.assert_array_equal(valid, ~np.asarray(rollout.first)[1:])


@pytest.mark.parametrize("squash", ["none", "mean", "sample"])
def test_executed_actions_are_within_bounds(squash):
    _, _, rollout = collected(probe("steer"), squash=squash)
    assert np.abs(rollout.action).max() <= 1
    assert np.abs(rollout.raw).max() > 1


def test_the_probability_ratio_is_1_before_the_first_update(ragged):
    agent, learner, rollout = ragged
    normalisers = onpolicy.update_normalisers(agent.actor, learner.normalisers, rollout)
    inputs = onpolicy.policy_inputs(agent.actor, normalisers, rollout.seen, rollout.latent)
    rewards = rollout.reward[1:]
    config = agent.config.ppo
    samples, _ = onpolicy.policy_samples(agent.actor, learner.policy, inputs, rollout, rewards, config)
    _, losses = ppo.surrogate_loss(agent.actor.policy, learner.policy, samples, config)
    np.testing.assert_allclose(losses["loss_action"], 0, atol=1e-5)
    assert losses["clipped"] == 0
    spoilt = samples.replace(advantage=jnp.where(samples.weight > 0, samples.advantage, 1e6))
    np.testing.assert_allclose(
        ppo.surrogate_loss(agent.actor.policy, learner.policy, spoilt, config)[1]["loss_action"], 0, atol=1e-5
    )


def test_values_at_the_end_of_a_meta_episode_are_not_bootstrapped():
    agent, learner, rollout = collected(probe("constant"))
    rewards = rollout.reward[1:]
    inputs = onpolicy.policy_inputs(agent.actor, learner.normalisers, rollout.seen, rollout.latent)
    config = replace(agent.config.ppo, discount=1.0, lambda_=1.0)
    samples, _ = onpolicy.policy_samples(agent.actor, learner.policy, inputs, rollout, rewards, config)
    steps = agent.actor.env.num_steps
    np.testing.assert_allclose(
        samples.target, np.broadcast_to(np.arange(steps, 0, -1)[:, None], samples.target.shape), rtol=1e-5
    )
    cut, _ = onpolicy.policy_samples(
        agent.actor, learner.policy, inputs, rollout, rewards, replace(config, cut_time_limits=True)
    )
    ends = np.asarray(rollout.truncated)[1:]
    np.testing.assert_allclose(np.asarray(cut.target)[ends], np.asarray(cut.value)[ends], rtol=1e-5)


def test_rl2_minibatches_of_lanes_and_of_transitions_agree_on_everything_at_once():
    env = probe("stumble")
    config = baseline_preset("rl2", env, "debug")
    results = []
    for minibatch in ("lanes", "transitions"):
        recurrent = replace(config.recurrent, minibatch=minibatch)
        whole = replace(config, recurrent=recurrent, ppo=replace(config.ppo, minibatches=1, epochs=1))
        algo = make_rl2(env, whole)
        state = jax.jit(algo.init)(jax.random.key(0))
        results.append(jax.jit(algo.train_step)(state)[0].params)
    for x, y in zip(*map(jax.tree.leaves, results), strict=True):
        np.testing.assert_allclose(x, y, rtol=1e-3, atol=1e-5)


def test_rl2_sees_the_first_observation_unless_as_released():
    env = probe("shown")
    config = baseline_preset("rl2", env, "debug")
    for feed_first in (True, False):
        algo = make_rl2(env, replace(config, recurrent=replace(config.recurrent, feed_first=feed_first)))
        state = jax.jit(algo.init)(jax.random.key(0))
        hidden = []
        for bit in (0.0, 1.0):
            observation = {"state": jnp.full((1, 1), bit), "reward": jnp.zeros(1), "time": jnp.zeros(1)}
            carry, _ = algo.act(state, algo.init_carry(state, 1), observation, jax.random.key(0), False)
            hidden.append(carry.hidden)
        assert (np.abs(hidden[0] - hidden[1]).max() > 0) == feed_first


def test_the_learning_rate_falls_to_0_over_the_run():
    env = probe("shown")
    config = baseline_preset("rl2", env, "debug")
    rounds = config.run.steps // (config.collect.lanes * env.num_steps)
    algo = make_rl2(env, replace(config, ppo=replace(config.ppo, anneal=True)))
    step, state, moved = jax.jit(algo.train_step), jax.jit(algo.init)(jax.random.key(0)), []
    for _ in range(rounds + 1):
        before, (state, _) = state.params, step(state)
        moved.append(
            max(np.abs(x - y).max() for x, y in zip(*map(jax.tree.leaves, (before, state.params)), strict=True))
        )
    assert moved[0] > moved[rounds - 1] > 0 and moved[rounds] == 0


def test_prefill_fills_the_replay_with_whole_rounds():
    env = probe("shown")
    config = baseline_preset("varibad", env, "debug")
    config = replace(config, vae_training=replace(config.vae_training, prefill=3 * env.num_steps * LANES - 1))
    state = jax.jit(make_varibad(env, config).init)(jax.random.key(0))
    assert int(state.replay.inserted) == 3
    assert int(state.env_steps) == 3 * env.num_steps * LANES


def test_impossible_configurations_are_refused_in_one_sentence():
    env = probe("shown")
    config = baseline_preset("rl2", env, "debug")
    with pytest.raises(ConfigError, match=r"ppo.minibatches .* lower it"):
        make_rl2(env, replace(config, ppo=replace(config.ppo, minibatches=5)))
    with pytest.raises(ConfigError, match="give the policy a layer"):
        make_rl2(env, replace(config, policy=replace(config.policy, layers=())))
    with pytest.raises(ConfigError, match="width must be positive"):
        make_rl2(env, replace(config, policy=replace(config.policy, layers=(8, 0))))
    config = baseline_preset("varibad", env, "debug")
    with pytest.raises(ConfigError, match="decodes nothing"):
        make_varibad(env, replace(config, vae=replace(config.vae, decode_reward=False)))
