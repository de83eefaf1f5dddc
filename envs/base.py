"""The interface of a task family: a gymnax environment whose parameters carry the task."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from gymnax.environments import environment, spaces

Observation = dict[str, jax.Array]


class TaskEnvironment(environment.Environment):
    """A gymnax 1.0 environment over a distribution of tasks; every function here is pure and for one lane.

    `params` is a struct dataclass of arrays that carries the task. Subclasses implement `default_params`,
    `sample_task`, `reset_env`, `step_env`, `action_space`, `observation_space` and `render`. There is no time limit:
    the meta-episode sets it.
    """

    def sample_task(self, key: jax.Array, params: Any) -> Any:
        """Draw a task. `params` supplies whatever is not part of the task; returns params of the same structure."""
        raise NotImplementedError

    def reset_env(self, key: jax.Array, params: Any) -> tuple[Observation, Any]:
        """Start an episode in the task of `params`; returns (observation, state)."""
        raise NotImplementedError

    def step_env(
        self, key: jax.Array, state: Any, action: jax.Array, params: Any
    ) -> tuple[Observation, Any, jax.Array, jax.Array, dict[str, jax.Array]]:
        """One transition; returns (observation, state, reward () float32, terminated () bool, info)."""
        raise NotImplementedError

    def is_truncated(self, state: Any, params: Any) -> jax.Array:
        """Never: time limits belong to the meta-episode. Returns () bool."""
        del state, params
        return jnp.zeros((), bool)

    def action_space(self, params: Any = None) -> spaces.Discrete | spaces.Box:
        """`Discrete`, or `Box` in [-1, 1]."""
        raise NotImplementedError

    def observation_space(self, params: Any = None) -> spaces.Dict:
        """`Dict` with one `Box` per key of the observation."""
        raise NotImplementedError

    def render(self, state: Any, params: Any) -> np.ndarray:
        """A picture of one lane's state, (H, W, 3) uint8; runs on the host, not under `jax.jit`."""
        raise NotImplementedError


def continuous_actions(size: int) -> spaces.Box:
    """The action space [-1, 1]^size, float32."""
    return spaces.Box(-1.0, 1.0, (size,), jnp.float32)


def unbounded(size: int) -> spaces.Box:
    """The space of all float32 vectors of a size."""
    return spaces.Box(-jnp.inf, jnp.inf, (size,), jnp.float32)
