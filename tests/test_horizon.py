"""The horizon schedule, the chunked scan and the loss at a horizon."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mamba_jax import horizon as hz
from mamba_jax import world_model as wm
from mamba_jax.config import ConfigError, HorizonConfig, MambaConfig
from mamba_jax.presets import DEBUG_MODEL


@given(st.integers(1, 170), st.integers(0, 200))
@settings(max_examples=15, deadline=None)
def test_chunked_scan_equals_a_scan_below_the_horizon(total, horizon):
    xs = jnp.arange(1.0, total + 1)

    def chunk(factor, carry, xs, start):
        del start
        return jax.lax.scan(lambda c, x: (c + factor * x, c + factor * x), carry, xs)

    def kept(factor, carry):
        return hz.chunked_scan(chunk, factor, carry, xs, jnp.int32(horizon))[1]

    def total_kept(factor, carry):
        return kept(factor, carry)[:horizon].sum()

    ys = kept(jnp.float32(1), jnp.float32(0))
    expected = np.cumsum(np.arange(1.0, total + 1))[:horizon]
    np.testing.assert_allclose(ys[:horizon], expected, rtol=1e-6)
    assert ys.shape == (total,)
    chunks = -(-total // hz.CHUNK)
    size = -(-total // chunks)
    np.testing.assert_array_equal(ys[-(-horizon // size) * size :], 0)
    grads = jax.grad(total_kept, (0, 1))(jnp.float32(2), jnp.float32(3))
    np.testing.assert_allclose(grads, (expected.sum(), min(horizon, total)), rtol=1e-6)


@given(st.integers(1, 400), st.integers(1, 5000) | st.integers(1, 2**31 - 1), st.floats(0, 1.2))
@settings(max_examples=50, deadline=None)
def test_schedule_grows_linearly_to_the_whole_meta_episode(initial, growth, share):
    length, steps = 400, min(int(share * growth), 2**31 - 1)
    found = int(hz.scheduled_horizon(HorizonConfig(initial, growth), length, jnp.int32(steps)))
    exact = (
        length if initial == length else min(length, initial + -(-min(steps, growth) * (length - initial) // growth))
    )
    assert found == exact


TOTAL, BATCH = 70, 3


@pytest.fixture(scope="module")
def model():
    shapes = {"state": (2,), "reward": (), "time": ()}
    return wm.make_world_model(dataclasses.replace(DEBUG_MODEL, window=3), shapes, 2)


def make_data(total: int) -> wm.Sequences:
    keys = jax.random.split(jax.random.key(1), 4)
    observation = {
        "state": jax.random.normal(keys[0], (TOTAL, BATCH, 2)),
        "reward": jax.random.normal(keys[1], (TOTAL, BATCH)),
        "time": jnp.broadcast_to(jnp.arange(TOTAL)[:, None] / TOTAL, (TOTAL, BATCH)),
    }
    action = jax.random.normal(keys[2], (TOTAL, BATCH, 2))
    is_first = jnp.zeros((TOTAL, BATCH), bool).at[0].set(True).at[20, 1].set(True)
    data = wm.Sequences(observation, action, is_first, jnp.zeros((TOTAL, BATCH), bool).at[5, 0].set(True))
    return jax.tree.map(lambda x: x[:total], data)


@pytest.mark.parametrize(
    ("cut", "pairing", "all_rows"), [(30, "aligned", False), (50, "aligned", False), (50, "released", True)]
)
def test_loss_at_a_horizon_equals_that_of_shorter_sequences(model, cut, pairing, all_rows):
    model = model._replace(config=dataclasses.replace(model.config, pairing=pairing))
    params = wm.init_world_model(model, jax.random.key(0))
    noise = jax.random.gumbel(jax.random.key(2), (TOTAL, BATCH, DEBUG_MODEL.stoch, DEBUG_MODEL.classes))
    index = None if all_rows else jax.random.randint(jax.random.key(3), (9, BATCH), 0, cut)

    def run(total, horizon):
        objective = lambda p: wm.loss(model, p, make_data(total), noise[:total], index, horizon)[0]  # noqa: E731
        return jax.jit(jax.value_and_grad(objective))(params)

    at_horizon, shorter = run(TOTAL, jnp.int32(cut)), run(cut, None)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-4, atol=2e-5), at_horizon, shorter)


def test_all_states_are_used_where_none_are_subsampled(model):
    params = wm.init_world_model(model, jax.random.key(0))
    noise = jax.random.gumbel(jax.random.key(2), (TOTAL, BATCH, DEBUG_MODEL.stoch, DEBUG_MODEL.classes))
    everything = jnp.broadcast_to(jnp.arange(40)[:, None], (40, BATCH))
    run = jax.jit(lambda index, horizon: wm.loss(model, params, make_data(TOTAL), noise, index, horizon)[0])
    np.testing.assert_allclose(run(None, jnp.int32(40)), run(everything, jnp.int32(40)), rtol=1e-5)


@pytest.mark.parametrize(
    ("section", "values", "words"),
    [
        ("world_model", {"window": 2}, "odd"),
        ("actor_critic", {"horizon": 1}, "at least 2"),
        ("data", {"capacity": 5}, "capacity"),
        ("data", {"lanes": 0}, "positive"),
        ("horizon", {"initial": 500, "growth_steps": 10}, "exceeds"),
    ],
)
def test_impossible_configurations_are_refused_in_one_sentence(section, values, words):
    config = MambaConfig()
    config = dataclasses.replace(config, **{section: dataclasses.replace(getattr(config, section), **values)})
    with pytest.raises(ConfigError, match=words) as caught:
        config.validate(100)
    assert str(caught.value).count("\n") == 0
