"""Probe environments: tiny, each isolating one ability."""

from typing import Any

import jax
import jax.numpy as jnp
from flax import struct
from gymnax.environments import spaces

from envs import MetaEpisode


@struct.dataclass
class Task:
    """bit: () int32, the hidden task."""

    bit: jax.Array


class Probe:
    """Base of the probes: the state is the number of steps taken, the observation whatever `look` shows."""

    default_params = Task(jnp.int32(0))
    actions = 2

    @property
    def name(self) -> str:
        return type(self).__name__.lower()

    def sample_task(self, key, params):
        return params.replace(bit=jax.random.randint(key, (), 0, 2))

    def look(self, time, params):
        del params
        return time.astype(jnp.float32)[None] / 4

    def reset_env(self, key, params):
        del key
        return self.look(jnp.int32(0), params), jnp.int32(0)

    def step_env(self, key, state, action, params):
        del key
        reward, terminated = self.outcome(state, action, params)
        return self.look(state + 1, params), state + 1, jnp.float32(reward), terminated, {}

    def outcome(self, time, action, params) -> tuple[Any, Any]:
        raise NotImplementedError

    def action_space(self, params):
        del params
        return spaces.Discrete(self.actions)

    def observation_space(self, params):
        del params
        return spaces.Box(0.0, 2.0, (1,))


class Constant(Probe):
    """Reward 1 whatever happens: only the value can be wrong."""

    def outcome(self, time, action, params):
        del time, action, params
        return 1.0, jnp.bool_(False)


class Shown(Probe):
    """The task is shown and pays when the action names it: perception and policy, no memory."""

    def look(self, time, params):
        del time
        return params.bit.astype(jnp.float32)[None]

    def outcome(self, time, action, params):
        del time
        return action == params.bit, jnp.bool_(False)


class Recall(Probe):
    """The task is never shown: the reward of a guess tells it, so only memory over sub-episodes pays in full.

    Every sub-episode is one step long, hence what was learnt in one can only be used in the next.
    """

    def outcome(self, time, action, params):
        del time
        return action == params.bit, jnp.bool_(True)


class Steer(Probe):
    """One continuous action; reward 1 - |a - target|, the target's sign being shown."""

    def look(self, time, params):
        del time
        return params.bit.astype(jnp.float32)[None]

    def outcome(self, time, action, params):
        del time
        return 1 - jnp.abs(action[0] - (2 * params.bit - 1) * 0.5), jnp.bool_(False)

    def action_space(self, params):
        del params
        return spaces.Box(-1.0, 1.0, (1,))


class Stumble(Constant):
    """Ends by itself after one to three steps, so meta-episodes are ragged."""

    def outcome(self, time, action, params):
        return 1.0, time + 1 >= 1 + params.bit + action


PROBES = {probe.__name__.lower(): probe for probe in (Constant, Shown, Recall, Steer, Stumble)}


def probe(name: str, **options) -> MetaEpisode:
    """A probe as two sub-episodes of at most four steps, or whatever the options say."""
    options = (
        {"sub_episodes": 4, "length": 1} | options if name == "recall" else {"sub_episodes": 2, "length": 4} | options
    )
    return MetaEpisode(PROBES[name](), **options)
