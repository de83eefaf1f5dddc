"""Placement on several devices: parameters on all of them, lanes and batches spread over the mesh axis `data`.

The library itself contains no collectives: the caller jits with `state_shardings` while the mesh is set
(`jax.set_mesh`), and XLA inserts what is needed.
"""

from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec


def make_mesh(devices: Sequence[jax.Device] | None = None, seeds: int = 1) -> Mesh:
    """A mesh with axes (`seed`, `data`) over the given devices, or all of them.

    seeds: size of the axis `seed`, which must divide the number of devices. Raises ValueError otherwise.
    """
    devices = list(devices or jax.devices())
    if len(devices) % seeds:
        raise ValueError(f"{len(devices)} devices cannot be split over {seeds} seeds: choose a divisor.")
    return Mesh(np.array(devices).reshape(seeds, -1), ("seed", "data"))


def replicated(mesh: Mesh) -> NamedSharding:
    """The sharding of arrays that are whole on every device of the mesh."""
    return NamedSharding(mesh, PartitionSpec())


def spread(tree: Any, axis: int = 0) -> Any:
    """Asks XLA to spread leaves over the devices of the mesh axis `data` along one of their axes.

    Leaves stay as they are where that axis does not divide evenly, and all of them where no such mesh is set
    (`jax.set_mesh`) while the program is traced.
    """
    size, free = jax.sharding.get_abstract_mesh().shape.get("data", 1), PartitionSpec.UNCONSTRAINED
    if size == 1:
        return tree

    def place(leaf: jax.Array) -> jax.Array:
        if leaf.shape[axis] % size:
            return leaf
        spec = PartitionSpec(*("data" if index == axis else free for index in range(leaf.ndim)))
        return jax.lax.with_sharding_constraint(leaf, spec)

    return jax.tree.map(place, tree)


def state_shardings(state: Any, mesh: Mesh, *, seeds: bool = False) -> Any:
    """A sharding for every leaf of an algorithm's state.

    Leaves below a field `replay` (lane-major) are spread over `data` where their lanes divide evenly; all others are
    replicated. seeds: the state comes from `over_seeds`, and its leading axis goes over `seed`.
    """
    lead = ("seed",) if seeds else ()

    def place(path, leaf):
        fields = {getattr(key, "name", None) for key in path}
        prefix = lead if leaf.ndim > 0 else ()
        axis = len(prefix)
        lanes = "replay" in fields and leaf.ndim > axis and leaf.shape[axis] % mesh.shape["data"] == 0
        return NamedSharding(mesh, PartitionSpec(*prefix, *(("data",) if lanes else ())))

    return jax.tree_util.tree_map_with_path(place, state)
