"""The meta-episode against recorded traces of whole meta-episodes, with boundary="final"."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import struct

import envs
from envs.escape_room import EscapeRoomParams
from envs.point_robot import HalfCircleParams

KEY = jax.random.key(0)


@struct.dataclass
class Schedule:
    """goal: (2,). ends: (N,) int32, the step at which each sub-episode terminates, 0 for never."""

    goal: jax.Array
    ends: jax.Array


@struct.dataclass
class ScheduledState:
    """position: (2,). index: () sub-episode. clock: () steps in it."""

    position: jax.Array
    index: jax.Array
    clock: jax.Array


class Scheduled(envs.HalfCircle):
    """HalfCircle that terminates on schedule."""

    def __init__(self, ends):
        super().__init__()
        self.ends = jnp.asarray(ends)

    @property
    def default_params(self):
        return Schedule(super().default_params.goal, self.ends)

    def reset_env(self, key, params):
        obs, state = super().reset_env(key, params)
        return obs, ScheduledState(state.position, jnp.int32(0), jnp.int32(0))

    def restart_env(self, key, state, params):
        obs, first = self.reset_env(key, params)
        return obs, first.replace(index=state.index + 1)

    def step_env(self, key, state, action, params):
        obs, moved, reward, _, info = super().step_env(key, state, action, params)
        clock = state.clock + 1
        terminated = clock == params.ends[state.index]
        return obs, ScheduledState(moved.position, state.index, clock), reward, terminated, info


def protocol(golden):
    """(N, T) of the recording; time advances by 1 / (N T) per step."""
    sub_episodes = int(golden["meta_episode_reset"][0, : golden["length"][0]].sum())
    return sub_episodes, round(1.0 / float(golden["obs_time_step"][0, 1])) // sub_episodes


def schedule(golden, episode):
    ends = np.flatnonzero(golden["meta_episode_reset"][episode, : golden["length"][episode]])
    lengths = np.diff(ends, prepend=-1)
    return np.where(golden["obs_is_terminal"][episode, ends + 1], lengths, 0).astype(np.int32)


def replay(env, params, golden, episode):
    """Step through the recorded actions, each step from the recorded state; returns the rows and the states after."""
    length = golden["length"][episode]
    before = jnp.asarray(golden["state_pre"][episode, :length], jnp.float32)
    actions = jnp.asarray(golden["actions"][episode, :length])

    def step(state, inputs):
        position, action = inputs
        state = state.replace(env_state=state.env_state.replace(position=position))
        state, row = env.step(KEY, state, action)
        return state, (row, state)

    state, first = jax.jit(env.reset)(KEY, params)
    rows, states = jax.jit(lambda *xs: jax.lax.scan(step, state, xs)[1])(before, actions)
    return jax.tree.map(lambda a, b: np.concatenate([a[None], b]), first, rows), states


def check(env, params, golden, episode):
    rows, states = replay(env, params, golden, episode)
    length = golden["length"][episode]
    shown = slice(0, length + 1)
    first = golden["obs_state"][episode, 0]
    if isinstance(env.env, envs.HalfCircle):  # elsewhere the start is random
        np.testing.assert_allclose(rows.observation["state"][0], first, rtol=0, atol=1e-6)
    np.testing.assert_allclose(
        rows.observation["state"][1:], golden["obs_state"][episode, 1 : length + 1], rtol=0, atol=1e-6
    )
    np.testing.assert_allclose(rows.observation["reward"], golden["obs_reward"][episode, shown], rtol=0, atol=1e-6)
    np.testing.assert_allclose(rows.reward[1:], golden["reward"][episode, :length], rtol=0, atol=1e-6)
    np.testing.assert_allclose(rows.observation["time"], golden["obs_time_step"][episode, shown], rtol=0, atol=1e-6)
    np.testing.assert_array_equal(rows.is_first, golden["obs_is_first"][episode, shown])
    np.testing.assert_array_equal(rows.terminated, golden["obs_is_terminal"][episode, shown])
    np.testing.assert_array_equal(rows.is_last[1:], golden["done"][episode, :length])
    ended = rows.terminated | rows.truncated
    np.testing.assert_array_equal(ended[1:], golden["meta_episode_reset"][episode, :length])
    running = slice(0, length - 1)  # after the last step the recorded counters belong to the next meta-episode
    np.testing.assert_array_equal(states.sub_episode[running], golden["cur_episode_after"][episode, running])
    np.testing.assert_array_equal(states.sub_time[running], golden["cur_step_after"][episode, running])
    return states


@pytest.mark.golden_files("envs", "wrapper_halfcircle.npz")
def test_golden_wrapper_half_circle(golden):
    sub_episodes, length = protocol(golden)
    env = envs.make("halfcircle", sub_episodes=sub_episodes, length=length, boundary="final")
    for episode, goal in enumerate(golden["task"]):
        states = check(env, HalfCircleParams(jnp.asarray(goal, jnp.float32)), golden, episode)
        running = slice(0, golden["length"][episode] - 1)
        after = golden["state_after_wrapper"][episode, running]
        np.testing.assert_allclose(states.env_state.position[running], after, rtol=0, atol=1e-6)


@pytest.mark.golden_files("envs", "wrapper_escaperoom.npz")
def test_golden_wrapper_escape_room(golden):
    sub_episodes, length = protocol(golden)
    env = envs.make("escape-room", sub_episodes=sub_episodes, length=length, boundary="final")
    for episode, task in enumerate(golden["task"]):
        check(env, EscapeRoomParams(jnp.asarray(task[0], jnp.float32)), golden, episode)


@pytest.mark.golden_files("envs", "wrapper_early_done.npz")
def test_golden_wrapper_early_done(golden):
    sub_episodes, length = protocol(golden)
    for episode, goal in enumerate(golden["task"]):
        scheduled = Scheduled(schedule(golden, episode))
        env = envs.MetaEpisode(scheduled, sub_episodes=sub_episodes, length=length, boundary="final")
        check(env, scheduled.default_params.replace(goal=jnp.asarray(goal, jnp.float32)), golden, episode)
