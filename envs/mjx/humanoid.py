"""Humanoid-Dir: a humanoid that must find out in which direction to run, on MJX."""

import dataclasses
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from gymnax.environments import spaces

from envs import rendering
from envs.base import Observation, TaskEnvironment, continuous_actions, unbounded
from envs.mjx.engine import load, mjx, mujoco

SUBSTEPS = 5
"""Physics steps of 0.003 s per action."""

CONTROL = 0.4
"""Control per unit of action."""

_ALIVE = 5.0
_FORWARD_WEIGHT = 0.25
_CONTROL_WEIGHT = 0.1
_IMPACT_WEIGHT, _IMPACT_LIMIT = 0.5e-6, 10.0
_LOWEST, _HIGHEST = 1.0, 2.0  # m, of the torso
_NOISE = 0.01  # of the start, per coordinate
_STAGES = np.array([(0.5, 1 / 6), (0.5, 1 / 3), (1.0, 1 / 3), (0.0, 1 / 6)], np.float32)  # Runge-Kutta


@struct.dataclass
class HumanoidParams:
    """direction: () float32, where to run, rad. margin: () float32, contact margin of every geom, m."""

    direction: jax.Array
    margin: jax.Array


@struct.dataclass
class HumanoidState:
    """State of the body; the engine's derived quantities are not kept.

    qpos: (24,), qvel: (23,) float32, positions and velocities (m, rad). warmstart: (23,) float32, accelerations where
    the solver starts. com: (2,) float32, centre of mass x, y (m) as the last physics step left it.
    """

    qpos: jax.Array
    qvel: jax.Array
    warmstart: jax.Array
    com: jax.Array


class Readings(NamedTuple):
    """What the engine derives from a state: com (2,), cinert (140,), cvel (84,), actuator (23,), contact (84,)."""

    com: jax.Array
    cinert: jax.Array
    cvel: jax.Array
    actuator: jax.Array
    contact: jax.Array


