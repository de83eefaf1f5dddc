"""Several processes that train one run together, one a host: all do the same, and the first writes the files.

What the processes share are the arrays of the training state, which are spread over the devices of all. Evaluations and
tests are made by each for itself. Alone, a process is the first.
"""

from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh, PartitionSpec

from mamba_jax.sharding import replicated


def leads() -> bool:
    """Whether this is the first process."""
    return jax.process_index() == 0


def largest(value: int) -> int:
    """The largest of the values that the processes give, each its own: they agree on it, and wait for each other."""
    if jax.process_count() == 1:
        return value
    return int(np.max(multihost_utils.process_allgather(np.int32(value))))


def to_everyone(tree: Any, mesh: Mesh) -> Any:
    """Arrays that every process has alike, on all devices of the mesh."""
    return multihost_utils.host_local_array_to_global_array(tree, mesh, PartitionSpec())


def to_each(tree: Any, mesh: Mesh) -> Any:
    """Arrays that are spread over the mesh, whole on the first device of each process."""
    whole = jax.jit(_same, out_shardings=replicated(mesh))(tree)
    return jax.tree.map(lambda x: x.addressable_data(0), whole)


def _same(tree: Any) -> Any:
    return tree
