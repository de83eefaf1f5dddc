"""Dynamics of the reacher's arm: in closed form, and by MJX."""

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp

TIMESTEP = 0.02
"""s; one physics step per action, semi-implicit Euler."""

LINK = 0.12
"""Length of either link, m."""

WRIST_LIMIT = math.radians(160.0)
"""The wrist's soft stops are at plus and minus this angle, rad."""

_DAMPING = 0.01  # N m s / rad
_GEAR = 0.05  # N m per unit of control
_A1, _A2, _A3 = 7.871365113324346e-4, 1.8867358279909104e-4, 2.7394687939303e-4  # inertia, kg m^2
_WRIST_INVERSE_INERTIA = 20740.54873181604  # of the straight arm, 1 / (kg m^2)
_STOP_TIME = 0.04  # s, time constant of the stop
_STOP_WIDTH = 0.001  # rad, over which its impedance rises from 0.9 to 0.95


def finger(qpos: jax.Array) -> jax.Array:
    """Position (2,) m of the arm's tip at angles (2,) rad."""
    c1, s1, c2, s2 = jnp.cos(qpos[0]), jnp.sin(qpos[0]), jnp.cos(qpos[1]), jnp.sin(qpos[1])
    return LINK * jnp.stack([c1 + c1 * c2 - s1 * s2, s1 + s1 * c2 + c1 * s2])


def next_velocity(qpos: jax.Array, qvel: jax.Array, control: jax.Array) -> jax.Array:
    """Joint velocities (2,) rad/s one time step later, exactly as MuJoCo computes them.

    qvel' = qvel + h (M + h D)^-1 (0.05 u - D qvel - bias + stop), damping D being treated implicitly.
    qpos: (2,) rad. control: (2,) in [-1, 1].
    """
    v1, v2 = qvel[0], qvel[1]
    cos, sin = _A3 * jnp.cos(qpos[1]), _A3 * jnp.sin(qpos[1])
    m11, m12, m22 = _A1 + _A2 + 2.0 * cos, _A2 + cos, _A2
    force1 = _GEAR * control[0] - _DAMPING * v1 + sin * (2.0 * v1 * v2 + v2 * v2)
    force2 = _GEAR * control[1] - _DAMPING * v2 - sin * v1 * v1
    determinant = m11 * m22 - m12 * m12
    free = (m11 * force2 - m12 * force1) / determinant
    force2 = force2 + _stop_torque(qpos[1], v2, free, m11 / determinant)
    implicit = TIMESTEP * _DAMPING
    d11, d22 = m11 + implicit, m22 + implicit
    scale = TIMESTEP / (d11 * d22 - m12 * m12)
    return jnp.stack([v1 + scale * (d22 * force1 - m12 * force2), v2 + scale * (d11 * force2 - m12 * force1)])


def _stop_torque(wrist: jax.Array, velocity: jax.Array, free: jax.Array, inverse_inertia: jax.Array) -> jax.Array:
    """Torque (N m) of the wrist's soft stops; MuJoCo's constraint model for one active limit.

    free: acceleration of the wrist without the stop, rad/s^2. inverse_inertia: (M^-1)_22.
    """
    depth = jnp.minimum(WRIST_LIMIT - wrist, WRIST_LIMIT + wrist)
    sign = jnp.where(wrist > 0.0, -1.0, 1.0)
    rise = jnp.minimum(jnp.abs(depth) / _STOP_WIDTH, 1.0)
    rise = jnp.where(rise < 0.5, 2.0 * rise * rise, 1.0 - 2.0 * (1.0 - rise) * (1.0 - rise))
    impedance = 0.9 + 0.05 * rise
    reference = -2.0 / (0.95 * _STOP_TIME) * sign * velocity - impedance * depth / (0.95 * _STOP_TIME) ** 2
    softness = (1.0 - impedance) / impedance * _WRIST_INVERSE_INERTIA
    push = jnp.maximum((reference - sign * free) / (inverse_inertia + softness), 0.0)
    return jnp.where(depth < 0.0, sign * push, 0.0)


def mjx_next_velocity() -> Callable[[jax.Array, jax.Array, jax.Array], jax.Array]:
    """`next_velocity` by one step of MJX instead of the closed form; this call imports MuJoCo."""
    from envs.mjx.engine import load, mjx

    model = mjx.put_model(load("reacher.xml"), impl="jax")

    @jax.default_matmul_precision("highest")  # accelerators round products of float32 otherwise
    def step(qpos: jax.Array, qvel: jax.Array, control: jax.Array) -> jax.Array:
        data = mjx.make_data(model).replace(qpos=qpos, qvel=qvel, ctrl=control)
        return mjx.step(model, data).qvel

    return step
