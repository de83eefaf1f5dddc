"""The policy inside a training state: the arrays that acting reads, without replay and optimisers.

States travel as flat dictionaries from the path of a leaf ("actor/params/kernel") to an array, which is what
checkpoints store. PRNG keys become their raw data there; leaves without elements are left out.
"""

from typing import Any

import jax
import jax.numpy as jnp

from mamba_jax.evaluate import evaluate
from mamba_jax.types import Algorithm, Score

Arrays = dict[str, jax.Array]
"""Leaves of a state by path."""


def is_key(leaf: Any) -> bool:
    """Whether a leaf (an array or its shape) holds typed PRNG keys."""
    return jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def named_leaves(tree: Any) -> list[tuple[str, Any]]:
    """Paths and leaves of a tree, in its own order."""
    leaves, _ = jax.tree_util.tree_flatten_with_path(tree)
    return [(jax.tree_util.keystr(path, simple=True, separator="/"), leaf) for path, leaf in leaves]


def to_arrays(state: Any) -> Arrays:
    """The leaves of a state, or under `jax.eval_shape` of their shapes, by path."""
    return {name: jax.random.key_data(x) if is_key(x) else x for name, x in named_leaves(state) if x.size}


def array_shapes(shapes: Any) -> dict[str, jax.ShapeDtypeStruct]:
    """What `to_arrays` makes of a state of these shapes, with their shardings."""
    places = {name: leaf.sharding for name, leaf in named_leaves(shapes)}
    arrays = jax.eval_shape(to_arrays, shapes)
    return {name: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=places[name]) for name, x in arrays.items()}


def from_arrays(template: Any, arrays: Arrays) -> Any:
    """The inverse of `to_arrays`; `template` has the structure, shapes and dtypes. Leaves without an array are zero."""

    def leaf(name: str, like: Any) -> jax.Array:
        if is_key(like):
            like = jax.eval_shape(jax.random.key_data, like)
            return jax.random.wrap_key_data(arrays.get(name, jnp.zeros(like.shape, like.dtype)))
        return arrays[name] if name in arrays else jnp.zeros(like.shape, like.dtype)

    leaves = [leaf(name, like) for name, like in named_leaves(template)]
    return jax.tree.unflatten(jax.tree.structure(template), leaves)


def policy_names(algo: Algorithm) -> tuple[str, ...]:
    """Paths of the leaves of a state that `algo.init_carry` and `algo.act` read, found by tracing them."""
    template = jax.eval_shape(algo.init, jax.random.key(0))
    spaces = algo.env.observation_space
    observation = {name: jnp.zeros((1, *space.shape), space.dtype) for name, space in spaces.items()}

    def first_action(state):
        return algo.act(state, algo.init_carry(state, 1), observation, jax.random.key(0), False)

    jaxpr = jax.make_jaxpr(first_action)(template).jaxpr
    read = {id(variable) for equation in jaxpr.eqns for variable in equation.invars}
    read |= {id(variable) for variable in jaxpr.outvars}
    inputs = zip(named_leaves(template), jaxpr.invars, strict=True)
    return tuple(name for (name, leaf), variable in inputs if leaf.size and id(variable) in read)


def take_policy(names: tuple[str, ...], state: Any) -> Arrays:
    """The policy of a state."""
    arrays = to_arrays(state)
    return {name: arrays[name] for name in names}


def is_shared(name: str) -> bool:
    """Whether a leaf has no seed axis in the state of several seeds: only the round counter has none."""
    return name == "rounds"


def policy_of_seed(policy: Arrays, seed: int) -> Arrays:
    """One of several seeds' policies."""
    return {name: value if is_shared(name) else value[seed] for name, value in policy.items()}


def choose_better(better: jax.Array, new: Arrays, old: Arrays) -> Arrays:
    """`new` where `better` (() or (seeds,)) holds, `old` elsewhere; leaves have a leading axis of seeds as `better`."""

    def choose(name: str) -> jax.Array:
        if is_shared(name):
            return new[name]
        return jnp.where(better.reshape(better.shape + (1,) * (new[name].ndim - better.ndim)), new[name], old[name])

    return {name: choose(name) for name in new}


def evaluate_policy(
    algo: Algorithm, policy: Arrays, key: jax.Array, num_tasks: int, num_seeds: int = 1, *, fresh: bool = True
) -> Score:
    """`evaluate` for a policy, or for several seeds at once, which gives the Score a leading axis.

    algo: the algorithm of one seed. The same tasks are played for every seed.
    """
    template = jax.eval_shape(algo.init, jax.random.key(0))
    if num_seeds == 1:
        return evaluate(algo, from_arrays(template, policy), key, num_tasks, fresh=fresh)
    shared = {name: x for name, x in policy.items() if is_shared(name)}
    own = {name: x for name, x in policy.items() if not is_shared(name)}

    def of_seed(one: Arrays) -> Score:
        return evaluate(algo, from_arrays(template, one | shared), key, num_tasks, fresh=fresh)

    return jax.vmap(of_seed)(own)
