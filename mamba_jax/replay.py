"""A replay of whole meta-episodes on the device, laid out lane-major so that a lane's draws stay on its device."""

import math

import jax
import jax.numpy as jnp
from flax import struct

from mamba_jax.sharding import spread
from mamba_jax.types import MetaEnvironment


@struct.dataclass
class Rows:
    """Rows of meta-episodes with arbitrary leading axes (here "..."): row t holds what was seen at t.

    observation: entries (..., *shape), images uint8. action: the action that led there, (..., A) float32 or (...) int32
    for discrete spaces, zero at first rows. is_first, is_terminal: (...) bool.
    """

    observation: dict[str, jax.Array]
    action: jax.Array
    is_first: jax.Array
    is_terminal: jax.Array


@struct.dataclass
class Replay:
    """rows: leaves (lanes, slots, T, ...), T the meta-episode's length. inserted: () int32 rounds inserted so far."""

    rows: Rows
    inserted: jax.Array


def make_replay(env: MetaEnvironment, lanes: int, capacity: int) -> Replay:
    """An empty replay of at most `capacity` environment steps: capacity // (lanes T) slots in each lane."""
    slots = capacity // (lanes * env.num_steps)
    lead = (lanes, slots, env.num_steps)
    observation = {key: jnp.zeros((*lead, *space.shape), space.dtype) for key, space in env.observation_space.items()}
    action = jnp.zeros((*lead, *env.action_space.shape), env.action_space.dtype)
    flags = jnp.zeros(lead, bool)
    return Replay(Rows(observation, action, flags, jnp.zeros_like(flags)), jnp.int32(0))


def insert(replay: Replay, rows: Rows) -> Replay:
    """Adds one meta-episode per lane, rows (lanes, T, ...), in place of the oldest once all slots are full."""
    slots = replay.rows.is_first.shape[1]
    slot = replay.inserted % slots
    update = jax.tree.map(
        lambda store, new: jax.lax.dynamic_update_index_in_dim(store, new.astype(store.dtype), slot, 1),
        replay.rows,
        rows,
    )
    return Replay(update, replay.inserted + 1)


def sample(replay: Replay, key: jax.Array, batch: int, length: int | None = None) -> Rows:
    """Draws `batch` sequences uniformly, time-major: leaves (length or T, batch, ...).

    Lanes and batch rows are split into gcd(lanes, batch) groups and each group draws from its own lanes, so draws are
    local where devices share lanes and rows out in the same way. Sequences start at the meta-episode's start, or for a
    `length` below T at a random row, which then counts as first.
    """
    lanes, slots, total = replay.rows.is_first.shape
    groups = math.gcd(lanes, batch)
    filled = jnp.minimum(replay.inserted, slots)
    length = total if length is None else length
    lane_key, slot_key, start_key = jax.random.split(key, 3)
    shape = (groups, batch // groups)
    lane = jax.random.randint(lane_key, shape, 0, lanes // groups)
    slot = jax.random.randint(slot_key, shape, 0, filled)
    start = jax.random.randint(start_key, shape, 0, total + 1 - length)

    def draw(store, lane, slot, start):
        sequence = store[lane, slot]
        return jax.lax.dynamic_slice_in_dim(sequence, start, length)

    def gather(store):
        grouped = store.reshape(groups, lanes // groups, *store.shape[1:])
        drawn = jax.vmap(jax.vmap(draw, (None, 0, 0, 0)))(grouped, lane, slot, start)
        return spread(jnp.moveaxis(drawn.reshape(batch, *drawn.shape[2:]), 1, 0), axis=1)

    rows = jax.tree.map(gather, replay.rows)
    return rows.replace(is_first=rows.is_first.at[0].set(True))
