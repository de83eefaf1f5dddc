"""Exploring lanes: some lanes act at random in one sub-episode, or in bursts, so that the data do not narrow with the
policy."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from mamba_jax.rollout import Policy, random_policy, where_lane
from mamba_jax.types import MetaEnvironment

HOLD = 10
"""Steps for which a random action is held, on average: a walk of single random steps hardly leaves its start."""

BURST_ACTIONS = 3
"""Random actions of a burst, on average."""


def with_exploration(
    env: MetaEnvironment,
    policy: Policy,
    tell: Callable[[Any, jax.Array, jax.Array], Any],
    key: jax.Array,
    lanes: int,
    share: float,
    burst: int = 0,
) -> Policy:
    """A policy that explores in a share of its lanes, rounded to whole ones, for one meta-episode.

    policy: of all other steps; it sees every observation. tell: (memory, mask (lanes,), action) -> memory that knows of
    the action taken where the mask holds. burst: as for `exploring_steps`. All draws are made here, ahead of the scan
    over time, for every step of a meta-episode: where one ends early, the next one in its lane repeats the first.
    """
    hold = max(1, burst / BURST_ACTIONS) if burst else HOLD
    when_key, renew_key, action_key = jax.random.split(key, 3)
    lane, step = jnp.arange(lanes), jnp.arange(env.num_steps)[:, None]
    exploring = (lane < round(share * lanes)) & exploring_steps(env, when_key, lanes, burst)
    sample = random_policy(env, lanes)
    drawn = jax.vmap(lambda key: sample((), {}, key)[1])(jax.random.split(action_key, env.num_steps))
    renewed = jax.random.bernoulli(renew_key, 1 / hold, (env.num_steps, lanes))
    held = drawn[jax.lax.cummax(jnp.where(renewed, step, 0)), lane]  # (N T, lanes, ...)

    def act(memory: Any, observation: dict[str, jax.Array], key: jax.Array) -> tuple[Any, jax.Array]:
        memory, action = policy(memory, observation, key)
        now = jnp.round(observation["time"] * env.num_steps).astype(jnp.int32)
        mask, random = exploring[now, lane], held[now, lane]
        return tell(memory, mask, random), where_lane(mask, random, action)

    return act


def exploring_steps(env: MetaEnvironment, key: jax.Array, lanes: int, burst: int) -> jax.Array:
    """(N T, lanes) bool: the steps at which an exploring lane acts at random.

    burst 0: one sub-episode, drawn evenly, so what comes before and after it is the policy's. The length of
    sub-episodes is taken as fixed: where one ends early, exploration starts late, or not at all. Above 0: half of all
    steps, in bursts of so many on average, as long as what the policy does between them.
    """
    if not burst:
        when = jax.random.randint(key, (lanes,), 0, env.sub_episodes)
        return jnp.arange(env.num_steps)[:, None] * env.sub_episodes // env.num_steps == when
    start_key, change_key = jax.random.split(key)
    start = jax.random.bernoulli(start_key, 0.5, (lanes,))
    changes = jax.random.bernoulli(change_key, 1 / burst, (env.num_steps, lanes))
    return (start + jnp.cumsum(changes, 0)) % 2 == 1
