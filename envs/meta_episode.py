"""Meta-episodes: several sub-episodes in one task, reward and time being part of the observation."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from gymnax.environments import spaces

from envs import rendering

BOUNDARIES = ("reset", "final")

FRESH = 2**32 - 1
"""Folded into the keys of fresh tasks: a number that no training task has."""


@struct.dataclass
class TimeStep:
    """One row of a meta-episode; the shapes are those of one lane.

    observation: the environment's entries, `reward` () and `time` () float32, the steps taken / (N T).
    reward: () float32, of the transition into this row; 0 in the first row.
    is_first: () bool, first row of a meta-episode.
    is_last: () bool, the meta-episode is complete.
    terminated: () bool, the environment itself ended the sub-episode on the transition into this row.
    truncated: () bool, the time limit ended the sub-episode on that transition (and the environment did not).
    sub_episode: () int32, index of the sub-episode that this row's reward belongs to.
    """

    observation: dict[str, jax.Array]
    reward: jax.Array
    is_first: jax.Array
    is_last: jax.Array
    terminated: jax.Array
    truncated: jax.Array
    sub_episode: jax.Array


@struct.dataclass
class MetaState:
    """State of one lane.

    env_state: state of the environment. params: its parameters, which carry the task.
    sub_episode: () int32, index of the sub-episode that the next step belongs to.
    sub_time: () int32, steps taken in it. time: () int32, steps taken in the meta-episode.
    is_last: () bool, the meta-episode is complete and the next step starts another.
    """

    env_state: Any
    params: Any
    sub_episode: jax.Array
    sub_time: jax.Array
    time: jax.Array
    is_last: jax.Array


class MetaEpisode:
    """N sub-episodes of at most T steps in one task of any gymnax environment that has `sample_task(key, params)`.

    The task stays the same for all sub-episodes. Where the environment ends a sub-episode early the next begins at
    once, so a meta-episode takes at most N T steps. Observations that are plain arrays become `{"state": array}`;
    continuous actions in [-1, 1] are rescaled to the environment's bounds if these differ. Time limits of the
    environment itself are not used. An environment may have `restart_env(key, state, params)`, which then starts the
    sub-episodes after the first, given the last state of the one before, and `render(state, params)`.

    What is shown at the boundary of two sub-episodes, together with the last reward of the old one:
    `boundary="reset"` the first observation of the new one; `boundary="final"` the last observation of the old one,
    as in the authors' release. The last row of a meta-episode shows the final observation in both cases.

    Under `jax.jit` the entries of an observation come in alphabetical order; `observation_space` keeps the order
    in which they are meant to be concatenated: the environment's keys sorted, then `reward`, then `time`.
    """

    def __init__(
        self,
        env: Any,
        *,
        sub_episodes: int,
        length: int,
        boundary: str = "reset",
        train_tasks: int | None = None,
        task_seed: int = 0,
        name: str | None = None,
        subtasks: int | None = None,
    ):
        """Wrap `env`.

        sub_episodes: N >= 1. length: T >= 1, time limit of a sub-episode in steps. train_tasks: train only on this
        many tasks, drawn from `task_seed`; None draws from the whole distribution. subtasks: how many parts a task
        has, where that was chosen; only noted. Raises ValueError.
        """
        _check(env, sub_episodes, length, boundary, train_tasks)
        self.env = env
        self.name = name or env.name
        self.sub_episodes = sub_episodes
        self.length = length
        self.num_steps = sub_episodes * length
        self.boundary = boundary
        self.train_tasks = train_tasks
        self.subtasks = subtasks
        self.task_seed = task_seed
        self.observation_space = _observation_space(env)
        self._env_action_space = env.action_space(env.default_params)
        self.action_space = _action_space(self._env_action_space)

    def sample_task(self, key: jax.Array, *, fresh: bool = False) -> Any:
        """Draw one task's params: a training task if `train_tasks` is set and `fresh` is not, else a new one."""
        if self.train_tasks is not None:
            if not fresh:
                return self.training_task(jax.random.randint(key, (), 0, self.train_tasks))
            key = jax.random.fold_in(key, FRESH)  # a key split from that of the training tasks would repeat them
        return self.env.sample_task(key, self.env.default_params)

    def training_task(self, index: jax.Array) -> Any:
        """The params of a training task by its number (), from 0 to `train_tasks` - 1; some may be alike."""
        key = jax.random.fold_in(jax.random.key(self.task_seed), index)
        return self.env.sample_task(key, self.env.default_params)

    def reset(self, key: jax.Array, params: Any = None, *, fresh: bool = False) -> tuple[MetaState, TimeStep]:
        """Start a meta-episode in the task of `params` (drawn by `sample_task` if None), one lane."""
        task_key, env_key = jax.random.split(key)
        if params is None:
            params = self.sample_task(task_key, fresh=fresh)
        obs, env_state = self.env.reset_env(env_key, params)
        zero, false = jnp.zeros((), jnp.int32), jnp.zeros((), bool)
        reward = jnp.zeros((), jnp.float32)
        state = MetaState(env_state, params, zero, zero, zero, false)
        return state, TimeStep(self._observation(obs, reward, zero), reward, ~false, false, false, false, zero)

    def reset_lanes(
        self, key: jax.Array, num_lanes: int, *, fresh: bool = False, params: Any = None
    ) -> tuple[MetaState, TimeStep]:
        """`reset` of `num_lanes` lanes; `params`, if given, has a leading lane axis."""
        keys = jax.random.split(key, num_lanes)
        if params is None:
            return jax.vmap(lambda k: self.reset(k, fresh=fresh))(keys)
        return jax.vmap(self.reset)(keys, params)

    def step(self, key: jax.Array, state: MetaState, action: jax.Array) -> tuple[MetaState, TimeStep]:
        """One step of one lane.

        action: () int32 or (A,) float32. After `is_last` the action is ignored, a new task is drawn (a training task
        if `train_tasks` is set) and the first row of a new meta-episode is returned.
        """
        lane = jax.tree.map(lambda x: x[None], (state, jnp.asarray(action)))
        return jax.tree.map(lambda x: x[0], self._step(lambda: key[None], *lane))

    def step_lanes(self, key: jax.Array, states: MetaState, actions: jax.Array) -> tuple[MetaState, TimeStep]:
        """Step all lanes: the result of `jax.vmap(step)` with `jax.random.split(key, lanes)`.

        states, actions: as in `step` with a leading lane axis. Restarts are computed only at steps where some lane
        needs one.
        """
        return self._step(lambda: jax.random.split(key, states.time.shape[0]), states, actions)

    def render(self, state: MetaState) -> np.ndarray:
        """A picture of one lane with the number of its sub-episode, (H, W, 3) uint8; runs on the host."""
        frame = self.env.render(state.env_state, state.params)
        return rendering.caption(frame, f"sub-episode {int(state.sub_episode) + 1} of {self.sub_episodes}")

    def _step(
        self, lane_keys: Callable[[], jax.Array], states: MetaState, actions: jax.Array
    ) -> tuple[MetaState, TimeStep]:
        step_keys = jax.vmap(jax.random.fold_in, (0, None))(lane_keys(), 0)
        env_actions = _rescale(actions, self._env_action_space)
        obs, env_state, reward, terminated, _ = jax.vmap(self.env.step_env)(
            step_keys, states.env_state, env_actions, states.params
        )
        first = states.is_last
        terminated = terminated & ~first
        truncated = (states.sub_time + 1 >= self.length) & ~terminated & ~first
        ended = terminated | truncated
        is_last = ended & (states.sub_episode + 1 >= self.sub_episodes)
        restart = ended & ~is_last
        params, env_state, obs = self._begin(lane_keys, first, restart, states.params, env_state, obs)
        reward = jnp.where(first, 0.0, reward).astype(jnp.float32)
        played = jnp.where(first, 0, states.sub_episode)
        time = jnp.where(first, 0, states.time + 1)
        sub_time = jnp.where(first | restart, 0, states.sub_time + 1)
        state = MetaState(env_state, params, played + restart, sub_time, time, is_last)
        observation = self._observation(obs, reward, time)
        return state, TimeStep(observation, reward, first, is_last, terminated, truncated, played)

    def _begin(self, lane_keys, first, restart, params, env_state, obs):
        """Put new sub-episodes where `restart` and new meta-episodes where `first`; skipped if no lane needs it.

        The keys are derived inside the branch, so that they cost nothing at other steps.
        """

        def begin(operands):
            params, env_state, obs = operands
            task_keys, env_keys = (jax.vmap(jax.random.fold_in, (0, None))(lane_keys(), i) for i in (1, 2))
            params = _where(first, jax.vmap(self.sample_task)(task_keys), params)
            new_obs, new_state = jax.vmap(self.env.reset_env)(env_keys, params)
            if hasattr(self.env, "restart_env"):
                again_obs, again_state = jax.vmap(self.env.restart_env)(env_keys, env_state, params)
                new_obs, new_state = _where(first, (new_obs, new_state), (again_obs, again_state))
            shown = first if self.boundary == "final" else first | restart
            return params, _where(first | restart, new_state, env_state), _where(shown, new_obs, obs)

        operands = (params, env_state, obs)
        return jax.lax.cond(_any(first | restart), begin, lambda operands: operands, operands)

    def _observation(self, obs: Any, reward: jax.Array, time: jax.Array) -> dict[str, jax.Array]:
        time = time.astype(jnp.float32) / self.num_steps
        return {**_as_dict(obs), "reward": reward, "time": time}


