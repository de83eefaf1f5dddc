"""Point robots that search a goal on a half-circle, without wind (HalfCircle) and with it (Point-Wind)."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from gymnax.environments import spaces

from envs import rendering
from envs.base import Observation, TaskEnvironment, continuous_actions, unbounded

WIND = 0.3
"""Standard deviation of the noise that wind adds to each component of an action."""


@struct.dataclass
class HalfCircleParams:
    """goal: (2,) float32, centre of the goal disc, on the upper half of the unit circle."""

    goal: jax.Array


@struct.dataclass
class HalfCircleState:
    """position: (2,) float32."""

    position: jax.Array


class HalfCircle(TaskEnvironment):
    """A point robot in an unbounded plane with a goal disc somewhere on the upper unit half-circle.

    p' = p + 0.1 clip(a, -1, 1), from p = (0, 0). Reward 1 - d inside the goal disc, d = |p' - goal| <= goal_radius,
    else 0. The observation `state` is p'. No termination.
    """

    def __init__(self, *, goal_radius: float = 0.2):
        """goal_radius: radius of the rewarded disc."""
        self.goal_radius = goal_radius

    @property
    def default_params(self) -> HalfCircleParams:
        """The goal at the top of the half-circle."""
        return HalfCircleParams(goal=jnp.array([0.0, 1.0], jnp.float32))

    def sample_task(self, key: jax.Array, params: HalfCircleParams) -> HalfCircleParams:
        """goal = (cos a, sin a), a ~ U(0, pi)."""
        angle = jax.random.uniform(key, (), jnp.float32, 0.0, jnp.pi)
        return dataclasses.replace(params, goal=jnp.stack([jnp.cos(angle), jnp.sin(angle)]))

    def reset_env(self, key: jax.Array, params: HalfCircleParams) -> tuple[Observation, HalfCircleState]:
        """Start at the origin."""
        del key, params
        position = jnp.zeros((2,), jnp.float32)
        return {"state": position}, HalfCircleState(position)

    def step_env(self, key: jax.Array, state: HalfCircleState, action: jax.Array, params: HalfCircleParams):
        """action: (2,) float32, clipped to [-1, 1]."""
        del key
        position = state.position + 0.1 * jnp.clip(action, -1.0, 1.0)
        distance = jnp.sqrt(jnp.sum(jnp.square(position - params.goal)))
        reward = jnp.where(distance <= self.goal_radius, 1.0 - distance, 0.0)
        return {"state": position}, HalfCircleState(position), reward, jnp.zeros((), bool), {}

    def action_space(self, params: HalfCircleParams | None = None) -> spaces.Box:
        """[-1, 1]^2."""
        return continuous_actions(2)

    def observation_space(self, params: HalfCircleParams | None = None) -> spaces.Dict:
        """`state` (2,)."""
        return spaces.Dict({"state": unbounded(2)})

    def render(self, state: HalfCircleState, params: HalfCircleParams) -> np.ndarray:
        """The half-circle, the goal disc and the robot, (H, W, 3) uint8."""
        canvas = rendering.Canvas((-1.5, 1.5), (-1.0, 2.0))
        arc = np.linspace(0.0, np.pi, 64)
        canvas.line(np.stack([np.cos(arc), np.sin(arc)], -1), rendering.GREY)
        canvas.disc(params.goal, self.goal_radius, rendering.GREEN)
        canvas.disc(state.position, 0.06, rendering.BLUE)
        return canvas.frame()


class PointWind(HalfCircle):
    """HalfCircle in gusts: p' = p + 0.1 clip(a + w, -1, 1), w ~ N(0, 0.3^2) per component, drawn at every step."""

    def step_env(self, key: jax.Array, state: HalfCircleState, action: jax.Array, params: HalfCircleParams):
        """action: (2,) float32, clipped to [-1, 1] after the wind is added."""
        gust = WIND * jax.random.normal(key, action.shape, action.dtype)
        return super().step_env(key, state, action + gust, params)
