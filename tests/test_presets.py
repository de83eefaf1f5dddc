"""What the presets say, where a reader would look it up in the paper."""

import jax
import jax.numpy as jnp
import pytest
from gymnax.environments import spaces
from tiny import Lifetime

import envs
import mamba_jax as mj
from envs import MetaEpisode
from mamba_jax.config import ConfigError, with_sections
from mamba_jax.presets import SIZES

ENVIRONMENTS = [("halfcircle", None), ("rooms", 4), ("escape-room", None), ("reacher", 2)]


@pytest.mark.parametrize(("name", "subtasks"), ENVIRONMENTS)
@pytest.mark.parametrize("algorithm", mj.algorithms())
@pytest.mark.parametrize("size", SIZES)
def test_every_preset_fits_its_environment(algorithm, name, subtasks, size):
    env = envs.make(name, subtasks=subtasks)
    assert mj.make(algorithm, env, mj.preset(algorithm, env, size=size)).updates_per_round >= 1


@pytest.mark.parametrize("size", SIZES)
def test_presets_fit_short_meta_episodes(size):
    env = envs.make("reacher", sub_episodes=2, length=20)
    assert mj.make("mamba", env, mj.preset("mamba", env, size=size)).config.horizon.initial <= 40


@pytest.mark.parametrize("size", ["small", "fast"])
@pytest.mark.parametrize(("name", "length"), [("rooms", 50), ("rooms", 111), ("reacher", 100), ("reacher", 157)])
def test_the_horizon_reaches_the_whole_meta_episode_whatever_its_length(name, length, size):
    env = envs.make(name, length=length)
    config = mj.make("mamba", env, mj.preset("mamba", env, size)).config
    assert 0 < config.horizon.growth_steps < config.run.steps / 2


@pytest.mark.parametrize("algorithm", ["rl2", "varibad", "hyperx"])
@pytest.mark.parametrize("name", ["rooms", "reacher", "escape-room"])
def test_baselines_are_evaluated_up_to_a_hundred_times(algorithm, name):
    env = envs.make(name)
    for size in ("paper", "small", "fast"):
        run = mj.preset(algorithm, env, size).run
        assert 50 <= run.steps / env.num_steps / run.eval_every <= 101


@pytest.mark.parametrize("size", SIZES)
def test_dreamers_leave_out_the_modifications_of_mamba(size):
    env = envs.make("rooms", subtasks=4)
    for name in ("dreamer-vanilla", "dreamer-tune"):
        config = mj.preset(name, env, size=size)
        assert (config.data.context, config.data.window) == ("window", 64)
        assert config.world_model.window == config.world_model.subsample == config.actor_critic.starts == 0
        assert mj.preset(name, envs.make("reacher"), size=size).world_model.recall_scale == 0
        assert config.horizon.growth_steps == 0
        assert config.world_model.pairing == "aligned" and config.data.burst == 0


def test_size_fast_has_what_it_was_measured_with():
    """Not what was found later at size small: bursts, the released pairing on Rooms and EscapeRoom, and more."""
    released = dict.fromkeys(("halfcircle", "point-wind", "reacher"), "released")
    pairings = {"rooms": "aligned", "escape-room": "aligned"} | released
    for name, pairing in pairings.items():
        env = envs.make(name)
        small, fast = (mj.preset("mamba", env, size) for size in ("small", "fast"))
        assert small.data.burst > 0 and fast.data.burst == 0
        assert fast.world_model.pairing == pairing
        assert fast.data.explore == small.data.explore
        assert fast.world_model.eval_latents == "sampled" and fast.run.eval_tasks == 100
        assert fast.optimizer.cooldown == fast.actor_critic.unrewarded_starts == fast.world_model.recall_scale == 0
        assert fast.actor_critic.discount == (0.997 if name == "point-wind" else 0.98)


def test_tune_keeps_the_settings_of_mamba_and_vanilla_those_of_dreamer():
    env = envs.make("reacher", subtasks=2)
    mamba, tune, vanilla = (mj.preset(name, env) for name in ("mamba", "dreamer-tune", "dreamer-vanilla"))
    assert tune.optimizer == mamba.optimizer != vanilla.optimizer
    assert (vanilla.optimizer.model_rate, vanilla.optimizer.actor_rate) == (1e-4, 3e-5)
    assert (vanilla.world_model.stoch, vanilla.world_model.classes, vanilla.actor_critic.horizon) == (32, 32, 15)
    steps = vanilla.data.lanes * env.num_steps  # 512 replayed rows for every step, 16 x 64 in an update
    assert mj.make("dreamer-vanilla", env, vanilla).updates_per_round == steps * 512 // (16 * 64)


