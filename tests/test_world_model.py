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


def recall_case():
    """A model that recalls, as `make_case`, and rows for it."""
    return *make_case(recall_scale=5.0), wm.Recall(jnp.array([1, 4]), jnp.array([0, 2, 5]))


def test_recall_tells_of_rewards_cut_to_one_from_the_memory_and_the_place_alone():
    model, params, data, _, rows = recall_case()
    deter = jax.random.normal(jax.random.key(1), (TIME, BATCH, model.config.deter))

    def loss(data):
        return float(wm.recall_loss(model, params, deter, data, rows))

    probability = np.empty((2, 3, BATCH))
    for i, j in np.ndindex(2, 3):
        seen = jnp.sign(x := data.observation["state"][rows.queries[j]]) * jnp.log1p(jnp.abs(x))
        probability[i, j] = jax.nn.sigmoid(model.recall.apply(params["recall"], deter[rows.memories[i]], seen))[:, 0]
    target = np.clip(data.observation["reward"][rows.queries], 0, 1)
    expected = -np.mean(target * np.log(probability) + (1 - target) * np.log(1 - probability))
    np.testing.assert_allclose(loss(data), expected, rtol=1e-5)
    assert loss(changed(data, "state")) != loss(data) == loss(changed(data, "time"))


def test_recall_trains_the_memory_with_its_weight():
    model, params, data, key, rows = recall_case()

    def loss(params, recall=rows):
        return wm.loss(model, params, data, key, None, recall=recall)

    (value, (_, metrics)), (without, _) = loss(params), loss(params, None)
    np.testing.assert_allclose(value - without, 5.0 * metrics["loss_recall"], rtol=1e-4)
    gradient, own = (jax.grad(lambda p, r=r: loss(p, r)[0])(params) for r in (rows, None))
    differs = jax.tree.map(lambda a, b: bool(jnp.any(jnp.abs(a - b) > 1e-6)), gradient, own)
    assert all(any(jax.tree.leaves(differs[name])) for name in ("rssm", "encoder", "recall"))
    assert not any(jax.tree.leaves(differs["reward"]))


def test_recall_draws_rows_below_the_horizon():
    rows = jax.vmap(lambda key: wm.draw_recall(key, jnp.int32(7)))(jax.random.split(jax.random.key(0), 4))
    assert rows.memories.shape == (4, wm.MEMORIES) and rows.queries.shape == (4, wm.QUERIES)
    for drawn in rows:
        assert set(np.unique(drawn)) == set(range(7))


def test_recall_is_refused_where_there_are_images():
    settings = dataclasses.replace(DEBUG_MODEL, recall_scale=1.0)
    with pytest.raises(ConfigError, match="recall_scale must be 0"):
        wm.make_world_model(settings, {"image": (64, 64, 3), "reward": (), "time": ()}, 2)
