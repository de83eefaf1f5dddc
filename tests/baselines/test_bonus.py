"""HyperX's bonuses: where they are high, and how they are scaled."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from probes import probe

from mamba_jax import bonus
from mamba_jax.algos.hyperx import make_hyperx
from mamba_jax.config import ConfigError
from mamba_jax.config_baselines import BonusConfig
from mamba_jax.ops import running_stats
from mamba_jax.presets_baselines import baseline_preset, with_sections


def test_distillation_finds_the_unfamiliar():
    config = BonusConfig(layers=(32,), outputs=8, embedding=16, prior_gain=2.0)
    distillation, key = bonus.make_distillation(config), jax.random.key(0)
    known = [jax.random.normal(jax.random.key(1), (64, 2)), jnp.zeros((64, 3))]
    unknown = [known[0] + 5, known[1]]
    prior, predictor = bonus.init_distillation(distillation, key, known, config)
    optimizer = optax.adam(1e-2)

    def step(carry, _):
        return bonus.update_predictor(distillation, optimizer, prior, *carry, known)[:2], None

    (predictor, _), _ = jax.lax.scan(step, (predictor, optimizer.init(predictor)), length=300)
    errors = [bonus.distillation_error(distillation, prior, predictor, inputs).mean() for inputs in (known, unknown)]
    assert errors[1] > 20 * errors[0]


def test_the_prior_is_scaled_as_a_whole():
    inputs = [jnp.ones((1, 2))]
    priors = []
    for gain in (1.0, 10.0):
        config = BonusConfig(layers=(4,), outputs=2, embedding=4, prior_gain=gain)
        prior, _ = bonus.init_distillation(bonus.make_distillation(config), jax.random.key(0), inputs, config)
        priors.append(prior)
    jax.tree.map(lambda x, y: np.testing.assert_allclose(10 * x, y, rtol=1e-6), *priors)


def test_a_bonus_restarts_where_a_meta_episode_ends():
    rewards, ended = jnp.ones((4, 2)), jnp.zeros((4, 2), bool).at[1].set(True)
    state, _ = bonus.normalise_bonus(running_stats.init_returns(2), rewards, ended, 0.5, None)
    np.testing.assert_allclose(state.carry, [1.5, 1.5])


def test_weights_clip_and_annealing():
    raw = {"state": jnp.array([[1.0, -1.0], [100.0, 0.0]]), "belief": jnp.ones((2, 2))}
    returns = {name: running_stats.init_returns(2) for name in raw}
    config = BonusConfig(hyperstate_scale=0, vae_error_scale=0, state_scale=2.0, belief_scale=0.5, clip=0.1)
    _, parts, total = bonus.total_bonus(returns, raw, jnp.zeros((2, 2), bool), 0.9, config, jnp.float32(0.25))
    assert bonus.active(config) == ("state", "belief")
    assert np.abs(parts["state"]).max() <= 0.2 + 1e-6 and np.abs(parts["belief"]).max() <= 0.05 + 1e-6
    np.testing.assert_allclose(total, 0.25 * (parts["state"] + parts["belief"]), rtol=1e-6)
    np.testing.assert_allclose(bonus.annealing_weight(jnp.array([0, 50, 100, 200]), 100), [1, 0.5, 0, 0])


def test_entries_of_the_state_can_be_chosen():
    state, latent = jnp.arange(6.0).reshape(2, 3), jnp.zeros((2, 4))
    assert [x.shape[-1] for x in bonus.explored("hyperstate", state, latent, None)] == [3, 4]
    np.testing.assert_array_equal(bonus.explored("state", state, latent, (2,))[0], [[2.0], [5.0]])


def test_all_bonuses_together():
    env, scales = probe("stumble"), {"state_scale": 1.0, "belief_scale": 1.0, "normalise_inputs": True}
    config = with_sections(baseline_preset("hyperx", env, "debug"), {"bonus": scales})
    algo = make_hyperx(env, config)
    state, metrics = jax.jit(algo.train_step)(jax.jit(algo.init)(jax.random.key(0)))
    assert {f"bonus/{name}" for name in bonus.NAMES} < set(metrics)
    assert all(np.isfinite(value) for value in metrics.values())
    assert int(state.updates) == algo.updates_per_round


@pytest.mark.parametrize("entries", [(), (0, 99), (-1,)])
def test_entries_that_the_state_does_not_have_are_refused(entries):
    config = with_sections(baseline_preset("hyperx", probe("shown"), "debug"), {"bonus": {"state_entries": entries}})
    with pytest.raises(ConfigError, match="some of the state's entries, 0 to"):
        make_hyperx(probe("shown"), config)


def test_no_bonus_at_all_is_refused():
    config = with_sections(
        baseline_preset("hyperx", probe("shown"), "debug"), {"bonus": {"hyperstate_scale": 0.0, "vae_error_scale": 0.0}}
    )
    with pytest.raises(ConfigError, match="varibad"):
        make_hyperx(probe("shown"), config)
