"""The contract of `train_step`, for every registered algorithm."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from probes import PROBES, probe

import mamba_jax as mj
from mamba_jax import sharding

ALGORITHMS = mj.algorithms()


def make(name: str, env=None) -> mj.Algorithm:
    env = env or probe("shown")
    return mj.make(name, env, mj.preset(name, env, size="debug"))


@pytest.fixture(scope="module", params=ALGORITHMS)
def algo(request):
    return make(request.param)


@pytest.fixture(scope="module")
def init(algo):
    return jax.jit(algo.init)


@pytest.fixture(scope="module")
def start(init):
    return init(jax.random.key(0))


@pytest.fixture(scope="module")
def step(algo):
    return jax.jit(algo.train_step)


def assert_same(a, b, **tolerances):
    """All leaves equal bit for bit, or close where tolerances are given."""
    for (path, x), y in zip(jax.tree_util.tree_leaves_with_path(a), jax.tree.leaves(b), strict=True):
        x, y = (jax.random.key_data(z) if jnp.issubdtype(z.dtype, jax.dtypes.prng_key) else z for z in (x, y))
        compare = np.testing.assert_allclose if tolerances else np.testing.assert_array_equal
        compare(np.asarray(x), np.asarray(y), err_msg=jax.tree_util.keystr(path), **tolerances)


def test_two_scanned_steps_equal_two_calls(algo, start, step):
    scanned, _ = jax.jit(lambda state: jax.lax.scan(lambda s, _: algo.train_step(s), state, length=2))(start)
    assert_same(scanned, step(step(start)[0])[0], rtol=2e-4, atol=2e-5)


def test_metrics_are_finite_float32_scalars_and_counters_count(algo, start, step):
    state, metrics = step(start)
    for name, value in metrics.items():
        assert value.shape == () and value.dtype == jnp.float32, name
        assert np.isfinite(value), name
    assert int(state.rounds) == int(start.rounds) + 1
    assert int(state.updates) == int(start.updates) + algo.updates_per_round
    assert int(state.env_steps) == int(start.env_steps) + algo.steps_per_round


@pytest.fixture(scope="module")
def several(algo):
    """Two seeds under a plain vmap: the states after a step, and its metrics."""
    states = jax.jit(jax.vmap(algo.init))(jax.random.split(jax.random.key(3), 2))
    return jax.jit(jax.vmap(algo.train_step))(states)


def test_seeds_under_vmap_match_each_alone(init, step, several):
    stepped, metrics = several
    for i, key in enumerate(jax.random.split(jax.random.key(3), 2)):
        pick = lambda tree, i=i: jax.tree.map(lambda x: x[i], tree)  # noqa: E731
        alone, alone_metrics = step(init(key))
        assert_same(pick(stepped), alone, rtol=2e-3, atol=2e-4)
        assert_same(pick(metrics), alone_metrics, rtol=2e-3, atol=2e-3)


def test_over_seeds_keeps_the_round_counter_unbatched(algo, several):
    seeds = mj.over_seeds(algo, 2)
    states = jax.jit(seeds.init)(jax.random.key(3))
    stepped, _ = jax.jit(seeds.train_step)(states)
    assert stepped.rounds.shape == ()
    expected, _ = several
    assert_same(stepped.replace(rounds=expected.rounds), expected, rtol=2e-3, atol=2e-4)


def test_one_device_and_four_agree(algo, start, step):
    mesh = sharding.make_mesh(jax.devices()[:4])
    shardings = sharding.state_shardings(start, mesh)
    spread = jax.device_put(start, shardings)
    sharded, metrics = jax.jit(algo.train_step, out_shardings=(shardings, None))(spread)
    expected, expected_metrics = step(start)
    assert_same(metrics, expected_metrics, rtol=2e-3, atol=2e-3)
    assert int(sharded.updates) == int(expected.updates)
    assert_same(sharded, expected, rtol=2e-2, atol=2e-3)


def test_one_trace_only_and_no_copy_of_the_donated_state(algo, start):
    traces = []

    def counted(state):
        traces.append(1)
        return algo.train_step(state)

    step = jax.jit(counted, donate_argnums=0)
    analysis = step.lower(start).compile().memory_analysis()
    size = sum(
        x.size * x.dtype.itemsize for x in jax.tree.leaves(start) if not jnp.issubdtype(x.dtype, jax.dtypes.prng_key)
    )
    assert analysis.alias_size_in_bytes >= 0.99 * size
    state = jax.tree.map(jnp.copy, start)
    for _ in range(3):
        state, _ = step(state)
    assert len(traces) == 1


def test_acting_needs_no_training_and_is_deterministic_without_exploration(algo, start):
    env = algo.env
    _, row = env.reset_lanes(jax.random.key(0), 3)
    carry = algo.init_carry(start, 3)
    _, action = algo.act(start, carry, row.observation, jax.random.key(1), False)
    assert action.shape == (3, *env.action_space.shape)
    evaluate = jax.jit(lambda state: mj.evaluate(algo, state, jax.random.key(2), num_tasks=5).returns)
    assert evaluate(start).shape == (5, env.sub_episodes)
    assert_same(evaluate(start), evaluate(start))


@pytest.mark.parametrize("name", ALGORITHMS)
@pytest.mark.parametrize("probe_name", ["steer", "stumble"])
def test_no_nan_on_probes(name, probe_name):
    algo = make(name, probe(probe_name))
    state, metrics = jax.jit(algo.train_step)(jax.jit(algo.init)(jax.random.key(0)))
    assert all(np.isfinite(value) for value in metrics.values())
    assert int(state.env_steps) > 0
    assert set(PROBES) >= {probe_name}
