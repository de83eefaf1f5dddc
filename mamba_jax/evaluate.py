"""Evaluation: one meta-episode in each of many tasks, fresh ones as a rule, with the most likely action."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from mamba_jax.types import Algorithm, Score, TimeStep


def evaluate(
    algo: Algorithm, state: Any, key: jax.Array, num_tasks: int, *, fresh: bool = True, max_lanes: int = 1000
) -> Score:
    """Return of the policy in `state`, of one seed, over `num_tasks` fresh tasks; pure, and a function of its arguments
    only.

    Every lane plays one meta-episode; where sub-episodes end early a lane finishes before N T steps, and what it does
    afterwards does not count. `fresh`: tasks from the whole distribution, or else as in training. `max_lanes`: tasks
    played side by side, which bounds the memory.
    """
    chunks = -(-num_tasks // max_lanes)
    lanes = -(-num_tasks // chunks)
    keys = jax.random.split(key, chunks)
    returns = jax.lax.map(lambda key: sub_episode_returns(algo, state, key, lanes, fresh), keys)
    returns = returns.reshape(-1, algo.env.sub_episodes)[:num_tasks]
    totals = returns.sum(1)
    return Score(totals.mean(), totals.std(), returns.mean(0), returns, num_tasks)


def sub_episode_returns(algo: Algorithm, state: Any, key: jax.Array, lanes: int, fresh: bool) -> jax.Array:
    """Rewards of the first meta-episode of each lane summed by sub-episode, (lanes, N) float32."""

    def outcome(carry: Any, env_states: Any, row: TimeStep) -> tuple[jax.Array, ...]:
        return row.reward, row.sub_episode, row.is_last

    reward, sub_episode, is_last = play(algo, state, key, lanes, outcome, fresh)
    finished_before = (jnp.cumsum(is_last, 0) - is_last) > 0
    counted = jnp.where(finished_before, 0, reward)
    belongs = sub_episode[..., None] == jnp.arange(algo.env.sub_episodes)
    return jnp.where(belongs, counted[..., None], 0).sum(0)


def rollout(algo: Algorithm, state: Any, key: jax.Array) -> tuple[Any, TimeStep]:
    """One meta-episode in a fresh task: environment states and rows, leaves (N T, ...), the last ones after `is_last`
    belonging to the next meta-episode."""
    steps = play(algo, state, key, 1, lambda carry, env_states, row: (env_states, row))
    return jax.tree.map(lambda x: x[:, 0], steps)


def play(
    algo: Algorithm,
    state: Any,
    key: jax.Array,
    lanes: int,
    record: Callable[[Any, Any, TimeStep], Any],
    fresh: bool = True,
) -> Any:
    """Plays N T steps in `lanes` tasks; stacks `record(carry, env_states, row)` of every step: (N T, lanes, ...).

    carry: the memory that chose the action; env_states, row: what the action led to.
    """
    reset_key, scan_key = jax.random.split(key)
    env_states, first = algo.env.reset_lanes(reset_key, lanes, fresh=fresh)

    def step(loop, key):
        env_states, row, carry = loop
        act_key, env_key = jax.random.split(key)
        carry, action = algo.act(state, carry, row.observation, act_key, False)
        env_states, row = algo.env.step_lanes(env_key, env_states, action)
        return (env_states, row, carry), record(carry, env_states, row)

    start = (env_states, first, algo.init_carry(state, lanes))
    return jax.lax.scan(step, start, jax.random.split(scan_key, algo.env.num_steps))[1]
