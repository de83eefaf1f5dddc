"""Exploring lanes: some lanes act at random in one sub-episode, so that the data do not narrow with the policy."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from mamba_jax.rollout import Policy, random_policy, where_lane
from mamba_jax.types import MetaEnvironment

HOLD = 10
"""Steps for which a random action is held, on average: a walk of single random steps hardly leaves its start."""


class Exploring(NamedTuple):
    """Memory of lanes of which some explore. own: the policy's. held: (lanes, ...) random action. when: (lanes,) int32,
    the sub-episode in which a lane explores, -1 for none."""

    own: Any
    held: jax.Array
    when: jax.Array


def with_exploration(
    env: MetaEnvironment,
    policy: Policy,
    initial: Any,
    tell: Callable[[Any, jax.Array, jax.Array], Any],
    key: jax.Array,
    lanes: int,
    share: float,
) -> tuple[Policy, Any]:
    """A policy that explores in a share of its lanes, and its memory at the start of a meta-episode.

    policy, initial: of all other steps; the policy sees every observation. tell: (memory, mask (lanes,), action) ->
    memory that knows of the action taken where the mask holds. An exploring lane draws the sub-episode in which it acts
    at random once, so what comes before and after it is the policy's. The length of sub-episodes is taken as fixed:
    where one ends early, exploration starts late.
    """
    sample = random_policy(env, lanes)

    def act(memory: Exploring, observation: dict[str, jax.Array], key: jax.Array) -> tuple[Exploring, jax.Array]:
        act_key, renew_key, sample_key = jax.random.split(key, 3)
        own, action = policy(memory.own, observation, act_key)
        renewed = jax.random.bernoulli(renew_key, 1 / HOLD, (lanes,))
        held = where_lane(renewed, sample((), observation, sample_key)[1], memory.held)
        step = jnp.round(observation["time"].reshape(lanes) * env.num_steps).astype(jnp.int32)
        now = step * env.sub_episodes // env.num_steps == memory.when
        return Exploring(tell(own, now, held), held, memory.when), where_lane(now, held, action)

    when_key, held_key = jax.random.split(key)
    exploring = jnp.arange(lanes) < round(share * lanes)
    when = jnp.where(exploring, jax.random.randint(when_key, (lanes,), 0, env.sub_episodes), -1)
    return act, Exploring(initial, sample((), {}, held_key)[1], when)
