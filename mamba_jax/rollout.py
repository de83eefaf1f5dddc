"""Collection of meta-episodes: one scan over time of environments in lanes."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import struct

from mamba_jax.replay import Rows
from mamba_jax.sharding import spread
from mamba_jax.types import MetaEnvironment

Policy = Callable[[Any, dict[str, jax.Array], jax.Array], tuple[Any, jax.Array]]
"""(carry, observation, key) -> (carry, action), batched over lanes."""


@struct.dataclass
class Collected:
    """One meta-episode's worth of rows per lane.

    rows: leaves (lanes, T, ...). returns: (lanes, N) rewards of the first meta-episode by sub-episode.
    env_steps: () int32, environment steps made, each counted once. rewarded: () share of rows with positive reward.
    """

    rows: Rows
    returns: jax.Array
    env_steps: jax.Array
    rewarded: jax.Array


def where_lane(mask: jax.Array, a: Any, b: Any) -> Any:
    """Leaves of a where mask (lanes,), of b elsewhere; leaves have a leading lane axis."""
    return jax.tree.map(lambda x, y: jnp.where(mask.reshape(-1, *[1] * (x.ndim - 1)), x, y), a, b)


def collect(env: MetaEnvironment, policy: Policy, initial: Any, key: jax.Array, lanes: int) -> Collected:
    """Runs every lane for T steps from a new meta-episode; `initial` is the policy's carry at a start.

    Where sub-episodes end early a lane goes on with new meta-episodes, so rows stay rectangular; only its first one
    counts for `returns`.
    """
    reset_key, step_key = jax.random.split(key)
    env_state, first, initial = spread((*env.reset_lanes(reset_key, lanes), initial))
    action = jnp.zeros((lanes, *env.action_space.shape), env.action_space.dtype)

    def step(loop, key):
        env_state, now, action, carry, running = loop
        act_key, env_key = jax.random.split(key)
        carry, following_action = policy(where_lane(now.is_first, initial, carry), now.observation, act_key)
        env_state, following = env.step_lanes(env_key, env_state, following_action)
        row = Rows(
            now.observation, where_lane(now.is_first, jnp.zeros_like(action), action), now.is_first, now.terminated
        )
        counted = running & ~following.is_first
        scored = jax.nn.one_hot(following.sub_episode, env.sub_episodes) * (following.reward * counted)[:, None]
        out = (row, scored, ~following.is_first, following.reward > 0)
        return (env_state, following, following_action, carry, counted & ~following.is_last), out

    running = jnp.ones(lanes, bool)
    keys = jax.random.split(step_key, env.num_steps)
    _, (rows, scored, stepped, rewarded) = jax.lax.scan(step, (env_state, first, action, initial, running), keys)
    rows = jax.tree.map(lambda x: jnp.moveaxis(x, 0, 1), rows)
    return Collected(rows, scored.sum(0), stepped.sum(dtype=jnp.int32), jnp.mean(rewarded, dtype=jnp.float32))


def random_policy(env: MetaEnvironment, lanes: int) -> Policy:
    """Uniform actions, without memory (an empty carry)."""

    def act(carry, observation, key):
        del observation
        return carry, jax.vmap(env.action_space.sample)(jax.random.split(key, lanes))

    return act
