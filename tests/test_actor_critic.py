"""Starts of imagination."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mamba_jax import actor_critic as ac
from mamba_jax import world_model as wm
from mamba_jax.config import ActorCriticConfig
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
    row_key, sequence_key = jax.random.split(keys[2])
    row = jax.random.randint(row_key, (starts, BATCH), 0, TIME)
    sequence = jax.random.randint(sequence_key, (starts, BATCH), 0, BATCH)
    start = ac.make_start(model, params, latent, (row, sequence))
    chosen = np.asarray(latent.deter)[np.asarray(row), np.asarray(sequence)].reshape(starts * BATCH, -1)
    np.testing.assert_array_equal(start.latent.deter, chosen)
    kernel = params["rssm"]["params"]["gru_linear"]["kernel"]
    np.testing.assert_allclose(start.projected, chosen @ kernel[DEBUG_MODEL.hidden :], rtol=1e-5, atol=1e-6)


def drawn(config: ActorCriticConfig, reward: np.ndarray, horizon: int) -> tuple[np.ndarray, np.ndarray]:
    row, sequence = ac.draw_starts(config, jax.random.key(3), jnp.asarray(reward, jnp.float32), horizon)
    assert row.shape == sequence.shape == (config.starts, reward.shape[1])
    return np.asarray(row), np.asarray(sequence)


def test_starts_lie_evenly_below_the_horizon_in_every_sequence():
    row, sequence = drawn(ActorCriticConfig(starts=2000), np.ones((8, 3)), 5)
    np.testing.assert_array_equal(sequence, np.broadcast_to(np.arange(3), sequence.shape))
    share = np.stack([(row == step).mean(0) for step in range(8)])
    np.testing.assert_allclose(share, np.where(np.arange(8) < 5, 0.2, 0.0)[:, None].repeat(3, 1), atol=0.05)


def test_every_row_below_the_horizon_is_a_start_as_often_as_another():
    row, sequence = map(np.asarray, ac.every_start((8, 3), jnp.int32(4)))
    np.testing.assert_array_equal(sequence, np.broadcast_to(np.arange(3), (8, 3)))
    np.testing.assert_array_equal(np.bincount(row[:, 0], minlength=8), [2, 2, 2, 2, 0, 0, 0, 0])


def test_rewarded_starts_follow_the_rewards_met_so_far():
    reward = np.zeros((6, 2))
    reward[1, 0] = reward[3, 0] = 1.0
    reward[5, 1] = 1.0  # beyond the horizon
    row, sequence = drawn(ActorCriticConfig(starts=2000, rewarded_starts=0.5), reward, 5)
    assert (sequence[:1000] == np.arange(2)).all()
    counts = np.bincount(row[1000:][sequence[1000:] == 0], minlength=6) / 2000
    np.testing.assert_allclose(counts, [0, 1 / 6, 1 / 6, 2 / 6, 2 / 6, 0], atol=0.05)


def test_unrewarded_starts_are_rows_without_reward():
    reward = np.array([[0.0, 1.0], [0.5, 1.0], [-0.1, 0.0], [1.0, 1.0], [0.0, 0.0]])
    config = ActorCriticConfig(starts=2000, rewarded_starts=0.25, unrewarded_starts=0.5)
    row, sequence = drawn(config, reward, 4)
    assert (sequence[:500] == np.arange(2)).all()
    counts = np.bincount((row * 2 + sequence)[1000:].reshape(-1), minlength=10) / 2000
    np.testing.assert_allclose(counts, [1 / 3, 0, 0, 0, 1 / 3, 1 / 3, 0, 0, 0, 0], atol=0.05)


def test_shares_of_an_odd_number_of_starts_are_no_more_than_it():
    config = ActorCriticConfig(starts=3, rewarded_starts=0.5, unrewarded_starts=0.5)
    assert drawn(config, np.ones((4, 2)), 3)[0].shape == (3, 2)


def test_unrewarded_starts_are_even_where_all_was_rewarded():
    row, sequence = drawn(ActorCriticConfig(starts=2000, unrewarded_starts=1.0), np.ones((4, 2)), 3)
    share = np.bincount(row.reshape(-1) * 2 + sequence.reshape(-1), minlength=8) / row.size
    np.testing.assert_allclose(share, [1 / 6] * 6 + [0] * 2, atol=0.05)


def test_rewarded_starts_are_even_where_nothing_was_rewarded():
    row, sequence = drawn(ActorCriticConfig(starts=2000, rewarded_starts=1.0), -np.ones((4, 2)), 3)
    share = np.bincount(row.reshape(-1) * 2 + sequence.reshape(-1), minlength=8) / row.size
    np.testing.assert_allclose(share, [1 / 6] * 6 + [0, 0], atol=0.05)
