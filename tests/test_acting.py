"""Which latents the policy of MAMBA sees."""

from dataclasses import replace

import jax
import numpy as np
import pytest

import envs
import mamba_jax as mj
from mamba_jax.algos import mamba
from mamba_jax.ops import discrete

LANES = 64


@pytest.fixture(scope="module")
def act():
    """Acts once on random observations, with fresh parameters: (setting, key, explore) -> latents (LANES, S, K)."""
    env = envs.make("point-wind", sub_episodes=1, length=8)
    config = mj.preset("mamba", env, "debug")
    agent = mamba.make_agent(env, config)
    sizes = {key: (LANES, *shape) for key, shape in agent.model.shapes.items()}
    observation = {key: jax.random.normal(jax.random.key(1), size) for key, size in sizes.items()}
    learner = mamba.init_learner(agent, jax.random.key(0), observation)
    carry = mamba.init_carry(agent, learner, LANES)

    def latents(eval_latents: str, key: int, explore: bool) -> np.ndarray:
        model = agent.model._replace(config=replace(agent.model.config, eval_latents=eval_latents))
        following, _ = mamba.act(
            agent._replace(model=model), learner, carry, observation, jax.random.key(key), explore=explore
        )
        return np.asarray(following.latent.stoch)

    return latents


def test_evaluation_samples_as_released_or_takes_the_mode(act):
    assert (act("sampled", 2, False) != act("sampled", 3, False)).any()
    np.testing.assert_array_equal(act("mode", 2, False), act("mode", 3, False))


def test_the_mode_is_that_of_the_posterior(act, monkeypatch):
    expected = act("mode", 2, False)
    monkeypatch.setattr(discrete, "sample", lambda log_probs, noise: discrete.mode(log_probs))
    np.testing.assert_allclose(act("sampled", 2, False), expected, atol=1e-6)


def test_collection_samples_in_any_case(act):
    np.testing.assert_array_equal(act("mode", 2, True), act("sampled", 2, True))
