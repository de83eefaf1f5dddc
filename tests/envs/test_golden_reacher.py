"""Reacher-N against recorded transitions; the closed form against MJX."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import envs
from envs.mjx import arm
from envs.mjx.reacher import ReacherParams, ReacherState

QUICK = {"xla_backend_optimization_level": 0}  # compiling takes longer than running
KEY = jax.random.key(0)


def rows(array):
    """Episodes and steps in one axis, float32."""
    return jnp.asarray(array, jnp.float32).reshape((-1, *array.shape[2:]))


@pytest.mark.golden_files("envs", "reacher_*.npz")
def test_golden_reacher(golden):
    steps = golden["actions"].shape[1]
    radius = golden["goal_radius"]
    np.testing.assert_allclose(radius, radius[0])
    env = envs.Reacher(subtasks=golden["goals"].shape[1], goal_radius=float(radius[0]))
    index = jnp.asarray(golden["goal_idx_pre"], jnp.int32).reshape(-1)
    states = ReacherState(rows(golden["qpos_pre"]), rows(golden["qvel_pre"]), index, rows(golden["qpos_dyn"]))
    params = ReacherParams(rows(np.repeat(golden["goals"][:, None], steps, 1)))
    step = jax.jit(jax.vmap(env.step_env, (None, 0, 0, 0)))
    obs, after, reward, terminated, _ = step(KEY, states, rows(golden["actions"]), params)
    np.testing.assert_allclose(after.qpos, rows(golden["qpos_post"]), rtol=0, atol=1e-5)
    np.testing.assert_allclose(after.qvel, rows(golden["qvel_post"]), rtol=0, atol=1e-4)
    np.testing.assert_array_equal(after.qpos_dyn, after.qpos)
    np.testing.assert_allclose(obs["state"], rows(golden["finger_xy"]), rtol=0, atol=1e-6)
    np.testing.assert_array_equal(obs["velocity"], after.qvel)
    np.testing.assert_allclose(reward, rows(golden["reward"]), rtol=0, atol=1e-5)
    clear = ~golden["near_edge"].reshape(-1)
    np.testing.assert_array_equal(after.goal_index[clear], golden["goal_idx_post"].reshape(-1)[clear])
    assert not terminated.any()


@pytest.mark.golden_files("envs", "reacher_*.npz")
def test_golden_restart_carries_velocity(golden):
    """At recorded boundaries velocities stay and forces are evaluated at the old angles, with boundary="final"."""
    env = envs.Reacher(subtasks=golden["goals"].shape[1], boundary="final")
    episodes, steps = np.nonzero(golden["meta_episode_reset"][:, :-1])
    assert len(episodes)
    for episode, step in zip(episodes, steps, strict=True):
        at = jnp.asarray(golden["qpos_post"][episode, step]), jnp.asarray(golden["qvel_post"][episode, step])
        last = ReacherState(*at, jnp.asarray(0), at[0])
        _, restarted = env.restart_env(KEY, last, env.default_params)
        np.testing.assert_allclose(restarted.qpos_dyn, golden["qpos_dyn"][episode, step + 1], atol=1e-6)
        np.testing.assert_allclose(restarted.qvel, golden["qvel_pre"][episode, step + 1], atol=1e-6)
        assert int(restarted.goal_index) == golden["goal_idx_pre"][episode, step + 1] == 0


def test_restart_is_at_rest_by_default():
    env = envs.Reacher()
    last = ReacherState(jnp.ones(2), jnp.ones(2), jnp.asarray(0), jnp.ones(2))
    _, restarted = env.restart_env(KEY, last, env.default_params)
    np.testing.assert_array_equal(restarted.qvel, 0.0)
    np.testing.assert_array_equal(restarted.qpos_dyn, restarted.qpos)


def test_closed_form_equals_mjx():
    """From states in and beyond the wrist's stops as well."""
    keys = jax.random.split(KEY, 4)
    side = jnp.sign(jax.random.normal(keys[0], (400,)))
    wrist = side * (arm.WRIST_LIMIT + 0.002 * jax.random.normal(keys[1], (400,)))
    qpos = jax.random.uniform(keys[2], (400, 2), minval=-2.7, maxval=2.7).at[::2, 1].set(wrist[::2])
    qvel = 5.0 * jax.random.normal(keys[3], (400, 2))
    actions = jax.random.uniform(KEY, (10, 400, 2), minval=-1.5, maxval=1.5)

    def play(physics):
        env = envs.make("reacher", subtasks=2, physics=physics).env
        params = env.sample_task(KEY, env.default_params)

        def step(state, action):
            obs, state, reward, *_ = jax.vmap(env.step_env, (None, 0, 0, None))(KEY, state, action, params)
            return state, (obs, state.qpos, reward)

        start = ReacherState(qpos, qvel, jnp.zeros(400, jnp.int32), qpos)
        return jax.jit(lambda: jax.lax.scan(step, start, actions)[1], compiler_options=QUICK)()

    for exact, engine in zip(jax.tree.leaves(play("exact")), jax.tree.leaves(play("mjx")), strict=True):
        np.testing.assert_allclose(exact[0], engine[0], rtol=0, atol=1e-4)
        np.testing.assert_allclose(exact, engine, rtol=0, atol=1e-3)
