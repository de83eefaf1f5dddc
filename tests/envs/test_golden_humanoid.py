"""Humanoid-Dir against recorded transitions of MuJoCo."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import envs

QUICK = {"xla_backend_optimization_level": 0}  # compiling takes longer than running
BLOCKS = {"qpos": 22, "qvel": 23, "cinert": 140, "cvel": 84, "actuator": 23, "contact": 84}


@functools.cache
def environment():
    return envs.HumanoidDir()


@functools.cache
def transitions(path):
    """All recorded steps from the recorded states, with the margins of old engines ("old") and of recent ones ("new").

    One compilation serves both.
    """
    from envs.mjx.humanoid import HumanoidParams, HumanoidState

    with np.load(path) as arrays:
        names = ("qpos_pre", "qvel_pre", "qacc_warmstart", "com_before", "actions", "direction")
        qpos, qvel, warmstart, com, actions, direction = (jnp.asarray(arrays[name], jnp.float32) for name in names)
    step = jax.jit(jax.vmap(environment().step_env, (None, 0, 0, 0)), compiler_options=QUICK)
    old = environment().default_params.margin
    return {
        rule: step(
            jax.random.key(0),
            HumanoidState(qpos, qvel, warmstart, com),
            actions,
            HumanoidParams(direction, jnp.full(direction.shape, margin)),
        )
        for rule, margin in (("old", old), ("new", 2.0 * old))
    }


def assert_state(state, qpos, qvel, com):
    """The engine's own float64 replays differ by 1.5e-7 and 2e-5; float32 adds its rounding."""
    errors = [np.abs(np.asarray(a) - b).max(-1) for a, b in ((state.qpos, qpos), (state.qvel, qvel), (state.com, com))]
    assert errors[0].max() < 1e-4 and np.median(errors[0]) < 2e-6
    assert errors[1].max() < 2e-3 and np.median(errors[1]) < 3e-5
    assert errors[2].max() < 5e-5 and np.median(errors[2]) < 2e-6


@pytest.mark.golden_files("envs", "humanoid_dir.npz")
def test_golden_humanoid_default_margins(golden, golden_file):
    _, state, *_ = transitions(golden_file)["old"]
    assert_state(state, *(golden[f"{name}_maxmargin"] for name in ("qpos_post", "qvel_post", "com_after")))


@pytest.mark.golden_files("envs", "humanoid_dir.npz")
def test_golden_humanoid_recent_margins(golden, golden_file):
    _, state, *_ = transitions(golden_file)["new"]
    assert_state(state, *(golden[name] for name in ("qpos_post", "qvel_post", "com_after")))


@pytest.mark.golden_files("envs", "humanoid_dir.npz")
def test_golden_humanoid_reward_and_termination(golden, golden_file):
    _, _, reward, terminated, terms = transitions(golden_file)["new"]
    for name, tolerance in (("reward_linvel", 4e-3), ("cost_ctrl", 1e-6), ("cost_impact", 1e-3)):
        np.testing.assert_allclose(terms[name], golden[name], rtol=1e-3, atol=tolerance)
    np.testing.assert_allclose(reward, golden["reward"], rtol=0, atol=5e-3)
    assert np.median(np.abs(np.asarray(reward) - golden["reward"])) < 1e-4
    height = golden["qpos_post"][:, 2]
    clear = np.minimum(np.abs(height - 1.0), np.abs(height - 2.0)) > 1e-4
    np.testing.assert_array_equal(terminated[clear], golden["terminated"][clear])
    assert golden["terminated"].any()


@pytest.mark.golden_files("envs", "humanoid_dir.npz")
def test_golden_humanoid_observation(golden, golden_file):
    obs, *_ = transitions(golden_file)["new"]
    assert_observation(np.asarray(obs["state"])[golden["obs_idx"]], golden["obs"], BLOCKS)


@pytest.mark.golden_files("envs", "humanoid_dir.npz")
def test_golden_humanoid_start(golden):
    """Recorded starts keep the last control, ours have none, which shows in the actuators' forces only."""
    env = environment()
    qpos, qvel = (jnp.asarray(golden[name], jnp.float32) for name in ("reset_qpos", "reset_qvel"))
    obs, _ = jax.jit(jax.vmap(env.start, (0, 0, None)), compiler_options=QUICK)(qpos, qvel, env.default_params)
    assert_observation(np.asarray(obs["state"]), golden["reset_obs"], BLOCKS.keys() - {"actuator", "contact"})


def assert_observation(ours, theirs, blocks):
    """Compare the blocks of an observation, each to 2e-4 of its largest entry."""
    assert ours.shape[-1] == theirs.shape[-1] == sum(BLOCKS.values())
    start = 0
    for name, size in BLOCKS.items():
        block = slice(start, start + size)
        if name in blocks:
            scale = max(1.0, np.abs(theirs[:, block]).max())
            np.testing.assert_allclose(ours[:, block], theirs[:, block], rtol=0, atol=2e-4 * scale, err_msg=name)
        start += size
