"""An environment whose returns can be counted by hand, and an algorithm that trains in microseconds."""

from dataclasses import dataclass, field, replace
from typing import Any

import jax
import jax.numpy as jnp
from flax import struct
from gymnax.environments import spaces

from envs.meta_episode import MetaEpisode
from mamba_jax.config import RunConfig
from mamba_jax.types import Algorithm


@struct.dataclass
class Task:
    """lifetime: () int32, the sub-episode ends by itself after so many steps."""

    lifetime: jax.Array


class Lifetime:
    """Rewards every step with the action; a sub-episode ends after 1, 2 or 3 steps, which is the task."""

    name = "lifetime"
    default_params = Task(jnp.int32(3))

    def sample_task(self, key, params):
        return params.replace(lifetime=jax.random.randint(key, (), 1, 4))

    def reset_env(self, key, params):
        del key, params
        return jnp.zeros(1), jnp.int32(0)

    def step_env(self, key, state, action, params):
        del key
        return jnp.zeros(1), state + 1, action[0], state + 1 >= params.lifetime, {}

    def action_space(self, params):
        del params
        return spaces.Box(-1.0, 1.0, (1,))

    def observation_space(self, params):
        del params
        return spaces.Box(-1.0, 1.0, (1,))


def lifetime_env(**kwargs: Any) -> MetaEpisode:
    """Two sub-episodes of at most three steps."""
    return MetaEpisode(Lifetime(), sub_episodes=2, length=3, **kwargs)


@struct.dataclass
class TinyState:
    """gain: the one parameter. momentum: read by training only. nothing: a leaf without elements."""

    rounds: jax.Array
    env_steps: jax.Array
    updates: jax.Array
    key: jax.Array
    gain: jax.Array
    momentum: jax.Array
    replay: jax.Array
    nothing: jax.Array


@dataclass(frozen=True)
class TinyConfig:
    """bad_round: where the loss becomes NaN. spoil: the round whose last update makes the parameter infinite."""

    run: RunConfig = field(default_factory=RunConfig)
    bad_round: int = 0
    spoil: int = 0


LANES = 2


def tiny(env: Any = None, *, bad_round: int = 0, spoil: int = 0, **run: Any) -> Algorithm:
    """A walk of one parameter, which is the action; `run` changes the `RunConfig`."""
    env = env or lifetime_env()
    settings = replace(RunConfig(steps=120, eval_every=2 * LANES, eval_tasks=3, test_tasks=5), **run)
    config = TinyConfig(settings, bad_round, spoil)

    def init(key):
        key, gain_key = jax.random.split(key)
        zero, steps = jnp.int32(0), jnp.int32(LANES * env.num_steps)
        gain = 0.1 * jax.random.normal(gain_key)
        return TinyState(zero, steps, zero, key, gain, jnp.zeros(()), jnp.zeros((4, 3)), jnp.zeros((0, 2)))

    def train_step(state):
        key, noise_key = jax.random.split(state.key)
        rounds = state.rounds + 1
        momentum = 0.9 * state.momentum + jax.random.normal(noise_key)
        gain = jnp.where(rounds == config.spoil, jnp.inf, state.gain + 0.1 * momentum)
        loss = jnp.where(rounds == config.bad_round, jnp.nan, state.gain**2)
        state = state.replace(
            rounds=rounds,
            env_steps=state.env_steps + LANES * env.num_steps,
            updates=state.updates + 3,
            key=key,
            gain=gain,
            momentum=momentum,
            replay=jnp.roll(state.replay, 1, 0).at[0].set(gain),
        )
        metrics = {"behaviour/loss": loss, "world_model/loss": loss, "world_model/loss_reward": loss}
        return state, metrics | {"collect/return": jnp.float32(jnp.nan), "actor/entropy": gain}

    def act(state, carry, observation, key, explore):
        del key, explore
        return carry, jnp.broadcast_to(jnp.tanh(state.gain), (len(observation["time"]), 1))

    return Algorithm("tiny", env, config, init, train_step, lambda state, batch: (), act, LANES * env.num_steps, 3)
