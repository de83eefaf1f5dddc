"""Reacher-N: a planar two-link arm that must touch N hidden goals in order."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from gymnax.environments import spaces

from envs import rendering
from envs.base import Observation, TaskEnvironment, continuous_actions, unbounded
from envs.mjx import arm


@struct.dataclass
class ReacherParams:
    """goals: (N, 2) float32, centres of the goals, m."""

    goals: jax.Array


@struct.dataclass
class ReacherState:
    """Angles and velocities of shoulder and wrist, and the progress through the goals.

    qpos: (2,) float32, rad. qvel: (2,) float32, rad/s. goal_index: () int32, the goal that is rewarded.
    qpos_dyn: (2,) float32, the angles at which forces are evaluated: `qpos`, but for the first step after a restart
    with carried velocities.
    """

    qpos: jax.Array
    qvel: jax.Array
    goal_index: jax.Array
    qpos_dyn: jax.Array


class Reacher(TaskEnvironment):
    """dm_control's reacher with N goals, uniform in a disc of radius 0.195 m, that must be touched in order.

    Reward max(1 - d / 0.05, 0) - 0.01 |a|^2 with d the distance (m) of the finger to the current goal after the step
    and `a` the unclipped action (torques saturate at |a| = 1). With d < 0.05 the next goal becomes current; the last
    goal keeps paying. The observation is `state`, the finger's position (2,), and `velocity`, the joints' (2,);
    goals, their index and the joint angles are not observed. No termination.

    A restart draws new angles, shoulder ~ U(-pi, pi), wrist ~ U(-160, 160) degrees, and sets velocities to zero. With
    `boundary="final"` it repeats what the release does between sub-episodes: velocities carry over, and the first
    step evaluates forces at the old angles.
    """

    def __init__(
        self, *, subtasks: int = 1, physics: str = "exact", boundary: str = "reset", goal_radius: float = 0.05
    ):
        """subtasks: number of goals, at least 1. physics: "exact", the arm's equations in closed form, or "mjx".

        boundary: "reset" or "final", see the class. goal_radius: m, the 0.05 above.
        Raises ValueError for other physics.
        """
        if physics not in ("exact", "mjx"):
            raise ValueError(f"Unknown physics {physics!r}; choose one of: exact, mjx.")
        self.num_goals = subtasks
        self.goal_radius = goal_radius
        self.carry_velocity = boundary == "final"
        self._next_velocity = arm.next_velocity if physics == "exact" else arm.mjx_next_velocity()

    @property
    def default_params(self) -> ReacherParams:
        """All goals at the same place."""
        return ReacherParams(goals=jnp.tile(jnp.array([0.1, 0.1], jnp.float32), (self.num_goals, 1)))

    def sample_task(self, key: jax.Array, params: ReacherParams) -> ReacherParams:
        """Every goal independently uniform in a disc of radius 0.195 m."""
        turn, area = jax.random.uniform(key, (2, self.num_goals), jnp.float32)
        angle, radius = 2.0 * jnp.pi * turn, 0.195 * jnp.sqrt(area)
        return dataclasses.replace(params, goals=jnp.stack([radius * jnp.cos(angle), radius * jnp.sin(angle)], -1))

    def reset_env(self, key: jax.Array, params: ReacherParams) -> tuple[Observation, ReacherState]:
        """Random angles at rest."""
        del params
        limit = jnp.array([np.pi, arm.WRIST_LIMIT], jnp.float32)
        qpos = limit * jax.random.uniform(key, (2,), jnp.float32, -1.0, 1.0)
        state = ReacherState(qpos, jnp.zeros((2,), jnp.float32), jnp.zeros((), jnp.int32), qpos)
        return _observe(state), state

    def restart_env(self, key: jax.Array, state: ReacherState, params: ReacherParams):
        """As `reset_env`; with `boundary="final"` velocities and the angles that forces are evaluated at stay."""
        obs, fresh = self.reset_env(key, params)
        if not self.carry_velocity:
            return obs, fresh
        fresh = dataclasses.replace(fresh, qvel=state.qvel, qpos_dyn=state.qpos)
        return _observe(fresh), fresh

    def step_env(self, key: jax.Array, state: ReacherState, action: jax.Array, params: ReacherParams):
        """action: (2,) float32, torques of shoulder and wrist in units of 0.05 N m, clipped to [-1, 1]."""
        del key
        qvel = self._next_velocity(state.qpos_dyn, state.qvel, jnp.clip(action, -1.0, 1.0))
        qpos = state.qpos + arm.TIMESTEP * qvel
        current = jnp.arange(self.num_goals) == state.goal_index
        goal = jnp.sum(jnp.where(current[:, None], params.goals, 0.0), axis=0)
        distance = jnp.sqrt(jnp.sum(jnp.square(arm.finger(qpos) - goal)))
        reward = jnp.maximum(1.0 - distance / self.goal_radius, 0.0) - 0.01 * jnp.sum(jnp.square(action))
        touched = (distance < self.goal_radius) & (state.goal_index < self.num_goals - 1)
        state = ReacherState(qpos, qvel, state.goal_index + touched, qpos)
        return _observe(state), state, reward, jnp.zeros((), bool), {}

    def action_space(self, params: ReacherParams | None = None) -> spaces.Box:
        """[-1, 1]^2."""
        return continuous_actions(2)

    def observation_space(self, params: ReacherParams | None = None) -> spaces.Dict:
        """`state` (2,) m, `velocity` (2,) rad/s."""
        reach = spaces.Box(-2 * arm.LINK - 1e-6, 2 * arm.LINK + 1e-6, (2,), jnp.float32)
        return spaces.Dict({"state": reach, "velocity": unbounded(2)})

    def render(self, state: ReacherState, params: ReacherParams) -> np.ndarray:
        """The arm and the goals, the current one in strong colour; (H, W, 3) uint8."""
        canvas = rendering.Canvas((-0.28, 0.28), (-0.28, 0.28))
        canvas.disc((0.0, 0.0), 2 * arm.LINK, rendering.PALE)
        for index, goal in enumerate(np.asarray(params.goals)):
            current = index == int(state.goal_index)
            canvas.disc(goal, self.goal_radius, rendering.GREEN if current else rendering.PALE_GREEN, rendering.GREEN)
            canvas.text(goal, str(index + 1), rendering.BLACK)
        shoulder = float(state.qpos[0])
        elbow = arm.LINK * np.array([np.cos(shoulder), np.sin(shoulder)])
        canvas.line([(0.0, 0.0), elbow, arm.finger(state.qpos)], rendering.ORANGE, 6.0)
        for joint in ((0.0, 0.0), elbow):
            canvas.disc(joint, 0.012, rendering.BLACK)
        canvas.disc(arm.finger(state.qpos), 0.014, rendering.BLUE)
        return canvas.frame()


def _observe(state: ReacherState) -> Observation:
    return {"state": arm.finger(state.qpos), "velocity": state.qvel}
