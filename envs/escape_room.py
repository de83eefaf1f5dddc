"""EscapeRoom: a point robot inside a ring-shaped wall with one hidden door."""

import dataclasses
import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from gymnax.environments import spaces

from envs import rendering
from envs.base import Observation, TaskEnvironment, continuous_actions, unbounded

EDGES = 64
"""The wall lies between two regular polygons with this many edges and vertices at angles 2 pi k / 64."""

OUTER, INNER = 1.0, 0.999
"""Circumradii of the two polygons."""

DOOR = math.pi / 16
"""Half the width of the door, rad."""

_SECTOR = 2 * math.pi / EDGES
_APOTHEM = math.cos(math.pi / EDGES)
_ANGLES = (np.arange(-EDGES // 2, EDGES // 2 + 1) + 0.5) * _SECTOR
_NORMALS = np.cos(_ANGLES), np.sin(_ANGLES)  # of the edges, from direction -pi to pi; the first comes twice


@struct.dataclass
class EscapeRoomParams:
    """door: () float32, direction of the middle of the door, rad in [0, pi]."""

    door: jax.Array


@struct.dataclass
class EscapeRoomState:
    """position: (2,) float32."""

    position: jax.Array


class EscapeRoom(TaskEnvironment):
    """A point robot in a round room; every step that ends outside the unit circle pays 1.

    q = p + 0.1 clip(a, -1, 1). If the way from p to q does not touch the wall, or touches it first within the door,
    p' = q; else p' = 0.99 q / |q|, from either side. The start of a sub-episode is uniform in radius (0 to 1) and
    angle. The observation `state` is p'; the door is not observed. No termination.
    """

    @property
    def default_params(self) -> EscapeRoomParams:
        """The door at the top."""
        return EscapeRoomParams(door=jnp.asarray(np.pi / 2, jnp.float32))

    def sample_task(self, key: jax.Array, params: EscapeRoomParams) -> EscapeRoomParams:
        """door ~ U(0, pi)."""
        return dataclasses.replace(params, door=jax.random.uniform(key, (), jnp.float32, 0.0, jnp.pi))

    def reset_env(self, key: jax.Array, params: EscapeRoomParams) -> tuple[Observation, EscapeRoomState]:
        """Start anywhere in the disc, r (sin f, cos f) with r ~ U(0, 1), f ~ U(-pi, pi)."""
        del params
        radius, turn = jax.random.uniform(key, (2,), jnp.float32)
        angle = jnp.pi * (2.0 * turn - 1.0)
        position = radius * jnp.stack([jnp.sin(angle), jnp.cos(angle)])
        return {"state": position}, EscapeRoomState(position)

    def step_env(self, key: jax.Array, state: EscapeRoomState, action: jax.Array, params: EscapeRoomParams):
        """action: (2,) float32, clipped to [-1, 1]."""
        del key
        ahead = state.position + 0.1 * jnp.clip(action, -1.0, 1.0)
        blocked = is_blocked(state.position, ahead, params.door)
        radius = jnp.sqrt(jnp.sum(jnp.square(ahead)))
        position = jnp.where(blocked, 0.99 * ahead / jnp.maximum(radius, 0.1), ahead)
        reward = jnp.where(~blocked & (radius > 1.0), 1.0, 0.0)
        return {"state": position}, EscapeRoomState(position), reward, jnp.zeros((), bool), {}

    def action_space(self, params: EscapeRoomParams | None = None) -> spaces.Box:
        """[-1, 1]^2."""
        return continuous_actions(2)

    def observation_space(self, params: EscapeRoomParams | None = None) -> spaces.Dict:
        """`state` (2,)."""
        return spaces.Dict({"state": unbounded(2)})

    def render(self, state: EscapeRoomState, params: EscapeRoomParams) -> np.ndarray:
        """The wall, the door and the robot, (H, W, 3) uint8; the ground turns green where steps are rewarded."""
        canvas = rendering.Canvas((-1.5, 1.5), (-1.4, 1.6), rendering.PALE_GREEN)
        canvas.disc((0.0, 0.0), 1.0, rendering.WHITE)
        door = float(params.door)
        wall = np.linspace(min(door + DOOR, np.pi), door - DOOR + 2 * np.pi, 128)
        canvas.line(np.stack([np.cos(wall), np.sin(wall)], -1), rendering.BLACK, 4.0)
        canvas.disc(state.position, 0.06, rendering.BLUE)
        return canvas.frame()


def is_blocked(start: jax.Array, end: jax.Array, door: jax.Array) -> jax.Array:
    """Whether the wall stops a move, () bool.

    start, end: (2,), at most 0.15 apart. door: () rad in [0, pi]. Both polygons are convex, so the segment is clipped
    exactly against half-planes n_k x <= r cos(pi / 64). Only the three edges nearest to the segment's middle can
    matter: near the wall the segment spans less than 0.08 rad to either side of it, an edge 0.098 rad.
    """
    x, y, dx, dy = start[0], start[1], end[0] - start[0], end[1] - start[1]
    nearest = jnp.floor(jnp.arctan2(y + 0.5 * dy, x + 0.5 * dx) / _SECTOR).astype(jnp.int32) + EDGES // 2
    cos, sin = (jnp.asarray(table, start.dtype)[nearest] for table in _NORMALS)
    out, rise = cos * x + sin * y, cos * dx + sin * dy
    side, slide = cos * y - sin * x, cos * dy - sin * dx
    turns = [(math.cos(turn), math.sin(turn)) for turn in (-_SECTOR, 0.0, _SECTOR)]
    edges = [(c * out + s * side, c * rise + s * slide) for c, s in turns]
    enter_outer, leave_outer = _clip(edges, OUTER * _APOTHEM)
    enter_inner, leave_inner = _clip(edges, INNER * _APOTHEM)
    from_hole = (enter_inner < leave_inner) & (enter_inner <= enter_outer)
    highest = functools.reduce(jnp.maximum, [height + climb for height, climb in edges])
    inside = from_hole & (highest < INNER * _APOTHEM)
    touches = (enter_outer <= leave_outer) & ((dx != 0.0) | (dy != 0.0)) & ~inside
    first = jnp.where(from_hole, leave_inner, enter_outer)
    bearing = jnp.arctan2(y + first * dy, x + first * dx)
    return touches & ~((door - DOOR <= bearing) & (bearing <= door + DOOR))


def _clip(edges: list[tuple[jax.Array, jax.Array]], limit: float) -> tuple[jax.Array, jax.Array]:
    """The part [t0, t1] of the unit interval where height + t climb <= limit for all edges; empty if t0 > t1."""
    enter, leave = jnp.zeros_like(edges[0][0]), jnp.ones_like(edges[0][0])
    for height, climb in edges:
        crossing = (limit - height) / jnp.where(climb == 0.0, 1.0, climb)
        never = (climb == 0.0) & (height > limit)
        enter = jnp.maximum(enter, jnp.where(climb < 0.0, crossing, jnp.where(never, 2.0, 0.0)))
        leave = jnp.minimum(leave, jnp.where(climb > 0.0, crossing, 1.0))
    return enter, leave
