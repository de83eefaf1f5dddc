"""Several seeds of one algorithm in one program."""

import jax

from mamba_jax.types import Algorithm


def over_seeds(algorithm: Algorithm, num_seeds: int) -> Algorithm:
    """The algorithm over `num_seeds` seeds at once: `init` takes one key, and every leaf of the state but `rounds` gets
    a leading seed axis, as do metrics, carries, observations and actions.

    `evaluate` is for the algorithm of one seed and the state of one. The round counter, which drives the schedules,
    stays unbatched: under a plain `jax.vmap` of `train_step` results are the same, but the loop over the chunks of time
    below the horizon would select its results for each seed.
    """

    def axes(state):
        return jax.tree.map(lambda _: 0, state).replace(rounds=None)

    def init(key):
        states = jax.vmap(algorithm.init)(jax.random.split(key, num_seeds))
        return states.replace(rounds=states.rounds[0])

    def train_step(states):
        return jax.vmap(algorithm.train_step, (axes(states),), (axes(states), 0))(states)

    def init_carry(states, batch):
        return jax.vmap(lambda state: algorithm.init_carry(state, batch), (axes(states),))(states)

    def act(states, carry, observation, key, explore):
        def one(state, carry, observation, key):
            return algorithm.act(state, carry, observation, key, explore)

        keys = jax.random.split(key, num_seeds)
        return jax.vmap(one, (axes(states), 0, 0, 0))(states, carry, observation, keys)

    return algorithm._replace(init=init, train_step=train_step, init_carry=init_carry, act=act)
