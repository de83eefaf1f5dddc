"""Evaluation against returns counted by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny import lifetime_env, tiny

from mamba_jax.evaluate import evaluate, rollout


def with_gain(algo, gain):
    """A state whose every action is `gain`."""
    return algo.init(jax.random.key(0)).replace(gain=jnp.arctanh(jnp.float32(gain)))


def counting(algo):
    """The algorithm with a memory: its action is a tenth of the number of rows seen."""

    def act(state, carry, observation, key, explore):
        del state, observation, key, explore
        return carry + 1, 0.1 * (carry + 1)[:, None]

    return algo._replace(act=act, init_carry=lambda state, batch: jnp.zeros(batch))


def test_only_the_first_meta_episode_of_a_lane_counts():
    """A lane of lifetime L gets L steps in each of two sub-episodes, whatever follows in the six steps of the scan."""
    algo = tiny()
    score = jax.jit(lambda: evaluate(algo, with_gain(algo, 0.5), jax.random.key(1), 40))()
    returns = np.asarray(score.returns)
    assert returns.shape == (40, 2) and score.tasks == 40
    np.testing.assert_array_equal(returns[:, 0], returns[:, 1])
    assert set(np.round(returns[:, 0], 4)) == {0.5, 1.0, 1.5}
    np.testing.assert_allclose(score.return_per_sub_episode, returns.mean(0), rtol=1e-6)
    np.testing.assert_allclose(score.return_mean, returns.sum(1).mean(), rtol=1e-6)
    np.testing.assert_allclose(score.return_std, returns.sum(1).std(), rtol=1e-6)


def test_memory_lasts_through_all_sub_episodes():
    """Actions 0.1, 0.2, ...: with lifetime 3 the sub-episodes pay 0.6 and 1.5, with 1 they pay 0.1 and 0.2."""
    algo = counting(tiny())
    score = jax.jit(lambda: evaluate(algo, algo.init(jax.random.key(0)), jax.random.key(1), 30))()
    returns = np.asarray(score.returns)
    expected = {(0.1, 0.2), (0.3, 0.7), (0.6, 1.5)}
    assert {tuple(round(float(x), 4) for x in row) for row in returns} == expected


@pytest.mark.parametrize("train_tasks", [None, 1])
def test_tasks_are_fresh_and_fixed_by_the_key(train_tasks):
    algo = tiny(lifetime_env(train_tasks=train_tasks))
    state = with_gain(algo, 1.0 - 1e-6)
    returns = jax.jit(lambda key: evaluate(algo, state, key, 30).returns)
    first, again, other = (returns(jax.random.key(k)) for k in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)
    assert len(np.unique(np.round(first, 3))) == 3


def test_tasks_can_be_those_of_training():
    algo = tiny(lifetime_env(train_tasks=1))
    returns = jax.jit(lambda: evaluate(algo, with_gain(algo, 0.5), jax.random.key(1), 30, fresh=False).returns)()
    assert len(np.unique(np.round(returns, 3))) == 1


def test_chunks_of_lanes():
    """Five tasks at most two at a time: three chunks, the sixth lane left out."""
    algo = tiny()
    score = evaluate(algo, with_gain(algo, 0.5), jax.random.key(1), 5, max_lanes=2)
    assert score.returns.shape == (5, 2)
    np.testing.assert_allclose(score.return_mean, np.asarray(score.returns).sum() / 5, rtol=1e-6)


def test_rollout_ends_where_the_evaluation_ends():
    algo = tiny()
    states, rows = rollout(algo, with_gain(algo, 0.5), jax.random.key(3))
    assert rows.reward.shape == (algo.env.num_steps,) and states.sub_episode.shape == (algo.env.num_steps,)
    length = int(np.argmax(rows.is_last)) + 1
    assert length == 2 * int(states.params.lifetime[0])
    np.testing.assert_allclose(rows.reward[:length], 0.5, rtol=1e-6)
