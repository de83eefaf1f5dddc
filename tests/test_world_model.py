"""The parts of the world-model loss that golden values, recorded with the published weights, do not reach."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from mamba_jax import world_model as wm
from mamba_jax.presets import DEBUG_MODEL

TIME, BATCH = 6, 2
SHAPES = {"state": (2,), "reward": (), "time": ()}


def test_the_reconstruction_has_its_own_weight():
    keys = iter(jax.random.split(jax.random.key(0), 6))
    observation = {key: jax.random.normal(next(keys), (TIME, BATCH, *shape)) for key, shape in SHAPES.items()}
    action, flags = jax.random.normal(next(keys), (TIME, BATCH, 2)), jnp.zeros((TIME, BATCH), bool)
    data = wm.Sequences(observation, action, flags.at[0].set(True), flags)
    model = wm.make_world_model(dataclasses.replace(DEBUG_MODEL, subsample=0), SHAPES, 2)
    params, key = wm.init_world_model(model, next(keys)), next(keys)

    def loss(scale):
        config = dataclasses.replace(model.config, decoder_scale=scale)
        value, (_, metrics) = wm.loss(model._replace(config=config), params, data, key, None)
        return float(value), metrics

    (published, metrics), (weighted, same) = loss(1.0), loss(3.0)
    decoded = sum(float(term) for name, term in metrics.items() if "decoder_" in name)
    assert sum("decoder_" in name for name in metrics) == 2 * len(SHAPES) and decoded > 0.1
    np.testing.assert_allclose(weighted - published, 2 * decoded, rtol=1e-4)
    np.testing.assert_allclose(same["loss_decoder_state"], metrics["loss_decoder_state"], rtol=1e-6)
