"""Comparing the rewards that a world model imagines with those that came."""

from dataclasses import replace

import foresight
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import envs
import mamba_jax as mj
from mamba_jax import world_model as wm
from mamba_jax.algos import mamba
from mamba_jax.ops import twohot
from mamba_jax.replay import sample


@pytest.fixture(scope="module")
def agent():
    """An agent whose latents have one value, so that the prior knows what the posterior knows: nothing is lost."""
    env = envs.make("rooms", subtasks=2, length=12)
    config = mj.preset("mamba", env, size="debug")
    return mamba.make_agent(env, replace(config, world_model=replace(config.world_model, stoch=1, classes=1)))


def test_what_is_imagined_is_what_the_actions_lead_to(agent):
    state = jax.jit(lambda key: mamba.init(agent, key))(jax.random.key(0))
    data = mamba.to_sequences(agent, state.learner, sample(state.replay, jax.random.key(1), 4))
    head = state.learner.model["reward"]
    noisy = jax.tree.map(lambda x: x + jax.random.normal(jax.random.key(2), x.shape), head)
    model = state.learner.model | {"reward": noisy}
    found = foresight.foresee(agent, replace(state.learner, model=model), data)
    latent = wm.observe(agent.model, model, data, jax.random.key(3)).latent
    expected = twohot.two_hot_mean(agent.model.reward.apply(noisy, latent.features))
    reward = data.observation["reward"]
    for ahead in range(1, max(foresight.AHEAD) + 1):
        np.testing.assert_allclose(found.imagined[ahead - 1], expected[ahead], rtol=1e-3, atol=1e-4)
        np.testing.assert_array_equal(found.true[ahead - 1], reward[ahead])
    assert jnp.std(expected) > 1e-3


def test_starts_are_told_apart_by_what_is_known():
    now = np.array([0.0, 0.0, 1.0, 1.0])
    met = np.array([False, True, True, True])
    true = np.tile(np.array([0.0, 1.0, 1.0, 0.0]), (16, 1))
    lines = foresight.table(foresight.Foresight(now, met, true, true / 2))[2:]
    assert len(lines) == 3 * len(foresight.AHEAD)
    assert lines[0] == "| no reward met yet | 1 | 1 | 0.000 | 0.000 | - | - |"
    assert lines[5] == "| met before, not now | 1 | 1 | 1.000 | 0.500 | 1.000 | 0.500 |"
    assert lines[14] == "| reward now | 2 | 16 | 0.500 | 0.250 | 1.000 | 0.500 |"


def test_short_meta_episodes_and_bad_folders_are_usage_errors(agent, capsys):
    short = wm.Sequences({}, jnp.zeros((16, 1, 5)), jnp.zeros((16, 1)), jnp.zeros((16, 1)))
    with pytest.raises(ValueError, match="too short"):
        foresight.foresee(agent, None, short)
    with pytest.raises(SystemExit) as stopped:
        foresight.main(["nowhere"])
    assert stopped.value.code == 2 and capsys.readouterr().err.startswith("foresight.py: ")
