"""VariBAD's autoencoder: restarts inside a sequence, masks, subsampling."""

from dataclasses import replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mamba_jax import belief
from mamba_jax.belief import Indices, Transitions
from mamba_jax.config_baselines import EncoderConfig, VaeConfig
from mamba_jax.nn.belief import Belief

STATE, ACTION, LATENT, BATCH = 2, 1, 3, 2
ENCODER = EncoderConfig(latent=LATENT, hidden=4, state_embedding=3, reward_embedding=3, action_embedding=3)
VAE = VaeConfig(reward_layers=(5,), state_layers=(5,), decode_state=True, use_action=True, use_prev_state=True)
NETWORKS = belief.make_networks(ENCODER, VAE)


def data(steps: int, seed: int = 0) -> Transitions:
    """A random batch of whole meta-episodes."""
    keys = jax.random.split(jax.random.key(seed), 3)
    states = jax.random.normal(keys[0], (steps + 1, BATCH, STATE))
    seen = jnp.concatenate([states, jnp.zeros((steps + 1, BATCH, 1))], -1)[1:]
    actions = jax.random.normal(keys[1], (steps, BATCH, ACTION))
    rewards = jax.random.normal(keys[2], (steps, BATCH))
    first = jnp.zeros((steps + 1, BATCH), bool).at[0].set(True)
    return Transitions(states[:-1], actions, states[1:], seen, rewards, first, jnp.ones((steps, BATCH), bool))


def joined(early: Transitions, late: Transitions) -> Transitions:
    """Two meta-episodes one after the other; the transition between them is none."""
    gap = jax.tree.map(lambda x: jnp.full_like(x[:1], 7 if x.dtype == jnp.float32 else 0), early)
    whole = jax.tree.map(lambda *parts: jnp.concatenate(parts), early, gap, late)
    return whole.replace(first=jnp.concatenate([early.first, late.first]))


@pytest.fixture(scope="module")
def params():
    return jax.jit(lambda key: belief.init_params(NETWORKS, key, STATE, STATE + 1, ACTION))(jax.random.key(9))


@jax.jit
def encode(params, data):
    return belief.encode(NETWORKS.encoder, params["encoder"], data)


@partial(jax.jit, static_argnames="config")
def elbo(params, data, config=VAE, indices=None, noise=None):
    noise = jnp.zeros((*data.first.shape, LATENT)) if noise is None else noise
    return belief.elbo_loss(NETWORKS, params, config, data, noise, indices or Indices())


def test_a_restart_inside_a_sequence_begins_at_the_prior(params):
    early, late = data(4), data(3, seed=1)
    apart = [encode(params, part) for part in (early, late)]
    together = encode(params, joined(early, late))
    for part, x, y in zip(together, *apart, strict=True):
        np.testing.assert_allclose(part, np.concatenate([x, y]), rtol=1e-5, atol=1e-6)


def test_the_loss_of_two_meta_episodes_in_a_row_is_the_sum_of_their_losses(params):
    early, late = data(4), data(3, seed=1)
    total, parts = elbo(params, joined(early, late))
    sums = [elbo(params, part) for part in (early, late)]
    np.testing.assert_allclose(total, sums[0][0] + sums[1][0], rtol=1e-5)
    for name in parts:
        np.testing.assert_allclose(parts[name], sums[0][1][name] + sums[1][1][name], rtol=1e-5)


def test_transitions_that_are_not_valid_are_not_reconstructed(params):
    whole = data(4)
    masked = whole.replace(valid=whole.valid.at[2].set(False))
    wild = masked.replace(next_state=whole.next_state.at[2].set(1e3), prev_state=whole.prev_state.at[2].set(1e3))
    assert elbo(params, masked)[0] != elbo(params, whole)[0]
    np.testing.assert_allclose(elbo(params, wild)[0], elbo(params, masked)[0], rtol=1e-6)


def test_kl_by_hand():
    mean, logvar = jnp.array([[[1.0]], [[3.0]]]), jnp.log(jnp.array([[[4.0]], [[1.0]]]))
    first = jnp.array([[True], [False]])
    kl = belief.kl_terms(Belief(mean, logvar, None), first)
    np.testing.assert_allclose(kl[:, 0], [0.5 * (4 + 1 - 1 - np.log(4)), 0.5 * (1 / 4 + 4 / 4 - 1 + np.log(4))])
    standard = belief.kl_terms(Belief(mean, logvar, None), first, to_standard=True)
    np.testing.assert_allclose(standard[1, 0], 0.5 * (1 + 9 - 1))


def test_the_kl_counts_as_much_in_a_larger_batch(params):
    one = data(4)
    twice = jax.tree.map(lambda x: jnp.concatenate([x, x], 1), one)
    for sum_over_batch, factor in ((False, 1), (True, 2)):
        config = replace(VAE, sum_over_batch=sum_over_batch)
        (_, small), (_, large) = elbo(params, one, config), elbo(params, twice, config)
        np.testing.assert_allclose(large["kl"], factor * small["kl"], rtol=1e-5)
        np.testing.assert_allclose(large["reward"], small["reward"], rtol=1e-5)


def test_subsamples_stay_within_the_meta_episode():
    first = joined(data(4), data(3, seed=1)).first
    rows, transitions = belief.draw_indices(jax.random.key(0), first, 200, 50)
    assert set(np.unique(rows)) == set(range(9))
    early = np.asarray(rows)[:, None] < 5
    assert ((transitions < 4) == early).all() and ((transitions > 4) == ~early).all()
    assert set(np.unique(transitions)) == {0, 1, 2, 3, 5, 6, 7}


def test_subsampled_losses_estimate_the_whole(params):
    whole = data(6)
    config = replace(VAE, average_rows=True, average_transitions=True)
    indices = belief.draw_indices(jax.random.key(0), whole.first, 400, 40)
    exact, estimate = elbo(params, whole, config)[0], elbo(params, whole, config, indices)[0]
    np.testing.assert_allclose(estimate, exact, rtol=0.1)


def test_only_the_past_is_decoded_if_so_configured(params):
    whole = data(3)
    config = replace(VAE, decode_only_past=True)
    rows = jnp.zeros((1, BATCH), jnp.int32)
    _, parts = elbo(params, whole, config, Indices(rows))
    assert parts["reward"] == 0
    assert elbo(params, whole, VAE, Indices(rows))[1]["reward"] > 0


def test_gradients_are_cut_every_so_many_transitions(params):
    whole = data(4)

    def last(actions, detach_every):
        encoded = belief.encode(NETWORKS.encoder, params["encoder"], whole.replace(action=actions), detach_every)
        return encoded.mean[-1].sum()

    touched = [np.abs(jax.grad(last)(whole.action, cut)).sum((1, 2)) > 0 for cut in (None, 3, 2)]
    np.testing.assert_array_equal(touched, [[1, 1, 1, 1], [0, 0, 0, 1], [0, 0, 1, 1]])