class HumanoidDir(TaskEnvironment):
    """Gym's humanoid, rewarded for the speed of its centre of mass in a hidden direction.

    Reward 0.25 <(cos, sin) direction, com' - com> / 0.003 - 0.1 |u|^2 - min(0.5e-6 |contact forces|^2, 10) + 5 with
    the control u = 0.4 a (the engine limits what it applies to 0.4, the cost does not). Terminates when the torso is
    lower than 1 m or higher than 2 m. The observation `state` (376,) is gym's: qpos without x and y, qvel, cinert,
    cvel, actuator and contact forces; the direction is not observed. A (sub-)episode starts at the model's default
    pose with U(-0.01, 0.01) on every coordinate and velocity, at rest otherwise. Should the engine diverge, the
    sub-episode terminates with observation and reward 0.

    Physics is gym's humanoid.xml (0.003 s, Runge-Kutta 4) with two differences. MJX has no PGS solver; Newton's takes
    its place, and both converge: one action differs by at most 1e-5 in qpos and 2e-4 in qvel, which is float32. And
    recent engines add the margins of two geoms in contact where those before 3.6 took the larger one, so margins are
    halved (`HumanoidParams.margin`).

    XLA takes half a minute to compile a step. With fewer than four cores it hangs in this program unless the
    environment variable NPROC is set to 8, say, before JAX starts.
    """

    def __init__(self):
        """Load the model."""
        model = load("humanoid.xml")
        model.opt.solver = mujoco.mjtSolver.mjSOL_NEWTON
        model.opt.iterations, model.opt.ls_iterations = 8, 8  # more change nothing in float32
        self._timestep = float(model.opt.timestep)
        self._mass = model.body_mass.astype(np.float32)
        self._host_model = model
        self._model = mjx.put_model(model, impl="jax")

    @property
    def default_params(self) -> HumanoidParams:
        """Run along x; margins by the old rule."""
        return HumanoidParams(direction=jnp.zeros((), jnp.float32), margin=jnp.asarray(0.0005, jnp.float32))

    def sample_task(self, key: jax.Array, params: HumanoidParams) -> HumanoidParams:
        """direction ~ U(0, 2 pi)."""
        return dataclasses.replace(params, direction=jax.random.uniform(key, (), jnp.float32, 0.0, 2.0 * jnp.pi))

    def reset_env(self, key: jax.Array, params: HumanoidParams) -> tuple[Observation, HumanoidState]:
        """Start near the default pose, with no control."""
        model = self._model
        noise = jax.random.uniform(key, (model.nq + model.nv,), jnp.float32, -_NOISE, _NOISE)
        return self.start(jnp.asarray(model.qpos0, jnp.float32) + noise[: model.nq], noise[model.nq :], params)

    def start(self, qpos: jax.Array, qvel: jax.Array, params: HumanoidParams) -> tuple[Observation, HumanoidState]:
        """Start at positions (24,) and velocities (23,), with no control; one forward pass of the engine."""
        warmstart = jnp.zeros_like(qvel)
        _, readings = self._forward(params, qpos, qvel, warmstart, jnp.zeros((self._model.nu,), qpos.dtype))
        return _observe(qpos, qvel, readings), HumanoidState(qpos, qvel, warmstart, readings.com)

    def step_env(self, key: jax.Array, state: HumanoidState, action: jax.Array, params: HumanoidParams):
        """action: (17,) float32 in [-1, 1]. The info holds the terms of the reward."""
        del key
        control = CONTROL * action
        qpos, qvel, warmstart, readings = self._advance(params, state, control)
        heading = jnp.stack([jnp.cos(params.direction), jnp.sin(params.direction)])
        speed = jnp.sum(heading * (readings.com - state.com)) / self._timestep
        terms = {
            "reward_linvel": _FORWARD_WEIGHT * speed,
            "cost_ctrl": _CONTROL_WEIGHT * jnp.sum(jnp.square(control)),
            "cost_impact": jnp.minimum(_IMPACT_WEIGHT * jnp.sum(jnp.square(readings.contact)), _IMPACT_LIMIT),
        }
        reward = terms["reward_linvel"] - terms["cost_ctrl"] - terms["cost_impact"] + _ALIVE
        obs = _observe(qpos, qvel, readings)
        finite = jnp.isfinite(reward) & jnp.all(jnp.isfinite(obs["state"]))
        terminated = ~(finite & (qpos[2] >= _LOWEST) & (qpos[2] <= _HIGHEST))
        obs, reward = jax.tree.map(lambda x: jnp.where(finite, x, 0.0), (obs, reward))
        return obs, HumanoidState(qpos, qvel, warmstart, readings.com), reward, terminated, terms

    def action_space(self, params: HumanoidParams | None = None) -> spaces.Box:
        """[-1, 1]^17."""
        return continuous_actions(self._model.nu)

    def observation_space(self, params: HumanoidParams | None = None) -> spaces.Dict:
        """`state` (376,)."""
        model = self._model
        size = model.nq - 2 + model.nv + 10 * model.nbody + 6 * model.nbody + model.nv + 6 * model.nbody
        return spaces.Dict({"state": unbounded(size)})

    @jax.default_matmul_precision("highest")  # accelerators round products of float32 otherwise
    def _forward(self, params: HumanoidParams, qpos, qvel, warmstart, control) -> tuple[jax.Array, Readings]:
        """The engine's forward pass at a state; returns (qacc (23,), readings)."""
        model = self._model.replace(geom_margin=jnp.full((self._model.ngeom,), params.margin))
        data = mjx.make_data(model).replace(qpos=qpos, qvel=qvel, qacc_warmstart=warmstart, ctrl=control)
        data = mjx.rne_postconstraint(model, mjx.forward(model, data))
        com = jnp.sum(self._mass[:, None] * data.xipos, axis=0)[:2] / self._mass.sum()
        cinert, contact = data._impl.cinert.ravel(), data._impl.cfrc_ext.ravel()
        return data.qacc, Readings(com, cinert, data.cvel.ravel(), data.qfrc_actuator, contact)

    def _advance(self, params: HumanoidParams, state: HumanoidState, control: jax.Array):
        """Five physics steps; returns (qpos, qvel, warmstart, readings of the last Runge-Kutta stage).

        The engine's readings, too, are those of the last stage and not of the final state. `mjx.step` does the same,
        but unrolls the stages, so XLA takes far longer to compile it.
        """

        def substep(carry, _):
            qpos, qvel, warmstart = carry

            def derivative(stage_qpos, stage_qvel):
                return self._forward(params, stage_qpos, stage_qvel, warmstart, control)

            qpos, qvel, warmstart, readings = _runge_kutta(derivative, qpos, qvel, self._timestep)
            return (qpos, qvel, warmstart), readings

        carry, readings = jax.lax.scan(substep, (state.qpos, state.qvel, state.warmstart), length=SUBSTEPS)
        return *carry, jax.tree.map(lambda x: x[-1], readings)

    def render(self, state: HumanoidState, params: HumanoidParams) -> np.ndarray:
        """The body on a ground with a mark at every metre, seen so that the task's direction points to the right."""
        data = mujoco.MjData(self._host_model)
        data.qpos[:] = np.asarray(state.qpos)
        mujoco.mj_kinematics(self._host_model, data)
        along = np.array([np.cos(float(params.direction)), np.sin(float(params.direction)), 0.0])
        middle = float(along[:2] @ np.asarray(state.com))
        canvas = rendering.Canvas((middle - 1.25, middle + 1.25), (-0.35, 2.15))
        canvas.box((middle - 2.0, -1.0), (middle + 2.0, 0.0), rendering.PALE)
        for mark in range(int(np.floor(middle)) - 1, int(np.ceil(middle)) + 2):
            canvas.line([(mark, 0.0), (mark, -0.12)], rendering.GREY)
        arrow = np.array([(-0.3, 1.85), (0.3, 1.85), (0.2, 1.9), (0.3, 1.85), (0.2, 1.8)])
        canvas.line(arrow + np.array([middle, 0.0]), rendering.GREEN, 3.0)
        self._draw_body(canvas, data, along)
        return canvas.frame()

    def _draw_body(self, canvas: rendering.Canvas, data: mujoco.MjData, along: np.ndarray) -> None:
        """Draw every geom but the ground as a row of discs from one end to the other, the farthest first."""
        model = self._host_model
        depth = data.geom_xpos @ np.array([-along[1], along[0], 0.0])
        for geom in sorted(range(1, model.ngeom), key=lambda index: -depth[index]):
            radius, half, _ = model.geom_size[geom]
            axis = data.geom_xmat[geom].reshape(3, 3)[:, 2]
            shade = rendering.BLUE if "left" in model.geom(geom).name else rendering.ORANGE
            for offset in np.linspace(-half, half, 12):
                point = data.geom_xpos[geom] + offset * axis
                canvas.disc((along @ point, point[2]), radius, shade)


