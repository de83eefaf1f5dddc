"""Exploring lanes: some lanes act at random in one sub-episode, so that the data do not narrow with the policy."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from mamba_jax.rollout import Policy, random_policy, where_lane
from mamba_jax.types import MetaEnvironment

HOLD = 10
"""Steps for which a random action is held, on average: a walk of single random steps hardly leaves its start."""


def with_exploration(
    env: MetaEnvironment,
    policy: Policy,
    tell: Callable[[Any, jax.Array, jax.Array], Any],
    key: jax.Array,
    lanes: int,
    share: float,
) -> Policy:
    """A policy that explores in a share of its lanes, rounded to whole ones, for one meta-episode.

    policy: of all other steps; it sees every observation. tell: (memory, mask (lanes,), action) -> memory that knows of
    the action taken where the mask holds. An exploring lane draws the sub-episode in which it acts at random, so what
    comes before and after it is the policy's. The length of sub-episodes is taken as fixed: where one ends early,
    exploration starts late. All draws are made here, ahead of the scan over time.
    """
    when_key, renew_key, action_key = jax.random.split(key, 3)
    lane, step = jnp.arange(lanes), jnp.arange(env.num_steps)[:, None]
    when = jax.random.randint(when_key, (lanes,), 0, env.sub_episodes)
    exploring = (lane < round(share * lanes)) & (step * env.sub_episodes // env.num_steps == when)
    sample = random_policy(env, lanes)
    drawn = jax.vmap(lambda key: sample((), {}, key)[1])(jax.random.split(action_key, env.num_steps))
    renewed = jax.random.bernoulli(renew_key, 1 / HOLD, (env.num_steps, lanes))
    held = drawn[jax.lax.cummax(jnp.where(renewed, step, 0)), lane]  # (N T, lanes, ...)

    def act(memory: Any, observation: dict[str, jax.Array], key: jax.Array) -> tuple[Any, jax.Array]:
        memory, action = policy(memory, observation, key)
        now = jnp.round(observation["time"] * env.num_steps).astype(jnp.int32)
        mask, random = exploring[now, lane], held[now, lane]
        return tell(memory, mask, random), where_lane(mask, random, action)

    return act
