"""Rooms-N: a row of small rooms with one hidden goal each, to be visited in order."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from gymnax.environments import spaces

from envs import rendering
from envs.base import Observation, TaskEnvironment

_CELLS = 3  # side of a room and length of a corridor; positions have y in -1, 0, 1
_PERIOD = 2 * _CELLS
_ROOMS_PER_ROW = 3  # in pictures


@struct.dataclass
class RoomsParams:
    """goals: (N, 2) int32, cell (x, y) of the goal of every room, one of the room's corners."""

    goals: jax.Array


@struct.dataclass
class RoomsState:
    """position: (2,) int32, cell (x, y). reached: () int32, how many goals have been reached, in order."""

    position: jax.Array
    reached: jax.Array


class Rooms(TaskEnvironment):
    """N rooms of 3 x 3 cells in a row, joined by corridors of 3 cells; one goal in a random corner of each.

    The agent starts in the middle of the first room's left column. Moves into walls leave it where it is. The
    reward of a step is -0.1, or 1 if it ends on the first goal not yet reached, which is reached then, or on the last
    goal once all are reached. The observation `state` is 2 (position + 2) / (W, 3) - 1 with W = 6 N - 3 columns;
    goals are not observed. No termination.
    """

    def __init__(self, *, subtasks: int = 3):
        """subtasks: number of rooms, at least 2."""
        self.num_rooms = subtasks
        self.width = _PERIOD * subtasks - _CELLS

    @property
    def default_params(self) -> RoomsParams:
        """All goals in the upper right corners."""
        left = _PERIOD * np.arange(self.num_rooms, dtype=np.int32)
        return RoomsParams(goals=jnp.asarray(np.stack([left + 2, np.ones_like(left)], -1)))

    def sample_task(self, key: jax.Array, params: RoomsParams) -> RoomsParams:
        """Independently for every room one of its four corners."""
        corner = jax.random.randint(key, (self.num_rooms, 2), 0, 2, jnp.int32)
        left = _PERIOD * jnp.arange(self.num_rooms, dtype=jnp.int32)
        return dataclasses.replace(params, goals=jnp.stack([left + 2 * corner[:, 0], 2 * corner[:, 1] - 1], -1))

    def reset_env(self, key: jax.Array, params: RoomsParams) -> tuple[Observation, RoomsState]:
        """Start at (0, 0) with no goal reached."""
        del key, params
        state = RoomsState(jnp.zeros((2,), jnp.int32), jnp.zeros((), jnp.int32))
        return self._observe(state), state

    def step_env(self, key: jax.Array, state: RoomsState, action: jax.Array, params: RoomsParams):
        """action: () int32; see `action_space`."""
        del key
        position = self._move(state.position, action)
        on_goal = jnp.all(position == params.goals, axis=-1)
        target = jnp.minimum(state.reached, self.num_rooms - 1)
        scores = jnp.any(on_goal & (jnp.arange(self.num_rooms) == target))
        reached = jnp.minimum(state.reached + scores, self.num_rooms)
        reward = jnp.where(scores, 1.0, -0.1)
        state = RoomsState(position, reached)
        return self._observe(state), state, reward, jnp.zeros((), bool), {}

    def _move(self, position: jax.Array, action: jax.Array) -> jax.Array:
        """The next cell: unchanged if the move would leave the map or enter a wall beside a corridor."""
        x = position[0] + (action == 2) - (action == 4)
        y = position[1] + (action == 1) - (action == 3)
        inside = (x >= 0) & (x < self.width) & (jnp.abs(y) <= 1)
        free = inside & ((x % _PERIOD < _CELLS) | (y == 0))
        return jnp.where(free, jnp.stack([x, y]), position)

    def _observe(self, state: RoomsState) -> Observation:
        size = jnp.array([self.width, _CELLS], jnp.float32)
        return {"state": (state.position + 2).astype(jnp.float32) * 2.0 / size - 1.0}

    def action_space(self, params: RoomsParams | None = None) -> spaces.Discrete:
        """0 stay, 1 up (y + 1), 2 right (x + 1), 3 down, 4 left."""
        return spaces.Discrete(5)

    def observation_space(self, params: RoomsParams | None = None) -> spaces.Dict:
        """`state` (2,), about -1 to 1."""
        low = np.array([4 / self.width - 1, -1 / 3], np.float32) - 1e-6
        high = np.array([1 + 2 / self.width, 1], np.float32) + 1e-6
        return spaces.Dict({"state": spaces.Box(low, high, (2,), jnp.float32)})

    def render(self, state: RoomsState, params: RoomsParams) -> np.ndarray:
        """Rooms, goals (filled once reached) and the agent; (H, W, 3) uint8."""
        reached = int(state.reached)
        rows = -(-self.num_rooms // _ROOMS_PER_ROW)
        columns = min(self.width, _PERIOD * _ROOMS_PER_ROW)
        canvas = rendering.Canvas((-1.0, columns), (-5.0 * rows + 2.5, 2.5), rendering.GREY)
        for x in range(self.width):
            for y in (-1, 0, 1) if x % _PERIOD < _CELLS else (0,):
                cell = _layout((x, y))
                canvas.box(cell - 0.5, cell + 0.5, rendering.WHITE)
        for index, goal in enumerate(np.asarray(params.goals)):
            cell = _layout(goal)
            canvas.box(cell - 0.5, cell + 0.5, rendering.GREEN if index < reached else rendering.PALE_GREEN)
            canvas.text(cell, str(index + 1), rendering.BLACK)
        canvas.disc(_layout(state.position), 0.32, rendering.BLUE)
        return canvas.frame()


def _layout(cell) -> np.ndarray:
    """Where a cell (x, y) is drawn: long maps continue in the row below."""
    row, x = divmod(int(cell[0]), _PERIOD * _ROOMS_PER_ROW)
    return np.array([x, cell[1] - 5.0 * row])
