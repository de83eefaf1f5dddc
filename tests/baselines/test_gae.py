"""Advantages and reward scales against numbers worked out by hand, and properties that hold for any numbers."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from mamba_jax.ops import running_stats
from mamba_jax.ops.gae import gae, standardise

STEPS, LANES = 5, 2
NUMBERS = st.floats(-10, 10, width=32)
ROWS = hnp.arrays(np.float32, (STEPS, LANES), elements=NUMBERS)
VALUES = hnp.arrays(np.float32, (STEPS + 1, LANES), elements=NUMBERS)
FLAGS = hnp.arrays(np.bool_, (STEPS, LANES))
FACTORS = st.floats(0, 1, width=32)

compute = jax.jit(gae)


def test_three_steps_by_hand():
    rewards, values = jnp.array([1.0, 0.0, 2.0]), jnp.array([0.5, 1.0, -1.0, 4.0])
    targets = gae(rewards, values, jnp.array([1, 1, 0]), 0.5, 0.5)
    # errors: 1 + 0.5 - 0.5 = 1; 0 - 0.5 - 1 = -1.5; 2 + 1 = 3 (the end: nothing after it counts)
    advantages = np.array([1 + 0.25 * (-1.5 + 0.25 * 3), -1.5 + 0.25 * 3, 3])
    np.testing.assert_allclose(targets, advantages + values[:-1])


def test_no_credit_crosses_a_cut():
    rewards, values = jnp.array([1.0, 0.0, 2.0]), jnp.array([0.5, 1.0, -1.0, 4.0])
    targets = gae(rewards, values, jnp.ones(3), 0.5, 0.5, jnp.array([1, 0, 1]))
    np.testing.assert_allclose(targets, [1 + 0.5 * 1.0, 1.0, 2 + 0.5 * 4])


@settings(max_examples=25, deadline=None)
@given(ROWS, VALUES, FLAGS, FACTORS)
def test_lambda_0_is_one_step_bootstrapping(rewards, values, continues, gamma):
    expected = rewards + gamma * values[1:] * continues
    np.testing.assert_allclose(compute(rewards, values, continues, gamma, 0.0), expected, rtol=1e-4, atol=1e-4)


@settings(max_examples=25, deadline=None)
@given(ROWS, VALUES, FLAGS, FACTORS)
def test_lambda_1_is_the_discounted_sum(rewards, values, continues, gamma):
    expected = values[-1]
    for step in reversed(range(STEPS)):
        expected = rewards[step] + gamma * expected * continues[step]
    np.testing.assert_allclose(compute(rewards, values, continues, gamma, 1.0)[0], expected, rtol=1e-3, atol=1e-3)


@settings(max_examples=25, deadline=None)
@given(ROWS, VALUES, FACTORS, FACTORS, st.integers(0, STEPS - 2), NUMBERS)
def test_nothing_after_an_end_matters(rewards, values, gamma, lam, end, other):
    continues = np.ones((STEPS, LANES), bool)
    continues[end] = False
    changed, moved = rewards.copy(), values.copy()
    changed[end + 1 :], moved[end + 1 :] = other, other
    before = compute(rewards, values, continues, gamma, lam)[: end + 1]
    np.testing.assert_array_equal(before, compute(changed, moved, continues, gamma, lam)[: end + 1])


@settings(max_examples=25, deadline=None)
@given(ROWS, FLAGS)
def test_standardised_numbers_have_mean_0_and_deviation_1(x, weights):
    picked = np.asarray(standardise(jnp.asarray(x), jnp.asarray(weights)))[weights]
    if weights.sum() > 1 and x[weights].std() > 1e-2:
        np.testing.assert_allclose(picked.mean(), 0, atol=1e-3)
        np.testing.assert_allclose(picked.std(ddof=1), 1, atol=1e-2)


@settings(max_examples=25, deadline=None)
@given(st.lists(hnp.arrays(np.float32, (4, 3), elements=NUMBERS), min_size=1, max_size=4))
def test_statistics_of_batches_are_those_of_all_samples(batches):
    stats = running_stats.init((3,))
    for batch in batches:
        stats = running_stats.update(stats, jnp.asarray(batch), ddof=0)
    samples = np.concatenate(batches).astype(float)
    np.testing.assert_allclose(stats.mean, samples.mean(0), rtol=1e-3, atol=1e-3)
    np.testing.assert_allclose(stats.var, samples.var(0), rtol=1e-3, atol=1e-2)
    assert np.isclose(stats.count, len(samples), atol=1e-2)


def test_unbiased_variance_and_a_single_sample():
    two = running_stats.update(running_stats.init(), jnp.array([0.0, 2.0]))
    np.testing.assert_allclose((two.mean, two.var), (1.0, 2.0), rtol=1e-3)
    one = running_stats.update(running_stats.init(), jnp.array([3.0]))
    np.testing.assert_allclose(one.mean, 3.0, rtol=1e-3)
    assert np.isfinite(one.var)


def test_entries_that_never_varied_are_not_divided():
    stats = running_stats.RunningStats(jnp.array([1.0, 5.0]), jnp.array([4.0, 0.0]), jnp.array(9.0))
    np.testing.assert_allclose(running_stats.normalise(stats, jnp.array([3.0, 7.0])), [1.0, 2.0], rtol=1e-6)


def test_discounted_returns_by_hand():
    state, rewards = running_stats.init_returns(2), jnp.array([[1.0, 2.0], [1.0, 0.0], [1.0, 1.0]])
    ended = jnp.array([[False, True], [False, False], [True, False]])
    after, var = running_stats.track_returns(state, rewards, ended, 0.5)
    # returns after each step: (1, 2), (1.5, 0), (1.75, 1), the second lane starting again after the first step
    seen = np.array([1, 2, 1.5, 0, 1.75, 1])
    np.testing.assert_allclose(after.carry, [0.0, 1.0])
    np.testing.assert_allclose(after.stats.var, seen.var(), rtol=1e-3)
    np.testing.assert_allclose(var, [seen[:2].var(), seen[:4].var(), seen.var()], rtol=1e-2)


@pytest.mark.parametrize("factor", [0.1, 10.0, 1000.0])
def test_scaled_rewards_do_not_depend_on_the_unit_of_reward(factor):
    rewards = jax.random.normal(jax.random.key(0), (50, 4)) * factor
    ended = jnp.zeros((50, 4), bool)
    _, scaled = running_stats.scale_rewards(running_stats.init_returns(4), rewards, ended, 0.9, clip=5.0)
    _, reference = running_stats.scale_rewards(running_stats.init_returns(4), rewards / factor, ended, 0.9, clip=5.0)
    np.testing.assert_allclose(scaled[10:], reference[10:], rtol=0.05)
    assert np.abs(scaled).max() <= 5 and (np.sign(scaled) == np.sign(rewards)).all()