@jax.custom_batching.custom_vmap
def _any(lanes: jax.Array) -> jax.Array:
    """Whether any of lanes (B,) is true, () bool, and under `jax.vmap` whether any is in the whole batch.

    Not batched, so that a `jax.lax.cond` on it stays a branch: on a batched condition both sides would be computed.
    """
    return jnp.any(lanes)


@_any.def_vmap
def _any_in_batch(axis_size: int, in_batched: list[bool], lanes: jax.Array) -> tuple[jax.Array, bool]:
    del axis_size, in_batched
    return _any(lanes), False


def _check(env: Any, sub_episodes: int, length: int, boundary: str, train_tasks: int | None) -> None:
    for method in ("sample_task", "reset_env", "step_env", "action_space", "observation_space"):
        if not hasattr(env, method):
            raise ValueError(f"{type(env).__name__} has no {method}: give it one, as in envs.TaskEnvironment.")
    if sub_episodes < 1:
        raise ValueError(f"sub_episodes is {sub_episodes}; choose 1 or more.")
    if length < 1:
        raise ValueError(f"length is {length}; choose 1 or more steps for a sub-episode.")
    if boundary not in BOUNDARIES:
        raise ValueError(f"Unknown boundary {boundary!r}; choose one of: {', '.join(BOUNDARIES)}.")
    if train_tasks is not None and train_tasks < 1:
        raise ValueError(f"train_tasks is {train_tasks}; choose 1 or more, or None for the whole distribution.")


