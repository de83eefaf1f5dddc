"""The contract of `train_step`, for every registered algorithm."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from probes import probe

import mamba_jax as mj
from mamba_jax import sharding
from mamba_jax.checkpoint import Checkpoints
from mamba_jax.config import with_sections
from mamba_jax.policy import from_arrays, to_arrays

ALGORITHMS = mj.algorithms()


def make(name: str, probe_name: str) -> mj.Algorithm:
    """Lanes and batches can be shared out among four devices."""
    env = probe(probe_name)
    rows = 4 * env.num_steps
    data = {"lanes": 4, "batch": 4, "train_ratio": 2 * env.sub_episodes / rows, "capacity": 4 * rows}
    sections = {"data": data, "collect": {"lanes": 8}, "vae_training": {"batch": 4}, "bonus": {"batch": 4}}
    return mj.make(name, env, with_sections(mj.preset(name, env, size="debug"), sections))


@pytest.fixture(scope="module", params=ALGORITHMS)
def algo(request):
    """With a continuous action."""
    return make(request.param, "steer")


@pytest.fixture(scope="module")
def init(algo):
    return jax.jit(algo.init)


@pytest.fixture(scope="module")
def start(init):
    return init(jax.random.key(0))


@pytest.fixture(scope="module")
def compiled(algo, start):
    """The program of `train_step`, to which the state is donated."""
    return jax.jit(algo.train_step, donate_argnums=0).lower(start).compile()


@pytest.fixture(scope="module")
def step(compiled):
    """`train_step` with a state that is kept."""
    return lambda state: compiled(jax.tree.map(jnp.copy, state))


@pytest.fixture(scope="module")
def alone(init, step):
    """For each of two seeds the (state, metrics) after the first and the second step."""
    found = []
    for key in jax.random.split(jax.random.key(3), 2):
        first = step(init(key))
        found.append((first, step(first[0])))
    return found


def assert_same(a, b, **tolerances):
    """All leaves equal bit for bit, or close where tolerances are given."""
    for (path, x), y in zip(jax.tree_util.tree_leaves_with_path(a), jax.tree.leaves(b), strict=True):
        x, y = (jax.random.key_data(z) if jnp.issubdtype(z.dtype, jax.dtypes.prng_key) else z for z in (x, y))
        compare = np.testing.assert_allclose if tolerances else np.testing.assert_array_equal
        compare(np.asarray(x), np.asarray(y), err_msg=jax.tree_util.keystr(path), **tolerances)


def pick(tree, *index):
    """One element of every leaf."""
    return jax.tree.map(lambda x: x[index], tree)


def test_metrics_are_finite_float32_scalars_and_counters_count(algo, start, step):
    state, metrics = step(start)
    for name, value in metrics.items():
        assert value.shape == () and value.dtype == jnp.float32, name
        assert np.isfinite(value), name
    assert int(state.rounds) == int(start.rounds) + 1
    assert int(state.updates) == int(start.updates) + algo.updates_per_round
    assert int(state.env_steps) == int(start.env_steps) + algo.steps_per_round


def test_steps_under_scan_and_seeds_under_vmap_match_calls_of_each_alone(algo, alone):
    """Two seeds make two steps in one program."""
    states = jax.jit(jax.vmap(algo.init))(jax.random.split(jax.random.key(3), 2))
    several = jax.vmap(algo.train_step)
    states, metrics = jax.jit(lambda states: jax.lax.scan(lambda s, _: several(s), states, length=2))(states)
    for seed, steps in enumerate(alone):
        assert_same(pick(states, seed), steps[-1][0], rtol=2e-3, atol=2e-4)
        for number, (_, expected) in enumerate(steps):
            assert_same(pick(metrics, number, seed), expected, rtol=2e-3, atol=2e-3)


def test_over_seeds_keeps_the_round_counter_unbatched(algo, alone):
    seeds = mj.over_seeds(algo, 2)
    states = jax.jit(seeds.init)(jax.random.key(3))
    stepped, metrics = jax.jit(seeds.train_step)(states)
    assert stepped.rounds.shape == ()
    stepped = stepped.replace(rounds=jnp.broadcast_to(stepped.rounds, 2))
    for seed, ((expected, expected_metrics), _) in enumerate(alone):
        assert_same(pick(stepped, seed), expected, rtol=2e-3, atol=2e-4)
        assert_same(pick(metrics, seed), expected_metrics, rtol=2e-3, atol=2e-3)


@pytest.mark.skipif(len(jax.devices()) < 4, reason="conftest.py makes four devices of a CPU only")
def test_one_device_and_four_agree_and_four_share_the_work(algo, start, step, compiled):
    mesh = sharding.make_mesh(jax.devices()[:4])
    shardings = sharding.state_shardings(start, mesh)
    spread = jax.device_put(start, shardings)
    with jax.set_mesh(mesh):
        program = jax.jit(algo.train_step, out_shardings=(shardings, None)).lower(spread).compile()
    sharded, metrics = program(spread)
    expected, expected_metrics = step(start)

    assert program.cost_analysis()["flops"] < 0.5 * compiled.cost_analysis()["flops"]
    assert_same(metrics, expected_metrics, rtol=2e-3, atol=2e-3)
    assert int(sharded.updates) == int(expected.updates)
    assert_same(sharded, expected, rtol=2e-2, atol=2e-3)


def test_one_program_for_all_steps_and_no_copy_of_the_donated_state(start, compiled):
    """A compiled program refuses a state of other shapes or types than the one it was compiled for."""
    size = sum(
        x.size * x.dtype.itemsize for x in jax.tree.leaves(start) if not jnp.issubdtype(x.dtype, jax.dtypes.prng_key)
    )
    assert compiled.memory_analysis().alias_size_in_bytes >= 0.99 * size
    state = jax.tree.map(jnp.copy, start)
    for _ in range(3):
        state, _ = compiled(state)
    assert int(state.rounds) == int(start.rounds) + 3


def test_a_step_after_saving_and_restoring_is_the_same_bit_for_bit(algo, start, step, tmp_path):
    checkpoints, arrays = Checkpoints(tmp_path / "checkpoints"), to_arrays(start)
    checkpoints.save(1, {"state": arrays}, {})
    restored, _ = checkpoints.restore(1, {"state": jax.eval_shape(lambda: arrays)})
    detour = step(from_arrays(jax.eval_shape(algo.init, jax.random.key(0)), restored["state"]))
    assert_same(detour, step(start))


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
def test_a_discrete_action_and_ragged_meta_episodes_train(name):
    algo = make(name, "stumble")
    state, metrics = jax.jit(algo.train_step)(jax.jit(algo.init)(jax.random.key(0)))
    assert all(np.isfinite(value) for value in metrics.values())
    assert 0 < int(state.env_steps) < 2 * algo.steps_per_round
