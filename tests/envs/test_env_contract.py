"""What every environment in the registry must do; a new one is tested by being registered."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from gymnax.environments import spaces

import envs

SUB_EPISODES, LENGTH, LANES = 2, 3, 4
STEPS = SUB_EPISODES * LENGTH
CHEAP = [name for name in envs.names() if name != "humanoid-dir"]


@functools.cache
def make(name, **options):
    return envs.make(name, sub_episodes=SUB_EPISODES, length=LENGTH, **options)


def random_actions(env, key, *leading):
    if isinstance(env.action_space, spaces.Discrete):
        return jax.random.randint(key, leading, 0, env.action_space.n)
    return jax.random.uniform(key, (*leading, *env.action_space.shape), minval=-1.0, maxval=1.0)


@functools.cache
def rollout(name):
    """Rows (N T + 3, lanes, ...) of a random policy and the states after every row.

    From the first row of a meta-episode to the first of the next, and one step into that. The state before is blank,
    so that one program, `step_lanes`, does everything.
    """
    env = make(name)
    blank = jax.eval_shape(lambda key: env.reset_lanes(key, LANES)[0], jax.random.key(0))
    blank = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), blank)
    blank = blank.replace(is_last=jnp.ones(LANES, bool))

    def run(key):
        actions = random_actions(env, key, STEPS + 3, LANES)

        def step(state, inputs):
            key, action = inputs
            state, row = env.step_lanes(key, state, action)
            return state, (state, row)

        return jax.lax.scan(step, blank, (jax.random.split(key, STEPS + 3), actions))[1]

    quick = {"xla_backend_optimization_level": 0} if name not in CHEAP else None  # compiling takes longer than running
    return jax.jit(run, compiler_options=quick)(jax.random.key(0))


@pytest.mark.parametrize("name", envs.names())
def test_rows_match_the_spaces(name):
    env, (_, rows) = make(name), rollout(name)
    space = env.observation_space
    assert list(space)[-2:] == ["reward", "time"] and list(space)[:-2] == sorted(list(space)[:-2])
    assert set(rows.observation) == set(space)
    for key, entry in rows.observation.items():
        assert entry.shape == (STEPS + 3, LANES, *space[key].shape), key
        assert entry.dtype == space[key].dtype, key
        assert np.isfinite(entry).all(), key
        assert (entry >= space[key].low).all() and (entry <= space[key].high).all(), key
    expected = {"reward": np.float32, "sub_episode": np.int32}
    for field in ("reward", "is_first", "is_last", "terminated", "truncated", "sub_episode"):
        value = getattr(rows, field)
        assert value.shape == (STEPS + 3, LANES) and value.dtype == expected.get(field, bool), field
    np.testing.assert_array_equal(rows.observation["reward"], rows.reward)


@pytest.mark.parametrize("name", envs.names())
def test_flags_and_counters(name):
    """Sub-episodes of three steps are too short for any environment to end one."""
    states, rows = rollout(name)
    t = np.arange(STEPS + 3)
    phase = t % (STEPS + 1)
    each_lane = functools.partial(np.repeat, repeats=LANES, axis=1)
    np.testing.assert_array_equal(rows.is_first, each_lane((phase == 0)[:, None]))
    np.testing.assert_array_equal(rows.is_last, each_lane((phase == STEPS)[:, None]))
    np.testing.assert_array_equal(rows.truncated, each_lane(((phase > 0) & (phase % LENGTH == 0))[:, None]))
    np.testing.assert_array_equal(rows.sub_episode, each_lane((np.maximum(phase - 1, 0) // LENGTH)[:, None]))
    np.testing.assert_allclose(rows.observation["time"], each_lane((phase / STEPS)[:, None]), rtol=1e-6)
    np.testing.assert_array_equal(rows.reward[phase == 0], 0.0)
    np.testing.assert_array_equal(states.is_last, rows.is_last)
    assert not rows.terminated.any()


@pytest.mark.parametrize("name", envs.names())
def test_the_task_changes_with_the_meta_episode_only(name):
    states, _ = rollout(name)
    tasks = np.concatenate(
        [np.asarray(leaf).reshape((STEPS + 3, LANES, -1)) for leaf in jax.tree.leaves(states.params)], axis=-1
    )
    np.testing.assert_array_equal(tasks[: STEPS + 1], np.repeat(tasks[:1], STEPS + 1, 0))
    np.testing.assert_array_equal(tasks[STEPS + 1], tasks[STEPS + 2])
    assert len(np.unique(tasks[0], axis=0)) > 1
    assert (tasks[0] != tasks[STEPS + 1]).any(-1).sum() > 1


@pytest.mark.parametrize("name", envs.names())
def test_state_keeps_its_types(name):
    states, _ = rollout(name)
    dtypes = {leaf.dtype for leaf in jax.tree.leaves(states)}
    assert dtypes <= {np.dtype(np.float32), np.dtype(np.int32), np.dtype(bool)}


@pytest.mark.parametrize("boundary", ["reset", "final"])
@pytest.mark.parametrize("name", CHEAP)
def test_lanes_equal_vmap(name, boundary):
    env = make(name, boundary=boundary)
    state, _ = jax.jit(env.reset_lanes, static_argnums=1)(jax.random.key(0), LANES)
    other = jax.tree.map(lambda x: x, state)
    lanes, single = jax.jit(env.step_lanes), jax.jit(jax.vmap(env.step))
    for t in range(STEPS + 2):
        key = jax.random.key(t)
        actions = random_actions(env, key, LANES)
        state, row = lanes(key, state, actions)
        other, expected = single(jax.random.split(key, LANES), other, actions)
        for a, b in zip(jax.tree.leaves((state, row)), jax.tree.leaves((other, expected)), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-6)


def test_restarts_stay_a_branch_for_several_seeds():
    """A `cond` on a batched condition would become a select, with every restart computed at every step."""
    env = make("escape-room")
    states, _ = jax.eval_shape(
        jax.vmap(lambda key: env.reset_lanes(key, LANES)), jax.random.split(jax.random.key(0), 2)
    )
    actions, keys = jnp.zeros((2, LANES, 2)), jax.random.split(jax.random.key(1), 2)
    for step in (env.step_lanes, jax.vmap(env.step_lanes)):
        arguments = (keys, states, actions)
        if step == env.step_lanes:
            arguments = (
                keys[0],
                *jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape[1:], x.dtype), (states, actions)),
            )
        assert "cond[" in str(jax.make_jaxpr(step)(*arguments))


@pytest.mark.parametrize("name", CHEAP)
def test_reset_lanes_equal_vmap(name):
    env = make(name)
    reset_lanes = jax.jit(lambda key, params=None: env.reset_lanes(key, LANES, params=params))
    lanes = reset_lanes(jax.random.key(1))
    keys = jax.random.split(jax.random.key(1), LANES)
    jax.tree.map(np.testing.assert_array_equal, lanes, jax.jit(jax.vmap(env.reset))(keys))
    params = lanes[0].params
    given = reset_lanes(jax.random.key(2), params)
    jax.tree.map(np.testing.assert_array_equal, given[0].params, params)


@pytest.mark.parametrize("name", CHEAP)
def test_types_do_not_depend_on_the_precision_mode(name, x64):
    env = make(name)
    key = jax.random.key(0)
    reset = jax.eval_shape(env.reset, key)
    action = jax.eval_shape(lambda: random_actions(env, key)).update(dtype=env.action_space.dtype)
    step = jax.eval_shape(env.step, key, reset[0], action)
    for before, after in zip(jax.tree.leaves(reset), jax.tree.leaves(step), strict=True):
        assert before.dtype in (np.float32, np.int32, bool)
        assert (before.shape, before.dtype) == (after.shape, after.dtype)


@pytest.mark.parametrize("name", CHEAP)
def test_gymnax_interface(name):
    """The inner environments are gymnax environments: `reset` and `step` of the base class work."""
    env = make(name).env
    obs, state = env.reset(jax.random.key(0), env.default_params)
    action = random_actions(make(name), jax.random.key(0))
    obs, _, reward, terminated, truncated, _ = env.step(jax.random.key(1), state, action, env.default_params)
    assert set(obs) == set(env.observation_space(env.default_params).spaces)
    assert reward.shape == terminated.shape == truncated.shape == ()
    assert not truncated


@pytest.mark.parametrize("name", envs.names())
def test_render(name):
    env = make(name)
    states, _ = rollout(name)
    frames = [env.render(jax.tree.map(lambda x, t=t: x[t, 0], states)) for t in (0, STEPS)]
    for frame in frames:
        assert frame.dtype == np.uint8 and frame.ndim == 3 and frame.shape[-1] == 3
        assert 128 <= frame.shape[0] <= 256 and frame.shape[0] == frame.shape[1]
        assert len(np.unique(frame.reshape(-1, 3), axis=0)) > 4
    assert (frames[0] != frames[1]).any()