def _as_dict(obs: Any) -> dict[str, Any]:
    return {key: obs[key] for key in sorted(obs)} if isinstance(obs, dict) else {"state": obs}


def _observation_space(env: Any) -> dict[str, spaces.Box]:
    space = env.observation_space(env.default_params)
    entries = _as_dict(getattr(space, "spaces", space))
    taken = sorted({"reward", "time"} & set(entries))
    if taken:
        raise ValueError(f"The environment's observation has the entry {taken[0]!r}, which is reserved: rename it.")
    reward = spaces.Box(-jnp.inf, jnp.inf, (), jnp.float32)
    return {**entries, "reward": reward, "time": spaces.Box(0.0, 1.0, (), jnp.float32)}


def _action_space(space: Any) -> Any:
    if isinstance(space, spaces.Discrete):
        return space
    if not (np.all(np.isfinite(space.low)) and np.all(np.isfinite(space.high))):
        raise ValueError("The environment's action space is not bounded: give its Box finite bounds.")
    if len(space.shape) != 1:
        raise ValueError(f"The environment's actions have the shape {space.shape}: give its Box one dimension.")
    return spaces.Box(-1.0, 1.0, space.shape, jnp.float32)


def _rescale(actions: jax.Array, space: Any) -> jax.Array:
    """Map [-1, 1] to the bounds of a `Box`."""
    if isinstance(space, spaces.Discrete):
        return actions
    low, high = np.asarray(space.low), np.asarray(space.high)
    if np.all(low == -1.0) and np.all(high == 1.0):
        return actions
    return low + (actions + 1.0) * (high - low) / 2.0


def _where(lanes: jax.Array, new: Any, old: Any) -> Any:
    """Select per lane: `lanes` (B,) bool against leaves (B, ...); the dtypes of `old` are kept."""

    def select(a, b):
        return jnp.where(jnp.reshape(lanes, lanes.shape + (1,) * (b.ndim - 1)), a, b).astype(b.dtype)

    return jax.tree.map(select, new, old)
