"""The parts of the world model that golden values, recorded with the published settings, do not reach."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mamba_jax import world_model as wm
from mamba_jax.config import ConfigError
from mamba_jax.ops import discrete
from mamba_jax.presets import DEBUG_MODEL

TIME, BATCH = 6, 2
SHAPES = {"state": (2,), "reward": (), "time": ()}


def make_case(**settings):
    """A model with these settings, its parameters, random sequences and a key."""
    keys = iter(jax.random.split(jax.random.key(0), 6))
    observation = {key: jax.random.normal(next(keys), (TIME, BATCH, *shape)) for key, shape in SHAPES.items()}
    action, flags = jax.random.normal(next(keys), (TIME, BATCH, 2)), jnp.zeros((TIME, BATCH), bool)
    data = wm.Sequences(observation, action, flags.at[0].set(True), flags)
    model = wm.make_world_model(dataclasses.replace(DEBUG_MODEL, subsample=0, **settings), SHAPES, 2)
    return model, wm.init_world_model(model, next(keys)), data, next(keys)


def test_the_reconstruction_has_its_own_weight():
    model, params, data, key = make_case()

    def loss(scale):
        config = dataclasses.replace(model.config, decoder_scale=scale)
        value, (_, metrics) = wm.loss(model._replace(config=config), params, data, key, None)
        return float(value), metrics

    (published, metrics), (weighted, same) = loss(1.0), loss(3.0)
    decoded = sum(float(term) for name, term in metrics.items() if "decoder_" in name)
    assert sum("decoder_" in name for name in metrics) == 2 * len(SHAPES) and decoded > 0.1
    np.testing.assert_allclose(weighted - published, 2 * decoded, rtol=1e-4)
    np.testing.assert_allclose(same["loss_decoder_state"], metrics["loss_decoder_state"], rtol=1e-6)


def changed(data, entry):
    """The same sequences with another entry of the observation."""
    return data.replace(observation=data.observation | {entry: data.observation[entry] + 5.0})


@pytest.mark.parametrize("seen", [True, False])
def test_reward_and_time_can_be_left_out_of_the_observation(seen):
    model, params, data, key = make_case(reward_and_time=seen)
    features = jax.jit(lambda data: wm.observe(model, params, data, key).latent.features)
    belief = features(data)
    assert not np.array_equal(belief, features(changed(data, "state")))
    for entry in ("reward", "time"):
        assert np.array_equal(belief, features(changed(data, entry))) != seen
    _, metrics = jax.eval_shape(lambda: wm.loss(model, params, data, key, None)[1])
    decoded = {"state", "reward", "time"} if seen else {"state"}
    for prefix in ("loss_decoder_", "loss_window_decoder_"):
        assert {name.removeprefix(prefix) for name in metrics if name.startswith(prefix)} == decoded


def test_the_reward_is_predicted_without_being_seen():
    model, params, data, _ = make_case(reward_and_time=False)
    features = jnp.zeros((TIME, BATCH, model.config.stoch * model.config.classes + model.config.deter))

    def gradient(data):
        """Of the reward's loss; the fresh head itself gives every reward the same probability."""

        def loss(head):
            return wm.head_losses(model, params | {"reward": head}, (features,), data)["reward"].sum()

        return jax.grad(loss)(params["reward"])

    here, there = (jax.tree.leaves(gradient(x)) for x in (data, changed(data, "reward")))
    assert any(not np.allclose(a, b) for a, b in zip(here, there, strict=True))


@pytest.mark.parametrize("shape", [(64, 64, 3), (84, 84, 3), (10, 10, 4), (4, 4, 1), (2, 33, 1)])
def test_images_of_any_size_are_encoded_and_decoded(shape):
    shapes = {"image": shape, "reward": (), "time": ()}
    model = wm.make_world_model(DEBUG_MODEL, shapes, 2)
    params = jax.eval_shape(lambda: wm.init_world_model(model, jax.random.key(0)))
    feature = jnp.zeros((5, DEBUG_MODEL.stoch * DEBUG_MODEL.classes + DEBUG_MODEL.deter))
    decoded = jax.eval_shape(lambda params: model.decoder.apply(params["decoder"], feature), params)
    assert decoded["image"].shape == (5, *shape)


def test_images_alone_cannot_go_without_reward_and_time():
    shapes = {"image": (64, 64, 3), "reward": (), "time": ()}
    with pytest.raises(ConfigError, match="nothing but images"):
        wm.make_world_model(dataclasses.replace(DEBUG_MODEL, reward_and_time=False), shapes, 2)


@pytest.mark.parametrize(("index", "expected"), [(0, [1, -1, 0]), (1, [0, 0, 0])])
def test_without_uniform_mixing_gradients_are_finite_where_probabilities_underflow(index, expected):
    gradient = jax.grad(lambda logits: discrete.mix_uniform(logits, 0.0)[index])(jnp.array([0.0, 110.0, 0.0]))
    np.testing.assert_allclose(gradient, expected, atol=1e-6)
