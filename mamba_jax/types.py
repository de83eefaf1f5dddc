"""Small typed records shared by every algorithm; nothing here computes."""

from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

import jax
from flax import struct

Metrics = dict[str, jax.Array]
"""Scalars of one `train_step`, float32, under names that never change within a run."""


class TimeStep(Protocol):
    """What a meta-environment returns at reset and step; the fields of one lane.

    observation: the environment's own entries, and `reward` () and `time` () = t / (N T), float32.
    reward: () float32, of the transition into this row; 0 at the first row.
    is_first: () bool, first row of a meta-episode. is_last: () bool, the meta-episode is complete.
    terminated: () bool, the environment itself ended the sub-episode on this transition.
    truncated: () bool, the sub-episode's time limit ended it.
    sub_episode: () int32, the sub-episode that `reward` belongs to.
    """

    observation: dict[str, jax.Array]
    reward: jax.Array
    is_first: jax.Array
    is_last: jax.Array
    terminated: jax.Array
    truncated: jax.Array
    sub_episode: jax.Array


class MetaEnvironment(Protocol):
    """The part of `envs.MetaEpisode` that algorithms use; any object with these members will do.

    observation_space maps the keys of an observation to gymnax `Box` spaces; action_space is a gymnax
    `Discrete` (actions are int32 indices) or `Box` in [-1, 1]. A lane is one environment; `num_steps` = N T.
    """

    name: str
    sub_episodes: int
    length: int
    num_steps: int
    observation_space: dict[str, Any]
    action_space: Any

    def reset_lanes(self, key: jax.Array, num_lanes: int, *, fresh: bool = False) -> tuple[Any, TimeStep]:
        """States and first rows of `num_lanes` new meta-episodes, leaves (num_lanes, ...); `fresh` draws tasks from the
        whole distribution even where training knows only some."""
        ...

    def step_lanes(self, key: jax.Array, states: Any, actions: jax.Array) -> tuple[Any, TimeStep]:
        """One step of every lane: actions (lanes, A) float32 or (lanes,) int32 -> states and rows. After a row with
        `is_last` the action is ignored and the lane begins a new meta-episode."""
        ...


class Algorithm(NamedTuple):
    """A meta-RL algorithm as pure functions, in the manner of optax's `GradientTransformation`.

    name: its name in the registry. env: the meta-environment it was made for. config: its frozen configuration.
    init: key -> state, prefilled and ready to train.
    train_step: state -> (state, metrics); one round: collect one meta-episode per lane, then the updates.
    init_carry: (state, batch) -> carry; the memory of `batch` lanes at the start of a meta-episode.
    act: (state, carry, observation, key, explore) -> (carry, action); `observation` has a leading lane axis,
        `explore` (static bool) samples the action instead of taking the mode. The caller restores the rows of `carry`
        to `init_carry` where a meta-episode begins.
    steps_per_round: environment steps that one `train_step` collects when no sub-episode ends early.
    updates_per_round: gradient updates in one `train_step`.
    """

    name: str
    env: MetaEnvironment
    config: Any
    init: Callable[[jax.Array], Any]
    train_step: Callable[[Any], tuple[Any, Metrics]]
    init_carry: Callable[[Any, int], Any]
    act: Callable[[Any, Any, dict[str, jax.Array], jax.Array, bool], tuple[Any, jax.Array]]
    steps_per_round: int
    updates_per_round: int


@struct.dataclass
class Score:
    """Result of an evaluation over fresh tasks.

    return_mean, return_std: () float32, over tasks, of the reward summed over the whole meta-episode.
    return_per_sub_episode: (N,) float32, means over tasks. returns: (tasks, N) float32. tasks: number of tasks.
    """

    return_mean: jax.Array
    return_std: jax.Array
    return_per_sub_episode: jax.Array
    returns: jax.Array
    tasks: int = struct.field(pytree_node=False)
