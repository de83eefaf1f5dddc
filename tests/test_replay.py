"""The replay: what goes in comes out, whole and uniformly."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from probes import probe

from mamba_jax.algos.mamba import batch_metrics
from mamba_jax.replay import Rows, insert, make_replay, sample
from mamba_jax.rollout import collect, random_policy

LANES = 4


def marked_rows(env, mark: int) -> Rows:
    """Rows that carry their round, lane and time: state = 1000 mark + 10 lane + t / 10."""
    time = jnp.arange(env.num_steps)[None] / 10
    state = 1000.0 * mark + 10.0 * jnp.arange(LANES)[:, None] + time
    flags = jnp.zeros((LANES, env.num_steps), bool)
    observation = {"state": state[..., None], "reward": flags * 1.0, "time": flags * 1.0}
    return Rows(observation, flags.astype(jnp.int32), flags.at[:, 0].set(True), flags)


@pytest.fixture(scope="module")
def env():
    return probe("shown")


@pytest.mark.parametrize("batch", [1, 4, 6, 8])
def test_draws_are_whole_meta_episodes_of_the_newest_rounds(env, batch):
    slots = 3
    replay = make_replay(env, LANES, slots * LANES * env.num_steps)
    for mark in range(5):
        replay = insert(replay, marked_rows(env, mark))
    drawn = jax.vmap(lambda key: sample(replay, key, batch).observation["state"][..., 0])(
        jax.random.split(jax.random.key(0), 300)
    )
    first = np.asarray(drawn[:, 0])
    np.testing.assert_allclose(np.diff(drawn, axis=1), 0.1, atol=1e-3)
    marks, counts = np.unique(first, return_counts=True)
    assert len(marks) == slots * LANES and marks.min() >= 2000
    assert counts.max() < 2.5 * counts.min() or batch == 1


def test_nothing_is_drawn_from_empty_slots(env):
    replay = insert(make_replay(env, LANES, 50 * LANES * env.num_steps), marked_rows(env, 7))
    drawn = sample(replay, jax.random.key(0), 8).observation["state"]
    assert float(drawn.min()) >= 7000


def test_windows_start_anywhere_and_count_as_first(env):
    replay = insert(make_replay(env, LANES, LANES * env.num_steps), marked_rows(env, 1))
    keys = jax.random.split(jax.random.key(0), 200)
    rows = jax.vmap(lambda key: sample(replay, key, 4, length=3))(keys)
    assert rows.is_first.shape == (200, 3, 4) and bool(rows.is_first[:, 0].all())
    starts = np.unique(np.round(np.asarray(rows.observation["state"][:, 0, :, 0]) % 10, 3))
    assert len(starts) == env.num_steps - 2


def test_lanes_go_on_with_new_meta_episodes_where_they_end_early():
    env = probe("stumble")
    collected = jax.jit(lambda key: collect(env, random_policy(env, 64), (), key, 64))(jax.random.key(0))
    rows = jax.tree.map(np.asarray, collected.rows)
    assert rows.is_first[:, 0].all() and rows.is_first[:, 1:].any()
    assert rows.is_first.shape == (64, env.num_steps)
    np.testing.assert_array_equal(rows.observation["reward"][rows.is_first], 0)
    np.testing.assert_array_equal(rows.action[rows.is_first], 0)
    assert int(collected.env_steps) < rows.is_first.size
    # reward 1 a step: the first meta-episode's return is its number of steps
    lengths = np.where(rows.is_first[:, 1:].any(1), rows.is_first[:, 1:].argmax(1), env.num_steps)
    np.testing.assert_array_equal(np.asarray(collected.returns).sum(1), lengths)


def test_observations_are_answered_by_actions_of_the_following_row():
    env = probe("shown")
    collected = collect(
        env, lambda carry, obs, key: (carry, obs["state"][:, 0].astype(jnp.int32)), (), jax.random.key(1), 8
    )
    rows = jax.tree.map(np.asarray, collected.rows)
    np.testing.assert_array_equal(rows.action[:, 1:], rows.observation["state"][:, :-1, 0])
    np.testing.assert_array_equal(rows.observation["reward"][:, 1:], 1)
    assert np.asarray(collected.returns).sum() == 8 * env.num_steps


def test_finding_reward_is_told_from_keeping_it():
    reward = jnp.array([[0, 1, 1, 0, 1], [0, 0, -1, 0, 0]]).T
    metrics = batch_metrics(reward)
    assert metrics["batch_rewarded"] == 0.5 and metrics["batch_reward_found"] == pytest.approx(2 / 8)
