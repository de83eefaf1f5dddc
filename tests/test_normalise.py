"""What `world_model.normalise` does to observations."""

from dataclasses import replace

import jax
import numpy as np
import pytest

import envs
import mamba_jax as mj
from mamba_jax.algos import mamba
from mamba_jax.ops import running_stats


@pytest.fixture(scope="module")
def agents():
    """An agent that normalises and one that does not, alike otherwise."""
    env = envs.make("reacher", sub_episodes=1, length=20)
    config = mj.preset("mamba", env, "debug")
    scaled = replace(config, world_model=replace(config.world_model, normalise=True))
    return mamba.make_agent(env, scaled), mamba.make_agent(env, config)


def test_prefilled_vectors_get_mean_0_and_deviation_1(agents):
    agent, plain = agents
    state = jax.jit(lambda key: mamba.init(agent, key))(jax.random.key(0))
    rows = jax.tree.map(lambda x: x[:, 0].swapaxes(0, 1), state.replay.rows)
    seen = mamba.to_sequences(agent, state.learner, rows).observation
    for key in ("state", "velocity"):
        np.testing.assert_allclose(seen[key].mean((0, 1)), 0.0, atol=1e-4)
        np.testing.assert_allclose(seen[key].std((0, 1)), 1.0, rtol=1e-3)
        assert np.abs(rows.observation[key].std((0, 1)) - 1.0).min() > 0.1
    for key in ("reward", "time"):
        np.testing.assert_array_equal(seen[key], rows.observation[key])
    learner = jax.jit(lambda key: mamba.init(plain, key))(jax.random.key(0)).learner
    raw = mamba.to_sequences(plain, learner, rows).observation
    np.testing.assert_array_equal(raw["state"], rows.observation["state"])


def test_what_does_not_vary_in_the_prefill_is_left_alone():
    varying = np.random.default_rng(0).normal(0.3, 1e-3, 10_000)
    samples = np.stack([varying, np.full_like(varying, 0.3), np.zeros_like(varying)], -1).astype(np.float32)
    stats = running_stats.measure(samples)
    assert stats.var[0] > 0 and stats.var[1] == stats.var[2] == 0
    scaled = running_stats.normalise(stats, samples + 1.0)
    np.testing.assert_allclose(scaled[:, 1:], 1.0, atol=1e-4)  # the mean is rounded


def test_acting_and_learning_see_the_same(agents):
    agent, plain = agents
    state = jax.jit(lambda key: mamba.init(agent, key))(jax.random.key(0))
    observation = jax.tree.map(lambda x: x[:, 0].reshape(40, *x.shape[3:]), state.replay.rows.observation)
    carry, key = mamba.init_carry(agent, state.learner, 40), jax.random.key(1)
    seen = mamba.normalise(state.learner, observation)
    unscaled = replace(state.learner, inputs={})
    expected = mamba.act(plain, unscaled, carry, seen, key, explore=True)
    jax.tree.map(
        np.testing.assert_array_equal, mamba.act(agent, state.learner, carry, observation, key, explore=True), expected
    )
    different = mamba.act(plain, unscaled, carry, observation, key, explore=True)
    assert (np.asarray(different[0].latent.stoch) != expected[0].latent.stoch).any()


def test_statistics_are_those_of_the_prefill_for_good(agents):
    agent, _ = agents
    state = jax.jit(lambda key: mamba.init(agent, key))(jax.random.key(0))
    following, _ = jax.jit(lambda state: mamba.train_step(agent, state))(state)
    jax.tree.map(np.testing.assert_array_equal, following.learner.inputs, state.learner.inputs)
