"""Laws that hold for any task and any actions."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import envs
from envs.escape_room import DOOR, EscapeRoomParams, EscapeRoomState
from envs.mjx import arm

seeds = st.integers(0, 2**31 - 1)
quick = settings(max_examples=25, deadline=None)


@functools.cache
def episode(name, length, **options):
    """(seed) -> (params, states before, states after, observations, rewards) of a random task and sticky actions."""
    env = envs.make(name, **options).env

    def run(seed):
        task_key, start_key, action_key, repeat_key = jax.random.split(jax.random.key(seed), 4)
        params = env.sample_task(task_key, env.default_params)
        space = env.action_space(params)
        actions = jax.vmap(space.sample)(jax.random.split(action_key, length))
        hold = jax.random.randint(repeat_key, (), 1, 8)
        actions = actions[jnp.arange(length) // hold]  # long runs reach walls and corridors

        def step(state, inputs):
            key, action = inputs
            obs, after, reward, _, _ = env.step_env(key, state, action, params)
            return after, (state, after, obs, reward)

        _, start = env.reset_env(start_key, params)
        keys = jax.random.split(start_key, length)
        return params, *jax.lax.scan(step, start, (keys, actions))[1]

    return jax.jit(run)


def rooms_by_hand(num_rooms):
    """All free cells: rooms of 3 x 3 and corridors of 3 x 1."""
    rooms = {(6 * room + x, y) for room in range(num_rooms) for x in range(3) for y in (-1, 0, 1)}
    return rooms | {(6 * room + 3 + x, 0) for room in range(num_rooms - 1) for x in range(3)}


@pytest.mark.parametrize("num_rooms", [2, 5])
@quick
@given(seed=seeds)
def test_rooms(num_rooms, seed):
    params, before, after, _, rewards = episode("rooms", 80, subtasks=num_rooms)(seed)
    cells = {tuple(cell) for cell in np.asarray(after.position).tolist()}
    assert cells <= rooms_by_hand(num_rooms)
    assert np.abs(after.position - before.position).sum(-1).max() <= 1
    flags, expected = [False] * num_rooms, []
    for cell in np.asarray(after.position).tolist():  # the rule as written down for any order of visits
        reward = -0.1
        for room, goal in enumerate(np.asarray(params.goals).tolist()):
            open_ = room == 0 or flags[room - 1]
            if cell == goal and open_ and (not flags[room] or room == num_rooms - 1):
                reward, flags[room] = 1.0, True
        expected.append(reward)
    np.testing.assert_array_equal(rewards, np.float32(expected))


@quick
@given(seed=seeds)
def test_half_circle(seed):
    for name in ("halfcircle", "point-wind"):
        params, before, after, obs, rewards = episode(name, 60)(seed)
        assert np.abs(after.position - before.position).max() <= 0.1 + 1e-6
        assert float(params.goal[1]) >= 0.0 and abs(float(jnp.linalg.norm(params.goal)) - 1.0) < 1e-6
        assert all(reward == 0.0 or 0.8 - 1e-6 <= reward <= 1.0 for reward in np.asarray(rewards))
        np.testing.assert_array_equal(obs["state"], after.position)


@quick
@given(seed=seeds)
def test_escape_is_by_the_door_only(seed):
    params, before, after, _, rewards = episode("escape-room", 60)(seed)
    starts, ends = np.asarray(before.position, np.float64), np.asarray(after.position, np.float64)
    radius = np.linalg.norm(ends, axis=-1)
    np.testing.assert_array_equal(rewards, (np.linalg.norm(after.position, axis=-1) > 1.0).astype(np.float32))
    for start, end in zip(starts[radius > 1.0], ends[radius > 1.0], strict=True):
        if np.linalg.norm(start) < 0.997:
            way = start + np.linspace(0.0, 1.0, 2001)[:, None] * (end - start)
            exit_ = way[np.argmax(np.linalg.norm(way, axis=-1) > 0.998)]
            assert abs(np.arctan2(exit_[1], exit_[0]) - float(params.door)) <= DOOR + 2e-3


escape_step = jax.jit(envs.EscapeRoom().step_env)


@quick
@given(
    angle=st.floats(-np.pi, np.pi),
    depth=st.floats(0.0, 0.05),
    turn=st.floats(-1.0, 1.0),
    door=st.floats(0.0, float(np.pi)),
)
def test_the_wall_holds_away_from_the_door(angle, depth, turn, door):
    start = (0.99 - depth) * np.array([np.cos(angle), np.sin(angle)])
    push = np.array([np.cos(angle + turn), np.sin(angle + turn)])
    push = push / np.abs(push).max()
    contact_error = 0.15  # the contact lies within one step
    if abs(angle - door) < DOOR + contact_error:
        return
    state, params = EscapeRoomState(jnp.float32(start)), EscapeRoomParams(jnp.float32(door))
    _, after, reward, _, _ = escape_step(jax.random.key(0), state, jnp.float32(push), params)
    assert np.linalg.norm(after.position) < 0.9999
    assert reward == 0.0


@quick
@given(seed=seeds)
def test_reacher(seed):
    params, before, after, obs, rewards = episode("reacher", 60, subtasks=3)(seed)
    assert np.linalg.norm(params.goals, axis=-1).max() <= 0.195 + 1e-6
    assert np.linalg.norm(obs["state"], axis=-1).max() <= 2 * arm.LINK + 1e-6
    advance = np.asarray(after.goal_index - before.goal_index)
    assert set(advance.tolist()) <= {0, 1}
    assert np.asarray(after.goal_index).max() <= 2
    assert np.asarray(rewards).max() <= 1.0
    np.testing.assert_allclose(after.qpos, before.qpos + arm.TIMESTEP * after.qvel, rtol=0, atol=1e-6)


def many_starts(env):
    keys = jax.random.split(jax.random.key(0), 4000)
    return jax.jit(jax.vmap(env.reset_env, (0, None)))(keys, env.default_params)[1]


def test_reacher_starts():
    env = envs.Reacher()
    starts = many_starts(env)
    limits = np.array([np.pi, arm.WRIST_LIMIT])
    assert (np.abs(starts.qpos) <= limits + 1e-6).all()
    assert (np.abs(starts.qpos).max(0) > 0.98 * limits).all()


def test_escape_room_starts_are_uniform_in_radius():
    env = envs.EscapeRoom()
    starts = many_starts(env)
    radius = np.linalg.norm(starts.position, axis=-1)
    np.testing.assert_allclose(np.quantile(radius, [0.25, 0.5, 0.75]), [0.25, 0.5, 0.75], atol=0.04)
    assert (starts.position.min(0) < -0.8).all() and (starts.position.max(0) > 0.8).all()
