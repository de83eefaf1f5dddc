"""Exploring lanes: when they act at random, for how long, and that the agent is told."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import envs
import mamba_jax as mj
from mamba_jax.algos import mamba
from mamba_jax.explore import HOLD, with_exploration
from mamba_jax.rollout import collect, where_lane

LANES, LENGTH, SUB_EPISODES = 64, 40, 3


@pytest.fixture(scope="module")
def rows():
    """Rows of a policy that repeats the last action it was told of, none at first; half of the lanes explore."""
    env = envs.make("halfcircle", sub_episodes=SUB_EPISODES, length=LENGTH)

    def tell(memory, mask, action):
        return where_lane(mask, action, memory)

    def program(key):
        policy = with_exploration(env, lambda memory, observation, key: (memory, memory), tell, key, LANES, 0.5)
        return collect(env, policy, jnp.zeros((LANES, 2)), key, LANES).rows

    return jax.device_get(jax.jit(program)(jax.random.key(0)))


@pytest.fixture(scope="module")
def actions(rows):
    """(lanes, N T - 1, 2): what was done at every step but the last."""
    return rows.action[:, 1:]


def test_other_lanes_are_left_to_the_policy(rows, actions):
    assert not actions[LANES // 2 :].any()
    assert not rows.observation["state"][LANES // 2 :].any()


def test_a_lane_explores_in_one_sub_episode_and_the_policy_goes_on_from_what_was_done(actions):
    starts = []
    for lane in actions[: LANES // 2]:
        start = int(np.flatnonzero(lane.any(-1))[0])
        assert start % LENGTH == 0
        later = lane[start + LENGTH - 1 :]
        np.testing.assert_array_equal(later, np.broadcast_to(later[:1], later.shape))
        starts.append(start // LENGTH)
    assert set(starts) == set(range(SUB_EPISODES))


def test_random_actions_are_held_and_reach_farther_than_single_ones(rows, actions):
    changes = (actions[: LANES // 2, 1:] != actions[: LANES // 2, :-1]).any(-1).sum(1) - 1  # the first one starts it
    assert abs(changes.mean() - LENGTH / HOLD) < 1.5
    distance = np.linalg.norm(rows.observation["state"][: LANES // 2], axis=-1).max(1)
    assert np.median(distance) > 1.0  # single random steps of 0.1 come to about 0.5


def test_bursts_fill_half_of_the_steps_and_hold_an_action_for_a_third_of_one():
    env, burst, lanes = envs.make("halfcircle", sub_episodes=SUB_EPISODES, length=LENGTH), 9, 500

    def program(key):
        still = jnp.zeros((lanes, 2))
        policy = with_exploration(
            env, lambda memory, observation, key: (memory, still), lambda *memory: memory[0], key, lanes, 1.0, burst
        )
        return collect(env, policy, (), key, lanes).rows.action[:, 1:]

    actions = np.asarray(jax.jit(program)(jax.random.key(0)))
    mask = actions.any(-1)
    inside = mask[:, 1:] & mask[:, :-1]
    assert abs(mask.mean() - 1 / 2) < 0.02
    assert abs((mask[:, 1:] != mask[:, :-1]).mean() - 1 / burst) < 0.01
    assert abs((actions[:, 1:] != actions[:, :-1]).any(-1)[inside].mean() - 3 / burst) < 0.03


@pytest.mark.parametrize("name", ["halfcircle", "rooms"])
def test_mamba_is_told_what_was_done_in_its_place(name):
    env = envs.make(name, sub_episodes=1, length=5)
    config = mj.preset("mamba", env, "debug")
    agent = mamba.make_agent(
        env, replace(config, data=replace(config.data, lanes=LANES, capacity=5 * LANES, explore=1.0))
    )
    first = env.reset_lanes(jax.random.key(2), LANES)[1]
    learner = mamba.init_learner(agent, jax.random.key(0), first.observation)
    carry, key = mamba.init_carry(agent, learner, LANES), jax.random.key(1)
    own, own_action = mamba.act(agent, learner, carry, first.observation, key, explore=True)
    told, action = mamba.collector(agent, learner, jax.random.key(3))(carry, first.observation, key)
    assert (np.asarray(action) != own_action).any()
    np.testing.assert_array_equal(told.latent.deter, own.latent.deter)
    np.testing.assert_array_equal(told.action.argmax(-1) if agent.behaviour.spec.discrete else told.action, action)
