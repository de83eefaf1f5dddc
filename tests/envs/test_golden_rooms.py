"""Rooms-N against recorded episodes and the table of all transitions."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import envs
from envs.rooms import RoomsParams, RoomsState

KEY = jax.random.key(0)


def i32(array):
    return jnp.asarray(array, jnp.int32)


@pytest.mark.golden_files("envs", "rooms_*.npz")
def test_golden_table(golden):
    env = envs.Rooms(subtasks=int(golden["num_rooms"]))
    cells, successors = golden["table_pos"], golden["table_next"]
    actions = successors.shape[1]
    assert env.action_space().n == actions
    states = RoomsState(i32(np.repeat(cells, actions, 0)), jnp.zeros(len(cells) * actions, jnp.int32))
    step = jax.jit(jax.vmap(env.step_env, (None, 0, 0, None)))
    obs, after, *_ = step(KEY, states, i32(np.tile(np.arange(actions), len(cells))), env.default_params)
    np.testing.assert_array_equal(after.position, successors.reshape(-1, 2))
    shown = {tuple(cell): state for cell, state in zip(cells, golden["table_state"], strict=True)}
    expected = np.stack([shown[tuple(cell)] for cell in np.asarray(after.position)])
    np.testing.assert_allclose(obs["state"], expected, rtol=0, atol=1e-6)


@pytest.mark.golden_files("envs", "rooms_*.npz")
def test_golden_episodes(golden):
    env = envs.Rooms(subtasks=int(golden["num_rooms"]))
    reached = golden["reached"].sum(-1)
    in_order = np.arange(env.num_rooms) < reached[..., None]
    np.testing.assert_array_equal(in_order, golden["reached"])  # a count says it all
    steps = golden["actions"].shape[1]
    states = RoomsState(i32(golden["pos"][:, :-1]), i32(reached[:, :-1]))
    params = RoomsParams(i32(np.repeat(golden["goals"][:, None], steps, 1)))
    step = jax.jit(jax.vmap(jax.vmap(env.step_env, (None, 0, 0, 0)), (None, 0, 0, 0)))
    obs, after, reward, terminated, _ = step(KEY, states, i32(golden["actions"]), params)
    np.testing.assert_array_equal(after.position, golden["pos"][:, 1:])
    np.testing.assert_array_equal(after.reached, reached[:, 1:])
    np.testing.assert_array_equal(reward, golden["reward"].astype(np.float32))
    np.testing.assert_allclose(obs["state"], golden["state"][:, 1:], rtol=0, atol=1e-6)
    assert not terminated.any()


@pytest.mark.golden_files("envs", "rooms_*.npz")
def test_golden_start_and_tasks(golden):
    env = envs.Rooms(subtasks=int(golden["num_rooms"]))
    obs, state = env.reset_env(KEY, env.default_params)
    np.testing.assert_array_equal(state.position, golden["pos"][0, 0])
    np.testing.assert_allclose(obs["state"], golden["state"][0, 0], rtol=0, atol=1e-6)
    goals = jax.jit(jax.vmap(env.sample_task, (0, None)))(jax.random.split(KEY, 300), env.default_params).goals
    for room in range(env.num_rooms):
        ours, theirs = ({tuple(goal) for goal in np.asarray(g[:, room])} for g in (goals, golden["goals"]))
        assert len(ours) == 4
        assert theirs <= ours