def _runge_kutta(derivative: Callable, qpos: jax.Array, qvel: jax.Array, step: float):
    """One step of the classical method of order four; returns (qpos, qvel, last stage's acceleration and readings).

    derivative: (qpos, qvel) -> (acceleration, readings).
    """

    def stage(carry, coefficients):
        stage_qpos, stage_qvel, velocity, acceleration = carry
        ahead, weight = coefficients
        qacc, readings = derivative(stage_qpos, stage_qvel)
        velocity, acceleration = velocity + weight * stage_qvel, acceleration + weight * qacc
        following = _integrate(qpos, stage_qvel, ahead * step), qvel + ahead * step * qacc
        return (*following, velocity, acceleration), (qacc, readings)

    zeros = jnp.zeros_like(qvel)
    (_, _, velocity, acceleration), stages = jax.lax.scan(stage, (qpos, qvel, zeros, zeros), _STAGES)
    qacc, readings = jax.tree.map(lambda x: x[-1], stages)
    return _integrate(qpos, velocity, step), qvel + step * acceleration, qacc, readings


def _integrate(qpos: jax.Array, qvel: jax.Array, time: jax.Array | float) -> jax.Array:
    """Move a free body with hinges (7 + n,) for some time at a constant velocity (6 + n,), local for the rotation."""
    rotation = time * qvel[3:6]
    angle = jnp.sqrt(jnp.sum(jnp.square(rotation)))
    half = jnp.sinc(angle / (2.0 * jnp.pi)) / 2.0  # sin(angle / 2) / angle
    w, v = jnp.cos(angle / 2.0), half * rotation
    q, u = qpos[3], qpos[4:7]
    turned = jnp.concatenate([(q * w - jnp.sum(u * v))[None], q * v + w * u + jnp.cross(u, v)])
    turned = turned / jnp.sqrt(jnp.sum(jnp.square(turned)))
    return jnp.concatenate([qpos[:3] + time * qvel[:3], turned, qpos[7:] + time * qvel[6:]])


def _observe(qpos: jax.Array, qvel: jax.Array, readings: Readings) -> Observation:
    entries = (qpos[2:], qvel, readings.cinert, readings.cvel, readings.actuator, readings.contact)
    return {"state": jnp.concatenate(entries)}
