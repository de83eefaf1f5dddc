"""The presets of the baselines fit every environment."""

import jax
import pytest

import envs
from mamba_jax.algos.hyperx import make_hyperx
from mamba_jax.algos.rl2 import make_rl2
from mamba_jax.algos.varibad import make_varibad
from mamba_jax.config import ConfigError, with_sections
from mamba_jax.presets_baselines import CONFIGS, PAPER, baseline_preset

MAKERS = {"rl2": make_rl2, "varibad": make_varibad, "hyperx": make_hyperx}
ENVIRONMENTS = [name for name in envs.names() if name != "humanoid-dir"]


@pytest.mark.parametrize("name", CONFIGS)
@pytest.mark.parametrize("size", ["paper", "small"])
@pytest.mark.parametrize("env_name", ENVIRONMENTS)
def test_every_preset_makes_a_train_step(name, size, env_name):
    env = envs.make(env_name)
    algo = MAKERS[name](env, baseline_preset(name, env, size))
    state = jax.eval_shape(algo.init, jax.random.key(0))
    after, _ = jax.eval_shape(algo.train_step, state)
    assert jax.tree.map(lambda x: (x.shape, x.dtype), after) == jax.tree.map(lambda x: (x.shape, x.dtype), state)


@pytest.mark.parametrize("name", ["varibad", "hyperx"])
def test_decoders_fit_the_latent_that_they_are_given(name):
    env = envs.make("rooms", length=10)
    config = with_sections(baseline_preset(name, env, "debug"), {"vae": {"deterministic_latent": True}})
    algo = MAKERS[name](env, config)
    jax.eval_shape(algo.train_step, jax.eval_shape(algo.init, jax.random.key(0)))


def test_the_tables_have_a_row_for_every_environment():
    for table in PAPER.values():
        assert set(table) == set(envs.names())


def test_unknown_environments_take_the_nearest_row():
    discrete, continuous = envs.make("rooms", subtasks=3), envs.make("halfcircle")
    for env, row in ((discrete, "rooms"), (continuous, "halfcircle")):
        expected = baseline_preset("varibad", env, "paper")
        env.name = "something-else"
        assert baseline_preset("varibad", env, "paper") == expected, row


def test_an_unknown_algorithm_is_refused():
    with pytest.raises(ConfigError, match="choose one of rl2, varibad, hyperx"):
        baseline_preset("sac", envs.make("halfcircle"), "paper")
