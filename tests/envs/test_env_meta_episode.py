"""Meta-episodes over an environment that is defined here."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import struct
from gymnax.environments import spaces

import envs


@struct.dataclass
class CountdownParams:
    """length: () int32, steps until the environment terminates. mark: () float32, tells tasks apart."""

    length: jax.Array
    mark: jax.Array


class Countdown:
    """An environment without our base class: it counts its steps, observes (count, mark) and pays the count.

    It terminates after `length` steps; actions are in [-2, 4].
    """

    name = "countdown"
    default_params = CountdownParams(jnp.int32(2), jnp.float32(0.0))

    def sample_task(self, key, params):
        length, mark = jax.random.split(key)
        return CountdownParams(jax.random.randint(length, (), 1, 6), jax.random.uniform(mark))

    def reset_env(self, key, params):
        state = jnp.float32(0.0)
        return jnp.stack([state, params.mark]), state

    def step_env(self, key, state, action, params):
        state = state + 1.0
        return jnp.stack([state, params.mark]), state, state + 0.0 * action[0], state >= params.length, {}

    def action_space(self, params):
        return spaces.Box(jnp.array([-2.0]), jnp.array([4.0]), (1,))

    def observation_space(self, params):
        return spaces.Box(0.0, 10.0, (2,))


def play(env, steps, params=None, key=0):
    """All rows of one lane, with the reset's first."""
    keys = jax.random.split(jax.random.key(key), steps)
    state, first = jax.jit(env.reset)(jax.random.key(key), params)
    step = jax.jit(env.step)
    rows, states = [first], [state]
    for k in keys:
        state, row = step(k, state, jnp.zeros(1))
        rows.append(row)
        states.append(state)
    return jax.tree.map(lambda *x: np.stack(x), *rows), jax.tree.map(lambda *x: np.stack(x), *states)


def reset_lanes(env, lanes, **options):
    return jax.jit(lambda key: env.reset_lanes(key, lanes, **options))(jax.random.key(0))


def params(length):
    return CountdownParams(jnp.int32(length), jnp.float32(0.25))


def test_early_ends_shorten_the_meta_episode():
    env = envs.MetaEpisode(Countdown(), sub_episodes=3, length=4)
    rows, states = play(env, 8, params(2))
    np.testing.assert_array_equal(rows.reward[:7], [0, 1, 2, 1, 2, 1, 2])
    np.testing.assert_array_equal(np.flatnonzero(rows.terminated[:7]), [2, 4, 6])
    np.testing.assert_array_equal(np.flatnonzero(rows.is_last), [6])
    np.testing.assert_array_equal(np.flatnonzero(rows.is_first), [0, 7])
    np.testing.assert_array_equal(rows.sub_episode[:8], [0, 0, 0, 1, 1, 2, 2, 0])
    np.testing.assert_allclose(rows.observation["time"][:8], [*(np.arange(7) / 12), 0], rtol=1e-6)
    assert not rows.truncated[:7].any()
    assert states.params.mark[7] != states.params.mark[6]
    assert rows.reward[7] == 0.0 and rows.reward[8] == 1.0


def test_time_limit_and_termination_are_told_apart():
    env = envs.MetaEpisode(Countdown(), sub_episodes=2, length=3)
    limit, _ = play(env, 6, params(9))
    np.testing.assert_array_equal(np.flatnonzero(limit.truncated), [3, 6])
    assert not limit.terminated.any()
    both, _ = play(env, 6, params(3))
    np.testing.assert_array_equal(np.flatnonzero(both.terminated), [3, 6])
    assert not both.truncated.any()


def test_what_is_shown_at_the_boundary():
    counts = {}
    for boundary in ("reset", "final"):
        env = envs.MetaEpisode(Countdown(), sub_episodes=2, length=2, boundary=boundary)
        rows, states = play(env, 5, params(9))
        counts[boundary] = rows.observation["state"][:6, 0]
        np.testing.assert_array_equal(rows.reward[:6], [0, 1, 2, 1, 2, 0])
        np.testing.assert_array_equal(states.env_state[:6], [0, 1, 0, 1, 2, 0])
    np.testing.assert_array_equal(counts["reset"], [0, 1, 0, 1, 2, 0])
    np.testing.assert_array_equal(counts["final"], [0, 1, 2, 1, 2, 0])


def test_every_lane_goes_on_for_all_steps():
    """Lanes whose meta-episodes end early begin others, each in its own rhythm."""
    env = envs.MetaEpisode(Countdown(), sub_episodes=2, length=5)
    states, _ = reset_lanes(env, 16)
    keys = jax.random.split(jax.random.key(1), env.num_steps)
    _, rows = jax.lax.scan(lambda s, k: env.step_lanes(k, s, jnp.zeros((16, 1))), states, keys)
    assert rows.reward.shape == (10, 16)
    lengths = np.asarray(states.params.length)
    for lane, length in enumerate(lengths):
        ends = np.flatnonzero(rows.is_last[:, lane])
        assert ends[0] == 2 * length - 1
        following = rows.is_first[ends[0] + 1 :, lane]
        assert following.size == 0 or following[0]
    assert len(set(lengths)) > 2


