"""HalfCircle, Point-Wind and EscapeRoom against recorded transitions."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import envs
from envs import escape_room
from envs.escape_room import EscapeRoomParams, EscapeRoomState
from envs.point_robot import HalfCircleParams, HalfCircleState

KEY = jax.random.key(0)


def f32(array):
    return jnp.asarray(array, jnp.float32)


def transitions(env, states, actions, params):
    return jax.jit(jax.vmap(env.step_env, (None, 0, 0, 0)))(KEY, states, actions, params)


def half_circle(golden, push):
    steps = golden["reward"].shape[1]
    radius = golden["goal_radius"]
    np.testing.assert_allclose(radius, radius[0])
    goal = np.repeat(golden["goal_pos"][:, None], steps, 1).reshape(-1, 2)
    env = envs.HalfCircle(goal_radius=float(radius[0]))
    obs, state, reward, terminated, _ = transitions(
        env, HalfCircleState(f32(golden["pre"]).reshape(-1, 2)), f32(push).reshape(-1, 2), HalfCircleParams(f32(goal))
    )
    post = golden["post"].reshape(-1, 2)
    np.testing.assert_allclose(state.position, post, rtol=0, atol=1e-6)
    np.testing.assert_allclose(obs["state"], post, rtol=0, atol=1e-6)
    clear = ~golden["near_edge"].reshape(-1)
    np.testing.assert_allclose(reward[clear], golden["reward"].reshape(-1)[clear], rtol=0, atol=1e-6)
    assert not terminated.any()


@pytest.mark.golden_files("envs", "halfcircle.npz")
def test_golden_half_circle(golden):
    half_circle(golden, golden["actions"])


@pytest.mark.golden_files("envs", "halfcirclewind.npz")
def test_golden_point_wind(golden):
    half_circle(golden, golden["actions"] + golden["wind"])


def test_wind_is_added_before_clipping():
    calm, windy = envs.HalfCircle(), envs.PointWind()
    keys, actions = jax.random.split(KEY, 2000), jax.random.uniform(KEY, (2000, 2), minval=-1.5, maxval=1.5)
    state, params = HalfCircleState(jnp.zeros(2)), calm.default_params
    moved = jax.vmap(windy.step_env, (0, None, 0, None))(keys, state, actions, params)[1].position
    wind = 0.3 * jax.vmap(lambda key: jax.random.normal(key, (2,)))(keys)
    expected = jax.vmap(calm.step_env, (0, None, 0, None))(keys, state, actions + wind, params)[1].position
    np.testing.assert_array_equal(moved, expected)
    assert abs(float(wind.std()) - 0.3) < 0.02


@pytest.mark.golden_files("envs", "escaperoom*.npz")
def test_golden_escape_room(golden):
    shape = golden["reward"].shape
    door = np.broadcast_to(golden["goal_angle"].reshape((-1,) + (1,) * (len(shape) - 1)), shape).reshape(-1)
    start, actions = f32(golden["pre"]).reshape(-1, 2), f32(golden["actions"]).reshape(-1, 2)
    env = envs.EscapeRoom()
    obs, state, reward, terminated, _ = transitions(env, EscapeRoomState(start), actions, EscapeRoomParams(f32(door)))
    sure = ~golden["tie_exact"].reshape(-1)
    np.testing.assert_allclose(state.position[sure], golden["post"].reshape(-1, 2)[sure], rtol=0, atol=1e-6)
    np.testing.assert_array_equal(reward[sure], golden["reward"].reshape(-1)[sure])
    np.testing.assert_array_equal(obs["state"], state.position)
    assert not terminated.any()


@pytest.mark.golden_files("envs", "escaperoom.npz")
def test_golden_barrier(golden):
    """The polygons of the environment are the recorded ones."""
    for name, radius in (("barrier_outer_xy", escape_room.OUTER), ("barrier_inner_xy", escape_room.INNER)):
        vertices = golden[name][:-1]
        np.testing.assert_allclose(np.linalg.norm(vertices, axis=-1), radius, rtol=1e-12)
        turns = np.arctan2(vertices[:, 1], vertices[:, 0]) * escape_room.EDGES / (2 * np.pi)
        np.testing.assert_allclose(turns, np.round(turns), atol=1e-9)
        assert len(set(np.round(turns) % escape_room.EDGES)) == len(vertices) == escape_room.EDGES
