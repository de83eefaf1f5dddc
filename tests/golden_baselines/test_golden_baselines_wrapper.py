"""The release's multi-episode wrapper against ours with `boundary="final"`, and its hidden restarts with "reset"."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import struct
from gymnax.environments import spaces

from envs.base import TaskEnvironment
from envs.meta_episode import MetaEpisode
from envs.point_robot import HalfCircle, HalfCircleParams


@struct.dataclass
class Goal:
    """cell: (2,) int32."""

    cell: jax.Array


class GridWorld(TaskEnvironment):
    """The release's 5x5 gridworld, which ends its episodes itself: actions are stay, up, right, down, left."""

    default_params = Goal(jnp.zeros(2, jnp.int32))

    def __init__(self, horizon: int):
        self.horizon = horizon

    def sample_task(self, key, params):
        return params.replace(cell=jax.random.randint(key, (2,), 0, 5))

    def reset_env(self, key, params):
        return {"state": jnp.zeros(2)}, (jnp.zeros(2, jnp.int32), jnp.int32(0))

    def step_env(self, key, state, action, params):
        moves = jnp.array([[0, 0], [0, 1], [1, 0], [0, -1], [-1, 0]])
        cell, time = jnp.clip(state[0] + moves[action], 0, 4), state[1] + 1
        reward = jnp.where((cell == params.cell).all(), 1.0, -0.1)
        return {"state": cell.astype(jnp.float32)}, (cell, time), reward, time >= self.horizon, {}

    def action_space(self, params=None):
        return spaces.Discrete(5)

    def observation_space(self, params=None):
        return spaces.Dict({"state": spaces.Box(0.0, 4.0, (2,))})


def play(env: MetaEpisode, params, actions: np.ndarray):
    """Rows 0 to T of one meta-episode."""
    state, first = env.reset(jax.random.key(0), params)

    def step(state, action):
        return env.step(jax.random.key(1), state, action)

    _, rows = jax.lax.scan(step, state, jnp.asarray(actions))
    return jax.tree.map(lambda x, y: np.concatenate([x[None], y]), first, rows)


@pytest.mark.golden_files("baselines", "vb_f_multiepisode_wrapper.npz")
@pytest.mark.parametrize("name", ["sparse_pointrobot", "gridworld"])
def test_golden_wrapper(golden, name):
    case = {key.split("/", 2)[2]: value for key, value in golden.items() if key.split("/")[1] == name}
    sizes = {"sub_episodes": int(case["episodes_per_task"]), "length": int(case["horizon"])}
    if name == "gridworld":
        inner, params = GridWorld(sizes["length"]), Goal(jnp.asarray(case["task"], jnp.int32))
        actions = case["actions"].astype(np.int32)
    else:
        inner, params = HalfCircle(), HalfCircleParams(jnp.asarray(case["task"], jnp.float32))
        actions = case["actions"].astype(np.float32)
    rows = play(MetaEpisode(inner, boundary="final", name=name, **sizes), params, actions)
    ended = rows.terminated | rows.truncated
    np.testing.assert_allclose(rows.observation["state"], case["obs"][:, :2], atol=1e-6)
    np.testing.assert_allclose(rows.reward[1:], case["reward"], atol=1e-6)
    np.testing.assert_array_equal(ended, case["obs"][:, 2] > 0)
    np.testing.assert_array_equal(ended[1:], case["done_mdp"])
    np.testing.assert_array_equal(rows.is_last[1:], case["done_bamdp"])
    np.testing.assert_array_equal(rows.truncated[1:], case["bad_transition"])

    shown = play(MetaEpisode(inner, boundary="reset", name=name, **sizes), params, actions)
    expected = np.where(case["has_start_state"][:, None], case["start_state"][:, :2], case["obs"][1:, :2])
    np.testing.assert_allclose(shown.observation["state"][1:], expected, atol=1e-6)
    np.testing.assert_allclose(shown.reward, rows.reward, atol=1e-6)