def test_at_size_small_vanilla_keeps_the_networks_and_none_of_the_settings_found_here():
    env = envs.make("rooms", subtasks=3)
    mamba, tune, vanilla = (mj.preset(name, env, "small") for name in ("mamba", "dreamer-tune", "dreamer-vanilla"))
    assert mamba.world_model.decoder_scale == tune.world_model.decoder_scale == 10
    assert (vanilla.world_model.decoder_scale, vanilla.world_model.dynamics_free_nats) == (1, 1)
    assert vanilla.actor_critic.rewarded_starts == 0
    assert mamba.data.explore == tune.data.explore == 0.25 and vanilla.data.explore == 0
    assert vanilla.world_model.stoch == mamba.world_model.stoch and vanilla.optimizer.model_rate == 1e-4
    env = envs.make("reacher")
    assert mj.preset("dreamer-tune", env, "small").world_model.normalise
    assert not mj.preset("dreamer-vanilla", env, "small").world_model.normalise


def test_some_environments_train_longer_at_size_small_alone():
    chosen = [envs.make("rooms", subtasks=rooms) for rooms in (3, 4, 5)]
    chosen += [envs.make("halfcircle"), envs.make("point-wind"), envs.make("escape-room")]
    small, fast = ([mj.preset("mamba", env, size).run.steps for env in chosen] for size in ("small", "fast"))
    assert small[:3] == [1500 * 64 * 200, 1500 * 64 * 200, 900 * 64 * 200]
    assert small[3:] == [2400 * 64 * 300, 1700 * 64 * 300, 1700 * 64 * 120]
    assert fast == [270 * 256 * 200] * 3 + [300 * 256 * 300, 300 * 256 * 300, 300 * 256 * 120]


def test_numbers_of_sub_tasks_may_have_settings_of_their_own():
    chosen = [mj.preset("mamba", envs.make("rooms", subtasks=rooms), "small") for rooms in (3, 4)]
    assert [(config.world_model.eval_latents, config.run.eval_tasks) for config in chosen] == [
        ("mode", 400),
        ("sampled", 100),
    ]


@pytest.mark.parametrize(
    ("algorithm", "section", "values", "message"),
    [
        ("mamba", "actor_critic", {"gradient": "Dynamics"}, "actor_critic.gradient is 'Dynamics': choose one of: dyn"),
        ("mamba", "world_model", {"pairing": "alined"}, "choose one of: aligned, released"),
        ("mamba", "data", {"context": "windows"}, "choose one of: meta_episode, window"),
        ("mamba", "data", {"lanes": 1, "explore": 0.25}, r"data.explore \(0.25\) is less than one of 1 lanes"),
        ("mamba", "actor_critic", {"slow_rate": 2.0}, "slow_rate is a share of the difference: it must be at most 1"),
        ("mamba", "actor_critic", {"rewarded_starts": 0.6, "unrewarded_starts": 0.5}, "together at most 1"),
        ("mamba", "optimizer", {"cooldown": 1.5}, "optimizer.cooldown is a share of the run: it must lie in"),
        ("dreamer-tune", "data", {"window": 0}, r"data.window \(0\) must lie between 1 and"),
        ("rl2", "ppo", {"optimizer": "Adam"}, "choose one of: adam, rmsprop"),
        ("varibad", "policy", {"squash": "tanh"}, "choose one of: none, mean, sample"),
    ],
)
def test_choices_that_there_are_not_are_refused(algorithm, section, values, message):
    env = envs.make("halfcircle")
    config = with_sections(mj.preset(algorithm, env, "debug"), {section: values})
    with pytest.raises(ConfigError, match=message):
        mj.make(algorithm, env, config)


def test_images_that_are_not_bytes_are_refused():
    class Pictures(Lifetime):
        def observation_space(self, params):
            return spaces.Box(0.0, 1.0, (8, 8, 3), jnp.float32)

    env = MetaEpisode(Pictures(), sub_episodes=2, length=3)
    with pytest.raises(ConfigError, match="images state of lifetime are not uint8: show them as bytes from 0 to 255"):
        mj.make("mamba", env, mj.preset("mamba", env, "debug"))


def test_64_bits_are_refused():
    env = envs.make("halfcircle")
    with jax.enable_x64(True), pytest.raises(ConfigError, match="turn jax_enable_x64 off"):
        mj.make("rl2", env, mj.preset("rl2", env, "debug"))


def test_unknown_names_are_refused():
    env = envs.make("halfcircle")
    with pytest.raises(ConfigError, match="Unknown algorithm 'dreamer'"):
        mj.preset("dreamer", env)
    with pytest.raises(ConfigError, match="Unknown size"):
        mj.preset("mamba", env, size="huge")
