"""Learning rates over a run."""

import jax
import numpy as np
import pytest
from probes import probe

import mamba_jax as mj
from mamba_jax.algos import mamba
from mamba_jax.config import with_sections


@pytest.mark.parametrize("cooldown", [0.0, 0.25, 1.0])
def test_rates_are_a_fifth_over_the_last_share_of_the_updates(cooldown):
    env = probe("constant")
    config = mj.preset("mamba", env, "debug")
    rows = config.data.lanes * env.num_steps
    sections = {"optimizer": {"cooldown": cooldown}, "run": {"steps": 7 * rows + 1}}
    agent = mamba.make_agent(env, config := with_sections(config, sections))
    updates = mamba.run_updates(env, config)
    prefill = config.prefill_steps(env.num_steps) // rows
    assert updates == (8 - prefill) * mamba.updates_per_round(env, config)

    def step(state, _):  # Adam's steps under a gradient that stays as it is are its rate
        change, state = agent.model_opt.update(np.ones(()), state)
        return state, -change

    steps = jax.lax.scan(step, agent.model_opt.init(np.ones(())), None, updates)[1]
    last = round(cooldown * updates)
    expected = np.ones(updates)
    expected[updates - last :] = 0.2
    np.testing.assert_allclose(steps, config.optimizer.model_rate * expected, rtol=1e-4)
