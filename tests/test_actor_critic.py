"""Starts of imagination."""

import jax
import numpy as np
import pytest

from mamba_jax import actor_critic as ac
from mamba_jax import world_model as wm
from mamba_jax.presets import DEBUG_MODEL

TIME, BATCH = 5, 2


@pytest.mark.parametrize("starts", [3, 4 * TIME])
def test_starts_are_the_chosen_states_however_often_they_are_chosen(starts):
    model = wm.make_world_model(DEBUG_MODEL, {"state": (2,), "reward": (), "time": ()}, 2)
    params = wm.init_world_model(model, jax.random.key(0))
    keys = jax.random.split(jax.random.key(1), 3)
    latent = wm.Latent(
        jax.random.normal(keys[0], (TIME, BATCH, DEBUG_MODEL.deter)),
        jax.random.normal(keys[1], (TIME, BATCH, DEBUG_MODEL.stoch * DEBUG_MODEL.classes)),
    )
    index = jax.random.randint(keys[2], (starts, BATCH), 0, TIME)
    start = ac.make_start(model, params, latent, index)
    chosen = np.asarray(latent.deter)[np.asarray(index), np.arange(BATCH)].reshape(starts * BATCH, -1)
    np.testing.assert_array_equal(start.latent.deter, chosen)
    kernel = params["rssm"]["params"]["gru_linear"]["kernel"]
    np.testing.assert_allclose(start.projected, chosen @ kernel[DEBUG_MODEL.hidden :], rtol=1e-5, atol=1e-6)