def test_train_tasks():
    env = envs.MetaEpisode(Countdown(), sub_episodes=1, length=3, train_tasks=3)

    def marks(fresh, env=env):
        sample = jax.jit(jax.vmap(lambda key: env.sample_task(key, fresh=fresh).mark))
        return set(np.asarray(sample(jax.random.split(jax.random.key(0), 50))).tolist())

    assert len(marks(fresh=False)) == 3
    assert len(marks(fresh=True)) == 50
    assert not marks(fresh=True) & marks(fresh=False)  # also with keys split from that of the training tasks
    other = envs.MetaEpisode(Countdown(), sub_episodes=1, length=3, train_tasks=3, task_seed=1)
    assert not marks(fresh=False) & marks(fresh=False, env=other)
    states, _ = reset_lanes(env, 20)
    step = jax.jit(env.step_lanes)
    for t in range(4):  # later meta-episodes of a lane stay within the training tasks
        states, _ = step(jax.random.key(t), states, jnp.zeros((20, 1)))
    assert set(np.asarray(states.params.mark).tolist()) <= marks(fresh=False)
    fresh, _ = reset_lanes(env, 20, fresh=True)
    assert not set(np.asarray(fresh.params.mark).tolist()) & marks(fresh=False)


def test_spaces_and_actions_of_a_foreign_environment():
    class Echo(Countdown):
        def step_env(self, key, state, action, params):
            obs, state, _, terminated, info = super().step_env(key, state, action, params)
            return obs, state, action[0], terminated, info

    env = envs.MetaEpisode(Echo(), sub_episodes=1, length=9)
    assert list(env.observation_space) == ["state", "reward", "time"]
    assert (env.name, env.num_steps, env.action_space.low, env.action_space.high) == ("countdown", 9, -1.0, 1.0)
    state, _ = jax.jit(env.reset)(jax.random.key(0), params(9))
    step = jax.jit(env.step)
    for action, expected in ((-1.0, -2.0), (0.0, 1.0), (1.0, 4.0)):
        assert float(step(jax.random.key(0), state, jnp.array([action]))[1].reward) == expected


def test_restarts_are_skipped_when_no_lane_needs_one():
    """The conditional stays a conditional, and step by step only the needed branch runs."""
    env = envs.MetaEpisode(Countdown(), sub_episodes=2, length=2)
    states, _ = reset_lanes(env, 3)
    jaxpr = jax.make_jaxpr(env.step_lanes)(jax.random.key(0), states, jnp.zeros((3, 1)))
    assert "cond" in {eqn.primitive.name for eqn in jaxpr.eqns}


WRONG = {
    "sub_episodes": ({"sub_episodes": 0}, "choose 1 or more"),
    "length": ({"length": 0}, "choose 1 or more"),
    "boundary": ({"boundary": "last"}, "choose one of: reset, final"),
    "train_tasks": ({"train_tasks": 0}, "choose 1 or more"),
}


@pytest.mark.parametrize(("options", "message"), WRONG.values(), ids=WRONG)
def test_impossible_meta_episodes(options, message):
    with pytest.raises(ValueError, match=message):
        envs.MetaEpisode(Countdown(), **{"sub_episodes": 2, "length": 2, **options})


def test_unsuitable_environments():
    class Taken(Countdown):
        def observation_space(self, params):
            return spaces.Dict({"time": spaces.Box(0.0, 1.0, ())})

    class Unbounded(Countdown):
        def action_space(self, params):
            return spaces.Box(-jnp.inf, jnp.inf, (1,))

    class Table(Countdown):
        def action_space(self, params):
            return spaces.Box(-1.0, 1.0, (2, 3))

    unsuitable = (
        (Taken(), "rename it"),
        (Unbounded(), "finite bounds"),
        (Table(), "one dimension"),
        (object(), "no sample_task"),
    )
    for env, message in unsuitable:
        with pytest.raises(ValueError, match=message):
            envs.MetaEpisode(env, sub_episodes=2, length=2)


def test_returns_per_sub_episode_need_no_shift():
    """`sub_episode` says which sub-episode a row's reward belongs to, at boundaries too."""
    env = envs.MetaEpisode(Countdown(), sub_episodes=3, length=2)
    rows, _ = play(env, 6, params(9))
    returns = [rows.reward[rows.sub_episode == index].sum() for index in range(3)]
    assert returns == [3.0, 3.0, 3.0]
    assert list(itertools.accumulate(returns))[-1] == rows.reward.sum()
